//! BPF LSM: root outside the agent cannot take enforcement away.
//!
//! Refuses, to everybody but the agent, what would detach, unpin, unmount or
//! rewrite what holds, and what would end, stop or debug the agent. When the
//! agent has ended, a process that runs the agent's own executable, and that
//! nobody debugs, may take over. An open break-glass lets an operator in;
//! that is reported no less.
//!
//! It does not judge what the kernel does of itself (the OOM killer), a move of
//! the agent to another cgroup, which no hook sees, nor what code in the kernel
//! can do (a module).

mod files;
mod mounts;
mod objects;
mod process;

pub(crate) use objects::introduce;

use crate::decide::EPERM;
use crate::emit;
use crate::guarded::{self, Subject};
use crate::layout::{
    FILE_INODE, INODE_INO, INODE_SB, MM_EXE_FILE, SB_DEV, TASK_MM, TASK_PTRACE, field,
};
use crate::maps::{AGENT, COUNTERS, GLASS, PROTECTED};
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use merestone_abi::{
    AgentState, Attempt, EventKind, Glass, Hook, Protected, Reason, Verdict, counter_slot,
};

/// One attempt on something protected.
#[derive(Clone, Copy)]
struct Try {
    hook: Hook,
    attempt: Attempt,
    /// The bit of an open break-glass that lets it through.
    action: u32,
    /// The object's number.
    id: u32,
    /// The process it is aimed at.
    target: u32,
}

/// The agent's entry, where anything is protected at all.
#[inline(always)]
fn armed() -> Option<&'static AgentState> {
    AGENT.get(0).filter(|agent| agent.armed != 0)
}

#[inline(always)]
fn is_protected(kind: u32, id: u64) -> bool {
    // SAFETY: the value is not read.
    unsafe { PROTECTED.get(Protected::new(kind, id)) }.is_some()
}

/// Judges an attempt of the calling task.
#[inline(never)]
fn judge(attempt: &Try) -> i32 {
    let Some(agent) = armed() else {
        return 0;
    };
    let tgid = guarded::current_tgid();
    if tgid == agent.tgid {
        return 0;
    }
    let is_gone = agent.tgid == 0;
    if is_gone && is_successor(agent) {
        return 0;
    }
    let mut actions = attempt.action;
    if is_gone {
        actions |= Glass::SUCCEED;
    }
    let verdict = if is_open(actions) {
        Verdict::ALLOW
    } else {
        Verdict::DENY
    };
    report(attempt, verdict, tgid);
    if verdict == Verdict::ALLOW { 0 } else { EPERM }
}

/// Whether a break-glass is open for one of `actions`, by the kernel's clock.
#[inline(always)]
fn is_open(actions: u32) -> bool {
    // SAFETY: the helper takes no arguments and cannot fail.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    GLASS
        .get(0)
        .is_some_and(|glass| glass.actions & actions != 0 && now < glass.until_boot_ns)
}

#[inline(always)]
fn report(attempt: &Try, verdict: Verdict, tgid: u32) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter_slot(attempt.hook, verdict, 0)) {
        emit::add(slot, 1);
    }
    let subject = Subject {
        group: 0,
        tgid,
        boundary: 0,
    };
    emit::send(EventKind::TAMPER, attempt.hook, &subject, |event| {
        emit::describe_current(event);
        event.other = attempt.target;
        event.major = u32::from(attempt.attempt.0);
        event.minor = attempt.id;
        event.verdict = verdict;
        event.reason = Reason::TAMPER;
    });
}

/// The file system and inode number of an inode.
#[inline(always)]
fn place(inode: *const u8) -> (u32, u64) {
    if inode.is_null() {
        return (0, 0);
    }
    // SAFETY: an inode.
    let sb: *const u8 = unsafe { field(inode, &INODE_SB) };
    // SAFETY: as above.
    let ino: u64 = unsafe { field(inode, &INODE_INO) };
    if sb.is_null() {
        return (0, 0);
    }
    // SAFETY: a super_block.
    (unsafe { field(sb, &SB_DEV) }, ino)
}

/// Where a task's executable lies.
#[inline(always)]
fn executable(task: *const u8) -> (u32, u64) {
    // SAFETY: a task_struct.
    let mm: *const u8 = unsafe { field(task, &TASK_MM) };
    if mm.is_null() {
        return (0, 0);
    }
    // SAFETY: an mm_struct.
    let file: *const u8 = unsafe { field(mm, &MM_EXE_FILE) };
    if file.is_null() {
        return (0, 0);
    }
    // SAFETY: a file.
    place(unsafe { field(file, &FILE_INODE) })
}

#[inline(always)]
fn is_agents(agent: &AgentState, (dev, ino): (u32, u64)) -> bool {
    ino != 0 && ino == agent.exe_ino && dev == agent.exe_dev
}

#[inline(always)]
pub(crate) fn current_task() -> *const u8 {
    // SAFETY: the helper takes no arguments; it gives the current task.
    unsafe { bpf_get_current_task_btf() }.cast::<u8>()
}

/// Whether the calling task may take over from an agent that has ended: it
/// runs the agent's executable, and nobody debugs it.
#[inline(always)]
fn is_successor(agent: &AgentState) -> bool {
    let task = current_task();
    // SAFETY: a task_struct.
    let traced: u32 = unsafe { field(task, &TASK_PTRACE) };
    traced == 0 && is_agents(agent, executable(task))
}

/// Whether the calling task is the agent, or may take over from one that has
/// ended. What is refused to a guarded group that way is how the agent itself
/// holds links and loads programs; its packets are judged like anybody's.
#[inline(always)]
pub(crate) fn is_agent_itself() -> bool {
    let Some(agent) = AGENT.get(0) else {
        return false;
    };
    if agent.tgid == 0 {
        return agent.exe_ino != 0 && is_successor(agent);
    }
    agent.tgid == guarded::current_tgid()
}
