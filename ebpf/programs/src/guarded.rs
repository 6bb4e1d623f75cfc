//! Who is guarded: the question every hook asks first, and the answer to the
//! device hook's "guard this one".
//!
//! A task is guarded by its own entry, by its cgroup, or by a cgroup above it.
//! A host on which nothing was ever guarded pays one array read a packet; on
//! any other, "not guarded" is remembered for each cgroup and each process
//! until somebody becomes guarded (`clear`).

use crate::clear;
use crate::emit;
use crate::maps::{ARMED, GROUPS, TASK_COUNT, TASKS, TREE_ROOTS};
use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_pid_tgid,
};
use merestone_abi::{
    Armed, Group, GroupId, LostReason, MAX_LEVEL, TREE_GROUP, Task, TaskFlags, maps,
};

/// How many processes may be recorded before the headroom is used.
#[unsafe(no_mangle)]
static TASK_LIMIT: Global<u32> = Global::new(maps::MAX_TASKS);

/// The guarded group that something is judged as part of.
#[derive(Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) group: GroupId,
    /// The process, 0 where the hook cannot know.
    pub(crate) tgid: u32,
    pub(crate) boundary: u16,
}

impl Subject {
    #[inline(always)]
    pub(crate) fn of_task(task: &Task, tgid: u32) -> Self {
        Self {
            group: task.group,
            tgid,
            boundary: task.boundary,
        }
    }

    /// Whether only a process tree is guarded, so that no cgroup holds it.
    #[inline(always)]
    pub(crate) fn is_tree(&self) -> bool {
        self.group & TREE_GROUP != 0
    }
}

/// What is guarded at all; 0 for nothing.
#[inline(always)]
pub(crate) fn armed() -> u64 {
    let kernel = ARMED.get(Armed::KERNEL).copied().unwrap_or(u64::MAX);
    let agent = ARMED.get(Armed::AGENT).copied().unwrap_or(u64::MAX);
    kernel | agent
}

/// Declares that something is guarded; before it is, so that no hook looks away.
#[inline(always)]
pub(crate) fn arm(mask: u64) {
    if let Some(slot) = ARMED.get_ptr_mut(Armed::KERNEL) {
        emit::set_bits(slot, mask);
    }
}

/// Grows after each change of who is guarded; 0 while nobody ever was. An
/// answer may be remembered under the epoch that was read before it was asked
/// for, with a barrier in between.
#[inline(always)]
pub(crate) fn epoch() -> u32 {
    let kernel = ARMED.get(Armed::KERNEL_EPOCH).copied().unwrap_or(0);
    let agent = ARMED.get(Armed::AGENT_EPOCH).copied().unwrap_or(0);
    (kernel + agent) as u32
}

/// Ends every remembered "not guarded". To be called after the change.
#[inline(always)]
pub(crate) fn changed() {
    if let Some(slot) = ARMED.get_ptr_mut(Armed::KERNEL_EPOCH) {
        emit::fetch_add(slot, 1); // and a barrier: the change is seen before it
    }
}

/// The calling thread's group id.
#[inline(always)]
pub(crate) fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// A live process's own entry.
#[inline(always)]
pub(crate) fn task(tgid: u32) -> Option<&'static Task> {
    // SAFETY: entries are preallocated; a concurrent removal can at worst show
    // another guarded process's group, which is refused no less.
    let task = unsafe { TASKS.get(tgid) }?;
    (task.flags.0 & TaskFlags::ENDED == 0).then_some(task)
}

/// A process's entry, also of one that has just ended: what it left in its
/// sockets is still to be judged.
#[inline(always)]
pub(crate) fn task_even_ended(tgid: u32) -> Option<&'static Task> {
    // SAFETY: as in `task`.
    unsafe { TASKS.get(tgid) }
}

/// A guarded cgroup's entry.
#[inline(always)]
pub(crate) fn group(id: GroupId) -> Option<&'static Group> {
    // SAFETY: as in `task`.
    unsafe { GROUPS.get(id) }
}

/// Finds the guarded cgroup among `own` and, by `ancestor`, those above it.
#[inline(always)]
pub(crate) fn group_above(
    mask: u64,
    own: u64,
    ancestor: impl Fn(i32) -> u64,
) -> Option<(GroupId, u16)> {
    let epoch = epoch();
    if clear::has_cgroup(own, epoch) {
        return None;
    }
    emit::fence();
    let found = search_above(mask, own, &ancestor);
    if found.is_none() {
        clear::remember_cgroup(own, epoch, is_tree_root(ancestor(1)));
    }
    found
}

#[inline(always)]
fn search_above(mask: u64, own: u64, ancestor: &impl Fn(i32) -> u64) -> Option<(GroupId, u16)> {
    if let Some(found) = group(own) {
        return Some((own, found.boundary));
    }
    // Only levels at which some cgroup is guarded are asked for.
    for level in 1..MAX_LEVEL + 1 {
        if mask & Armed::level(level) == 0 {
            continue;
        }
        let id = ancestor(level as i32);
        if id == 0 {
            return None;
        }
        if let Some(found) = group(id) {
            return Some((id, found.boundary));
        }
    }
    None
}

