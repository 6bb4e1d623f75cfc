//! BPF LSM, the second tier: socket families, and sockets handed over.
//!
//! Loaded only where a trial load succeeds. It closes what no cgroup hook sees
//! (AF_PACKET, AF_XDP, vsock, ...) and judges a socket that an unguarded
//! process made when a guarded one uses it, or is handed it. It does not look
//! into what an AF_UNIX or loopback peer does with what it is told.

use crate::decide::{self, Decision, Destination};
use crate::emit;
use crate::guarded::{self, Subject};
use crate::layout::{
    MSG_NAME, MSG_NAMELEN, SK_CGROUP_DATA, SK_PROTOCOL, SKC_DADDR, SKC_DPORT, SKC_FAMILY,
    SKC_V6_DADDR, SOCKET_SK, field,
};
use crate::lineage;
use crate::names;
use crate::protocols;
use crate::sockets;
use crate::unix;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use merestone_abi::{EventKind, Hook, LostReason, Reason, Verdict, protocol};

// include/linux/socket.h
const AF_UNSPEC: u16 = 0;
pub(crate) const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_NETLINK: u16 = 16;
/// include/uapi/linux/netlink.h
const NETLINK_ROUTE: u32 = 0;
/// `IPPROTO_MPTCP`, include/uapi/linux/in.h.
const MPTCP: u16 = 262;

/// Whether a guarded task may have a socket of this family.
#[inline(always)]
pub(crate) fn family_is_allowed(family: u16, protocol: u32) -> bool {
    match family {
        AF_UNIX | AF_INET | AF_INET6 => true,
        AF_NETLINK => protocol == NETLINK_ROUTE,
        _ => false,
    }
}

/// `socket_create(family, type, protocol, kern)`.
#[lsm(hook = "socket_create")]
pub(crate) fn socket_create(ctx: LsmContext) -> i32 {
    let before: i32 = ctx.arg(4);
    if before != 0 {
        return before;
    }
    let kern: i32 = ctx.arg(3);
    if kern != 0 {
        return 0;
    }
    let Some(subject) = guarded::current(guarded::armed()) else {
        return 0;
    };
    let family: i32 = ctx.arg(0);
    let protocol: i32 = ctx.arg(2);
    if family_is_allowed(family as u16, protocol as u32) {
        return 0;
    }
    refuse_family(Hook::LSM_CREATE, &subject, family as u16)
}

/// `socket_connect(sock, address, addrlen)`.
#[lsm(hook = "socket_connect")]
pub(crate) fn socket_connect(ctx: LsmContext) -> i32 {
    let before: i32 = ctx.arg(3);
    if before != 0 {
        return before;
    }
    let Some(subject) = guarded::current(guarded::armed()) else {
        return 0;
    };
    let socket: *const u8 = ctx.arg(0);
    let address: *const u8 = ctx.arg(1);
    let length: i32 = ctx.arg(2);
    judge(
        Hook::LSM_CONNECT,
        &subject,
        socket,
        address as u64,
        length as u32,
    )
}

/// `socket_sendmsg(sock, msg, size)`.
#[lsm(hook = "socket_sendmsg")]
pub(crate) fn socket_sendmsg(ctx: LsmContext) -> i32 {
    let before: i32 = ctx.arg(3);
    if before != 0 {
        return before;
    }
    let Some(subject) = guarded::current(guarded::armed()) else {
        return 0;
    };
    let socket: *const u8 = ctx.arg(0);
    let message: *const u8 = ctx.arg(1);
    // SAFETY: a msghdr.
    let name: u64 = unsafe { field(message, &MSG_NAME) };
    // SAFETY: as above.
    let length: u32 = unsafe { field(message, &MSG_NAMELEN) };
    judge(Hook::LSM_SENDMSG, &subject, socket, name, length)
}

