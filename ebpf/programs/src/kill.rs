//! `tp_btf/sys_enter`, only where it is asked for: a guarded process that
//! makes a socket of a forbidden family is killed inside the call.
//!
//! For hosts without BPF LSM. The signal ends the process before socket(2)
//! returns, so that it never holds the socket. A send on one that it had before
//! it was guarded is done by the time the signal counts (docs/limits.md): one
//! message leaves, no second. io_uring makes sockets without a system call's
//! argument, so a guarded process that uses a ring is killed too. It slows
//! every system call of the host, which is why it has to be asked for.
//!
//! It knows the system calls of x86-64; elsewhere the registers it reads are
//! not found and it is not loaded.

use crate::decide;
use crate::emit;
use crate::guarded::{self, Subject};
use crate::layout::{
    FDT_FD, FDT_MAX_FDS, FILE_INODE, FILE_PRIVATE, FILES_FDT, INODE_MODE, REGS_ARG_0,
    REGS_ARG_0_COMPAT, REGS_ARG_2, SK_PROTOCOL, SKC_FAMILY, SOCKET_SK, TASK_FILES,
    TASK_THREAD_INFO, THREAD_INFO_STATUS, field,
};
use crate::lsm;
use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_get_current_task;
use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_send_signal};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use merestone_abi::{EventKind, Hook, Reason, Verdict};

const SIGKILL: u32 = 9;

/// arch/x86/include/asm/thread_info.h: an i386 system call.
const TS_COMPAT: u32 = 2;
/// `__X32_SYSCALL_BIT`, arch/x86/include/uapi/asm/unistd.h.
const X32: i64 = 0x4000_0000;

/// include/uapi/linux/stat.h
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;

/// What a system call can do with a socket.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Call {
    /// Makes one: the family is the first argument, the protocol the third.
    Make,
    /// Uses the descriptor in the first argument.
    Use,
    /// Uses the descriptor in the third argument.
    UseThird,
    /// Can make and use any, and does not say which.
    Any,
}

/// arch/x86/entry/syscalls/syscall_64.tbl
#[inline(always)]
fn call(id: i64) -> Option<Call> {
    Some(match id & !X32 {
        41 | 53 => Call::Make, // socket, socketpair
        // write, writev, sendfile, connect, sendto, sendmsg, sendmmsg
        1 | 20 | 40 | 42 | 44 | 46 | 307 => Call::Use,
        275 => Call::UseThird,  // splice
        425 | 426 => Call::Any, // io_uring_setup, io_uring_enter
        _ => return None,
    })
}

/// arch/x86/entry/syscalls/syscall_32.tbl
#[inline(always)]
fn compat_call(id: i64) -> Option<Call> {
    Some(match id {
        359 | 360 => Call::Make, // socket, socketpair
        // write, writev, sendfile, sendfile64, connect, sendto, sendmsg, sendmmsg
        4 | 146 | 187 | 239 | 362 | 369 | 370 | 345 => Call::Use,
        // socketcall, whose arguments another thread can change after they
        // were read; io_uring_setup, io_uring_enter
        102 | 425 | 426 => Call::Any,
        _ => return None,
    })
}

/// `sys_enter(regs, id)`.
#[btf_tracepoint(function = "sys_enter")]
pub(crate) fn sys_enter(ctx: BtfTracePointContext) -> i32 {
    let mask = guarded::armed();
    if mask == 0 {
        return 0;
    }
    let id: i64 = ctx.arg(1);
    let (native, compat) = (call(id), compat_call(id));
    if native.is_none() && compat.is_none() {
        return 0;
    }
    let Some(subject) = guarded::current(mask) else {
        return 0;
    };
    // SAFETY: the helper takes no arguments and cannot fail.
    let task = unsafe { bpf_get_current_task() };
    let status: u32 = read(task, TASK_THREAD_INFO.load() + THREAD_INFO_STATUS.load());
    let is_compat = status & TS_COMPAT != 0;
    let Some(call) = (if is_compat { compat } else { native }) else {
        return 0;
    };
    let regs: *const u8 = ctx.arg(0);
    // SAFETY: the registers of the call.
    let first: u64 = unsafe {
        if is_compat {
            field(regs, &REGS_ARG_0_COMPAT)
        } else {
            field(regs, &REGS_ARG_0)
        }
    };
    // SAFETY: as above; i386 has its third argument in the same register.
    let third: u64 = unsafe { field(regs, &REGS_ARG_2) };
    let (family, protocol) = match call {
        Call::Make => (first as u16, third as u32),
        Call::Any => (0, 0),
        Call::Use | Call::UseThird => {
            let number = if call == Call::Use { first } else { third };
            let Some(found) = socket_behind(task, number as u32) else {
                return 0;
            };
            found
        }
    };
    if !lsm::family_is_allowed(family, protocol) {
        kill(&subject, family);
    }
    0
}

/// Family and protocol of the socket behind a descriptor; none where it is not
/// one. A second thread can put another file there meanwhile: that one is
/// judged when it is used next, and making it was.
#[inline(always)]
fn socket_behind(task: u64, number: u32) -> Option<(u16, u32)> {
    let files: u64 = follow(task, &TASK_FILES)?;
    let table: u64 = follow(files, &FILES_FDT)?;
    let size: u32 = read(table, FDT_MAX_FDS.load());
    if number >= size {
        return None;
    }
    let slots: u64 = follow(table, &FDT_FD)?;
    let file: u64 = read(slots.wrapping_add(8 * u64::from(number)), 0);
    let inode: u64 = follow(file, &FILE_INODE)?;
    let mode: u16 = read(inode, INODE_MODE.load());
    if mode & S_IFMT != S_IFSOCK {
        return None;
    }
    let socket: u64 = follow(file, &FILE_PRIVATE)?;
    let sk: u64 = follow(socket, &SOCKET_SK)?;
    let family: u16 = read(sk, SKC_FAMILY.load());
    let protocol: u16 = read(sk, SK_PROTOCOL.load());
    Some((family, u32::from(protocol)))
}

#[inline(always)]
fn follow(base: u64, offset: &Global<u32>) -> Option<u64> {
    if base == 0 {
        return None;
    }
    let next: u64 = read(base, offset.load());
    (next != 0).then_some(next)
}

/// Reads kernel memory; zero where there is none.
#[inline(always)]
fn read<T: Copy + Default>(base: u64, offset: u32) -> T {
    let at = base.wrapping_add(u64::from(offset)) as *const T;
    // SAFETY: the helper survives any address.
    unsafe { bpf_probe_read_kernel(at) }.unwrap_or_default()
}

#[inline(never)]
fn kill(subject: &Subject, family: u16) {
    let decision = decide::refuse(Reason::FAMILY);
    emit::count(Hook::SYS_ENTER, decision.verdict, 0, subject.group, 0);
    emit::send(EventKind::FLOW, Hook::SYS_ENTER, subject, |event| {
        emit::describe_current(event);
        event.family = family;
        event.verdict = decision.verdict;
        event.reason = decision.reason;
        event.generation = decision.generation;
    });
    if decision.verdict == Verdict::DENY {
        // SAFETY: the helper signals the calling process.
        unsafe { bpf_send_signal(SIGKILL) };
    }
}
