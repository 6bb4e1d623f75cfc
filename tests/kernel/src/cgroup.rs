//! Cgroups of the suite's own, below the cgroup v2 root, wherever it is
//! mounted.

use crate::cleanup;
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the suite's cgroups and pins are called, before its process id.
pub const NAME: &str = "merestone-egress-";

/// Where cgroup v2 is mounted, by `/proc/self/mounts`.
pub fn root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    mounts
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find_map(|words| match words.as_slice() {
            [_, place, "cgroup2", ..] => Some(PathBuf::from(place)),
            _ => None,
        })
        .context("cgroup v2 is not mounted; mount -t cgroup2 none /sys/fs/cgroup")
}

/// The suite's own corner of the hierarchy.
#[derive(Debug)]
pub struct Corner {
    /// The cgroup v2 root.
    pub root: PathBuf,
    path: PathBuf,
}

impl Corner {
    /// Makes it, after removing those of suites that were killed.
    pub fn new() -> Result<Self> {
        let root = root()?;
        for stale in stale(&root) {
            remove(&stale);
        }
        let path = root.join(format!("{NAME}{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let doomed = path.clone();
        cleanup::later(move || remove(&doomed));
        Ok(Self { root, path })
    }

    /// A cgroup of that name, new.
    pub fn make(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }
}

/// Entries of `place` that a suite which no longer runs has left.
pub fn stale(place: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.strip_prefix(NAME));
            pid.and_then(|pid| pid.parse::<u32>().ok())
                .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        })
        .map(|entry| entry.path())
        .collect()
}

/// Removes a cgroup with all below it; what still runs in there is one of our
/// probes, and is killed.
pub fn remove(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    for _ in 0..100 {
        if fs::remove_dir(path).is_ok() || !path.exists() {
            return;
        }
        let procs = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines().filter_map(|pid| pid.parse().ok()) {
            // It may have ended meanwhile; the removal is tried again anyway.
            drop(crate::sys::kill(pid, libc::SIGKILL));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
