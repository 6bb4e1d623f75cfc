//! What `merestone gateway` costs, against the same server without it, and with
//! the agent that guards them and records what the kernel sees (R1) where this
//! may load programs: servers and gateways run all the time and are measured in
//! turns; the agent is off the kernel while the unguarded are. Prints a page.
//!
//! `gateway_cost [--quick]` measures; the other words are its own children.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a program that measures, not one that serves"
)]

mod agent;
mod page;
mod real;
mod server;
mod stage;
mod work;

use anyhow::{Result, bail, ensure};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    pub(crate) rounds: usize,
    pub(crate) asks: usize,
    pub(crate) floods: usize,
    pub(crate) large_bytes: u64,
}

const WHOLE: Amount = Amount {
    rounds: 31,
    asks: 200,
    floods: 800,
    large_bytes: 64 << 20,
};
const QUICK: Amount = Amount {
    rounds: 5,
    asks: 100,
    floods: 160,
    large_bytes: 8 << 20,
};

/// A line of progress.
pub(crate) fn say(line: &str) {
    eprintln!("    {line}");
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve"] => server::serve(),
        ["--quick"] => measure(QUICK),
        [] => measure(WHOLE),
        other => bail!("unknown arguments {other:?}; gateway_cost [--quick]"),
    }
}

fn measure(amount: Amount) -> Result<()> {
    let mut stage = stage::Stage::set()?;
    let taken = work::measure(&mut stage, amount)?;
    let unrecorded = stage.unrecorded()?;
    ensure!(unrecorded == 0.0, "{unrecorded} answers were not recorded");
    print!("{}", page::write(&stage, amount, &taken));
    Ok(())
}
