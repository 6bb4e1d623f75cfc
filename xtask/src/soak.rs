//! `cargo xtask soak`: the egress suite's endurance run against the real agent
//! on this machine's kernel, with a software TPM of its own. Needs root.

use crate::progress::{self, Step};
use crate::sudo;
use crate::undo::Undo;
use crate::{bpffs, build, shell, swtpm};
use anyhow::{Result, bail};

/// How long.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Minutes of sending
    #[arg(long, default_value_t = 30)]
    minutes: u32,
}

/// Builds what it needs and runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !sudo::is_root() {
        bail!("loading eBPF programs needs root: run `sudo -E cargo xtask soak`");
    }
    build::object(false)?;
    shell::run(shell::cargo().args([
        "build",
        "--package",
        build::AGENT,
        "--package",
        "merestone-kernel-tests",
        "--bins",
    ]))?;
    let _bpffs = bpffs::ensure()?;
    let minutes = arguments.minutes;
    let _step = Step::begin("soak", format_args!("{minutes} min at full rate"));
    let state = tempfile::Builder::new()
        .prefix("merestone-swtpm-")
        .tempdir()?;
    let path = state.path().to_owned();
    let _undo = Undo::new(move || drop(state));
    let (_swtpm, port) = swtpm::start_on_free_ports(&path)?;
    let mut suite = shell::command(build::output(false).join("egress-suite"));
    suite.env("MERESTONE_BIN", build::output(false).join("merestone"));
    let tpm = format!("[tpm]\ntcti = \"swtpm:host=127.0.0.1,port={port}\"\n");
    suite.env("MERESTONE_CONFIG_EXTRA", tpm);
    suite.env("MERESTONE_SOAK_MINUTES", minutes.to_string());
    let summary = shell::target().join("soak.json");
    suite.env("MERESTONE_SOAK_SUMMARY", &summary);
    shell::run(&mut suite)?;
    progress::line(format_args!("    all numbers are in {}", summary.display()));
    Ok(())
}
