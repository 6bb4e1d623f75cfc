//! Who a process is: its program, when it started, which cgroup, container, pod and unit it is in.
//!
//! Everything comes from `/proc` and the cgroup file system as the kernel shows them; no container
//! runtime is asked. What a process can name itself (its name, its path, a cgroup it made) is
//! treated as hostile text: it cannot break the parsing, and [`ContainerRef::delegated`] says when a
//! cgroup's name was the user's choice. This module decides nothing about what is guarded.

mod cgroup;
mod digest;
mod handle;
mod holders;
mod proc;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use cgroup::{ContainerRef, classify_cgroup};
pub use handle::cgroup_path;
pub use holders::{Holder, gpu_holders};

use proc::Entry;

/// What is known of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its id, in the agent's PID namespace.
    pub pid: u32,
    /// Clock ticks between boot and its start: with the pid, its identity.
    pub start_time_ticks: u64,
    /// When it started, milliseconds since the Unix epoch, as today's clock has it.
    pub start_time_ms: Option<u64>,
    /// The path of its program, control characters escaped; a kernel thread has none.
    pub exe: Option<String>,
    /// Whether that file was deleted since, or replaced.
    pub exe_deleted: bool,
    /// SHA-256 of the program, in hex; `None` when it is too large, or not read in time (asking again
    /// later may give it).
    pub exe_sha256: Option<String>,
    /// Its name, as it calls itself, control characters escaped.
    pub comm: String,
    /// Its cgroup's path below the cgroup v2 root, beginning with `/`.
    pub cgroup: String,
    /// The innermost container.
    pub container_id: Option<String>,
    /// The Kubernetes pod.
    pub pod_uid: Option<String>,
    /// The systemd unit.
    pub unit: Option<String>,
}

/// Reads a process; `None` when there is none of that id, or it ended meanwhile. It waits a quarter of
/// a second at most, for the program's digest.
#[must_use]
pub fn inspect(pid: u32) -> Option<Process> {
    inspect_in(Path::new("/proc"), pid)
}

/// A moment before which a process had started, nanoseconds since boot: the kernel tells it in
/// ticks.
#[must_use]
pub fn started_before_ns(pid: u32) -> Option<u64> {
    let ticks = Entry::open(Path::new("/proc"), pid)?.start_time_ticks()?;
    let per_second = rustix::param::clock_ticks_per_second();
    let tick_ns = 1_000_000_000_u64.checked_div(per_second)?;
    ticks.checked_add(1)?.checked_mul(tick_ns)
}

fn inspect_in(proc: &Path, pid: u32) -> Option<Process> {
    // One handle for all: a pid that is used again meanwhile answers ESRCH, not another's facts.
    let entry = Entry::open(proc, pid)?;
    let start_time_ticks = entry.start_time_ticks()?;
    let comm = entry.comm()?;
    let cgroup = entry.cgroup()?;
    let exe = entry.exe();
    let container = classify_cgroup(Path::new(&cgroup));
    Some(Process {
        pid,
        start_time_ticks,
        start_time_ms: proc::ticks_to_ms(start_time_ticks),
        exe_deleted: exe.is_some() && entry.exe_deleted(),
        exe,
        exe_sha256: digest::of(&entry),
        comm,
        cgroup,
        container_id: container.container_id,
        pod_uid: container.pod_uid,
        unit: container.unit,
    })
}

/// The path of the cgroup that is `root`'s child, in the form of `/proc/PID/cgroup`.
fn below(root: &Path, path: &Path) -> Option<PathBuf> {
    let rest = path.strip_prefix(root).ok()?;
    Some(Path::new("/").join(rest))
}

#[cfg(test)]
mod tests;
