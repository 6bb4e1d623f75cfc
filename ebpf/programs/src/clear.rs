//! Remembers who is *not* guarded, so that everybody else pays next to nothing.
//!
//! Two direct-mapped tables, one word a place, so that a word is read and
//! written whole: whose it is, and the epoch in which the answer was found. An
//! answer counts only in that epoch; [`guarded::changed`](crate::guarded) ends
//! it. Two that share a place take turns. Nothing here ever says that somebody
//! is guarded.

use crate::maps::{CLEAR_CGROUPS, CLEAR_TASKS};
use aya_ebpf::maps::Array;
use merestone_abi::maps::{CLEAR_CGROUP_PLACES, CLEAR_TASK_PLACES};

/// Cgroup ids count up from 1 (fs/kernfs/dir.c `__kernfs_new_node`); one past
/// 32 bits is not remembered.
#[inline(always)]
fn word(id: u64, epoch: u32, is_tree: bool) -> u64 {
    id << 32 | u64::from(epoch << 1) | u64::from(is_tree)
}

#[inline(always)]
fn read(table: &Array<u64>, place: u32) -> u64 {
    match table.get_ptr(place) {
        // SAFETY: a map value; volatile, because others write it.
        Some(slot) => unsafe { slot.read_volatile() },
        None => 0,
    }
}

#[inline(always)]
fn write(table: &Array<u64>, place: u32, word: u64) {
    if let Some(slot) = table.get_ptr_mut(place) {
        // SAFETY: as in `read`.
        unsafe { slot.write_volatile(word) };
    }
}

#[inline(always)]
fn cgroup_place(id: u64) -> u32 {
    id as u32 & (CLEAR_CGROUP_PLACES - 1)
}

#[inline(always)]
fn task_place(tgid: u32) -> u32 {
    tgid & (CLEAR_TASK_PLACES - 1)
}

/// Whether neither a cgroup nor one above it is guarded, as far as is known.
#[inline(always)]
pub(crate) fn has_cgroup(id: u64, epoch: u32) -> bool {
    is_tree_cgroup(id, epoch).is_some()
}

/// Of a cgroup known not to be guarded, whether only trees ever are in it.
#[inline(always)]
pub(crate) fn is_tree_cgroup(id: u64, epoch: u32) -> Option<bool> {
    let found = read(&CLEAR_CGROUPS, cgroup_place(id));
    (found | 1 == word(id, epoch, true) && id >> 32 == 0 && id != 0).then_some(found & 1 != 0)
}

/// Remembers that no cgroup from this one up is guarded.
#[inline(always)]
pub(crate) fn remember_cgroup(id: u64, epoch: u32, is_tree: bool) {
    if id >> 32 == 0 {
        write(&CLEAR_CGROUPS, cgroup_place(id), word(id, epoch, is_tree));
    }
}

/// Whether a process has no entry, as far as is known.
#[inline(always)]
pub(crate) fn has_task(tgid: u32, epoch: u32) -> bool {
    read(&CLEAR_TASKS, task_place(tgid)) == word(tgid.into(), epoch, false) && tgid != 0
}

/// Remembers that a process has no entry.
#[inline(always)]
pub(crate) fn remember_task(tgid: u32, epoch: u32) {
    write(
        &CLEAR_TASKS,
        task_place(tgid),
        word(tgid.into(), epoch, false),
    );
}

/// Forgets what is remembered of a process.
#[inline(always)]
pub(crate) fn forget_task(tgid: u32) {
    write(&CLEAR_TASKS, task_place(tgid), 0);
}
