//! BPF LSM, Unix sockets: a peer outside the group is a deputy
//! (docker.sock, a resolver, a proxy).
//!
//! Judged by the peer's socket: its cgroup, its mark, or who listens on it. A
//! socket pair and whatever the group's own processes made is no deputy. A
//! connection that was made before the group was guarded is not reported, and
//! cut only where its other end shows who made it: that of a stream socket was
//! made by whoever connected. What is said on one that was reported is not
//! looked at.

use crate::decide::Decision;
use crate::deputy::{self, DEPUTIES_ASKED, is_in_group};
use crate::emit;
use crate::guarded::{self, Subject};
use crate::layout::{PID_NUMBERS, SK_PEER_PID, SKC_FAMILY, SOCKET_SK, UNIX_PEER, UPID_NR, field};
use crate::sockets;
use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::{bpf_sk_storage_get, bpf_skc_to_unix_sock};
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use core::ptr;
use merestone_abi::{Asked, Deputies, EventKind, Hook, Verdict};

const EPERM: i32 = -1;
/// include/linux/socket.h
const AF_UNIX: i32 = 1;

/// `unix_stream_connect(sock, other, newsk)`, of `struct sock`.
#[lsm(hook = "unix_stream_connect")]
pub(crate) fn unix_stream_connect(ctx: LsmContext) -> i32 {
    let before: i32 = ctx.arg(3);
    if before != 0 {
        return before;
    }
    let Some(subject) = guarded::current(guarded::armed()) else {
        return 0;
    };
    let other: *const u8 = ctx.arg(1);
    judge(Hook::LSM_UNIX_CONNECT, &subject, other)
}

/// `unix_may_send(sock, other)`, of `struct socket`: at a datagram socket's
/// connect and at each datagram.
#[lsm(hook = "unix_may_send")]
pub(crate) fn unix_may_send(ctx: LsmContext) -> i32 {
    let before: i32 = ctx.arg(2);
    if before != 0 {
        return before;
    }
    let Some(subject) = guarded::current(guarded::armed()) else {
        return 0;
    };
    let socket: *const u8 = ctx.arg(0);
    let other: *const u8 = ctx.arg(1);
    // SAFETY: a socket.
    let own: *const u8 = unsafe { field(socket, &SOCKET_SK) };
    // SAFETY: as above.
    let other: *const u8 = unsafe { field(other, &SOCKET_SK) };
    if own.is_null() || other.is_null() {
        return 0;
    }
    let denied = deputy::verdict(Deputies::DENY_UNIX).verdict == Verdict::DENY;
    if !denied && was_told(own, other) {
        return 0;
    }
    judge(Hook::LSM_UNIX_SEND, &subject, other)
}

/// `socket_post_create(sock, family, type, protocol, kern)`: marks the Unix
/// sockets of a process tree, which no cgroup tells apart.
#[lsm(hook = "socket_post_create")]
pub(crate) fn socket_post_create(ctx: LsmContext) -> i32 {
    let before: i32 = ctx.arg(5);
    if before != 0 {
        return before;
    }
    let family: i32 = ctx.arg(1);
    let kern: i32 = ctx.arg(4);
    if family != AF_UNIX || kern != 0 {
        return 0;
    }
    let Some(subject) = guarded::current(guarded::armed()) else {
        return 0;
    };
    let socket: *const u8 = ctx.arg(0);
    // SAFETY: a socket.
    let sk: *const u8 = unsafe { field(socket, &SOCKET_SK) };
    if subject.is_tree() && !sk.is_null() {
        // Without a mark it counts as somebody else's: reported, not let be.
        sockets::mark(sk.cast_mut().cast(), &subject);
    }
    0
}

/// Judges a connected Unix socket that was handed over, or that is older than
/// the guard.
#[inline(always)]
pub(crate) fn connected(hook: Hook, subject: &Subject, sk: *const u8) -> i32 {
    // SAFETY: a sock; null where it is not of this family.
    let unix: *const u8 = unsafe { bpf_skc_to_unix_sock(sk.cast_mut().cast()) }.cast();
    if unix.is_null() {
        return 0;
    }
    // SAFETY: a unix_sock.
    let peer: *const u8 = unsafe { field(unix, &UNIX_PEER) };
    if peer.is_null() {
        return 0;
    }
    judge(hook, subject, peer)
}

#[inline(always)]
fn judge(hook: Hook, subject: &Subject, other: *const u8) -> i32 {
    // SAFETY: a sock, which starts with its sock_common.
    let family: u16 = unsafe { field(other, &SKC_FAMILY) };
    if i32::from(family) != AF_UNIX || is_own(subject, other) {
        return 0;
    }
    let decision = deputy::verdict(Deputies::DENY_UNIX);
    report(
        hook,
        subject,
        listener(other),
        deputy::cgroup_of(other),
        &decision,
    )
}

#[inline(always)]
fn is_own(subject: &Subject, other: *const u8) -> bool {
    if !subject.is_tree() && is_in_group(other, subject.group) {
        return true;
    }
    if let Some(marked) = sockets::subject(other.cast_mut().cast())
        && marked.group == subject.group
    {
        return true;
    }
    let tgid = listener(other);
    tgid != 0 && guarded::task(tgid).is_some_and(|task| task.group == subject.group)
}

/// The process that listens on a socket, or connected it; 0 where nobody did
/// (net/unix/af_unix.c `init_peercred`, `copy_peercred`).
#[inline(always)]
fn listener(sk: *const u8) -> u32 {
    // SAFETY: a sock.
    let pid: *const u8 = unsafe { field(sk, &SK_PEER_PID) };
    if pid.is_null() {
        return 0;
    }
    // The first number is of the first PID namespace.
    let at = (pid as usize)
        .wrapping_add(PID_NUMBERS.load() as usize)
        .wrapping_add(UPID_NR.load() as usize) as *const u32;
    // SAFETY: the helper survives any address.
    unsafe { bpf_probe_read_kernel(at) }.unwrap_or(0)
}

/// Whether this peer of a datagram socket was the last that was judged.
#[inline(always)]
fn was_told(own: *const u8, other: *const u8) -> bool {
    let map = (&raw const DEPUTIES_ASKED).cast_mut().cast();
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    let own = own.cast_mut().cast();
    // SAFETY: a sock; the helper returns its storage or null.
    let known = unsafe { bpf_sk_storage_get(map, own, ptr::null_mut(), create) };
    // SAFETY: as above.
    let Some(known) = (unsafe { known.cast::<Asked>().as_mut() }) else {
        return false;
    };
    let peer = other as u64;
    if known.peer == peer {
        return true;
    }
    known.peer = peer;
    false
}

#[inline(never)]
fn report(hook: Hook, subject: &Subject, other: u32, cgroup: u64, decision: &Decision) -> i32 {
    emit::count(hook, decision.verdict, 0, subject.group, 0);
    emit::send(EventKind::DEPUTY, hook, subject, |event| {
        emit::describe_current(event);
        event.family = AF_UNIX as u16;
        event.other = other;
        event.cookie = cgroup;
        event.verdict = decision.verdict;
        event.reason = decision.reason;
        event.generation = decision.generation;
    });
    if decision.verdict == Verdict::DENY {
        EPERM
    } else {
        0
    }
}
