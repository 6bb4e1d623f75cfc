//! `cargo xtask bypasses`: docs/bypasses.md from what runs of the egress suite
//! have shown. The work is in `tests/kernel`, beside the vectors.

use crate::shell;
use anyhow::Result;
use std::path::PathBuf;

/// What to do with the page.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Change nothing; fail where the page or a state is not as it must be
    #[arg(long)]
    check: bool,
    /// Commit what a run has written (target/*-outcomes.json, target/vm/out/*/*-outcomes.json), or what a
    /// test program has printed with --show-output
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    accept: Vec<PathBuf>,
}

/// Writes or checks the page.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let command = || {
        let mut command = shell::cargo();
        command.args(["run", "--quiet", "--package", "merestone-kernel-tests"]);
        command.args(["--bin", "bypasses", "--"]);
        command
    };
    if !arguments.accept.is_empty() {
        let mut accept = command();
        accept.arg("--accept");
        for file in &arguments.accept {
            accept.arg(std::path::absolute(file)?);
        }
        shell::run(&mut accept)?;
    }
    let mut page = command();
    if arguments.check {
        page.arg("--check");
    }
    shell::run(&mut page)
}
