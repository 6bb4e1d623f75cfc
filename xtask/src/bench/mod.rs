//! `cargo xtask bench`: what the product costs, measured, as a page of the
//! documentation.
//!
//! It is no test: a bound that is missed is written down, with by how much, and
//! the command succeeds. It is not part of `cargo xtask test` or of CI, whose
//! machines say nothing about cost.

mod attest;
mod attest_page;

pub(crate) use attest::attest;
mod gateway;

pub(crate) use gateway::gateway;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    bpffs, build,
    progress::{self, Step},
    setup,
    shell::{self, Running},
    sudo::{self, Consent},
};

/// Where the page is, below the workspace's root.
const PAGE: &str = "docs/benchmarks.md";
/// The example of the agent that measures.
const MEASURE: &str = "measure";

/// How `bench egress` runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// A few rounds, up to 100,000 prefixes; the page is printed, not written.
    pub(crate) quick: bool,
    pub(crate) consent: Consent,
    /// Only the part that needs root.
    pub(crate) stage: bool,
}

/// Measures the kernel part.
pub(crate) fn egress(options: Options) -> Result<()> {
    let Options {
        quick,
        consent,
        stage,
    } = options;
    if !stage {
        setup::for_build(consent)?;
        build::object(false)?;
        let _step = Step::begin("measure", "cargo build --release (minutes the first time)");
        let mut cargo = shell::cargo();
        cargo.args(["build", "--release", "--package", build::AGENT]);
        shell::run(cargo.args(["--example", MEASURE]))?;
    }
    if sudo::is_root() {
        return measure(quick);
    }
    let xtask = std::env::current_exe().context("cannot find this program's own path")?;
    let mut words = vec!["bench", "egress", "--stage"];
    if quick {
        words.push("--quick");
    }
    consent.run(
        &xtask.to_string_lossy(),
        &words,
        "loads eBPF programs on cgroups of its own, makes network namespaces, and takes all of it away again",
    )
}

fn measure(quick: bool) -> Result<()> {
    let _bpffs = bpffs::ensure()?;
    let step = Step::begin(
        "measure",
        "a quiet machine gives better numbers (3 minutes)",
    );
    let mut command = shell::command(program(MEASURE));
    if quick {
        command.arg("--quick");
    }
    let page = output(&mut command)?;
    drop(step);
    if quick {
        progress::line(page);
        return Ok(());
    }
    write(&shell::root().join(PAGE), &page)
}

fn program(example: &str) -> PathBuf {
    shell::target().join("release/examples").join(example)
}

/// Runs it with its progress shown and its output kept.
fn output(command: &mut std::process::Command) -> Result<String> {
    let mut running = Running::start(command.stdout(Stdio::piped()))?;
    let page = running
        .lines()?
        .fold(String::new(), |page, line| page + &line + "\n");
    let status = running.wait()?;
    if !status.success() || page.is_empty() {
        bail!("`{}` failed: {status}", shell::shown(command));
    }
    Ok(page)
}

/// Over the old page, in place: the file may belong to somebody else than root.
fn write(path: &Path, page: &str) -> Result<()> {
    fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
    progress::line(format_args!("    wrote {}", path.display()));
    Ok(())
}
