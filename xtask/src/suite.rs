//! Test programs and what they say: builds them, runs them, counts.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    progress,
    shell::{self, Running},
};

/// One test program that cargo built.
#[derive(Clone, Debug)]
pub(crate) struct TestProgram {
    /// `<package>-<target>`, without cargo's hash.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// Builds a package's test programs and says where they are.
pub(crate) fn test_programs(package: &str, features: &[&str]) -> Result<Vec<TestProgram>> {
    let mut build = shell::cargo();
    build.args([
        "test",
        "--no-run",
        "--message-format=json-render-diagnostics",
        "--package",
        package,
    ]);
    if !features.is_empty() {
        build.arg("--features").arg(features.join(","));
    }
    let mut running = Running::start(build.stdout(Stdio::piped()))?;
    let found: Vec<_> = running
        .lines()?
        .filter_map(|line| test_program(package, &line))
        .collect();
    if !running.wait()?.success() {
        bail!("the tests of {package} do not compile");
    }
    Ok(found)
}

/// One line of cargo's messages, where it tells of a test program.
fn test_program(package: &str, message: &str) -> Option<TestProgram> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_test = message.pointer("/profile/test")?.as_bool()?;
    let path = message.get("executable")?.as_str()?;
    let target = message.pointer("/target/name")?.as_str()?;
    is_test.then(|| TestProgram {
        name: format!("{package}-{target}"),
        path: PathBuf::from(path),
    })
}

/// What a set of tests came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// The names of the failed ones.
    pub(crate) failures: Vec<String>,
}

impl Tally {
    /// Takes in one line of a test program's output.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            for part in counts.split(['.', ';']) {
                let mut words = part.split_whitespace();
                let count = words.next().and_then(|count| count.parse::<u64>().ok());
                match (count, words.next()) {
                    (Some(count), Some("passed")) => self.passed += count,
                    (Some(count), Some("failed")) => self.failed += count,
                    (Some(count), Some("ignored")) => self.skipped += count,
                    _ => {}
                }
            }
        } else if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|line| line.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
    }

    /// A check that is no test program's.
    pub(crate) fn check(&mut self, name: &str, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
            self.failures.push(name.to_owned());
        }
    }

    /// Something that could not run here; said by name.
    pub(crate) fn skip(&mut self, name: &str, why: &str) {
        progress::line(format_args!("skipped: {name}: {why}"));
        self.skipped += 1;
    }

    /// Adds another tally's counts, its failures under a name.
    pub(crate) fn add(&mut self, suite: &str, other: Self) {
        let Self {
            passed,
            failed,
            skipped,
            failures,
        } = other;
        self.passed += passed;
        self.failed += failed;
        self.skipped += skipped;
        self.failures
            .extend(failures.into_iter().map(|name| format!("{suite}: {name}")));
    }

    /// The line that a suite ends with.
    pub(crate) fn closing_line(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// Runs a test command, shows what it prints and counts it. A command that
/// fails without a failed test (it did not compile, it crashed) counts as one.
pub(crate) fn run(name: &str, command: &mut Command) -> Result<Tally> {
    let mut running = Running::start(command.stdout(Stdio::piped()))?;
    let mut tally = Tally::default();
    for line in running.lines()? {
        progress::line(&line);
        tally.read(&line);
    }
    let status = running.wait()?;
    if !status.success() && tally.failed == 0 {
        tally.check(&format!("{name} ended with {status}"), false);
    }
    Ok(tally)
}

/// The names of the tests that a package has.
pub(crate) fn names(package: &str) -> Result<Vec<String>> {
    let mut list = shell::cargo();
    list.args(["test", "--quiet", "--package", package, "--", "--list"]);
    let listed = shell::read(&mut list).context("cannot list the tests")?;
    Ok(listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_every_result_line() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test a ... ok",
            "test b::c ... FAILED",
            "test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.00s",
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.23s",
        ] {
            tally.read(line);
        }
        assert_eq!(tally.closing_line(), "13 passed, 1 failed, 1 skipped");
        assert_eq!(tally.failures, ["b::c"]);
    }

    #[test]
    fn a_command_that_fails_without_a_failed_test_is_a_failure() {
        let tally = run("sh", shell::command("sh").args(["-c", "exit 3"])).unwrap();
        assert_eq!((tally.passed, tally.failed), (0, 1));
    }

    #[test]
    fn only_test_programs_are_taken_from_cargos_messages() {
        let test = r#"{"reason":"compiler-artifact","target":{"name":"egress"},"profile":{"test":true},"executable":"/t/egress-1"}"#;
        assert_eq!(test_program("p", test).unwrap().name, "p-egress");
        let library = r#"{"reason":"compiler-artifact","target":{"name":"l"},"profile":{"test":false},"executable":null}"#;
        assert!(test_program("p", library).is_none());
        assert!(test_program("p", "not json").is_none());
    }
}
