//! `cargo xtask bench`: what the product costs, measured, as a page of the
//! documentation.
//!
//! It is no test: a bound that is missed is written down, with by how much, and
//! the command succeeds. It is not part of `cargo xtask test` or of CI, whose
//! machines say nothing about cost.

mod attest;
mod attest_page;
mod gateway;
mod guests;

pub(crate) use attest::attest;
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
    /// Which of its parts.
    pub(crate) parts: Parts,
}

/// The parts of `bench egress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parts {
    All,
    /// Without systemd's program in its guests: that part of the page stays.
    Host,
    /// That alone: the rest of the page stays.
    Guests,
}

/// Measures the kernel part.
pub(crate) fn egress(options: Options) -> Result<()> {
    let Options {
        quick,
        consent,
        stage,
        parts,
    } = options;
    if stage {
        return host(quick);
    }
    if parts == Parts::Guests {
        setup::for_build(consent)?;
    } else {
        setup::for_egress(consent)?;
    }
    if parts != Parts::Host {
        // What is missing is told now, not after minutes of measuring.
        guests::prepare(consent)?;
    }
    build::object(false)?;
    let step = Step::begin("measure", "cargo build --release (minutes the first time)");
    let mut cargo = shell::cargo();
    cargo.args(["build", "--release", "--package", build::AGENT]);
    shell::run(cargo.args(["--example", MEASURE]))?;
    drop(step);
    if parts == Parts::Guests {
        return guests::measure(quick);
    }
    if sudo::is_root() {
        host(quick)?;
    } else {
        host_by_sudo(quick, consent)?;
    }
    if parts == Parts::Host {
        progress::line("    left out, as asked: systemd's own program, in virtual machines");
        return Ok(());
    }
    guests::measure(quick)
}

fn host_by_sudo(quick: bool, consent: Consent) -> Result<()> {
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

fn host(quick: bool) -> Result<()> {
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
    let path = shell::root().join(PAGE);
    let old = fs::read_to_string(&path).unwrap_or_default();
    let (_, section) = guests::split(&old);
    write(&path, &format!("{page}{section}"))
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
