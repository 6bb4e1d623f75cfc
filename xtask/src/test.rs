//! `cargo xtask test`: every check and every test, here and on real kernels,
//! and one closing line.
//!
//! A check that could not run is counted as skipped, with its name and why; a
//! step that breaks is counted as failed and the others still run. Nothing is
//! left behind, also when interrupted.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    build,
    leftovers::{self, Which},
    progress::{self, Step},
    setup, shell,
    sudo::{self, Consent},
    suite::{self, Program, Tally},
    swtpm,
    undo::Undo,
    vm::{self, Load, disk, kernel::Series},
};

/// Loads eBPF programs into whatever kernel it runs on.
const KERNEL_TESTS: &str = "merestone-kernel-tests";
const AGENT: &str = "merestone-agent";
const END_TO_END: &str = "merestone-end-to-end";
/// Tests of this package that only a guest can run are built with it.
const GUEST_FEATURE: &str = "merestone-end-to-end/guest";
/// The test that a guest runs, and the one that judges what it handed back.
const IN_GUEST: &str = "guest";
const AFTER_GUEST: &str = "measured_boot";
/// Emulated processors are slow; a hang is still noticed.
const GUEST_LIMIT: Duration = Duration::from_secs(1200);

/// Runs everything; the last line printed is the closing line.
pub(crate) fn all(consent: Consent, no_vm: bool) -> ExitCode {
    let began = Instant::now();
    let mut tally = Tally::default();
    if let Err(error) = everything(consent, no_vm, &mut tally) {
        progress::line(format_args!("error: {error:#}"));
        tally.check("the run itself", false);
    }
    close(&tally, began)
}

/// The VM suite without the rest.
pub(crate) fn virtual_machines_alone(kernels: &[Series]) -> Result<ExitCode> {
    let began = Instant::now();
    build::object(false)?;
    let programs = suite::programs(&[], &[GUEST_FEATURE])?;
    let verifier = release_verifier()?;
    let mut tally = Tally::default();
    for series in kernels {
        in_virtual_machine(*series, &programs, &verifier, &mut tally);
    }
    Ok(close(&tally, began))
}

fn close(tally: &Tally, began: Instant) -> ExitCode {
    for name in &tally.failures {
        progress::line(format_args!("FAILED: {name}"));
    }
    let minutes = began.elapsed().as_secs_f32() / 60.0;
    progress::line(format_args!("all of it took {minutes:.1} minutes\n"));
    progress::line(tally.closing_line());
    if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn everything(consent: Consent, no_vm: bool, tally: &mut Tally) -> Result<()> {
    setup::all(setup::Options {
        check: false,
        consent,
    })?;
    build::object(false)?;
    // Interrupted tests cannot take their things away; this does.
    let _orphans = Undo::new(remove_orphans);
    check(
        tally,
        "format",
        "cargo fmt --check",
        shell::cargo().args(["fmt", "--all", "--check"]),
    );
    let programs = {
        let _step = Step::begin("compile", "tests and programs (minutes the first time)");
        suite::programs(&[], &[GUEST_FEATURE])?
    };
    let mut clippy = shell::cargo();
    clippy.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--features",
        GUEST_FEATURE,
    ]);
    check(
        tally,
        "clippy",
        "no warning anywhere",
        clippy.args(["--", "--deny", "warnings"]),
    );
    on_this_host(&programs, tally)?;
    let verifier = release_verifier()?;
    needs_no_tpm_library(&verifier, tally)?;
    for series in Series::ALL {
        if no_vm {
            tally.skip(&format!("the suite on Linux {series}"), "--no-vm was given");
        } else {
            in_virtual_machine(series, &programs, &verifier, tally);
        }
    }
    Ok(())
}

fn remove_orphans() {
    if sudo::is_root()
        && let Err(error) = leftovers::remove(Which::Orphans)
    {
        progress::line(format_args!("cleaning up: {error:#}"));
    }
}

/// A command that passes or fails as a whole.
fn check(tally: &mut Tally, name: &str, why: &str, command: &mut Command) {
    let _step = Step::begin(name, why);
    let result = shell::run(command);
    if let Err(error) = &result {
        progress::line(format_args!("    {error:#}"));
    }
    tally.check(name, result.is_ok());
}

fn on_this_host(programs: &[Program], tally: &mut Tally) -> Result<()> {
    for program in programs
        .iter()
        .filter(|program| program.is_test && !only_in_vm(program))
    {
        let name = program.name();
        let mut command = shell::command(&program.path);
        command.current_dir(&program.directory);
        if is_runner(program) {
            egress_on_this_host(&name, &mut command, tally)?;
            continue;
        }
        let _step = Step::begin(&name, program.path.display());
        command.env("MERESTONE_BIN_DIR", build::output(false));
        tally.add(&name, suite::run(&name, command.arg("--show-output"))?);
    }
    let _step = Step::begin("documentation", "the examples in it compile and run");
    let mut documentation = shell::cargo();
    documentation.args(["test", "--workspace", "--doc", "--features", GUEST_FEATURE]);
    tally.add(
        "documentation",
        suite::run("documentation", &mut documentation)?,
    );
    Ok(())
}

