//! What the host must offer, asked before anything is changed.

use super::KernelError;
use rustix::fs::statfs;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// include/uapi/linux/magic.h
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

const INIT_PID_NAMESPACE: u64 = 0xefff_fffc;

/// Refuses anyone but root.
pub(super) fn require_root() -> Result<(), KernelError> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(KernelError::NotRoot)
    }
}

/// Refuses what rests on the agent's process id where it is not the one that
/// the kernel's own programs see (`PROC_PID_INIT_INO`, `include/linux/proc_ns.h`).
pub(super) fn require_host_pids(options: &super::Options) -> Result<(), KernelError> {
    let asked = options.tamper || options.on_loss != super::OnLoss::Hold;
    let own = fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.ino());
    if asked && own != INIT_PID_NAMESPACE {
        return Err(KernelError::OwnPidNamespace);
    }
    Ok(())
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

/// Whether a path lies on a bpf file system.
pub(super) fn is_bpffs(path: &Path) -> bool {
    is_on(path, BPF_FS_MAGIC)
}

/// Where the file system that holds `path` is mounted: the highest directory
/// above it on the same device.
pub(super) fn mount_point(path: &Path) -> PathBuf {
    let dev = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    let own = dev(path);
    let same = path.ancestors().take_while(|above| dev(above) == own);
    same.last().unwrap_or(path).to_owned()
}

/// The number the kernel itself has for the file system a path is on (`s_dev`,
/// `include/linux/kdev_t.h`, `MKDEV`), where it is what stat(2) shows.
pub(super) fn kernel_dev(path: &Path) -> Result<u32, KernelError> {
    let found = fs::metadata(path).map_err(|source| KernelError::Io {
        action: "cannot look at",
        path: path.to_owned(),
        source,
    })?;
    let (major, minor) = (
        rustix::fs::major(found.dev()),
        rustix::fs::minor(found.dev()),
    );
    Ok(major << 20 | minor)
}

/// The mount at `point` and those it hangs from, but the root: id, and peer
/// group where there is one. Of pid 1's view and of this process's.
pub(super) fn mounts_above(point: &Path) -> Vec<(u64, Option<u64>)> {
    let mut found = Vec::new();
    for file in ["/proc/1/mountinfo", "/proc/self/mountinfo"] {
        if let Ok(text) = fs::read_to_string(file) {
            found.extend(mounts_above_in(&text, point));
        }
    }
    found
}

struct MountLine {
    id: u64,
    parent: u64,
    at: PathBuf,
    peers: Option<u64>,
}

/// proc(5): `36 35 98:0 /root /point options shared:7 - type source options`.
fn mount_line(line: &str) -> Option<MountLine> {
    let mut words = line.split(' ');
    let id = words.next()?.parse().ok()?;
    let parent = words.next()?.parse().ok()?;
    let at = PathBuf::from(words.nth(2)?);
    let peers = words
        .skip(1)
        .take_while(|word| *word != "-")
        .find_map(|word| word.strip_prefix("shared:")?.parse().ok());
    Some(MountLine {
        id,
        parent,
        at,
        peers,
    })
}

fn mounts_above_in(text: &str, point: &Path) -> Vec<(u64, Option<u64>)> {
    let mounts: Vec<_> = text.lines().filter_map(mount_line).collect();
    let mut next = mounts.iter().rfind(|mount| mount.at == point);
    let mut found = Vec::new();
    while let Some(mount) = next {
        if mount.at == Path::new("/") || found.len() > 32 {
            break;
        }
        found.push((mount.id, mount.peers));
        next = mounts.iter().find(|above| above.id == mount.parent);
    }
    found
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
    fn a_mount_is_found_with_those_it_hangs_from_and_their_peers() {
        let text = "1 0 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
                    20 1 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
                    31 20 0:31 / /sys/fs/bpf rw master:3 - bpf bpf rw\n\
                    40 1 0:40 / /proc rw - proc proc rw\n";
        let found = mounts_above_in(text, Path::new("/sys/fs/bpf"));
        assert_eq!(found, [(31, None), (20, Some(7))]);
        assert!(mounts_above_in(text, Path::new("/elsewhere")).is_empty());
    }

    #[test]
    fn a_pin_directory_outside_bpffs_is_refused() {
        let outside = tempfile::tempdir().unwrap();
        let refused = pin_dir(&outside.path().join("pins"));
        assert!(matches!(refused, Err(KernelError::NotBpffs { .. })));
    }
}
