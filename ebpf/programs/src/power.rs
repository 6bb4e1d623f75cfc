//! BPF LSM: what a guarded process may not have the kernel do for it.
//!
//! A socket is judged by what it sends; this is about packets that no socket
//! sends. With CAP_NET_ADMIN the kernel wraps, transforms, readdresses and
//! forwards; with a program or a module of one's own it does anything; a key
//! that is asked for has it run a program as root outside every group; a
//! network file system has it connect. One refusal at the capability covers
//! every language that configures a network: rtnetlink, generic netlink, XFRM,
//! ioctl, sysfs. What needs no capability stays: RTM_GET* requests, by which
//! getifaddrs(3) and NCCL learn of addresses and links.
//!
//! The agent, which opens GPUs and so is guarded, is the one exception: this
//! is how it holds links. It does not judge what somebody unguarded configured
//! in the same network namespace, before or after.

use crate::decide;
use crate::emit;
use crate::guarded::{self, Subject};
use crate::layout::{FC_TYPE, FS_FLAGS, FS_NAME, KEY_TYPE, KEY_TYPE_NAME, field};
use crate::tamper;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use merestone_abi::{EventKind, Hook, Reason, Verdict};

// include/uapi/linux/capability.h
const CAP_NET_ADMIN: i32 = 12;
const CAP_SYS_MODULE: i32 = 16;
const CAP_SYS_RAWIO: i32 = 17;
const CAP_SYS_BOOT: i32 = 22;

// include/uapi/linux/bpf.h, enum bpf_cmd
const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_TEST_RUN: i32 = 10;
const BPF_RAW_TRACEPOINT_OPEN: i32 = 17;
const BPF_LINK_CREATE: i32 = 28;
const BPF_LINK_UPDATE: i32 = 29;

/// include/linux/fs.h: the file system lies on a block device.
const FS_REQUIRES_DEV: i32 = 1;

/// File systems without a block device that are this host's own, by the first
/// eight bytes of their names. FUSE's server is a process, which is guarded or
/// a deputy.
const LOCAL: [u64; 21] = [
    name(b"tmpfs\0\0\0"),
    name(b"ramfs\0\0\0"),
    name(b"devtmpfs"),
    name(b"proc\0\0\0\0"),
    name(b"sysfs\0\0\0"),
    name(b"overlay\0"),
    name(b"devpts\0\0"),
    name(b"mqueue\0\0"),
    name(b"cgroup\0\0"),
    name(b"cgroup2\0"),
    name(b"hugetlbf"),
    name(b"bpf\0\0\0\0\0"),
    name(b"fuse\0\0\0\0"),
    name(b"debugfs\0"),
    name(b"tracefs\0"),
    name(b"security"),
    name(b"configfs"),
    name(b"binfmt_m"),
    name(b"autofs\0\0"),
    name(b"erofs\0\0\0"),
    name(b"pstore\0\0"),
];

const fn name(bytes: &[u8; 8]) -> u64 {
    u64::from_ne_bytes(*bytes)
}

/// `capable(cred, ns, cap, opts)`: also of a user namespace of its own. Whoever
/// has not got the capability does not come here: the kernel's own check is
/// first (security/security.c, LSM_ORDER_FIRST).
#[lsm(hook = "capable")]
pub(crate) fn power_capable(ctx: LsmContext) -> i32 {
    let capability: i32 = ctx.arg(2);
    if capability != CAP_NET_ADMIN
        && capability != CAP_SYS_MODULE
        && capability != CAP_SYS_RAWIO
        && capability != CAP_SYS_BOOT
    {
        return 0;
    }
    let before: i32 = ctx.arg(4);
    if before != 0 {
        return before;
    }
    judge(Hook::LSM_KERNEL, Reason::PRIVILEGE, capability as u32)
}

