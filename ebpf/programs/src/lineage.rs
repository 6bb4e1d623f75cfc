//! `tp_btf`: a guarded process's children are guarded, wherever they go.
//!
//! The fork tracepoint runs before the child does (kernel/fork.c
//! `kernel_clone`), so that there is no instant in which a child is free. A
//! process that leaves its guarded cgroup stays guarded, and that is reported.

use crate::emit;
use crate::guarded::{self, Recorded, Subject};
use crate::layout::{
    CGROUP_ANCESTORS, CGROUP_KN, CGROUP_ROOT, KN_ID, ROOT_HIERARCHY, SIGNAL_LIVE, TASK_PID,
    TASK_SIGNAL, TASK_TGID, field,
};
use crate::maps::TASKS;
use crate::stance;
use aya_ebpf::helpers::{bpf_ktime_get_boot_ns, bpf_probe_read_kernel, bpf_send_signal};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use merestone_abi::{EventKind, Hook, TREE_GROUP, Task, TaskFlags, Verdict};

const SIGKILL: u32 = 9;

/// `sched_process_fork(parent, child)`.
#[btf_tracepoint(function = "sched_process_fork")]
pub(crate) fn fork(ctx: BtfTracePointContext) -> i32 {
    let mask = guarded::armed();
    if mask == 0 {
        return 0;
    }
    let parent: *const u8 = ctx.arg(0);
    let child: *const u8 = ctx.arg(1);
    // SAFETY: both are task_structs.
    let parent_tgid: u32 = unsafe { field(parent, &TASK_TGID) };
    // SAFETY: as above.
    let child_tgid: u32 = unsafe { field(child, &TASK_TGID) };
    if parent_tgid == child_tgid {
        return 0; // a thread
    }
    let (subject, flags) = match guarded::task(parent_tgid) {
        Some(task) => (Subject::of_task(task, parent_tgid), task.flags.0),
        None => {
            let Some((group, boundary)) = guarded::current_group(mask) else {
                // An entry under the child's id is of a process that is gone.
                guarded::forget(child_tgid);
                return 0;
            };
            let subject = Subject {
                group,
                tgid: parent_tgid,
                boundary,
            };
            guarded::record(parent_tgid, &entry(&subject, 0, 0));
            (subject, 0)
        }
    };
    // SAFETY: as above.
    let child_pid: u32 = unsafe { field(child, &TASK_PID) };
    inherit(&subject, flags, child_tgid, child_pid);
    0
}

#[inline(always)]
fn inherit(subject: &Subject, flags: u32, child_tgid: u32, child_pid: u32) {
    guarded::forget(child_tgid);
    let recorded = guarded::record_newborn(child_tgid, &entry(subject, subject.tgid, flags));
    let held_by_cgroup = flags & (TaskFlags::TREE | TaskFlags::LEFT) == 0;
    if !matches!(recorded, Recorded::Yes) && !held_by_cgroup {
        // SAFETY: the helper signals the current process: the one that forks.
        unsafe { bpf_send_signal(SIGKILL) };
    }
    emit::send(EventKind::FORK, Hook::FORK, subject, |event| {
        emit::describe_current(event);
        event.other = child_tgid;
        event.pid = child_pid;
        if matches!(recorded, Recorded::No) {
            event.verdict = Verdict::DENY;
        }
    });
}

#[inline(always)]
fn entry(subject: &Subject, parent: u32, flags: u32) -> Task {
    Task {
        group: subject.group,
        // SAFETY: the helper takes no arguments and cannot fail.
        since_boot_ns: unsafe { bpf_ktime_get_boot_ns() },
        parent,
        flags: TaskFlags(flags),
        boundary: subject.boundary,
        ..Task::default()
    }
}

/// `sched_process_exec(task, old_pid, bprm)`.
#[btf_tracepoint(function = "sched_process_exec")]
pub(crate) fn exec(_ctx: BtfTracePointContext) -> i32 {
    let mask = guarded::armed();
    let Some(subject) = guarded::current(mask) else {
        return 0;
    };
    if guarded::task(subject.tgid).is_none() {
        guarded::record(subject.tgid, &entry(&subject, 0, 0));
    }
    emit::send(
        EventKind::EXEC,
        Hook::EXEC,
        &subject,
        emit::describe_current,
    );
    0
}

/// `sched_process_exit(task)`, once for each thread.
#[btf_tracepoint(function = "sched_process_exit")]
pub(crate) fn exit(ctx: BtfTracePointContext) -> i32 {
    let task: *const u8 = ctx.arg(0);
    // SAFETY: a task_struct.
    let tgid: u32 = unsafe { field(task, &TASK_TGID) };
    if stance::is_agent(tgid) && is_last_thread(task) {
        stance::agent_ended();
    }
    if guarded::armed() == 0 {
        return 0;
    }
    let Some(slot) = TASKS.get_ptr_mut(tgid) else {
        return 0;
    };
    if !is_last_thread(task) {
        return 0;
    }
    // SAFETY: `slot` is a map value.
    let entry = unsafe { *slot };
    let subject = Subject::of_task(&entry, tgid);
    if entry.flags.0 & (TaskFlags::TREE | TaskFlags::LEFT) == 0 {
        guarded::forget(tgid); // its cgroup holds what its sockets still send
    } else {
        // SAFETY: the helper takes no arguments and cannot fail.
        let now_ns = unsafe { bpf_ktime_get_boot_ns() };
        // SAFETY: `slot` is a map value.
        unsafe { (*slot).ended_boot_s = (now_ns / 1_000_000_000) as u32 };
        // SAFETY: as above.
        unsafe { (*slot).flags.0 = entry.flags.0 | TaskFlags::ENDED };
    }
    emit::send(
        EventKind::EXIT,
        Hook::EXIT,
        &subject,
        emit::describe_current,
    );
    0
}

