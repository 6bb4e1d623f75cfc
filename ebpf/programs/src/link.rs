//! `tcx/egress` (`tc` before 6.6) of every link: what passes below IP.
//!
//! A packet socket's frame meets no cgroup hook, but it carries its socket.
//! Frames of inet sockets were judged by `cgroup_skb/egress` and pass at once:
//! that costs an unguarded packet two loads. Any other socket of a guarded
//! group is refused here whatever its frame says, as the LSM tier refuses the
//! family: a packet socket lets its holder name one protocol to the kernel and
//! write another into the frame, so nothing in it is believed. What is read
//! from the frame is for the report alone.
//!
//! It sees no frame sent with PACKET_QDISC_BYPASS or by AF_XDP
//! (net/core/dev.c `__dev_direct_xmit`): `cgroup/setsockopt` refuses those.

use crate::decide::{self, Decision, Destination};
use crate::emit;
use crate::guarded::{self, Subject};
use crate::layout::TASK_TGID;
use crate::sockets;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::{
    bpf_get_current_task, bpf_get_socket_cookie, bpf_sk_fullsock, bpf_skb_ancestor_cgroup_id,
    bpf_skb_cgroup_id, bpf_skb_load_bytes,
};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use core::ffi::c_void;
use core::ptr;
use merestone_abi::{EventKind, Hook, Reason, Verdict};

/// `TCX_NEXT`, `TC_ACT_UNSPEC`: whoever comes next has a say too.
const NEXT: i32 = -1;
/// `TCX_DROP`, `TC_ACT_SHOT`.
const DROP: i32 = 2;

// include/linux/socket.h
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

const ETHERNET_HEADER: u32 = 14;
const VLAN_HEADER: u32 = 4;
// include/uapi/linux/if_ether.h
const ETH_P_IP: u16 = 0x0800;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
const ETH_P_IPV6: u16 = 0x86dd;

/// Refuses frames of a guarded group's sockets below IP.
#[classifier]
pub(crate) fn link(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context is valid.
    let sk = unsafe { (*skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return NEXT; // the kernel's own, or forwarded
    }
    // SAFETY: not null, so a socket of some kind; volatile, because the
    // verifier wants the field loaded whole.
    let family = unsafe { (&raw const (*sk).family).read_volatile() };
    if family == AF_INET || family == AF_INET6 {
        return NEXT;
    }
    let mask = guarded::armed();
    if mask == 0 {
        return NEXT;
    }
    // SAFETY: as above.
    let full = unsafe { bpf_sk_fullsock(sk) }.cast();
    match subject_of(skb, full, mask) {
        Some(mut subject) => {
            if subject.tgid == 0 {
                subject.tgid = sender(skb);
            }
            refuse(skb, &subject, family)
        }
        None => NEXT,
    }
}

#[inline(always)]
fn subject_of(skb: *mut __sk_buff, full: *mut c_void, mask: u64) -> Option<Subject> {
    // SAFETY: the context is valid; the helper finds the socket's cgroup.
    let own = unsafe { bpf_skb_cgroup_id(skb) };
    // SAFETY: as above; the helper checks the level itself.
    let found = guarded::group_above(mask, own, |level| unsafe {
        bpf_skb_ancestor_cgroup_id(skb, level)
    });
    if let Some((group, boundary)) = found {
        return Some(Subject {
            group,
            tgid: 0,
            boundary,
        });
    }
    // No hook marks such a socket when it is made: in a cgroup where only
    // trees are guarded, whoever sends through it does.
    let tgid = sender(skb);
    if let Some(task) = guarded::task(tgid) {
        let subject = Subject::of_task(task, tgid);
        sockets::mark(full, &subject);
        return Some(subject);
    }
    sockets::subject(full)
}

/// The process that sends: a packet socket's frame comes here in its own call
/// (net/packet/af_packet.c `packet_snd`). 0 for a frame that came in by
/// another link, where the task that runs is anybody.
#[inline(always)]
fn sender(skb: *mut __sk_buff) -> u32 {
    // SAFETY: the context is valid.
    if unsafe { (&raw const (*skb).ingress_ifindex).read_volatile() } != 0 {
        return 0;
    }
    // SAFETY: the helper takes no arguments and cannot fail.
    let task = unsafe { bpf_get_current_task() } as usize;
    let at = task.wrapping_add(TASK_TGID.load() as usize) as *const u32;
    // SAFETY: the helper survives any address.
    unsafe { bpf_probe_read_kernel(at) }.unwrap_or(0)
}

#[inline(never)]
fn refuse(skb: *mut __sk_buff, subject: &Subject, family: u32) -> i32 {
    let mut to = Destination {
        address: [0; 16],
        port: 0,
        protocol: 0,
        fragment: false,
        reserved: 0,
    };
    let mut decision = decide::refuse(Reason::FAMILY);
    if !look(skb, &mut to) {
        decision.reason = Reason::NOT_IP;
    }
    emit::count(Hook::TCX, decision.verdict, to.protocol, subject.group, 0);
    report(skb, subject, &to, &decision, family);
    if decision.verdict == Verdict::DENY {
        DROP
    } else {
        NEXT
    }
}

/// Looks where an Ethernet frame says it goes; false where that is not IP.
#[inline(always)]
fn look(skb: *mut __sk_buff, to: &mut Destination) -> bool {
    let mut at = ETHERNET_HEADER;
    let mut kind = load_kind(skb, at - 2);
    for _ in 0..2 {
        if kind == ETH_P_8021Q || kind == ETH_P_8021AD {
            at += VLAN_HEADER;
            kind = load_kind(skb, at - 2);
        }
    }
    if kind == ETH_P_IP {
        let mut header = [0_u8; 20];
        if !load(skb, at, &mut header) {
            return false;
        }
        to.address = decide::mapped([header[16], header[17], header[18], header[19]]);
        to.protocol = header[9];
        return true;
    }
    if kind == ETH_P_IPV6 {
        let mut next = [0_u8; 1];
        to.protocol = if load(skb, at + 6, &mut next) {
            next[0]
        } else {
            0
        };
        return load(skb, at + 24, &mut to.address);
    }
    false
}

#[inline(always)]
fn load_kind(skb: *mut __sk_buff, at: u32) -> u16 {
    let mut kind = [0; 2];
    load(skb, at, &mut kind);
    u16::from_be_bytes(kind)
}

/// Reads from the link header on; false, and zeros, past the end.
#[inline(always)]
fn load<const N: usize>(skb: *mut __sk_buff, at: u32, bytes: &mut [u8; N]) -> bool {
    // SAFETY: the helper writes `N` bytes, or zeros and fails.
    let failed = unsafe {
        bpf_skb_load_bytes(
            skb.cast_const().cast(),
            at,
            ptr::from_mut(bytes).cast(),
            N as u32,
        )
    };
    failed == 0
}

#[inline(never)]
fn report(
    skb: *mut __sk_buff,
    subject: &Subject,
    to: &Destination,
    decision: &Decision,
    family: u32,
) {
    // SAFETY: the context is valid.
    let cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
    // SAFETY: as above.
    let length = unsafe { (&raw const (*skb).len).read_volatile() };
    emit::send(EventKind::FLOW, Hook::TCX, subject, |event| {
        event.cookie = cookie;
        event.length = length;
        event.family = family as u16;
        decide::describe(event, to, decision);
    });
}