/// The calling task's guarded cgroup.
#[inline(always)]
pub(crate) fn current_group(mask: u64) -> Option<(GroupId, u16)> {
    // SAFETY: the helper takes no arguments and cannot fail.
    let own = unsafe { bpf_get_current_cgroup_id() };
    // SAFETY: the helper checks the level itself.
    group_above(mask, own, |level| unsafe {
        bpf_get_current_ancestor_cgroup_id(level)
    })
}

/// Whether the calling task is known not to be guarded: the first question of
/// a hook that everybody passes, so that the rest can lie out of its way.
#[inline(always)]
pub(crate) fn current_is_clear() -> bool {
    let epoch = epoch();
    if epoch == 0 {
        return true;
    }
    // SAFETY: the helper takes no arguments and cannot fail.
    clear::has_task(current_tgid(), epoch)
        && clear::has_cgroup(unsafe { bpf_get_current_cgroup_id() }, epoch)
}

/// What the calling task is judged as, if it is guarded.
#[inline(always)]
pub(crate) fn current(mask: u64) -> Option<Subject> {
    if mask == 0 {
        return None;
    }
    let tgid = current_tgid();
    let epoch = epoch();
    if !clear::has_task(tgid, epoch) {
        emit::fence();
        if let Some(task) = task(tgid) {
            return Some(Subject::of_task(task, tgid));
        }
        clear::remember_task(tgid, epoch);
    }
    let (group, boundary) = current_group(mask)?;
    Some(Subject {
        group,
        tgid,
        boundary,
    })
}

/// Whether the calling task's cgroup is one that is never guarded whole: the
/// root, or below a cgroup of login sessions.
#[inline(always)]
pub(crate) fn in_tree_cgroup() -> bool {
    // SAFETY: the helper takes no arguments and cannot fail.
    let own = unsafe { bpf_get_current_cgroup_id() };
    match clear::is_tree_cgroup(own, epoch()) {
        Some(known) => known,
        // SAFETY: the helper checks the level itself.
        None => is_tree_root(unsafe { bpf_get_current_ancestor_cgroup_id(1) }),
    }
}

/// Whether a cgroup's ancestor at level 1 says that the cgroup is never guarded
/// whole; 0 means there is none, so that the cgroup is the root.
#[inline(always)]
fn is_tree_root(level_1: u64) -> bool {
    // SAFETY: entries are written once, before the programs are attached.
    level_1 == 0 || unsafe { TREE_ROOTS.get(level_1) }.is_some()
}

/// How deep the calling task's cgroup lies; 0 for deeper than [`MAX_LEVEL`].
#[inline(always)]
pub(crate) fn current_level(own: u64) -> u32 {
    for level in 1..MAX_LEVEL + 1 {
        // SAFETY: the helper checks the level itself.
        if unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) } == own {
            return level;
        }
    }
    0
}

/// A place in the task map was, or was not, to be had.
pub(crate) enum Recorded {
    /// There is an entry now.
    Yes,
    /// There is, but it took a place of the headroom.
    Barely,
    /// There is none.
    No,
}

/// Records a process as guarded; an entry that is already there stays, unless
/// its process has ended.
#[inline(always)]
pub(crate) fn record(tgid: u32, entry: &Task) -> Recorded {
    if task(tgid).is_some() {
        return Recorded::Yes;
    }
    let recorded = record_newborn(tgid, entry);
    changed();
    recorded
}

/// Records a process that has not run yet: nothing can be remembered of it but
/// what another of the same id has left.
#[inline(always)]
pub(crate) fn record_newborn(tgid: u32, entry: &Task) -> Recorded {
    let recorded = enter(tgid, entry);
    clear::forget_task(tgid);
    recorded
}

#[inline(always)]
fn enter(tgid: u32, entry: &Task) -> Recorded {
    if task(tgid).is_some() {
        return Recorded::Yes;
    }
    if TASKS.get_ptr(tgid).is_some() {
        // The process it named has ended: the newcomer takes the place over.
        return match TASKS.insert(tgid, entry, u64::from(BPF_ANY)) {
            Ok(()) => Recorded::Yes,
            Err(_) => Recorded::No,
        };
    }
    if TASKS.insert(tgid, entry, u64::from(BPF_NOEXIST)).is_err() {
        if task(tgid).is_some() {
            return Recorded::Yes;
        }
        emit::lost(LostReason::TASKS_FULL);
        return Recorded::No;
    }
    let Some(added) = TASK_COUNT.get_ptr_mut(Armed::KERNEL) else {
        return Recorded::Yes;
    };
    emit::add(added, 1);
    let removed = TASK_COUNT.get(Armed::AGENT).copied().unwrap_or(0);
    // SAFETY: `added` is a map value.
    let held = unsafe { added.read_volatile() }.wrapping_sub(removed);
    if held > u64::from(TASK_LIMIT.load()) && held < u64::MAX / 2 {
        emit::lost(LostReason::TASKS_FULL);
        return Recorded::Barely;
    }
    Recorded::Yes
}

/// Takes a process's entry away.
#[inline(always)]
pub(crate) fn forget(tgid: u32) {
    if TASKS.remove(tgid).is_ok()
        && let Some(added) = TASK_COUNT.get_ptr_mut(Armed::KERNEL)
    {
        emit::add(added, u64::MAX); // minus one
    }
}
