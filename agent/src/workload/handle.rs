//! From a cgroup's id, which is what the kernel side knows, to its path.
//!
//! The id is the inode's number and also its file handle, so the kernel finds it at once
//! (`kernfs_fh_to_dentry`, fs/kernfs/mount.c, since 5.5); without the capability for that
//! (`CAP_DAC_READ_SEARCH`) the tree is walked.

#![expect(
    unsafe_code,
    reason = "open_by_handle_at has no safe wrapper in our dependencies"
)]

use std::collections::VecDeque;
use std::ffi::c_int;
use std::fs::File;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::below;

/// `FILEID_KERNFS`, include/linux/exportfs.h.
const FILEID_KERNFS: c_int = 0xfe;
/// A deeper or larger tree is not walked to the end.
const MAX_WALKED: usize = 200_000;

/// `struct file_handle` with room for a kernfs id.
#[repr(C)]
struct KernfsHandle {
    bytes: u32,
    kind: c_int,
    id: [u8; 8],
}

/// The path of a cgroup below `root`, beginning with `/`; `None` when it is gone.
#[must_use]
pub fn cgroup_path(root: &Path, id: u64) -> Option<PathBuf> {
    match by_handle(root, id) {
        Ok(found) => below(root, &found),
        // Gone: the walk would not find it either.
        Err(libc::ESTALE) => None,
        Err(_) => below(root, &by_walk(root, id)?),
    }
}

fn by_handle(root: &Path, id: u64) -> Result<PathBuf, c_int> {
    let mount = File::open(root).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
    let mut handle = KernfsHandle {
        bytes: 8,
        kind: FILEID_KERNFS,
        id: id.to_ne_bytes(),
    };
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: `handle` has the layout of struct file_handle and as many bytes after it as it says;
    // `mount` is open during the call.
    let opened =
        unsafe { libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut handle).cast(), flags) };
    if opened < 0 {
        let error = std::io::Error::last_os_error();
        return Err(error.raw_os_error().unwrap_or(libc::EIO));
    }
    // SAFETY: the call gave a new descriptor that nothing else owns.
    let opened = unsafe { OwnedFd::from_raw_fd(opened) };
    let link = format!("/proc/self/fd/{}", opened.as_raw_fd());
    let path = std::fs::read_link(link).ok().ok_or(libc::EIO)?;
    // A removed cgroup that something still holds has no path to look at.
    let still = std::fs::metadata(&path).ok().ok_or(libc::ESTALE)?;
    if still.ino() == id {
        Ok(path)
    } else {
        Err(libc::ESTALE)
    }
}

/// Breadth first: services and containers are near the root.
fn by_walk(root: &Path, id: u64) -> Option<PathBuf> {
    if std::fs::metadata(root).ok()?.ino() == id {
        return Some(root.to_owned());
    }
    let mut next = VecDeque::from([root.to_owned()]);
    let mut walked = 0;
    while let Some(folder) = next.pop_front() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.ino() == id {
                return Some(entry.path());
            }
            walked += 1;
            if walked > MAX_WALKED {
                return None;
            }
            next.push_back(entry.path());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{by_handle, by_walk};
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;

    #[test]
    fn a_folder_is_found_by_its_inode_and_a_missing_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b/c");
        std::fs::create_dir_all(&deep).unwrap();
        let id = std::fs::metadata(&deep).unwrap().ino();
        assert_eq!(by_walk(root.path(), id), Some(deep));
        assert_eq!(by_walk(root.path(), u64::MAX), None);
    }

    #[test]
    fn a_handle_on_another_file_system_is_refused_and_not_believed() {
        assert!(by_handle(Path::new("/proc"), 1).is_err());
        assert!(by_handle(Path::new("/nonexistent"), 1).is_err());
    }

    #[test]
    fn the_kernel_gives_a_cgroup_for_its_id_without_a_walk() {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mut cgroup2 = mounts.lines().filter(|line| line.contains(" cgroup2 "));
        let Some(root) = cgroup2.next().and_then(|line| line.split(' ').nth(1)) else {
            println!("skipped: the_kernel_gives_a_cgroup_for_its_id_without_a_walk (no cgroup v2)");
            return;
        };
        let root = Path::new(root);
        let child = std::fs::read_dir(root)
            .unwrap()
            .flatten()
            .find(|entry| entry.path().is_dir());
        let wanted = child.map_or_else(|| root.to_owned(), |entry| entry.path());
        let id = std::fs::metadata(&wanted).unwrap().ino();
        match by_handle(root, id) {
            Err(libc::EPERM) => println!(
                "skipped: the_kernel_gives_a_cgroup_for_its_id_without_a_walk (CAP_DAC_READ_SEARCH)"
            ),
            found => assert_eq!(found, Ok(wanted)),
        }
    }
}
