//! The agent's process: not ended, stopped, starved by limits of its own, or
//! debugged; nor is what may be the next agent.

use super::{Try, armed, current_task, executable, is_agents, judge, place};
use crate::guarded;
use crate::layout::{BPRM_FILE, FILE_INODE, TASK_PTRACE, TASK_REAL_PARENT, TASK_TGID, field};
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use merestone_abi::{Attempt, Glass, Hook};

/// include/linux/ptrace.h
const PTRACE_MODE_ATTACH: u32 = 2;

// include/uapi/asm-generic/signal.h
const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGABRT: i32 = 6;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;
const SIGCONT: i32 = 18;
const SIGURG: i32 = 23;
const SIGWINCH: i32 = 28;

/// `task_kill(p, info, sig, cred)`. What the kernel itself sends does not come
/// here (kernel/signal.c `check_kill_permission`).
#[lsm(hook = "task_kill")]
pub(crate) fn tamper_kill(ctx: LsmContext) -> i32 {
    let Some(agent) = armed() else {
        return 0;
    };
    let task: *const u8 = ctx.arg(0);
    // SAFETY: a task_struct.
    let target: u32 = unsafe { field(task, &TASK_TGID) };
    if target != agent.tgid {
        return 0;
    }
    let signal: i32 = ctx.arg(2);
    match signal {
        0 | SIGHUP | SIGCHLD | SIGCONT | SIGURG | SIGWINCH => return 0,
        // An orderly stop, and the watchdog's: from the service manager.
        SIGTERM | SIGINT | SIGABRT if is_service_manager(task) => return 0,
        _ => {}
    }
    judge(&Try {
        hook: Hook::LSM_KILL,
        attempt: Attempt::KILL,
        action: Glass::SIGNAL,
        id: signal as u32,
        target,
    })
}

/// Whether the calling task is pid 1, or the process that started `task`.
#[inline(always)]
fn is_service_manager(task: *const u8) -> bool {
    let caller = guarded::current_tgid();
    // SAFETY: a task_struct.
    let parent: *const u8 = unsafe { field(task, &TASK_REAL_PARENT) };
    if caller == 1 {
        return true;
    }
    if parent.is_null() {
        return false;
    }
    // SAFETY: a task_struct.
    let parent: u32 = unsafe { field(parent, &TASK_TGID) };
    caller == parent
}

/// `task_setrlimit(p, resource, new_rlim)`: a limit on processor time kills.
#[lsm(hook = "task_setrlimit")]
pub(crate) fn tamper_limit(ctx: LsmContext) -> i32 {
    let Some(agent) = armed() else {
        return 0;
    };
    let task: *const u8 = ctx.arg(0);
    // SAFETY: a task_struct.
    let target: u32 = unsafe { field(task, &TASK_TGID) };
    if target != agent.tgid {
        return 0;
    }
    let resource: u32 = ctx.arg(1);
    judge(&Try {
        hook: Hook::LSM_KILL,
        attempt: Attempt::LIMIT,
        action: Glass::SIGNAL,
        id: resource,
        target,
    })
}

/// `ptrace_access_check(child, mode)`: also `/proc/PID/mem`,
/// `process_vm_writev` and `pidfd_getfd`. Whoever runs the agent's executable
/// is kept from it, because it may be the next agent.
#[lsm(hook = "ptrace_access_check")]
pub(crate) fn tamper_trace(ctx: LsmContext) -> i32 {
    let mode: u32 = ctx.arg(1);
    if mode & PTRACE_MODE_ATTACH == 0 {
        return 0;
    }
    let Some(agent) = armed() else {
        return 0;
    };
    let task: *const u8 = ctx.arg(0);
    // SAFETY: a task_struct.
    let target: u32 = unsafe { field(task, &TASK_TGID) };
    if target != agent.tgid && !is_agents(agent, executable(task)) {
        return 0;
    }
    judge(&Try {
        hook: Hook::LSM_PTRACE,
        attempt: Attempt::TRACE,
        action: Glass::TRACE,
        id: mode,
        target,
    })
}

/// `bprm_check_security(bprm)`: who is debugged cannot become the agent.
#[lsm(hook = "bprm_check_security")]
pub(crate) fn tamper_exec(ctx: LsmContext) -> i32 {
    let Some(agent) = armed() else {
        return 0;
    };
    // SAFETY: the current task.
    let traced: u32 = unsafe { field(current_task(), &TASK_PTRACE) };
    if traced == 0 {
        return 0;
    }
    let bprm: *const u8 = ctx.arg(0);
    // SAFETY: a linux_binprm.
    let file: *const u8 = unsafe { field(bprm, &BPRM_FILE) };
    // SAFETY: a file.
    if file.is_null() || !is_agents(agent, place(unsafe { field(file, &FILE_INODE) })) {
        return 0;
    }
    judge(&Try {
        hook: Hook::LSM_PTRACE,
        attempt: Attempt::TRACE,
        action: Glass::TRACE,
        id: 0,
        target: guarded::current_tgid(),
    })
}
