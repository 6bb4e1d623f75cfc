//! `cargo xtask test`: every check and every test, here and on real kernels,
//! and one closing line.
//!
//! A check that could not run is counted as skipped, with its name and why; a
//! step that breaks is counted as failed and the others still run. Nothing is
//! left behind, also when interrupted.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::Instant,
};

use anyhow::{Result, anyhow};

use crate::{
    build, foreign,
    leftovers::{self, Which},
    programs::{self, Program},
    progress::{self, Step},
    setup, shell,
    sudo::{self, Consent},
    tally::{self, Tally},
    undo::Undo,
    vm::{disk, kernel::Series},
};

mod guest;
mod host;

/// The verifier's library.
const VERIFY: &str = "merestone-verify";
/// Loads eBPF programs into whatever kernel it runs on.
const KERNEL_TESTS: &str = "merestone-kernel-tests";
const END_TO_END: &str = "merestone-end-to-end";
/// Tests of this package that only a guest can run are built with it.
pub(crate) const GUEST_FEATURE: &str = "merestone-end-to-end/guest";
/// The test that a guest runs, and the one that judges what it handed back.
const IN_GUEST: &str = "guest";
const AFTER_GUEST: &str = "measured_boot";
/// Runs here too, where the kernel can delay packets; the guests' kernels can.
const NETEM: &str = "netem";
/// Agent and gateway: here too, and in the guests with what only BPF LSM refuses.
const RECEIPTS: &str = "receipts";
/// Judges what several boots of one machine left.
const AFTER_BOOTS: &str = "boots";

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
pub(crate) fn virtual_machines_alone(kernels: &[Series], only: Option<&str>) -> Result<ExitCode> {
    let began = Instant::now();
    build::object(false)?;
    let mut programs = programs::build(&[], &[GUEST_FEATURE])?;
    if let Some(only) = only {
        programs.retain(|program| !program.is_test || program.name().contains(only));
    }
    let verifier = release_verifier()?;
    let mut tally = Tally::default();
    guest::all(kernels, &programs, &verifier, &mut tally);
    Ok(close(&tally, began))
}

/// Several boots of one machine, without the rest of the VM suite.
pub(crate) fn boots_alone(kernels: &[Series]) -> Result<ExitCode> {
    let began = Instant::now();
    build::object(false)?;
    let packages = [build::AGENT, build::VERIFIER, END_TO_END].map(str::to_owned);
    let judge = [END_TO_END.to_owned()];
    let programs = programs::build_some(&packages, &judge, &[GUEST_FEATURE])?;
    let mut tally = Tally::default();
    for series in kernels {
        tally.add(
            &format!("Linux {series}"),
            guest::boots(*series, &programs)?,
        );
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
        programs::build(&[], &[GUEST_FEATURE])?
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
    verifier_for_the_web(tally);
    let verifier = beside(release_verifier, || host::all(&programs, tally))?;
    needs_no_tpm_library(&verifier, tally)?;
    if no_vm {
        for series in Series::ALL {
            tally.skip(&format!("the suite on Linux {series}"), "--no-vm was given");
        }
        foreign_eyes(tally);
        every_byte(&programs, tally);
        return Ok(());
    }
    // The guests take longest, and nothing here measures time.
    let mut in_guests = Tally::default();
    thread::scope(|scope| {
        scope.spawn(|| guest::all(&Series::ALL, &programs, &verifier, &mut in_guests));
        foreign_eyes(tally);
        every_byte(&programs, tally);
    });
    tally.add("guests", in_guests);
    Ok(())
}

/// Does `work`, and `build` on what it leaves of the processors: tests wait more than they compute.
fn beside<T: Send>(
    build: impl FnOnce() -> Result<T> + Send,
    work: impl FnOnce() -> Result<()>,
) -> Result<T> {
    thread::scope(|scope| {
        let built = scope.spawn(|| {
            // Of this thread alone and of what it starts (sched(7)).
            rustix::process::nice(19)?;
            build()
        });
        let worked = work();
        let built = built.join();
        worked?;
        built.unwrap_or_else(|_panic| Err(anyhow!("the build's thread panicked")))
    })
}

/// The test that the others are not held up by.
fn every_byte(programs: &[Program], tally: &mut Tally) {
    const NAME: &str = "every byte of a bundle";
    let mut cases = programs.iter().filter(|program| program.is_test);
    let found = cases.find(|program| program.package == VERIFY && program.target == "cases");
    let Some(found) = found else {
        return tally.check(NAME, false);
    };
    let mut changes = shell::command(&found.path);
    changes.current_dir(&found.directory).arg("--ignored");
    let _step = Step::begin(NAME, "a hundred thousand random changes (minutes)");
    match tally::run(NAME, &mut changes) {
        Ok(made) if made.passed == 1 => tally.add(NAME, made),
        _ => tally.check(NAME, false),
    }
}

/// The verifier's library needs no operating system: whoever wants it in a web page can have it.
fn verifier_for_the_web(tally: &mut Tally) {
    const TARGET: &str = "wasm32-unknown-unknown";
    let mut where_is = shell::command("rustc");
    where_is.args(["--print", "target-libdir", "--target", TARGET]);
    let library = shell::read(&mut where_is);
    if !library.is_ok_and(|folder| Path::new(folder.trim()).is_dir()) {
        let why = format!("`rustup target add {TARGET}` was not run");
        return tally.skip("verifier for wasm32", &why);
    }
    let mut compile = shell::cargo();
    compile.args(["check", "--package", "merestone-verify", "--target", TARGET]);
    check(
        tally,
        "verifier for wasm32",
        "the library compiles without an operating system",
        &mut compile,
    );
}

/// A second verifier and other people's tools on the cases of the tests.
fn foreign_eyes(tally: &mut Tally) {
    let _step = Step::begin("foreign", "a second verifier, in Python, on every case");
    let result = foreign::run();
    if let Err(error) = &result {
        progress::line(format_args!("    {error:#}"));
    }
    tally.check("foreign", result.is_ok());
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

fn only_in_guest(program: &Program) -> bool {
    program.package == END_TO_END
        && [IN_GUEST, AFTER_GUEST, AFTER_BOOTS].contains(&program.target.as_str())
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
