//! `cgroup_skb/egress`: the sure answer.
//!
//! Every IP packet of a socket passes here, whoever made the socket and
//! whenever: raw, ping, established, replies, retransmissions. It judges by
//! the socket, never by the task that happens to run, which in a softirq is
//! anybody's. Packets without a full socket (include/linux/bpf-cgroup.h) do
//! not come here: resets and TIME_WAIT acknowledgements, which carry no data.

use crate::decide::{self, Decision, Destination};
use crate::dns;
use crate::emit;
use crate::guarded::{self, Subject};
use crate::packet;
use crate::sockets;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_get_socket_cookie;
use aya_ebpf::helpers::generated::{
    bpf_get_listener_sock, bpf_sk_fullsock, bpf_skb_ancestor_cgroup_id, bpf_skb_cgroup_id,
};
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use core::ffi::c_void;
use core::ptr;
use merestone_abi::{EventKind, Hook, Reason, Verdict};

const PASS: i32 = 1;
const DROP: i32 = 0;

/// Judges each outgoing packet of a guarded socket.
#[cgroup_skb(egress)]
pub(crate) fn egress(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let mask = guarded::armed();
    if mask == 0 {
        return PASS;
    }
    let Some(subject) = subject_of(skb, mask) else {
        return PASS;
    };
    let mut to = Destination {
        address: [0; 16],
        port: 0,
        protocol: 0,
        fragment: false,
    };
    let mut decision = decide::refuse(Reason::UNPARSABLE);
    match packet::parse(skb, &mut to) {
        Ok(source) => {
            decide::decide(&to, subject.boundary, &mut decision);
            dns::judge(skb, &subject, &to, source, &mut decision);
        }
        Err(reason) => decision.reason = reason,
    }
    // SAFETY: the context is valid.
    let length = unsafe { (&raw const (*skb).len).read_volatile() };
    emit::count(
        Hook::EGRESS,
        decision.verdict,
        to.protocol,
        subject.group,
        length,
    );
    if decision.verdict != Verdict::ALLOW {
        report(skb, &subject, &to, &decision);
    }
    if decision.verdict == Verdict::DENY {
        DROP
    } else {
        PASS
    }
}

#[inline(always)]
fn subject_of(skb: *mut __sk_buff, mask: u64) -> Option<Subject> {
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
    sockets::subject(socket(skb))
}

/// The packet's full socket; for a SYN-ACK its listener; else null.
#[inline(always)]
fn socket(skb: *mut __sk_buff) -> *mut c_void {
    // SAFETY: the context is valid.
    let sk = unsafe { (*skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: `sk` is the packet's socket, of whatever kind.
    let full = unsafe { bpf_sk_fullsock(sk) };
    if !full.is_null() {
        return full.cast();
    }
    // SAFETY: as above.
    unsafe { bpf_get_listener_sock(sk) }.cast()
}

#[inline(never)]
fn report(skb: *mut __sk_buff, subject: &Subject, to: &Destination, decision: &Decision) {
    let tgid = if subject.tgid == 0 {
        sockets::owner(socket(skb))
    } else {
        subject.tgid
    };
    // SAFETY: the context is valid.
    let cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
    // SAFETY: the context is valid.
    let length = unsafe { (&raw const (*skb).len).read_volatile() };
    emit::send(EventKind::FLOW, Hook::EGRESS, subject, |event| {
        event.tgid = tgid;
        event.cookie = cookie;
        event.length = length;
        decide::describe(event, to, decision);
    });
}
