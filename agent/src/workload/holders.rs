//! Which processes hold a GPU open now, by their descriptors.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, StatxFlags};
use serde::Serialize;

use super::proc::Entry;

/// A process that holds a device open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// Clock ticks between boot and its start.
    pub start_time_ticks: u64,
    /// The devices, as (major, minor).
    pub devices: BTreeSet<(u32, u32)>,
}

/// The processes that hold a character device for which `is_gpu(major, minor)` is true.
///
/// A thread may have a table of descriptors of its own, so every thread's is looked at. A device that
/// was mapped and closed again is not seen. Nothing is opened, and no file system is waited for.
#[must_use]
pub fn gpu_holders(is_gpu: impl Fn(u32, u32) -> bool) -> Vec<Holder> {
    holders_in(Path::new("/proc"), &is_gpu)
}

fn holders_in(proc: &Path, is_gpu: &dyn Fn(u32, u32) -> bool) -> Vec<Holder> {
    numbers(rustix::fs::open(proc, DIRECTORY, Mode::empty()).ok())
        .into_iter()
        .filter_map(|pid| {
            let entry = Entry::open(proc, pid)?;
            let mut seen = BTreeMap::new();
            for thread in numbers(open(&entry, "task")) {
                look(&entry, thread, is_gpu, &mut seen);
            }
            let devices: BTreeSet<_> = seen.into_keys().collect();
            (!devices.is_empty())
                .then(|| entry.start_time_ticks())
                .flatten()
                .map(|start_time_ticks| Holder {
                    pid,
                    start_time_ticks,
                    devices,
                })
        })
        .collect()
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

fn open(entry: &Entry, name: &str) -> Option<OwnedFd> {
    rustix::fs::openat(entry.as_fd(), name, DIRECTORY, Mode::empty()).ok()
}

/// One thread's descriptors.
fn look(
    entry: &Entry,
    thread: u32,
    is_gpu: &dyn Fn(u32, u32) -> bool,
    seen: &mut BTreeMap<(u32, u32), u32>,
) {
    let folder = format!("task/{thread}/fd");
    for descriptor in numbers(open(entry, &folder)) {
        let path = format!("{folder}/{descriptor}");
        let flags = AtFlags::STATX_DONT_SYNC;
        let wanted = StatxFlags::TYPE;
        let Ok(stat) = rustix::fs::statx(entry.as_fd(), &path, flags, wanted) else {
            continue;
        };
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let device = (stat.stx_rdev_major, stat.stx_rdev_minor);
        if kind == FileType::CharacterDevice && is_gpu(device.0, device.1) {
            seen.insert(device, thread);
        }
    }
}

/// The entries of a folder whose names are numbers.
fn numbers(folder: Option<OwnedFd>) -> Vec<u32> {
    let Some(folder) = folder.and_then(|folder| Dir::new(folder).ok()) else {
        return Vec::new();
    };
    folder
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok())
        .collect()
}
