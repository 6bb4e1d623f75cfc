//! `cgroup/setsockopt`: socket options that would take a guarded process's
//! packets past the hooks that judge them.
//!
//! It also refuses to join a multicast group outside: the kernel would say the
//! group's address to every router of the link (IGMP, MLD), in a packet of its
//! own that no egress hook sees.
//!
//! It refuses the option, so that the caller hears EPERM at once; what an
//! option set before the group was guarded does is for the other hooks to
//! stop. It judges the kernel's copy of the value and hands that copy on, so
//! that a second thread cannot change it in between. It sees no getsockopt(2)
//! (SCTP has a connect there) and no control message of sendmsg(2): egress does.

use crate::decide::{self, Destination};
use crate::emit;
use crate::guarded::{self, Subject};
use aya_ebpf::bindings::bpf_sockopt;
use aya_ebpf::macros::cgroup_sockopt;
use aya_ebpf::programs::SockoptContext;
use merestone_abi::{EventKind, Hook, Reason, Verdict, protocol};

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;

/// The kernel copies at most a page for the programs (kernel/bpf/cgroup.c
/// `sockopt_alloc_buf`), and refuses the call with EFAULT where a longer value
/// is not handed on as the caller's own memory.
const PAGE: i32 = 4096;

// include/linux/socket.h
const SOL_IP: i32 = 0;
const SOL_SOCKET: i32 = 1;
const SOL_IPV6: i32 = 41;
const SOL_SCTP: i32 = 132;
const SOL_PACKET: i32 = 263;
const SOL_XDP: i32 = 283;

/// include/uapi/asm-generic/socket.h
const SO_MARK: i32 = 36;
/// include/uapi/linux/in.h
const IP_OPTIONS: i32 = 4;
// include/uapi/linux/in6.h
const IPV6_2292PKTOPTIONS: i32 = 6;
const IPV6_RTHDRDSTOPTS: i32 = 55;
const IPV6_RTHDR: i32 = 57;
/// include/uapi/linux/if_packet.h
const PACKET_QDISC_BYPASS: i32 = 20;
// include/uapi/linux/sctp.h
const SCTP_SOCKOPT_CONNECTX_OLD: i32 = 107;
const SCTP_SOCKOPT_CONNECTX: i32 = 110;
const SCTP_SOCKOPT_CONNECTX3: i32 = 111;

// include/uapi/linux/in.h: joins, and lists of sources, which reports say too.
const IP_ADD_MEMBERSHIP: i32 = 35;
const IP_UNBLOCK_SOURCE: i32 = 37;
const IP_BLOCK_SOURCE: i32 = 38;
const IP_ADD_SOURCE_MEMBERSHIP: i32 = 39;
const IP_MSFILTER: i32 = 41;
// The same at both levels.
const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_BLOCK_SOURCE: i32 = 43;
const MCAST_UNBLOCK_SOURCE: i32 = 44;
const MCAST_JOIN_SOURCE_GROUP: i32 = 46;
const MCAST_MSFILTER: i32 = 48;
// include/uapi/linux/in6.h
const IPV6_JOIN_GROUP: i32 = 20;
const IPV6_JOIN_ANYCAST: i32 = 27;
/// `IPPROTO_IGMP`, include/uapi/linux/in.h.
const IGMP: u8 = 2;
/// Where the address lies in `struct group_req`: behind an index that is
/// padded to eight bytes, and the family and port of a sockaddr.
const IN_REQUEST_V4: usize = 12;
const IN_REQUEST_V6: usize = 16;
/// include/linux/socket.h
const AF_INET6: u16 = 10;

/// IPv4 options fit in 60 - 20 bytes; the kernel refuses more
/// (net/ipv4/ip_options.c `ip_options_get`).
const MAX_IP_OPTIONS: usize = 40;
/// RFC 791 §3.1: loose and strict source route.
const LSRR: u8 = 131;
const SSRR: u8 = 137;

/// Judges setsockopt(2) of a guarded process.
#[cgroup_sockopt(setsockopt)]
pub(crate) fn setsockopt(ctx: SockoptContext) -> i32 {
    let ctx = ctx.sockopt;
    if !guarded::current_is_clear()
        && let Some(subject) = guarded::current(guarded::armed())
        && (is_refused(ctx) || joins_outside(ctx, &subject))
        && refuse(ctx, &subject) == Verdict::DENY
    {
        return REFUSE;
    }
    // SAFETY: the context is valid; volatile, because the verifier wants each
    // field loaded whole.
    let length = unsafe { (&raw const (*ctx).optlen).read_volatile() };
    if length > PAGE {
        // Nothing longer than a page was judged by what it holds.
        // SAFETY: as above; 0 stands for "what the caller has".
        unsafe { (&raw mut (*ctx).optlen).write_volatile(0) };
    }
    ALLOW
}

