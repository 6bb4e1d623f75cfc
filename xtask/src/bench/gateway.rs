//! `cargo xtask bench gateway`: what the reverse proxy costs, against the same
//! server without it, and with the agent that guards and records where this may
//! load programs and has a software TPM.

use std::fs;

use anyhow::{Context as _, Result};

use super::output;
use crate::{
    bpffs, build,
    progress::{self, Step},
    setup, shell,
    sudo::{self, Consent},
};

/// Where the page is, below the workspace's root.
const PAGE: &str = "docs/benchmarks-gateway.md";
/// The example of the agent that measures.
const MEASURE: &str = "gateway_cost";

/// Measures; writes the page unless `quick`. Not as root it measures without
/// R1, and the page says so.
pub(crate) fn gateway(quick: bool, consent: Consent) -> Result<()> {
    setup::for_sealing(consent)?;
    build::object(false)?;
    let step = Step::begin("measure", "cargo build --release (minutes the first time)");
    let mut cargo = shell::cargo();
    cargo.args(["build", "--release", "--package", build::AGENT, "--bins"]);
    shell::run(cargo.args(["--example", MEASURE]))?;
    drop(step);
    let _bpffs = sudo::is_root().then(bpffs::ensure).transpose()?;
    let step = Step::begin(
        "measure",
        "a quiet machine gives better numbers (6 minutes)",
    );
    let program = shell::target().join("release/examples").join(MEASURE);
    let mut command = shell::command(program);
    if quick {
        command.arg("--quick");
    }
    let page = output(&mut command)?;
    drop(step);
    if quick {
        progress::line(page);
        return Ok(());
    }
    let path = shell::root().join(PAGE);
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    progress::line(format_args!("    wrote {PAGE}"));
    Ok(())
}
