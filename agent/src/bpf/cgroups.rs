//! cgroup ids, which are inode numbers, and the paths they belong to.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The id of the cgroup at `path`: its inode number (fs/kernfs/dir.c
/// `kernfs_ino`, 64-bit kernels).
pub(super) fn id(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|dir| dir.ino())
}

/// A process's cgroup below the v2 root, as `/a/b`, or `/`.
pub(super) fn of_process(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(path.to_owned())
}

/// How deep `/a/b` lies below the root.
pub(super) fn level(path: &str) -> u32 {
    let parts = path.split('/').filter(|part| !part.is_empty());
    u32::try_from(parts.count()).unwrap_or(u32::MAX)
}

/// The first part of `/a/b`; none for the root.
pub(super) fn first(path: &str) -> Option<&str> {
    path.split('/').find(|part| !part.is_empty())
}

/// Where `/a/b` lies in the file system.
pub(super) fn at(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Every cgroup below `root`, by id. One directory walk.
pub(super) fn walk(root: &Path) -> BTreeMap<u64, PathBuf> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let Some(own) = id(&path) else {
            continue; // removed meanwhile
        };
        if let Ok(entries) = fs::read_dir(&path) {
            let directories = entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            open.extend(directories.map(|entry| entry.path()));
        }
        found.insert(own, path);
    }
    found
}

/// Processes in the cgroup at `path` and below it.
pub(super) fn processes(path: &Path) -> Vec<u32> {
    walk(path)
        .into_values()
        .filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok())
        .flat_map(|text| {
            let pids = text.lines().filter_map(|line| line.parse().ok());
            pids.collect::<Vec<u32>>()
        })
        .filter(|pid| *pid != 0) // 0 is a process of another PID namespace
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_count_from_the_root() {
        assert_eq!(level("/"), 0);
        assert_eq!(level("/user.slice"), 1);
        assert_eq!(level("/user.slice/user-0.slice/session-1.scope"), 3);
        assert_eq!(first("/user.slice/user-0.slice"), Some("user.slice"));
        assert_eq!(first("/"), None);
    }
}