/// Judges one use of a socket. `name` is an address in kernel memory, or 0.
#[inline(always)]
pub(crate) fn judge(
    hook: Hook,
    subject: &Subject,
    socket: *const u8,
    name: u64,
    length: u32,
) -> i32 {
    // SAFETY: a socket.
    let sk: *const u8 = unsafe { field(socket, &SOCKET_SK) };
    if sk.is_null() {
        return 0;
    }
    // SAFETY: a sock, which starts with its sock_common.
    let family: u16 = unsafe { field(sk, &SKC_FAMILY) };
    // SAFETY: as above.
    let sk_protocol: u16 = unsafe { field(sk, &SK_PROTOCOL) };
    if !family_is_allowed(family, u32::from(sk_protocol)) {
        return refuse_family(hook, subject, family);
    }
    if family == AF_UNIX && (hook == Hook::LSM_RECEIVE || hook == Hook::LSM_SENDMSG) {
        return unix::connected(hook, subject, sk);
    }
    if family != AF_INET && family != AF_INET6 {
        return 0;
    }
    if !sockets::mark(sk.cast_mut().cast(), subject) {
        emit::lost(LostReason::SOCKET_MARK);
        return refuse_family(hook, subject, family);
    }
    let mut to = Destination {
        address: [0; 16],
        port: 0,
        protocol: if sk_protocol == MPTCP {
            protocol::TCP
        } else {
            sk_protocol as u8
        },
        fragment: false,
        reserved: 0,
    };
    let known = if name != 0 && length >= 2 {
        named(&mut to, family, name, length)
    } else if hook == Hook::LSM_SENDMSG || hook == Hook::LSM_RECEIVE {
        peer(&mut to, family, sk)
    } else {
        false
    };
    // Nowhere to send to yet: the kernel refuses it, or the packet is judged.
    if !known {
        return 0;
    }
    if !protocols::has_ports(to.protocol) {
        to.port = 0;
    }
    let mut decision = decide::refuse(Reason::NO_RULE);
    decide::decide_for(&subject, &to, 0, &mut decision);
    // A connection to a name's address goes on, as at egress.
    if hook == Hook::LSM_SENDMSG
        && decision.verdict != Verdict::ALLOW
        && let Some(mark) = sockets::storage(sk.cast_mut().cast(), 0)
    {
        names::outlive(mark, subject, &to, &mut decision);
    }
    emit::count(hook, decision.verdict, to.protocol, subject.group, 0);
    if decision.verdict == Verdict::ALLOW {
        return 0;
    }
    report(hook, subject, &to, &decision)
}

/// `inet_conn_request(sk, skb, req)`: somebody connects in. The kernel answers
/// with a SYN-ACK, which before 6.6 passes no egress hook with IPv6
/// (include/linux/bpf-cgroup.h `BPF_CGROUP_RUN_PROG_INET_EGRESS`).
#[lsm(hook = "inet_conn_request")]
pub(crate) fn inet_conn_request(ctx: LsmContext) -> i32 {
    let before: i32 = ctx.arg(3);
    if before != 0 {
        return before;
    }
    let mask = guarded::armed();
    if mask == 0 {
        return 0;
    }
    let sk: *const u8 = ctx.arg(0);
    let Some(subject) = subject_of(sk, mask) else {
        return 0;
    };
    let request: *const u8 = ctx.arg(2);
    // SAFETY: a request_sock, which starts with a sock_common.
    let family: u16 = unsafe { field(request, &SKC_FAMILY) };
    let mut to = Destination {
        address: [0; 16],
        port: 0,
        protocol: protocol::TCP,
        fragment: false,
        reserved: 0,
    };
    if !peer(&mut to, family, request) {
        return 0;
    }
    let mut decision = decide::refuse(Reason::NO_RULE);
    decide::decide_for(&subject, &to, 0, &mut decision);
    if decision.verdict == Verdict::ALLOW {
        return 0;
    }
    let hook = Hook::LSM_CONNECT;
    emit::count(hook, decision.verdict, to.protocol, subject.group, 0);
    emit::send(EventKind::FLOW, hook, &subject, |event| {
        decide::describe(event, &to, &decision);
    });
    decide::answer(decision.verdict)
}

