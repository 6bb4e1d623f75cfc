//! BPF LSM, Unix sockets: a peer outside the group is a deputy
//! (docker.sock, a resolver, a proxy).
//!
//! Judged when it is connected to by the listening socket: its cgroup, its
//! mark, or who listens on it. A connection that is older than the guard, or
//! that was handed over, is judged when it is written to, by the process that
//! called listen(2): the other end's socket was made by whoever connected, and
//! says nothing. Where that process has ended nobody knows, and it counts as
//! outside. Who connected to this end is no deputy, nor is what the group's own
//! processes made: a socket pair, and a listener of theirs, whoever accepts on
//! it. What is said on a connection that was reported is not looked at.
//!
//! The agent's records socket is no deputy either: a listener that the agent
//! has marked, and on which the agent itself called listen(2) last. Its other
//! sockets are, and so is a connection to it that was handed over or is older
//! than the guard.

use crate::decide::{self, Decision};
use crate::deputy::{self, DEPUTIES_ASKED, is_in_group};
use crate::emit;
use crate::guarded::{self, Subject};
use crate::layout::{
    CSS_SET_CGROUP, PID_NUMBERS, PID_TASKS, SK_PEER_PID, SK_TYPE, SKC_FAMILY, SOCKET_SK,
    TASK_CGROUPS, TASK_PID_LINKS, UNIX_ADDR, UNIX_ADDRESS_REFS, UNIX_PEER, UPID_NR, field,
};
use crate::lineage;
use crate::maps::AGENT;
use crate::sockets;
use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::{bpf_sk_storage_get, bpf_skc_to_unix_sock};
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use core::ptr;
use merestone_abi::{Asked, Deputies, EventKind, Hook, SocketMark, Verdict};

/// include/linux/socket.h
const AF_UNIX: i32 = 1;
/// include/linux/net.h
const SOCK_DGRAM: u16 = 2;
/// `enum pid_type`, include/linux/pid.h: the process, of all its threads.
const PIDTYPE_TGID: u64 = 1;
// Bytes of a `struct hlist_head`, and of a `struct hlist_node`.
const LIST_HEAD: u64 = 8;
const LIST_NODE: u64 = 16;

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
    let own: *const u8 = ctx.arg(0);
    let other: *const u8 = ctx.arg(1);
    let peer: *const u8 = ctx.arg(2);
    let is_own = is_own(&subject, other) || is_records(other);
    // The first send need not ask again, though the listener may have ended.
    remember(own, peer as u64, if is_own { subject.group } else { 0 });
    if is_own {
        return 0;
    }
    report(
        Hook::LSM_UNIX_CONNECT,
        &subject,
        behind(other).tgid,
        deputy::cgroup_of(other),
        &deputy::verdict(Deputies::DENY_UNIX),
    )
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
    // SAFETY: a sock, which starts with its sock_common.
    let family: u16 = unsafe { field(other, &SKC_FAMILY) };
    let peer = other as u64;
    if i32::from(family) != AF_UNIX || (!is_refused() && was_told(own, peer)) {
        return 0;
    }
    remember(own, peer, 0);
    if is_own(&subject, other) {
        return 0;
    }
    report(
        Hook::LSM_UNIX_SEND,
        &subject,
        behind(other).tgid,
        deputy::cgroup_of(other),
        &deputy::verdict(Deputies::DENY_UNIX),
    )
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

/// Whether the boundary refuses Unix deputies.
#[inline(always)]
pub(crate) fn is_refused() -> bool {
    deputy::verdict(Deputies::DENY_UNIX).verdict == Verdict::DENY
}

/// Judges a connected Unix socket that is written to, or was handed over.
#[inline(never)]
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
    // SAFETY: a sock.
    let is_datagram = unsafe { field::<u16>(sk, &SK_TYPE) } == SOCK_DGRAM;
    if is_datagram && hook == Hook::LSM_SENDMSG {
        return 0; // each datagram passes `unix_may_send`
    }
    if let Some(known) = asked(sk, 0)
        && known.peer == peer as u64
        && (known.own == subject.group || (hook == Hook::LSM_SENDMSG && !is_refused()))
    {
        return 0;
    }
    let mut process = behind(sk);
    let is_own = match if is_datagram {
        End::Pair
    } else {
        end(unix, peer)
    } {
        End::Asks => process.is_in(subject),
        End::Serves if hook == Hook::LSM_SENDMSG => true,
        _ => {
            process = behind(peer);
            is_own(subject, peer)
        }
    };
    remember(sk, peer as u64, if is_own { subject.group } else { 0 });
    if is_own {
        return 0;
    }
    report(
        hook,
        subject,
        process.tgid,
        lineage::id_at(process.cgroup),
        &deputy::verdict(Deputies::DENY_UNIX),
    )
}

/// Which end of a stream a socket is.
enum End {
    /// It connected.
    Asks,
    /// It was accepted.
    Serves,
    /// It has no name and neither has the other: a pair, where it connected
    /// the other would have its listener's.
    Pair,
}