#[inline(always)]
fn is_refused(ctx: *mut bpf_sockopt) -> bool {
    // SAFETY: the context is valid; volatile, as above.
    let (level, name, length) = unsafe {
        (
            (&raw const (*ctx).level).read_volatile(),
            (&raw const (*ctx).optname).read_volatile(),
            (&raw const (*ctx).optlen).read_volatile(),
        )
    };
    match level {
        // AF_XDP cannot send without one of them.
        SOL_XDP => true,
        // Past every traffic control hook too.
        SOL_PACKET => name == PACKET_QDISC_BYPASS,
        SOL_SOCKET => name == SO_MARK,
        // The next stop is then not the address that is judged. With length 0
        // an option is taken away.
        SOL_IPV6 => {
            length != 0
                && (name == IPV6_RTHDR || name == IPV6_RTHDRDSTOPTS || name == IPV6_2292PKTOPTIONS)
        }
        SOL_IP => name == IP_OPTIONS && has_source_route(ctx),
        SOL_SCTP => {
            name == SCTP_SOCKOPT_CONNECTX_OLD
                || name == SCTP_SOCKOPT_CONNECTX
                || name == SCTP_SOCKOPT_CONNECTX3
        }
        _ => false,
    }
}

/// Whether the option has a multicast group outside the boundary reported. One
/// inside may be joined where a rule lets IGMP or ICMPv6 go there; with a list
/// of sources, which is data too, none.
#[inline(always)]
fn joins_outside(ctx: *mut bpf_sockopt, subject: &Subject) -> bool {
    // SAFETY: the context is valid; volatile, as above.
    let (level, name) = unsafe {
        (
            (&raw const (*ctx).level).read_volatile(),
            (&raw const (*ctx).optname).read_volatile(),
        )
    };
    let at = match (level, name) {
        (SOL_IP, IP_ADD_MEMBERSHIP) | (SOL_IPV6, IPV6_JOIN_GROUP) => 0,
        (SOL_IP | SOL_IPV6, MCAST_JOIN_GROUP) => IN_REQUEST_V4,
        (SOL_IP, IP_UNBLOCK_SOURCE | IP_BLOCK_SOURCE | IP_ADD_SOURCE_MEMBERSHIP | IP_MSFILTER)
        | (SOL_IPV6, IPV6_JOIN_ANYCAST)
        | (
            SOL_IP | SOL_IPV6,
            MCAST_BLOCK_SOURCE | MCAST_UNBLOCK_SOURCE | MCAST_JOIN_SOURCE_GROUP | MCAST_MSFILTER,
        ) => return true,
        _ => return false,
    };
    let mut v6 = level == SOL_IPV6;
    let mut group = [0_u8; 16];
    let read = if at == 0 {
        value(ctx, 0, &mut group, v6)
    } else {
        let mut family = [0_u8; 16];
        let known = value(ctx, 8, &mut family, false);
        v6 = u16::from_ne_bytes([family[0], family[1]]) == AF_INET6;
        let at = if v6 { IN_REQUEST_V6 } else { IN_REQUEST_V4 };
        known && value(ctx, at, &mut group, v6)
    };
    if !read {
        return false; // too short: the kernel refuses it
    }
    let to = Destination {
        address: if v6 {
            group
        } else {
            decide::mapped([group[0], group[1], group[2], group[3]])
        },
        port: 0,
        protocol: if v6 { protocol::ICMPV6 } else { IGMP },
        fragment: false,
        reserved: 0,
    };
    let mut decision = decide::refuse(Reason::SOCKET_OPTION);
    decide::decide_for(subject, &to, 0, &mut decision);
    decision.verdict != Verdict::ALLOW
}

/// Reads an address of the value; false where it is too short.
#[inline(always)]
fn value(ctx: *mut bpf_sockopt, at: usize, bytes: &mut [u8; 16], v6: bool) -> bool {
    // SAFETY: the context is valid.
    let (start, end) = unsafe {
        (
            (*ctx).__bindgen_anon_2.optval as usize,
            (*ctx).__bindgen_anon_3.optval_end as usize,
        )
    };
    let wanted = if v6 { 16 } else { 4 };
    for i in 0..16 {
        if i >= wanted {
            break;
        }
        if start + at + i + 1 > end {
            return false;
        }
        // SAFETY: within the value, as the verifier has just seen.
        bytes[i] = unsafe { ((start + at + i) as *const u8).read_volatile() };
    }
    true
}

/// Whether any byte could be a source route's type: options are not walked, so
/// that no length in them is believed.
#[inline(always)]
fn has_source_route(ctx: *mut bpf_sockopt) -> bool {
    // SAFETY: the context is valid.
    let (start, end) = unsafe {
        (
            (*ctx).__bindgen_anon_2.optval as usize,
            (*ctx).__bindgen_anon_3.optval_end as usize,
        )
    };
    let mut found = false;
    for i in 0..MAX_IP_OPTIONS {
        if start + i + 1 > end {
            break;
        }
        // SAFETY: within the value, as the verifier has just seen.
        let byte = unsafe { ((start + i) as *const u8).read_volatile() };
        found |= byte == LSRR || byte == SSRR;
    }
    found
}

#[inline(never)]
fn refuse(ctx: *mut bpf_sockopt, subject: &Subject) -> Verdict {
    // SAFETY: the context is valid; volatile, as above.
    let (level, name) = unsafe {
        (
            (&raw const (*ctx).level).read_volatile(),
            (&raw const (*ctx).optname).read_volatile(),
        )
    };
    let decision = decide::refuse(Reason::SOCKET_OPTION);
    emit::count(Hook::SETSOCKOPT, decision.verdict, 0, subject.group, 0);
    emit::send(EventKind::FLOW, Hook::SETSOCKOPT, subject, |event| {
        emit::describe_current(event);
        event.major = level as u32;
        event.minor = name as u32;
        event.verdict = decision.verdict;
        event.reason = decision.reason;
        event.generation = decision.generation;
    });
    decision.verdict
}
