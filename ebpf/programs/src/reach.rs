//! BPF LSM: a guarded process does not reach into a process outside its group.
//!
//! Whoever may debug another process can have it send: by ptrace(2), by
//! process_vm_writev(2), by /proc/PID/mem, or by taking its descriptors. Within
//! the group all of it stays free, which debuggers and checkpoints need; to
//! look at another process (PTRACE_MODE_READ) is free as well. Nor does it type
//! into a terminal that an operator's shell reads. It does not see memory that
//! both share already, and of a terminal not what is written to it.

use crate::decide;
use crate::guarded::{self, Subject};
use crate::layout::{CSS_SET_CGROUP, TASK_CGROUPS, TASK_TGID, field};
use crate::lineage;
use crate::power;
use crate::tamper;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use merestone_abi::{Hook, Reason};

/// include/linux/ptrace.h
const PTRACE_MODE_ATTACH: u32 = 2;

// include/uapi/asm-generic/ioctls.h: to type into a terminal, and to paste into
// a console what was selected there.
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;

/// `file_ioctl(file, cmd, arg)`.
#[lsm(hook = "file_ioctl")]
pub(crate) fn reach_terminal(ctx: LsmContext) -> i32 {
    let command: u32 = ctx.arg(1);
    if command != TIOCSTI && command != TIOCLINUX {
        return 0;
    }
    let before: i32 = ctx.arg(3);
    if before != 0 {
        return before;
    }
    let Some(subject) = guarded::current(guarded::armed()) else {
        return 0;
    };
    decide::answer(power::refuse(
        Hook::LSM_PTRACE,
        Reason::INTRUSION,
        &subject,
        command,
    ))
}

/// `ptrace_access_check(child, mode)`.
#[lsm(hook = "ptrace_access_check")]
pub(crate) fn reach(ctx: LsmContext) -> i32 {
    let mode: u32 = ctx.arg(1);
    if mode & PTRACE_MODE_ATTACH == 0 {
        return 0;
    }
    let before: i32 = ctx.arg(2);
    if before != 0 {
        return before;
    }
    let Some(subject) = guarded::current(guarded::armed()) else {
        return 0;
    };
    let task: *const u8 = ctx.arg(0);
    if is_in_group(task, &subject) || tamper::is_agent_itself() {
        return 0;
    }
    decide::answer(power::refuse(
        Hook::LSM_PTRACE,
        Reason::INTRUSION,
        &subject,
        mode,
    ))
}

/// Whether a process is guarded with the calling one.
#[inline(always)]
fn is_in_group(task: *const u8, subject: &Subject) -> bool {
    // SAFETY: a task_struct.
    let tgid: u32 = unsafe { field(task, &TASK_TGID) };
    if guarded::task(tgid).is_some_and(|task| task.group == subject.group) {
        return true;
    }
    if subject.is_tree() {
        return false;
    }
    // SAFETY: a task_struct.
    let set: *const u8 = unsafe { field(task, &TASK_CGROUPS) };
    if set.is_null() {
        return false;
    }
    // SAFETY: its css_set.
    let cgroup: *const u8 = unsafe { field(set, &CSS_SET_CGROUP) };
    if cgroup.is_null() {
        return false;
    }
    lineage::cgroup_id(cgroup) == subject.group || lineage::is_below(cgroup, subject.group)
}
