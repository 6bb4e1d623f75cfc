//! `cargo xtask foreign`: other people's tools on what we write and on what we judge.
//!
//! Makes a Python environment under `target/`, has the verifier's tests export every file that
//! they judge, and asks the second verifier about each. It fails where the two disagree.

use crate::{progress, shell, test::GUEST_FEATURE};
use anyhow::{Context as _, Result};
use std::{path::PathBuf, process::Command};

fn environment() -> PathBuf {
    shell::target().join("foreign")
}

/// The interpreter that has the packages.
fn python() -> PathBuf {
    environment().join("bin/python")
}

fn scripts() -> PathBuf {
    shell::root().join("tests/foreign")
}

fn ensure() -> Result<()> {
    let imports = [
        "-c",
        "import cbor2, cryptography, lxml, pycddl, pycose, signxml, tpm2_pytss",
    ];
    if python().is_file() && shell::succeeds(shell::command(python()).args(imports)) {
        return Ok(());
    }
    progress::line("    making a Python environment for foreign tools");
    let mut venv = shell::command("/usr/bin/python3");
    shell::run(venv.args(["-m", "venv"]).arg(environment()))?;
    let mut pip = shell::command(python());
    pip.args(["-m", "pip", "install", "--quiet"]);
    pip.args(["--disable-pip-version-check", "--requirement"]);
    shell::run(pip.arg(scripts().join("requirements.txt")))
}

/// Runs all of it.
pub(crate) fn run() -> Result<()> {
    ensure()?;
    let cases = shell::target().join("foreign-cases");
    if cases.exists() {
        std::fs::remove_dir_all(&cases)
            .with_context(|| format!("cannot clear {}", cases.display()))?;
    }
    shell::run(tests("cases").env("MERESTONE_EXPORT", &cases))?;
    let kept = shell::root().join("tests/vectors/evidence");
    let mut agree = shell::command(python());
    shell::run(agree.arg(scripts().join("agree.py")).args([&cases, &kept]))?;
    let mut tools = shell::command(python());
    shell::run(tools.arg(scripts().join("tools.py")).args([&cases, &kept]))?;
    let mut rest = tests("foreign");
    rest.args(["--", "--nocapture"]);
    shell::run(rest.env("MERESTONE_PYTHON", python()))
}

/// The tests of that name, of all packages: as `cargo xtask test` has built them. Another selection
/// has other features, and would compile the same crates again.
fn tests(name: &str) -> Command {
    let mut cargo = shell::cargo();
    cargo.args(["test", "--quiet", "--workspace", "--test", name]);
    cargo.args(["--features", GUEST_FEATURE]);
    cargo
}
