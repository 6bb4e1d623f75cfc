//! `cgroup/sock_create`: marks sockets that no guarded cgroup may hold, and
//! refuses those that could never send.
//!
//! A guarded task's socket is marked at birth, so that it stays judged after
//! the task has left its cgroup, ended, or given it away. In cgroups where only
//! process trees are guarded, every socket remembers its maker: a connection
//! opened before the GPU was is then judged too. Elsewhere an unguarded
//! process's sockets cost nothing.
//!
//! Raw and ping sockets and transports beside TCP and UDP are refused where no
//! rule but the built-in one for loopback names their protocol. What is let
//! through here is judged packet by packet at egress: that is the sure answer.

use crate::decide;
use crate::emit;
use crate::guarded::{self, Subject};
use crate::maps::SETTINGS;
use crate::sockets;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use merestone_abi::{
    EventKind, GENERATION_SLOTS, Hook, LostReason, Protocols, Reason, Verdict, protocol,
};

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
/// `IPPROTO_MPTCP`, include/uapi/linux/in.h.
const MPTCP: u32 = 262;
/// `SOCK_RAW`, include/linux/net.h.
const SOCK_RAW: u32 = 3;
const TCP: u32 = protocol::TCP as u32;
const UDP: u32 = protocol::UDP as u32;
const ICMP: u32 = protocol::ICMP as u32;
const ICMPV6: u32 = protocol::ICMPV6 as u32;

/// Marks a new inet socket.
#[cgroup_sock(sock_create)]
pub(crate) fn sock_create(ctx: SockContext) -> i32 {
    if guarded::current_is_clear() && !guarded::in_tree_cgroup() {
        return ALLOW;
    }
    judge(ctx.sock)
}

/// Out of the way of those who are not guarded and never will be by a tree.
#[inline(never)]
fn judge(socket: *mut bpf_sock) -> i32 {
    let sk = socket.cast();
    if let Some(subject) = guarded::current(guarded::armed()) {
        // The kernel makes subflows as sockets of its own, in the cgroup of
        // the first but without its mark: only a cgroup can hold them.
        let is_free_subflow = subject.is_tree() && protocol_of(socket) == MPTCP;
        if (is_free_subflow || !may_be_named(socket))
            && refuse(&subject, Reason::FAMILY, socket) == Verdict::DENY
        {
            return REFUSE;
        }
        if !sockets::mark(sk, &subject) {
            emit::lost(LostReason::SOCKET_MARK);
            if refuse(&subject, Reason::NO_ROOM, socket) == Verdict::DENY {
                return REFUSE;
            }
        }
        return ALLOW;
    }
    if guarded::in_tree_cgroup() && !sockets::own(sk, guarded::current_tgid()) {
        emit::lost(LostReason::SOCKET_MARK);
    }
    ALLOW
}

#[inline(always)]
fn protocol_of(sk: *const bpf_sock) -> u32 {
    // SAFETY: the context is valid; volatile, because the verifier wants each
    // field loaded whole.
    unsafe { (&raw const (*sk).protocol).read_volatile() }
}

/// Whether a rule could ever let such a socket send.
#[inline(always)]
fn may_be_named(sk: *const bpf_sock) -> bool {
    // SAFETY: as above.
    let kind = unsafe { (&raw const (*sk).type_).read_volatile() };
    let protocol = protocol_of(sk);
    if kind != SOCK_RAW && (protocol == TCP || protocol == UDP || protocol == MPTCP) {
        return true;
    }
    let named = match SETTINGS.get(0) {
        Some(settings) => {
            let slots = u16::from_le_bytes(settings.protocols);
            (slots >> (8 * (settings.generation % GENERATION_SLOTS))) as u8
        }
        None => 0,
    };
    let enough = if protocol == ICMP || protocol == ICMPV6 {
        Protocols::ANY | Protocols::ICMP
    } else {
        Protocols::ANY
    };
    named & enough != 0
}

#[inline(never)]
fn refuse(subject: &Subject, reason: Reason, sk: *const bpf_sock) -> Verdict {
    let protocol = protocol_of(sk) as u8;
    // SAFETY: the context is valid; volatile, as above.
    let family = unsafe { (&raw const (*sk).family).read_volatile() };
    let decision = decide::refuse(reason);
    emit::count(
        Hook::SOCK_CREATE,
        decision.verdict,
        protocol,
        subject.group,
        0,
    );
    emit::send(EventKind::FLOW, Hook::SOCK_CREATE, subject, |event| {
        emit::describe_current(event);
        event.family = family as u16;
        event.protocol = protocol;
        event.verdict = decision.verdict;
        event.reason = decision.reason;
        event.generation = decision.generation;
    });
    decision.verdict
}