/// What a listener is judged as: by its cgroup, or by its mark.
#[inline(always)]
fn subject_of(sk: *const u8, mask: u64) -> Option<Subject> {
    // SAFETY: a sock; the first field of its sock_cgroup_data is the cgroup.
    let cgroup: *const u8 = unsafe { field(sk, &SK_CGROUP_DATA) };
    if !cgroup.is_null() {
        let own = lineage::cgroup_id(cgroup);
        let above = |level| lineage::ancestor_id(cgroup, level);
        if let Some((group, boundary)) = guarded::group_above(mask, own, above) {
            return Some(Subject {
                group,
                tgid: sockets::owner(sk.cast_mut().cast()),
                boundary,
            });
        }
    }
    sockets::subject(sk.cast_mut().cast())
}

/// Reads a `sockaddr_in` or `sockaddr_in6` in kernel memory.
#[inline(always)]
fn named(to: &mut Destination, sk_family: u16, name: u64, length: u32) -> bool {
    // SAFETY: the helper survives any address.
    let Ok(family) = (unsafe { bpf_probe_read_kernel(name as *const u16) }) else {
        return false;
    };
    // An IPv4 datagram socket takes AF_UNSPEC for AF_INET (net/ipv4/udp.c
    // `udp_sendmsg`); to connect to AF_UNSPEC is to disconnect.
    let v4 = family == AF_INET || (family == AF_UNSPEC && sk_family == AF_INET);
    if family == AF_UNSPEC && length < 8 {
        return false;
    }
    let port_at = (name + 2) as *const u16;
    // SAFETY: as above.
    let Ok(port) = (unsafe { bpf_probe_read_kernel(port_at) }) else {
        return false;
    };
    to.port = u16::from_be(port);
    if v4 {
        // SAFETY: as above.
        let Ok(v4) = (unsafe { bpf_probe_read_kernel((name + 4) as *const [u8; 4]) }) else {
            return false;
        };
        to.address = decide::mapped(v4);
    } else if family == AF_INET6 {
        // SAFETY: as above.
        let Ok(v6) = (unsafe { bpf_probe_read_kernel((name + 8) as *const [u8; 16]) }) else {
            return false;
        };
        to.address = v6;
    } else {
        return false;
    }
    to.address = decide::loopback_if_unspecified(to.address);
    true
}

/// Reads the peer of a connected socket; false where there is none.
#[inline(always)]
fn peer(to: &mut Destination, family: u16, sk: *const u8) -> bool {
    // SAFETY: a sock, which starts with its sock_common.
    let port: u16 = unsafe { field(sk, &SKC_DPORT) };
    to.port = u16::from_be(port);
    if family == AF_INET {
        // SAFETY: as above.
        let v4: u32 = unsafe { field(sk, &SKC_DADDR) };
        to.address = decide::mapped(v4.to_ne_bytes());
        return v4 != 0;
    }
    let at = sk.wrapping_add(SKC_V6_DADDR.load() as usize);
    // SAFETY: the helper survives any address.
    let Ok(v6) = (unsafe { bpf_probe_read_kernel(at.cast::<[u8; 16]>()) }) else {
        return false;
    };
    to.address = v6;
    let mut any = 0;
    for byte in v6 {
        any |= byte;
    }
    any != 0
}

#[inline(never)]
fn report(hook: Hook, subject: &Subject, to: &Destination, decision: &Decision) -> i32 {
    emit::send(EventKind::FLOW, hook, subject, |event| {
        emit::describe_current(event);
        decide::describe(event, to, decision);
    });
    decide::answer(decision.verdict)
}

#[inline(never)]
fn refuse_family(hook: Hook, subject: &Subject, family: u16) -> i32 {
    let decision = decide::refuse(Reason::FAMILY);
    emit::count(hook, decision.verdict, 0, subject.group, 0);
    emit::send(EventKind::FLOW, hook, subject, |event| {
        emit::describe_current(event);
        event.family = family;
        event.verdict = decision.verdict;
        event.reason = decision.reason;
        event.generation = decision.generation;
    });
    decide::answer(decision.verdict)
}
