//! Enforcement itself under attack: the agent killed, stopped, replaced; its
//! programs detached, its pins removed, its maps written, by root.
//!
//! Each test has a mount namespace and a bpf file system of its own. The agent
//! is this executable again; whoever attacks is a copy of it, which is another
//! file and so no successor. Needs root, cgroup v2 and an agent built with the
//! object; what needs BPF LSM says by name that it was skipped elsewhere.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a failing helper is a failing test; a skipped one says so"
)]

mod agent;
mod attack;
mod found;
mod held;
mod outcome;
mod refused;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod sys;
