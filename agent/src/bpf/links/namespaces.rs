//! Finds the network namespaces of a host.
//!
//! The kernel has no list of them for user space: each is found through what
//! keeps it alive. One that only a socket or a link keeps is not found; nobody
//! can start to send in it but by a descriptor, which a walk finds.

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// A namespace, open.
#[derive(Debug)]
pub(super) struct Found {
    /// Its number, as in `net:[4026531840]`.
    pub(super) inode: u64,
    /// Only a thread or an open file shows it, so that it takes a walk.
    pub(super) hidden: bool,
    handle: OwnedFd,
}

impl Found {
    /// Moves the calling thread into it.
    pub(super) fn enter(&self) -> io::Result<()> {
        let network = Some(LinkNameSpaceType::Network);
        Ok(move_into_link_name_space(self.handle.as_fd(), network)?)
    }
}

/// Every namespace, each once. With `walks`, of threads and open files too.
pub(super) fn all(walks: bool) -> Vec<Found> {
    let mut all: BTreeMap<u64, Found> = BTreeMap::new();
    // Opened at once: a process or thread that ends before it is opened must not hide a namespace
    // that others keep alive as well.
    let mut note = |inode: Option<u64>, place: PathBuf, hidden: bool| {
        let Some(inode) = inode else { return };
        if let Some(known) = all.get_mut(&inode) {
            known.hidden &= hidden;
        } else if let Some(found) = open(&place, hidden) {
            all.entry(found.inode).or_insert(found);
        }
    };
    // What this process itself holds open must not keep a namespace alive.
    let itself = PathBuf::from(format!("/proc/{}", std::process::id()));
    for process in numbered(Path::new("/proc")) {
        let own = process.join("ns/net");
        note(inode(&own), own, false);
        if !walks || process == itself {
            continue;
        }
        for thread in numbered(&process.join("task")) {
            let own = thread.join("ns/net");
            note(inode(&own), own, true);
        }
        for file in numbered(&process.join("fd")) {
            note(named(&file), file, true);
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for (inode, place) in mounted(&mounts) {
        note(Some(inode), place.into(), false);
    }
    all.into_values().collect()
}

/// Entries of a directory whose names are numbers.
fn numbered(place: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.parse::<u32>().is_ok())
    })
}

/// The namespace behind a link of `/proc/PID/ns`.
fn inode(path: &Path) -> Option<u64> {
    rustix::fs::stat(path).ok().map(|stat| stat.st_ino)
}

/// The network namespace that an open file is of.
fn named(path: &Path) -> Option<u64> {
    number(fs::read_link(path).ok()?.to_str()?)
}

/// `net:[4026531840]`.
fn number(text: &str) -> Option<u64> {
    text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// Namespaces that are mounted somewhere, as `ip netns` and container engines
/// do it (proc(5), `/proc/PID/mountinfo`: the fourth field is the root in the
/// file system, the fifth the mount point).
fn mounted(mountinfo: &str) -> impl Iterator<Item = (u64, &str)> {
    mountinfo.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(3);
        let inode = number(words.next()?)?;
        Some((inode, words.next()?))
    })
}

/// None where it has ended meanwhile.
fn open(place: &Path, hidden: bool) -> Option<Found> {
    let handle = rustix::fs::open(place, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let inode = rustix::fs::fstat(&handle).ok()?.st_ino;
    Some(Found {
        inode,
        hidden,
        handle,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_namespace_is_read_and_other_mounts_are_not() {
        let text = "26 1 0:23 / /proc rw shared:12 - proc proc rw\n\
                    601 25 0:4 net:[4026532281] /run/netns/blue rw shared:9 - nsfs nsfs rw\n\
                    602 25 0:4 mnt:[4026532282] /run/mnt rw - nsfs nsfs rw\n";
        let found: Vec<_> = mounted(text).collect();
        assert_eq!(found, [(4_026_532_281, "/run/netns/blue")]);
    }

    const CHURN: &str = "MERESTONE_TEST_CHURN";

    /// Not a test: what a child process runs. Threads enter the namespace that is its standard
    /// input, and end.
    #[test]
    fn churn() {
        if std::env::var_os(CHURN).is_none() {
            return;
        }
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while std::time::Instant::now() < until {
            let network = Some(LinkNameSpaceType::Network);
            let enter = move || move_into_link_name_space(io::stdin().as_fd(), network).unwrap();
            std::thread::spawn(enter).join().unwrap();
        }
    }

    #[test]
    fn a_namespace_that_a_file_keeps_is_found_while_threads_in_it_end_b10() {
        let made = std::thread::spawn(|| {
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).ok()?;
            open(Path::new("/proc/thread-self/ns/net"), true)
        });
        let Some(kept) = made.join().unwrap() else {
            return; // not root
        };
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "bpf::links::namespaces::tests::churn"])
            .env(CHURN, "1")
            .stdin(kept.handle.try_clone().unwrap())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let missed = (0..100)
            .filter(|_| !all(true).iter().any(|found| found.inode == kept.inode))
            .count();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(missed, 0);
    }

    #[test]
    fn this_thread_s_own_namespace_is_found_without_a_walk() {
        let own = inode(Path::new("/proc/thread-self/ns/net"));
        assert!(all(false).iter().any(|found| Some(found.inode) == own));
    }
}
