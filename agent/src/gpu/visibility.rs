//! Whether NVML can list the host's processes.
//!
//! The driver translates each pid into the caller's PID namespace and silently leaves out those that
//! have none there, so in a container an empty list looks like an idle GPU.

use std::path::Path;

/// The inode of the initial PID namespace: `PROC_PID_INIT_INO`, `include/linux/proc_ns.h` (since 3.8).
const INITIAL: &str = "pid:[4026531836]";

/// Whether this process is in the initial PID namespace; `None` when `/proc` does not tell.
pub(super) fn in_host_pid_namespace(proc: &Path) -> Option<bool> {
    let link = std::fs::read_link(proc.join("self/ns/pid")).ok()?;
    Some(link.as_os_str() == INITIAL)
}

#[cfg(test)]
mod tests {
    use super::in_host_pid_namespace;

    #[test]
    fn another_namespace_than_the_initial_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let ns = folder.path().join("self/ns");
        std::fs::create_dir_all(&ns).unwrap();
        assert_eq!(in_host_pid_namespace(folder.path()), None);
        std::os::unix::fs::symlink("pid:[4026532841]", ns.join("pid")).unwrap();
        assert_eq!(in_host_pid_namespace(folder.path()), Some(false));
    }
}
