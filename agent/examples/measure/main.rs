//! Measures what the kernel part costs, and writes `docs/benchmarks.md`'s text
//! to its output. `cargo xtask bench egress` runs it.
//!
//! `measure [--quick]`, as root, with bpffs mounted; `measure systemd` in a guest
//! with systemd writes the page's part about that. Everything that is
//! compared is there at the same time, each in a cgroup and a network namespace
//! of its own, and is measured in turns: a busy moment hits all alike. Nothing
//! is attached above its own cgroups, and nothing leaves its own namespaces.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    reason = "a measuring program: it prints, and its numbers are small"
)]

mod asm;
mod bpf;
mod decisions;
mod inspect;
mod packets;
mod page;
mod sets;
mod stage;
mod stats;
mod structures;
mod systemd;
mod traffic;
mod worker;

use anyhow::{Context as _, Result, bail};
use merestone_agent::bpf::{EventStream, Kernel, Options, Tables, unload};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    pub(crate) sizes: &'static [u32],
    pub(crate) structure_sizes: &'static [u32],
    pub(crate) decision_rounds: usize,
    pub(crate) repeat: u32,
    pub(crate) traffic_rounds: usize,
}

const WHOLE: Amount = Amount {
    sizes: &[0, 1_000, 100_000, 1_000_000],
    structure_sizes: &[1_000, 100_000, 1_000_000],
    decision_rounds: 21,
    repeat: 200_000,
    traffic_rounds: 101,
};
const QUICK: Amount = Amount {
    sizes: &[0, 1_000, 100_000],
    structure_sizes: &[1_000, 100_000],
    decision_rounds: 5,
    repeat: 50_000,
    traffic_rounds: 11,
};

/// A line of progress.
pub(crate) fn say(line: &str) {
    eprintln!("    {line}");
}

fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("worker") => worker::run(&words[1..]),
        Some("--quick") => measure(&QUICK),
        Some("systemd") => {
            let quick = words.get(1).is_some_and(|word| word == "--quick");
            print!("{}", systemd::measure(quick)?);
            Ok(())
        }
        None => measure(&WHOLE),
        Some(other) => bail!("unknown argument {other:?}; measure [systemd] [--quick]"),
    }
}

fn measure(amount: &Amount) -> Result<()> {
    let node = Node::new()?;
    let corner = stage::Corner::new()?;
    let compiled = decisions::from_a_file(*amount.sizes.last().context("no sizes")?)?;
    // Before the agents start, so that their link programs are on these wires
    // and on none of the others.
    let wires = [stage::Wire::new()?, stage::Wire::new()?];
    let small = Agent::start("small", &corner.below("small")?)?;
    let large = Agent::start("large", &corner.below("large")?)?;
    let (small, large, decisions) =
        decisions::measure(amount, small, large, &corner, &wires, &node.0)?;
    let traffic = traffic::measure(amount, [&small, &large], &corner, &wires, &node.0)?;
    drop((small, large));
    let structures = structures::measure(
        amount.structure_sizes,
        amount.decision_rounds,
        amount.repeat,
    )?;
    print!(
        "{}",
        page::write(amount, &compiled, &decisions, &traffic, &structures)?
    );
    Ok(())
}

/// A device node that guards whoever opens it.
#[derive(Debug)]
struct Node(PathBuf);

impl Node {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("merestone-bench-{}", std::process::id()));
        let made = Command::new("mknod")
            .arg(&path)
            .args(["c", "195", "0"])
            .status()?;
        anyhow::ensure!(made.success(), "cannot make a device node");
        Ok(Self(path))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

/// The kernel part, attached to one cgroup.
#[derive(Debug)]
pub(crate) struct Agent {
    /// Until the wires of the others are made: its thread attaches to each
    /// network link that it finds.
    pub(crate) kernel: Option<Kernel>,
    pub(crate) egress: u32,
    pub(crate) cgroup: PathBuf,
    pins: PathBuf,
}

impl Agent {
    fn start(name: &str, cgroup: &Path) -> Result<Self> {
        say(&format!("loading the programs ({name})"));
        let pins = format!("/sys/fs/bpf/merestone-bench-{}-{name}", std::process::id());
        let mut options = Options::new(pins.into());
        cgroup.clone_into(&mut options.cgroup_root);
        let pins = options.pin_dir.clone();
        let (kernel, events) = Kernel::start(&options, &Tables::default())?;
        let egress = kernel
            .programs()
            .iter()
            .find(|program| program.name == "cgroup_skb/egress")
            .context("no egress program")?
            .id;
        follow(events);
        Ok(Self {
            kernel: Some(kernel),
            egress,
            cgroup: cgroup.to_owned(),
            pins,
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kernel = None;
        unload(&self.pins).ok();
    }
}

/// Reads events as the agent does, so that the ring is never full.
fn follow(mut events: EventStream) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        if let Ok(runtime) = runtime {
            runtime.block_on(async { while events.next().await.is_ok() {} });
        }
    });
}