/// `bpf(cmd, attr, size, ..)`: a program of its own could send, and one on a
/// link could readdress, after every hook. Maps, and looking, are free.
#[lsm(hook = "bpf")]
pub(crate) fn power_bpf(ctx: LsmContext) -> i32 {
    let command: i32 = ctx.arg(0);
    tamper::introduce();
    let before: i32 = ctx.arg(3);
    if before != 0 {
        return before;
    }
    match command {
        BPF_PROG_LOAD
        | BPF_PROG_ATTACH
        | BPF_PROG_TEST_RUN
        | BPF_RAW_TRACEPOINT_OPEN
        | BPF_LINK_CREATE
        | BPF_LINK_UPDATE => judge(Hook::LSM_BPF, Reason::PRIVILEGE, command as u32),
        _ => 0,
    }
}

/// `key_alloc(key, cred, flags)`: a key that is asked for and not there is made
/// by a program that the kernel runs (security/keys/request_key.c
/// `construct_key`), a name of `dns_resolver` by a question to a resolver. For
/// that the kernel makes a key of authority first, which nobody else can.
#[lsm(hook = "key_alloc")]
pub(crate) fn power_key(ctx: LsmContext) -> i32 {
    let before: i32 = ctx.arg(3);
    if before != 0 {
        return before;
    }
    let key: *const u8 = ctx.arg(0);
    // SAFETY: a key.
    let kind: *const u8 = unsafe { field(key, &KEY_TYPE) };
    if kind.is_null() {
        return 0;
    }
    // SAFETY: its key_type.
    let at: u64 = unsafe { field(kind, &KEY_TYPE_NAME) };
    if head(at) != name(b".request") {
        return 0;
    }
    judge(Hook::LSM_KERNEL, Reason::KERNEL, 0)
}

/// `fs_context_parse_param(fc, param)`, of mount(2) as of fsconfig(2): before
/// any file system connects, since each must first be told where to.
#[lsm(hook = "fs_context_parse_param")]
pub(crate) fn power_mount(ctx: LsmContext) -> i32 {
    let before: i32 = ctx.arg(2);
    if before != 0 {
        return before;
    }
    let context: *const u8 = ctx.arg(0);
    // SAFETY: an fs_context.
    let kind: *const u8 = unsafe { field(context, &FC_TYPE) };
    if kind.is_null() {
        return 0;
    }
    // SAFETY: its file_system_type.
    let flags: i32 = unsafe { field(kind, &FS_FLAGS) };
    // SAFETY: as above.
    let at: u64 = unsafe { field(kind, &FS_NAME) };
    if flags & FS_REQUIRES_DEV != 0 || is_local(head(at)) {
        return 0; // the kernel then goes by its own default
    }
    judge(Hook::LSM_MOUNT, Reason::FILESYSTEM, 0)
}

#[inline(always)]
fn is_local(name: u64) -> bool {
    let mut found = false;
    for known in LOCAL {
        found |= name == known;
    }
    found
}

/// The first eight bytes of a string of the kernel's, cut at its end.
#[inline(always)]
pub(crate) fn head(at: u64) -> u64 {
    let mut bytes = [0_u8; 8];
    let mut ended = false;
    for i in 0..8 {
        let byte = if ended {
            0
        } else {
            // SAFETY: the helper survives any address.
            unsafe { bpf_probe_read_kernel(at.wrapping_add(i) as *const u8) }.unwrap_or(0)
        };
        ended |= byte == 0;
        bytes[i as usize] = byte;
    }
    u64::from_ne_bytes(bytes)
}

/// Judges what the calling task asks for, if it is guarded.
#[inline(always)]
fn judge(hook: Hook, reason: Reason, what: u32) -> i32 {
    let Some(subject) = guarded::current(guarded::armed()) else {
        return 0;
    };
    if tamper::is_agent_itself() {
        return 0;
    }
    decide::answer(refuse(hook, reason, &subject, what))
}

/// Counts and reports the refusal of something that has no destination.
#[inline(never)]
pub(crate) fn refuse(hook: Hook, reason: Reason, subject: &Subject, what: u32) -> Verdict {
    let decision = decide::refuse(reason);
    emit::count(hook, decision.verdict, 0, subject.group, 0);
    emit::send(EventKind::FLOW, hook, subject, |event| {
        emit::describe_current(event);
        event.major = what;
        event.verdict = decision.verdict;
        event.reason = decision.reason;
        event.generation = decision.generation;
    });
    decision.verdict
}
