//! `cargo xtask bench attest`: what evidence costs, to write and to verify.
//!
//! The agent's own log and sealer on a software TPM, the verifier as it is shipped on bundles of
//! up to a million records, and the tree beside crate `ct-merkle`. A bound that is missed is
//! written down.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{attest_page, program};
use crate::{
    build,
    progress::{self, Step},
    setup,
    shell::{self, Running},
    sudo::Consent,
    swtpm,
    undo::Undo,
};

/// Where the page is, below the workspace's root.
const PAGE: &str = "docs/benchmarks-attest.md";
/// Records in each epoch of the bundles.
const EACH: u64 = 1_000;
/// The time of the verdict: after every epoch of the bundles.
const AT: &str = "2025-10-20T00:00:00Z";

/// What one run of a program took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) wall: Duration,
    /// Of all processors together.
    pub(super) processor: Duration,
    pub(super) peak_kib: u64,
}

/// A bundle, a receipt of it, and what it took to verify them.
#[derive(Debug)]
pub(super) struct Bundle {
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// What the maker of the bundle said of it.
    pub(super) about: Value,
    pub(super) whole: Vec<Cost>,
    /// One record with every epoch of its session.
    pub(super) single: Vec<Cost>,
    /// One receipt's file as the agent writes it.
    pub(super) one: Vec<Cost>,
}

/// Everything the page tells.
#[derive(Debug)]
pub(super) struct Measured {
    /// As fast as it goes, then at a steady 10,000 a second.
    pub(super) log: Vec<Value>,
    pub(super) bundles: Vec<Bundle>,
    pub(super) tree: Vec<Value>,
    /// Rounds of each size of tree.
    pub(super) proofs: Vec<Vec<Value>>,
}

/// Measures, and writes the page; prints it where it is quick.
pub(crate) fn attest(quick: bool, consent: Consent) -> Result<()> {
    setup::for_sealing(consent)?;
    compile()?;
    let folder = tempfile::Builder::new()
        .prefix("merestone-bench-")
        .tempdir_in(shell::target())?;
    let path = folder.path().to_owned();
    let _undo = Undo::new(move || drop(folder));
    let measured = Measured {
        log: log(&path, quick)?,
        bundles: bundles(&path, quick)?,
        tree: tree(quick)?,
        proofs: proofs(quick)?,
    };
    let page = attest_page::page(&measured)?;
    if quick {
        progress::line(page);
        return Ok(());
    }
    super::write(&shell::root().join(PAGE), &page)?;
    Ok(())
}

fn compile() -> Result<()> {
    let _step = Step::begin("compile", "the verifier and four measures, optimised");
    for (package, example) in [
        (build::VERIFIER, None),
        ("merestone-verify", Some("records")),
        ("merestone-tlog", Some("tree")),
        ("merestone-tlog", Some("proofs")),
        (build::AGENT, Some("ledger")),
    ] {
        let mut cargo = shell::cargo();
        cargo.args(["build", "--release", "--package", package]);
        if let Some(example) = example {
            cargo.args(["--example", example]);
        }
        shell::run(&mut cargo)?;
    }
    Ok(())
}

/// The agent's log and sealer, on a software TPM of their own.
fn log(folder: &Path, quick: bool) -> Result<Vec<Value>> {
    let seconds = if quick { "6" } else { "60" };
    let mut runs = Vec::new();
    for (name, rate) in [("unbound", None), ("steady", Some("10000"))] {
        let _step = Step::begin(format!("log, {name}"), format_args!("{seconds} s"));
        let (_swtpm, port) = swtpm::start_on_free_ports(&folder.join(format!("tpm-{name}")))?;
        let mut command = shell::command(program("ledger"));
        command.arg(format!("swtpm:host=127.0.0.1,port={port}"));
        let epoch_ms = if quick { "1000" } else { "10000" };
        command.args([seconds, epoch_ms]);
        command.arg(folder.join(format!("state-{name}"))).args(rate);
        runs.push(object(&shell::read(&mut command)?)?);
    }
    Ok(runs)
}

fn object(text: &str) -> Result<Value> {
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("no object: {line:?}"))
}

