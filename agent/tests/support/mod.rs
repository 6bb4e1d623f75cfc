//! What the tests of the kernel part share.
#![allow(dead_code, reason = "not every test needs all of it")]
#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use merestone_agent::bpf::{hierarchy, object};
use std::path::PathBuf;
use std::process::Output;

/// Where a test makes its cgroup; none, and a word on why, where it cannot run.
/// What loads is its own start's to find out: that takes seconds each time, on
/// emulated processors half a minute.
pub(crate) fn place(test: &str) -> Option<PathBuf> {
    match object().and_then(|_| hierarchy()) {
        Ok(found) => Some(found),
        Err(error) => {
            println!("SKIPPED: {test}: {error}");
            None
        }
    }
}

/// Whether the processors are emulated ones: there one stage serves many tests.
pub(crate) fn is_quick() -> bool {
    std::env::var_os("MERESTONE_QUICK").is_some()
}

/// Says that a test is another's part here, where it is.
pub(crate) fn is_done_by(other: &str, test: &str) -> bool {
    if is_quick() {
        println!("SKIPPED: {test}: done by {other}");
    }
    is_quick()
}

/// What a child said of itself.
pub(crate) fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    // The test runner's own words may stand before the first.
    let words: Vec<_> = text
        .lines()
        .filter_map(|line| Some(line.split_once("child: ")?.1))
        .collect();
    words.join(" ")
}
