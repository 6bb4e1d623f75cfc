//! What tests say, and what they came to.
//!
//! It counts nothing as passed that did not say so.

use std::{
    mem,
    process::{Command, Stdio},
};

use anyhow::Result;

use crate::{progress, shell::Running};

/// What a set of tests came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// The names of the failed ones.
    pub(crate) failures: Vec<String>,
    /// Of the program that is running.
    said_skipped: u64,
    /// Inside the output of tests that passed.
    of_passed: bool,
}

impl Tally {
    /// Takes in one line of a test program's output; whether to show it.
    ///
    /// libtest cannot skip while it runs: a test that cannot run here prints
    /// `SKIPPED: name: why` and returns, and is counted as what it is.
    pub(crate) fn read(&mut self, line: &str) -> bool {
        if line.starts_with("SKIPPED: ") {
            self.said_skipped += 1;
            return true;
        }
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.of_passed = false;
            self.count(counts);
        } else if let Some(counts) = line.strip_prefix("egress suite: ") {
            self.count(counts);
        } else if let Some((name, result)) = named(line) {
            if result.starts_with("FAILED") {
                self.failures.push(name.to_owned());
            }
        } else if line == "successes:" || line == "failures:" {
            self.of_passed = line == "successes:";
        }
        !self.of_passed
    }

    fn count(&mut self, counts: &str) {
        let said_skipped = mem::take(&mut self.said_skipped);
        for part in counts.split(['.', ',', ';']) {
            let mut words = part.split_whitespace();
            let count = words.next().and_then(|count| count.parse::<u64>().ok());
            match (count, words.next()) {
                (Some(count), Some("passed")) => {
                    self.passed += count.saturating_sub(said_skipped);
                    self.skipped += said_skipped;
                }
                (Some(count), Some("failed")) => self.failed += count,
                (Some(count), Some("ignored" | "skipped" | "declared" | "absent")) => {
                    self.skipped += count;
                }
                _ => {}
            }
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
            ..
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

/// `test NAME ... RESULT`, of libtest and of the egress suite.
fn named(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ")?.rsplit_once(" ... ")
}

/// Runs a test command, shows what it prints and counts it. A command that
/// fails without a failed test (it did not compile, it crashed) counts as one.
pub(crate) fn run(name: &str, command: &mut Command) -> Result<Tally> {
    let mut running = Running::start(command.stdout(Stdio::piped()))?;
    let mut tally = Tally::default();
    for line in running.lines()? {
        if tally.read(&line) {
            progress::line(&line);
        }
    }
    let status = running.wait()?;
    if !status.success() && tally.failed == 0 {
        tally.check(&format!("{name} ended with {status}"), false);
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell;

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
    fn the_egress_suite_counts_what_it_could_not_hold_or_try_as_skipped() {
        let mut tally = Tally::default();
        for line in [
            "test udp (B07), cgroup: a guarded process cannot send ... ok: EPERM",
            "test vsock (B30), cgroup: a guarded process cannot send ... FAILED: it arrived",
            "egress suite: 40 passed, 1 failed, 3 declared uncovered, 2 absent on this kernel, 1 skipped; 12.3 s",
        ] {
            tally.read(line);
        }
        assert_eq!(tally.closing_line(), "40 passed, 1 failed, 6 skipped");
        assert_eq!(
            tally.failures,
            ["vsock (B30), cgroup: a guarded process cannot send"]
        );
    }

    #[test]
    fn a_command_that_fails_without_a_failed_test_is_a_failure() {
        let tally = run("sh", shell::command("sh").args(["-c", "exit 3"])).unwrap();
        assert_eq!((tally.passed, tally.failed), (0, 1));
    }

    #[test]
    fn a_test_that_says_it_was_skipped_is_not_counted_as_passed() {
        let mut tally = Tally::default();
        let shown: Vec<bool> = [
            "test a ... ok",
            "successes:",
            "---- a stdout ----",
            "SKIPPED: a: needs root",
            "successes:",
            "    a",
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        ]
        .into_iter()
        .map(|line| tally.read(line))
        .collect();
        assert_eq!(tally.closing_line(), "0 passed, 0 failed, 1 skipped");
        assert_eq!(shown, [true, false, false, true, false, false, true]);
    }
}
