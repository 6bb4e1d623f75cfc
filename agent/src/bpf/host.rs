//! What the host must offer, asked before anything is changed.

use super::KernelError;
use rustix::fs::statfs;
use std::fs;
use std::path::{Path, PathBuf};

/// include/uapi/linux/magic.h
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// Refuses anyone but root.
pub(super) fn require_root() -> Result<(), KernelError> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(KernelError::NotRoot)
    }
}

/// The cgroup v2 hierarchy: the configured one, or the first that is mounted.
pub(super) fn cgroup_root(configured: &Path) -> Result<PathBuf, KernelError> {
    if configured.as_os_str().is_empty() {
        let mounts = read("/proc/self/mounts")?;
        return cgroup2_mount(&mounts).ok_or(KernelError::NoCgroup2);
    }
    if is_on(configured, CGROUP2_SUPER_MAGIC) {
        Ok(configured.to_owned())
    } else {
        Err(KernelError::NotCgroup2 {
            path: configured.to_owned(),
        })
    }
}

fn cgroup2_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let at = words.nth(1)?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(at))
    })
}

/// Makes the pin directory, which must be on bpffs.
pub(super) fn pin_dir(path: &Path) -> Result<(), KernelError> {
    let not_bpffs = || KernelError::NotBpffs {
        path: path.to_owned(),
    };
    // The directory itself may be new; what it lies in is not.
    let existing = path.ancestors().find(|dir| dir.exists());
    if !existing.is_some_and(|dir| is_on(dir, BPF_FS_MAGIC)) {
        return Err(not_bpffs());
    }
    fs::create_dir_all(path).map_err(|source| KernelError::Io {
        action: "cannot make",
        path: path.to_owned(),
        source,
    })
}

fn is_on(path: &Path, magic: u64) -> bool {
    statfs(path).is_ok_and(|stat| u64::try_from(stat.f_type).is_ok_and(|kind| kind == magic))
}

/// Reads a text file of the kernel's.
pub(super) fn read(path: &str) -> Result<String, KernelError> {
    fs::read_to_string(path).map_err(|source| KernelError::Io {
        action: "cannot read",
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_found_among_the_old_ones() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(
            cgroup2_mount(mounts),
            Some(PathBuf::from("/sys/fs/cgroup/unified"))
        );
        assert_eq!(cgroup2_mount("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn a_pin_directory_outside_bpffs_is_refused() {
        let outside = tempfile::tempdir().unwrap();
        let refused = pin_dir(&outside.path().join("pins"));
        assert!(matches!(refused, Err(KernelError::NotBpffs { .. })));
    }
}
