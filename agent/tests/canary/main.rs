//! The canary and the drill of a real agent on this host's kernel, with a
//! software TPM: what holds is said to hold, and what was taken away is found.
//!
//! Each test has a mount and a network namespace of its own, so that what
//! escapes goes nowhere. Needs root, cgroup v2, swtpm, iproute2 and a program
//! built with the object; elsewhere it says by name that it was skipped.

#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a failing helper is a failing test; a skipped one says so"
)]

mod drill;
mod ends;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod sys;