/// An accepted socket shares its listener's name (net/unix/af_unix.c
/// `unix_stream_connect`); one that was bound itself has a name of its own,
/// which nobody else can share.
#[inline(always)]
fn end(unix: *const u8, peer: *const u8) -> End {
    let own = name(unix);
    let other = name(peer);
    if other == 0 {
        return if own == 0 { End::Pair } else { End::Serves };
    }
    if own != 0 && read::<u32>(own, &UNIX_ADDRESS_REFS) > 1 {
        return End::Serves;
    }
    // Both are named and the listener is closed: either may have been it.
    End::Asks
}

/// The address of a Unix socket's name in the kernel; 0 where it has none.
#[inline(always)]
fn name(unix: *const u8) -> u64 {
    read(unix as u64, &UNIX_ADDR)
}

/// Reads a field through an address that the verifier knows nothing of; zero
/// where that faults.
#[inline(always)]
fn read<T: Copy + Default>(base: u64, offset: &Global<u32>) -> T {
    let at = base.wrapping_add(u64::from(offset.load()));
    // SAFETY: the helper survives any address.
    unsafe { bpf_probe_read_kernel(at as *const T) }.unwrap_or_default()
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
    behind(other).is_in(subject)
}

/// Whether it is the agent's listener for records, and the agent, which lives,
/// was the last to call listen(2) on it.
#[inline(always)]
fn is_records(other: *const u8) -> bool {
    let Some(mark) = sockets::storage(other.cast_mut().cast(), 0) else {
        return false;
    };
    let Some(agent) = AGENT.get(0) else {
        return false;
    };
    if mark.flags & SocketMark::RECORDS == 0 || agent.tgid == 0 {
        return false;
    }
    let process = behind(other);
    process.cgroup != 0 && process.tgid == agent.tgid
}

/// A process behind a socket.
struct Process {
    /// 0 where there never was one.
    tgid: u32,
    /// The address of its cgroup in the kernel; 0 where it has ended.
    cgroup: u64,
}

/// Who listens on a listener; who called listen(2) for the socket that this one
/// connected to; who connected, of an accepted one; who made a pair
/// (net/unix/af_unix.c `init_peercred`, `copy_peercred`).
#[inline(always)]
fn behind(sk: *const u8) -> Process {
    // SAFETY: a sock.
    let pid: *const u8 = unsafe { field(sk, &SK_PEER_PID) };
    let pid = pid as u64;
    if pid == 0 {
        return Process { tgid: 0, cgroup: 0 };
    }
    // The first number is of the first PID namespace.
    let numbers = pid.wrapping_add(u64::from(PID_NUMBERS.load()));
    let tgid = read(numbers, &UPID_NR);
    let first: u64 = read(pid + PIDTYPE_TGID * LIST_HEAD, &PID_TASKS);
    if first == 0 {
        return Process { tgid, cgroup: 0 };
    }
    let links = u64::from(TASK_PID_LINKS.load()) + PIDTYPE_TGID * LIST_NODE;
    let set: u64 = read(first.wrapping_sub(links), &TASK_CGROUPS);
    Process {
        tgid,
        cgroup: read(set, &CSS_SET_CGROUP),
    }
}

impl Process {
    /// Whether it lives and is guarded with the group.
    #[inline(always)]
    fn is_in(&self, subject: &Subject) -> bool {
        if self.cgroup == 0 {
            return false;
        }
        if guarded::task(self.tgid).is_some_and(|task| task.group == subject.group) {
            return true;
        }
        !subject.is_tree()
            && (lineage::id_at(self.cgroup) == subject.group
                || lineage::is_below(self.cgroup as *const u8, subject.group))
    }
}

/// What a socket remembers of the last peer that was judged.
#[inline(always)]
fn asked(sk: *const u8, flags: u32) -> Option<&'static mut Asked> {
    let map = (&raw const DEPUTIES_ASKED).cast_mut().cast();
    let sk = sk.cast_mut().cast();
    // SAFETY: a sock; the helper returns its storage or null.
    let known = unsafe { bpf_sk_storage_get(map, sk, ptr::null_mut(), u64::from(flags)) };
    // SAFETY: as above. Two writers can race: both judge, and both tell.
    unsafe { known.cast::<Asked>().as_mut() }
}

/// Whether this peer of a datagram socket was the last that was judged.
#[inline(always)]
fn was_told(own: *const u8, peer: u64) -> bool {
    asked(own, 0).is_some_and(|known| known.peer == peer)
}

/// Without a place for it the next send is judged, and told of, once more.
#[inline(always)]
fn remember(sk: *const u8, peer: u64, own: u64) {
    if let Some(known) = asked(sk, BPF_SK_STORAGE_GET_F_CREATE) {
        known.own = 0;
        known.peer = peer;
        known.own = own;
    }
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
    decide::answer(decision.verdict)
}
