//! `cgroup/connect4,6` and `sendmsg4,6`: the quick answer.
//!
//! They see the address a task asked for, in the kernel's own copy, with the
//! task at hand, so that a refused connect(2) returns EPERM at once. They do
//! not see raw or ping sockets, replies, or datagrams on a connected socket:
//! `cgroup_skb/egress` does.

use crate::decide::{self, Decision, Destination};
use crate::deputy;
use crate::emit;
use crate::guarded::{self, Subject};
use crate::protocols;
use crate::sockets;
use crate::verdicts;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::bpf_get_socket_cookie;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use merestone_abi::{EventKind, Hook, LOOPBACK_RULE, LostReason, Reason, Verdict, protocol};

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
/// `IPPROTO_MPTCP`, include/uapi/linux/in.h; TCP on the wire.
const MPTCP: u32 = 262;

/// Judges connect(2) to an IPv4 address.
#[cgroup_sock_addr(connect4)]
pub(crate) fn connect4(ctx: SockAddrContext) -> i32 {
    judge::<{ Hook::CONNECT4.0 }, false>(ctx.sock_addr)
}

/// Judges connect(2) to an IPv6 address.
#[cgroup_sock_addr(connect6)]
pub(crate) fn connect6(ctx: SockAddrContext) -> i32 {
    judge::<{ Hook::CONNECT6.0 }, true>(ctx.sock_addr)
}

/// Judges a datagram to an IPv4 address.
#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn sendmsg4(ctx: SockAddrContext) -> i32 {
    judge::<{ Hook::SENDMSG4.0 }, false>(ctx.sock_addr)
}

/// Judges a datagram to an IPv6 address.
#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn sendmsg6(ctx: SockAddrContext) -> i32 {
    judge::<{ Hook::SENDMSG6.0 }, true>(ctx.sock_addr)
}

#[inline(always)]
fn judge<const HOOK: u8, const V6: bool>(ctx: *mut bpf_sock_addr) -> i32 {
    if guarded::current_is_clear() {
        return ALLOW;
    }
    judge_guarded::<HOOK, V6>(ctx)
}

/// Out of the way of those who are not. One function a hook: the verifier wants
/// each field of the context at an offset that it knows.
#[inline(never)]
fn judge_guarded<const HOOK: u8, const V6: bool>(ctx: *mut bpf_sock_addr) -> i32 {
    let hook = Hook(HOOK);
    let epoch = guarded::epoch();
    let Some(subject) = guarded::current(guarded::armed()) else {
        return ALLOW;
    };
    let to = destination(ctx, V6);
    // SAFETY: the context holds the socket.
    let sk = unsafe { (*ctx).__bindgen_anon_1.sk };
    // A connection is told each time, so only a datagram can pass untold.
    if (hook == Hook::SENDMSG4 || hook == Hook::SENDMSG6)
        && let Some(mark) = sockets::storage(sk.cast(), 0)
        && verdicts::has_allowed(mark, epoch, subject.group, &to)
    {
        emit::count(hook, Verdict::ALLOW, to.protocol, subject.group, 0);
        return ALLOW;
    }
    let mut decision = decide::refuse(Reason::NO_ROOM);
    if sockets::mark(sk.cast(), &subject) {
        decide::decide_for(&subject, &to, 0, &mut decision);
        let connects = hook == Hook::CONNECT4 || hook == Hook::CONNECT6;
        if connects
            && decision.verdict == Verdict::ALLOW
            && deputy::refuses_connect(ctx, &subject, &to)
        {
            decision = decide::refuse(Reason::DEPUTY);
        }
    } else {
        emit::lost(LostReason::SOCKET_MARK);
    }
    emit::count(hook, decision.verdict, to.protocol, subject.group, 0);
    if worth_telling(hook, &decision) {
        // SAFETY: the context is valid.
        let cookie = unsafe { bpf_get_socket_cookie(ctx.cast()) };
        report(hook, &subject, &to, &decision, cookie);
    }
    if decision.verdict == Verdict::DENY {
        REFUSE
    } else {
        ALLOW
    }
}

/// Every refusal is told; of what is allowed, each connection outside loopback.
#[inline(always)]
fn worth_telling(hook: Hook, decision: &Decision) -> bool {
    decision.verdict != Verdict::ALLOW
        || (decision.rule != LOOPBACK_RULE && (hook == Hook::CONNECT4 || hook == Hook::CONNECT6))
}

#[inline(always)]
fn destination(ctx: *mut bpf_sock_addr, v6: bool) -> Destination {
    let mut address = [0_u8; 16];
    if v6 {
        for i in 0..4 {
            // SAFETY: the context is valid and `i` within the array; volatile,
            // because the verifier wants the words loaded one by one.
            let word = unsafe { (&raw const (*ctx).user_ip6[i]).read_volatile() };
            let bytes = word.to_ne_bytes();
            address[4 * i] = bytes[0];
            address[4 * i + 1] = bytes[1];
            address[4 * i + 2] = bytes[2];
            address[4 * i + 3] = bytes[3];
        }
    } else {
        // SAFETY: the context is valid.
        let word = unsafe { (&raw const (*ctx).user_ip4).read_volatile() };
        address = decide::mapped(word.to_ne_bytes());
    }
    // SAFETY: the context is valid.
    let port = unsafe { (&raw const (*ctx).user_port).read_volatile() };
    // SAFETY: the context is valid.
    let sk_protocol = unsafe { (&raw const (*ctx).protocol).read_volatile() };
    let protocol = if sk_protocol == MPTCP {
        protocol::TCP
    } else {
        sk_protocol as u8
    };
    Destination {
        address: decide::loopback_if_unspecified(address),
        port: if protocols::has_ports(protocol) {
            u16::from_be(port as u16)
        } else {
            0
        },
        protocol,
        fragment: false,
        reserved: 0,
    }
}

#[inline(never)]
fn report(hook: Hook, subject: &Subject, to: &Destination, decision: &Decision, cookie: u64) {
    emit::send(EventKind::FLOW, hook, subject, |event| {
        emit::describe_current(event);
        event.cookie = cookie;
        decide::describe(event, to, decision);
    });
}