/// Whether an exiting thread is the last of its process.
#[inline(always)]
fn is_last_thread(task: *const u8) -> bool {
    // SAFETY: a task_struct.
    let signal: *const u8 = unsafe { field(task, &TASK_SIGNAL) };
    // SAFETY: a signal_struct; `live` is an atomic_t, which is an int. It was
    // decremented before this tracepoint (kernel/exit.c `do_exit`).
    let live: i32 = unsafe { field(signal, &SIGNAL_LIVE) };
    live <= 0
}

/// `cgroup_attach_task(dst_cgrp, path, task, threadgroup)`, after the move.
#[btf_tracepoint(function = "cgroup_attach_task")]
pub(crate) fn attach(ctx: BtfTracePointContext) -> i32 {
    if guarded::armed() == 0 {
        return 0;
    }
    let cgroup: *const u8 = ctx.arg(0);
    let task: *const u8 = ctx.arg(2);
    // SAFETY: a cgroup.
    let root: *const u8 = unsafe { field(cgroup, &CGROUP_ROOT) };
    // SAFETY: a cgroup_root.
    let hierarchy: i32 = unsafe { field(root, &ROOT_HIERARCHY) };
    if hierarchy != 0 {
        return 0; // a cgroup v1 hierarchy
    }
    // SAFETY: a task_struct.
    let tgid: u32 = unsafe { field(task, &TASK_TGID) };
    let id = cgroup_id(cgroup);
    match TASKS.get_ptr_mut(tgid) {
        Some(slot) => moved(cgroup, id, tgid, slot),
        None => {
            if let Some(group) = guarded::group(id) {
                let subject = Subject {
                    group: id,
                    tgid,
                    boundary: group.boundary,
                };
                guarded::record(tgid, &entry(&subject, 0, 0));
            }
        }
    }
    0
}

#[inline(always)]
pub(crate) fn cgroup_id(cgroup: *const u8) -> u64 {
    // SAFETY: a cgroup.
    let kn: *const u8 = unsafe { field(cgroup, &CGROUP_KN) };
    // SAFETY: its kernfs_node.
    unsafe { field(kn, &KN_ID) }
}

#[inline(always)]
fn moved(cgroup: *const u8, id: u64, tgid: u32, slot: *mut Task) {
    // SAFETY: `slot` is a map value.
    let entry = unsafe { *slot };
    let gone = TaskFlags::LEFT | TaskFlags::ENDED;
    if entry.group & TREE_GROUP != 0 || entry.flags.0 & gone != 0 {
        return;
    }
    if id == entry.group || is_below(cgroup, entry.group) {
        return;
    }
    // SAFETY: `slot` is a map value.
    unsafe { (*slot).flags.0 = entry.flags.0 | TaskFlags::LEFT };
    let subject = Subject::of_task(&entry, tgid);
    emit::send(EventKind::LEFT, Hook::ATTACH, &subject, |event| {
        emit::describe_current(event);
        event.cgroup = id;
        event.other = tgid;
    });
}

/// Whether a cgroup lies below the guarded one.
#[inline(always)]
pub(crate) fn is_below(cgroup: *const u8, group: u64) -> bool {
    let Some(found) = guarded::group(group) else {
        return false;
    };
    ancestor_id(cgroup, i32::from(found.level)) == group
}

/// The id of the cgroup's ancestor at a level; for one below its own some
/// other number, or 0.
#[inline(always)]
pub(crate) fn ancestor_id(cgroup: *const u8, level: i32) -> u64 {
    let slot = CGROUP_ANCESTORS.load() as usize + 8 * (level as usize & 0x1f);
    // SAFETY: `cgroup` has its ancestors in a flexible array, one for each
    // level above its own; a read past it faults or finds another pointer,
    // whose id is then not the group's.
    match unsafe { bpf_probe_read_kernel(cgroup.wrapping_add(slot).cast::<u64>()) } {
        Ok(ancestor) => id_at(ancestor),
        Err(_) => 0,
    }
}

/// The id of a cgroup at an address that the verifier knows nothing of; 0 where
/// there is none.
#[inline(always)]
pub(crate) fn id_at(cgroup: u64) -> u64 {
    let kn_at = cgroup.wrapping_add(u64::from(CGROUP_KN.load())) as *const u64;
    // SAFETY: the helper survives any address.
    let Ok(kn) = (unsafe { bpf_probe_read_kernel(kn_at) }) else {
        return 0;
    };
    let id_at = kn.wrapping_add(u64::from(KN_ID.load())) as *const u64;
    // SAFETY: as above.
    unsafe { bpf_probe_read_kernel(id_at) }.unwrap_or(0)
}
