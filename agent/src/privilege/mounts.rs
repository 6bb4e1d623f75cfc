//! Where the kernel's file systems are: the root of the cgroup v2 hierarchy,
//! and a bpffs to pin in.
//!
//! A cgroup namespace shows a sub-tree as if it were the root. Attaching there
//! would hold that sub-tree and leave the rest of the host free, so only the
//! real root is accepted.

use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// `CGROUP2_SUPER_MAGIC` and `BPF_FS_MAGIC`, include/uapi/linux/magic.h.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
const BPFFS_MAGIC: u64 = 0xcafe_4a11;

/// Why a mount cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// No cgroup v2 anywhere.
    #[error(
        "no cgroup v2 is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with systemd.unified_cgroup_hierarchy=1"
    )]
    NoCgroup,
    /// The path is not cgroup v2.
    #[error("{} is not a cgroup v2 mount: set [enforcement] cgroup_root to one, or to \"\"", path.display())]
    NotCgroup {
        /// What was looked at.
        path: PathBuf,
    },
    /// The path is inside the hierarchy.
    #[error("{} is not the root of the cgroup hierarchy but a cgroup within it: run in the host's cgroup namespace (a pod needs the host's /sys/fs/cgroup mounted)", path.display())]
    NotRoot {
        /// What was looked at.
        path: PathBuf,
    },
    /// The path cannot be looked at.
    #[error("cannot look at {}: {source}", path.display())]
    Unreadable {
        /// What was looked at.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Nothing to pin in.
    #[error("{} is not on a bpffs: mount -t bpf bpf /sys/fs/bpf, or set [enforcement] pin_dir to a place on one", path.display())]
    NotBpffs {
        /// The pin directory.
        path: PathBuf,
    },
}

/// The root of the cgroup v2 hierarchy: the configured one if any, otherwise
/// the first in the mounts; checked either way.
pub fn cgroup_root(configured: Option<&Path>) -> Result<PathBuf, MountError> {
    if let Some(path) = configured {
        return real_root(path);
    }
    let mounts = std::fs::read("/proc/self/mounts").map_err(|source| MountError::Unreadable {
        path: "/proc/self/mounts".into(),
        source,
    })?;
    let mut refusal = MountError::NoCgroup;
    for path in of_type(&mounts, b"cgroup2") {
        match real_root(&path) {
            Ok(path) => return Ok(path),
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

/// Refuses all but the root: it alone has no `cgroup.events`
/// (`CFTYPE_NOT_ON_ROOT`, kernel/cgroup/cgroup.c).
fn real_root(path: &Path) -> Result<PathBuf, MountError> {
    if magic(path)? != CGROUP2_MAGIC {
        return Err(MountError::NotCgroup {
            path: path.to_owned(),
        });
    }
    match path.join("cgroup.events").try_exists() {
        Ok(false) => Ok(path.to_owned()),
        Ok(true) => Err(MountError::NotRoot {
            path: path.to_owned(),
        }),
        Err(source) => Err(MountError::Unreadable {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Refuses a pin directory that is not on a bpffs; it need not exist yet.
pub fn bpffs(pin_dir: &Path) -> Result<(), MountError> {
    let mut nearest = pin_dir;
    while !nearest.exists() {
        match nearest.parent() {
            Some(parent) => nearest = parent,
            None => break,
        }
    }
    if magic(nearest)? == BPFFS_MAGIC {
        return Ok(());
    }
    Err(MountError::NotBpffs {
        path: pin_dir.to_owned(),
    })
}

fn magic(path: &Path) -> Result<u64, MountError> {
    let stat = rustix::fs::statfs(path).map_err(|errno| MountError::Unreadable {
        path: path.to_owned(),
        source: errno.into(),
    })?;
    // Sign-extended on some targets; the magics have 32 bits.
    #[expect(clippy::cast_sign_loss, reason = "only the low 32 bits are compared")]
    let magic = stat.f_type as u64 & 0xffff_ffff;
    Ok(magic)
}

/// The mount points of one file-system type, in mount order.
fn of_type(mounts: &[u8], kind: &[u8]) -> Vec<PathBuf> {
    mounts
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ');
            let _source = fields.next()?;
            let point = fields.next()?;
            (fields.next()? == kind).then(|| unescaped(point))
        })
        .collect()
}

/// Undoes the octal escapes of space, tab, newline and backslash
/// (`mangle_path`, `fs/seq_file.c`).
fn unescaped(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        if let [
            b'\\',
            a @ b'0'..=b'3',
            b @ b'0'..=b'7',
            c @ b'0'..=b'7',
            after @ ..,
        ] = rest
        {
            path.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = after;
        } else {
            path.push(*first);
            rest = tail;
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_mounts_are_found_by_type_and_unescaped() {
        let mounts = b"tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                       cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                       cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                       none /mnt/a\\040b\\134 cgroup2 rw 0 0\n";
        let found = of_type(mounts, b"cgroup2");
        let expected: [PathBuf; 2] = ["/sys/fs/cgroup/unified".into(), "/mnt/a b\\".into()];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_root_is_found_on_this_host_and_a_cgroup_within_it_refused_b56() {
        let Ok(root) = cgroup_root(None) else {
            println!("skipped: no cgroup v2 root here");
            return;
        };
        assert!(root.join("cgroup.procs").exists());
        let inner = root.join(format!("merestone-policy-{}", std::process::id()));
        if std::fs::create_dir(&inner).is_err() {
            println!("skipped: making a cgroup needs root");
            return;
        }
        let outcome = cgroup_root(Some(&inner));
        std::fs::remove_dir(&inner).unwrap();
        let error = outcome.unwrap_err();
        assert!(matches!(error, MountError::NotRoot { .. }), "{error}");
    }

    #[test]
    fn what_is_no_cgroup_or_no_bpffs_is_refused_b56() {
        let dir = tempfile::tempdir().unwrap();
        let error = cgroup_root(Some(dir.path())).unwrap_err();
        assert!(matches!(error, MountError::NotCgroup { .. }), "{error}");
        let error = bpffs(&dir.path().join("not/there")).unwrap_err();
        assert!(matches!(error, MountError::NotBpffs { .. }), "{error}");
        let error = cgroup_root(Some(Path::new("/nonexistent"))).unwrap_err();
        assert!(matches!(error, MountError::Unreadable { .. }), "{error}");
    }
}