/// The egress suite against the real agent and a software TPM of its own.
fn egress_on_this_host(name: &str, command: &mut Command, tally: &mut Tally) -> Result<()> {
    if !sudo::is_root() {
        let listed = shell::read(command.arg("--list"))?;
        for case in listed
            .lines()
            .filter_map(|line| line.strip_suffix(": test"))
        {
            tally.skip(
                &format!("{name}: {case}"),
                "loading eBPF programs needs root",
            );
        }
        return Ok(());
    }
    let _step = Step::begin(name, "every way out, against this kernel");
    let state = tempfile::Builder::new()
        .prefix("merestone-swtpm-")
        .tempdir()?;
    let path = state.path().to_owned();
    let _undo = Undo::new(move || drop(state));
    let (_swtpm, port) = swtpm::start_on_free_ports(&path)?;
    command.env("MERESTONE_BIN", build::output(false).join("merestone"));
    let tpm = format!("[tpm]\ntcti = \"swtpm:host=127.0.0.1,port={port}\"\n");
    command.env("MERESTONE_CONFIG_EXTRA", tpm);
    tally.add(name, suite::run(name, command)?);
    Ok(())
}

fn only_in_vm(program: &Program) -> bool {
    program.package == END_TO_END && [IN_GUEST, AFTER_GUEST].contains(&program.target.as_str())
}

/// Not libtest: it takes no flags.
fn is_runner(program: &Program) -> bool {
    program.package == KERNEL_TESTS && program.target == "egress"
}

/// The verifier as it is shipped.
fn release_verifier() -> Result<PathBuf> {
    let _step = Step::begin("verifier", "built as it is shipped");
    shell::run(shell::cargo().args(["build", "--release", "--package", build::VERIFIER]))?;
    Ok(build::output(true).join("merestone-verify"))
}

/// The regulator's machine has no TPM and none of its libraries.
fn needs_no_tpm_library(verifier: &Path, tally: &mut Tally) -> Result<()> {
    let libraries = disk::libraries_of(verifier)?;
    let found = libraries
        .iter()
        .find(|path| path.to_string_lossy().contains("tss2"));
    if let Some(found) = found {
        progress::line(format_args!("the verifier loads {}", found.display()));
    }
    tally.check(
        "the verifier's release binary loads no TPM library",
        found.is_none(),
    );
    Ok(())
}

/// The suite on one kernel: in the guest, then on what it handed back.
fn in_virtual_machine(series: Series, programs: &[Program], verifier: &Path, tally: &mut Tally) {
    let suite = format!("Linux {series}");
    match guest(series, programs, verifier) {
        Ok(found) => tally.add(&suite, found),
        Err(error) => {
            progress::line(format_args!("{suite}: {error:#}"));
            tally.check(&suite, false);
        }
    }
}

fn guest(series: Series, programs: &[Program], verifier: &Path) -> Result<Tally> {
    let in_guest = |program: &&Program| match program.package.as_str() {
        KERNEL_TESTS | AGENT => true,
        END_TO_END => !program.is_test || program.target == IN_GUEST,
        "merestone-verify-cli" => !program.is_test,
        _ => false,
    };
    let chosen: Vec<Program> = programs.iter().filter(in_guest).cloned().collect();
    let mut load = Load::default();
    load.add_programs(&chosen);
    load.alone
        .push((verifier.to_owned(), "merestone/alone".to_owned()));
    load.command = script(&chosen);
    let mut tally = Tally::default();
    let outcome = vm::boot(series, &load, GUEST_LIMIT, |line| {
        if tally.read(line) {
            progress::line(line);
        }
    })?;
    if outcome.status != 0 && tally.failed == 0 {
        tally.check(&format!("the guest's status is {}", outcome.status), false);
    }
    if tally.passed == 0 {
        tally.check("the guest ran no test", false);
    }
    let judge = programs
        .iter()
        .find(|program| program.is_test && program.target == AFTER_GUEST);
    let judge = judge.context("the test of what the guest handed back was not built")?;
    let mut command = shell::command(&judge.path);
    command.current_dir(&judge.directory).arg("--show-output");
    command
        .env("MERESTONE_BIN_DIR", build::output(true))
        .env("MERESTONE_VM_OUT", &outcome.out);
    tally.add(
        "what the guest handed back",
        suite::run("measured_boot", &mut command)?,
    );
    Ok(tally)
}

/// Runs every test program, and fails when one of them did.
fn script(programs: &[Program]) -> String {
    let mut lines = vec!["failed=0".to_owned()];
    for program in programs.iter().filter(|program| program.is_test) {
        let name = program.name();
        let run = if is_runner(program) {
            // The same runner, beside its probe.
            let bin = disk::BIN;
            format!("MERESTONE_BIN=/{bin}/merestone /{bin}/egress-suite")
        } else {
            format!("/{}/{name} --show-output --test-threads=1", disk::TESTS)
        };
        lines.push(format!("echo '==> {name}'"));
        lines.push(format!("{run} || failed=1"));
    }
    lines.push("exit $failed\n".to_owned());
    lines.join("\n")
}