/// Bundles that grow, each verified more than once.
fn bundles(folder: &Path, quick: bool) -> Result<Vec<Bundle>> {
    let (sizes, rounds): (&[u64], usize) = if quick {
        (&[10_000, 100_000], 3)
    } else {
        (&[10_000, 100_000, 300_000, 1_000_000], 5)
    };
    let mut bundles = Vec::new();
    for &records in sizes {
        let _step = Step::begin(format!("{records} records"), "made, then verified");
        let at = folder.join(format!("bundle-{records}"));
        let mut maker = shell::command(program("records"));
        maker.args([records.to_string(), EACH.to_string()]).arg(&at);
        let about = object(&shell::read(&mut maker)?)?;
        let bytes = fs::metadata(at.join("bundle.merestone"))?.len();
        let verify = |what: &str, file: &str| -> Result<Vec<Cost>> {
            let costs = (0..rounds).map(|_| verified(&at, what, file));
            costs.collect()
        };
        bundles.push(Bundle {
            records,
            bytes,
            about,
            whole: verify("bundle", "bundle")?,
            single: verify("receipt", "receipt")?,
            one: verify("receipt", "one")?,
        });
        fs::remove_dir_all(&at)?;
    }
    Ok(bundles)
}

/// One run of the verifier, as a regulator runs it; anything but a pass is an error.
fn verified(folder: &Path, what: &str, file: &str) -> Result<Cost> {
    let verifier = build::output(true).join("merestone-verify");
    let mut command = shell::command(verifier);
    command
        .arg(what)
        .arg(folder.join(format!("{file}.merestone")))
        .arg("--trust")
        .arg(folder.join("trust.toml"))
        .args(["--at", AT])
        .stdout(Stdio::null());
    cost(&mut command)
}

/// Runs a command and watches it: the peak is a mark that only rises, so the last look before the
/// end has it but for the last millisecond.
fn cost(command: &mut std::process::Command) -> Result<Cost> {
    let began = Instant::now();
    let mut running = Running::start(command)?;
    let status_file = PathBuf::from(format!("/proc/{}/status", running.id()));
    let stat_file = PathBuf::from(format!("/proc/{}/stat", running.id()));
    let (mut peak_kib, mut processor) = (0, Duration::ZERO);
    let status = loop {
        peak_kib = peak_kib.max(peak(&status_file).unwrap_or(0));
        processor = processor.max(processor_time(&stat_file).unwrap_or_default());
        if let Some(status) = running.ended()? {
            break status;
        }
        thread::sleep(Duration::from_millis(1));
    };
    if !status.success() {
        bail!("`{}` failed: {status}", shell::shown(command));
    }
    Ok(Cost {
        wall: began.elapsed(),
        processor,
        peak_kib,
    })
}

fn peak(status: &Path) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15 of `proc_pid_stat(5)`, in hundredths of a second.
fn processor_time(stat: &Path) -> Option<Duration> {
    let text = fs::read_to_string(stat).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 10))
}

/// Our tree and theirs, in turns.
fn tree(quick: bool) -> Result<Vec<Value>> {
    let _step = Step::begin("tree", "beside crate ct-merkle, in turns");
    let mut command = shell::command(program("tree"));
    let (leaves, rounds) = if quick {
        ("20000", "5")
    } else {
        ("200000", "21")
    };
    let out = shell::read(command.args([leaves, rounds]))?;
    out.lines().map(object).collect()
}

/// Proofs out of tiles and by hashing, in trees that grow.
fn proofs(quick: bool) -> Result<Vec<Vec<Value>>> {
    let (sizes, rounds): (&[u64], &str) = if quick {
        (&[1_000, 100_000], "11")
    } else {
        (&[1_000, 100_000, 1_000_000], "101")
    };
    let mut all = Vec::new();
    for leaves in sizes {
        let _step = Step::begin(format!("proofs of {leaves}"), "out of tiles and by hashing");
        let mut command = shell::command(program("proofs"));
        let out = shell::read(command.args([&leaves.to_string(), rounds]))?;
        all.push(out.lines().map(object).collect::<Result<_>>()?);
    }
    Ok(all)
}
