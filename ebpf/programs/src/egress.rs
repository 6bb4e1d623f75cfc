//! `cgroup_skb/egress`: the sure answer.
//!
//! Every IP packet of a socket passes here, whoever made the socket and
//! whenever: raw, ping, established, replies, retransmissions. It judges by
//! the socket, never by the task that happens to run, which in a softirq is
//! anybody's. Packets without a full socket (include/linux/bpf-cgroup.h) do
//! not come here: resets and TIME_WAIT acknowledgements, which carry no data.
//!
//! A packet like the socket's last one passes by the verdict remembered there,
//! and one of a cgroup known not to be guarded passes at once.

use crate::clear;
use crate::decide::{self, Decision, Destination};
use crate::deputy;
use crate::dns;
use crate::emit;
use crate::guarded::{self, Subject};
use crate::names;
use crate::packet;
use crate::sockets;
use crate::verdicts::{self, Remembered};
use aya_ebpf::bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::bpf_get_socket_cookie;
use aya_ebpf::helpers::generated::{
    bpf_get_listener_sock, bpf_sk_fullsock, bpf_skb_ancestor_cgroup_id, bpf_skb_cgroup_id,
};
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use core::ffi::c_void;
use core::ptr;
use merestone_abi::{EventKind, Hook, Reason, SocketMark, Verdict, protocol};

const PASS: i32 = 1;
const DROP: i32 = 0;

/// `TCP_NEW_SYN_RECV`, include/net/tcp_states.h: a SYN-ACK's socket is none yet.
const NEW_SYN_RECV: u32 = 12;

/// Judges each outgoing packet of a guarded socket.
#[cgroup_skb(egress)]
pub(crate) fn egress(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let epoch = guarded::epoch();
    if epoch == 0 {
        return PASS;
    }
    // SAFETY: the context is valid.
    let sk = unsafe { (*skb).__bindgen_anon_2.sk };
    if !sk.is_null() && is_remembered(skb, sk, epoch) {
        return PASS;
    }
    judge(skb, epoch)
}

/// Whether what is remembered lets the packet pass. Inlined: on a processor
/// that guards its returns a call costs a quarter of all this.
#[inline(always)]
fn is_remembered(skb: *mut __sk_buff, sk: *mut bpf_sock, epoch: u32) -> bool {
    match sockets::storage(sk.cast(), 0) {
        Some(mark) => match verdicts::recall(skb, mark, epoch) {
            Remembered::Unguarded => true,
            Remembered::Allowed(slot) => count_fast(skb, mark, slot),
            Remembered::Nothing => false,
        },
        None => {
            // SAFETY: `sk` is the packet's socket, of whatever kind; volatile,
            // because the verifier wants the field loaded whole.
            let state = unsafe { (&raw const (*sk).state).read_volatile() };
            // SAFETY: the context is valid; the helper finds the socket's cgroup.
            let own = unsafe { bpf_skb_cgroup_id(skb) };
            state != NEW_SYN_RECV && clear::has_cgroup(own, epoch)
        }
    }
}

#[inline(always)]
fn count_fast(skb: *mut __sk_buff, mark: &SocketMark, slot: u32) -> bool {
    // SAFETY: the context is valid.
    let length = unsafe { (&raw const (*skb).len).read_volatile() };
    emit::count_fast(slot, mark.cached.protocol == protocol::TCP, length)
}

/// Judges a packet that no remembered verdict covers.
#[inline(never)]
fn judge(skb: *mut __sk_buff, epoch: u32) -> i32 {
    emit::fence(); // who is guarded is asked after the epoch was read
    let Some(subject) = subject_of(skb, guarded::armed()) else {
        if let Some(mark) = sockets::storage(socket(skb), 0) {
            verdicts::remember_unguarded(mark, epoch);
        }
        return PASS;
    };
    let mut to = Destination {
        address: [0; 16],
        port: 0,
        protocol: 0,
        fragment: false,
        reserved: 0,
    };
    // SAFETY: the context is valid.
    let length = unsafe { (&raw const (*skb).len).read_volatile() };
    let mut decision = decide::refuse(Reason::UNPARSABLE);
    match packet::parse(skb, &mut to) {
        Ok(source) => {
            decide::decide_for(&subject, &to, length, &mut decision);
            if decision.verdict != Verdict::ALLOW
                && let Some(mark) = sockets::storage(socket(skb), 0)
            {
                names::outlive(mark, &subject, &to, &mut decision);
            }
            dns::judge(skb, &subject, &to, source, &mut decision);
        }
        Err(reason) => decision.reason = reason,
    }
    if decision.verdict == Verdict::ALLOW {
        deputy::local(skb, &subject, &to, &mut decision);
    }
    emit::count(
        Hook::EGRESS,
        decision.verdict,
        to.protocol,
        subject.group,
        length,
    );
    if decision.verdict == Verdict::ALLOW {
        remember(skb, epoch, &subject, &to, &decision);
    } else {
        report(skb, &subject, &to, &decision);
    }
    if decision.verdict == Verdict::DENY {
        DROP
    } else {
        PASS
    }
}

/// Of a SYN-ACK nothing is remembered: it has its listener's mark.
#[inline(never)]
fn remember(
    skb: *mut __sk_buff,
    epoch: u32,
    subject: &Subject,
    to: &Destination,
    decision: &Decision,
) {
    // SAFETY: the context is valid.
    let sk = unsafe { (*skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return;
    }
    if let Some(mark) = sockets::storage(sk.cast(), BPF_SK_STORAGE_GET_F_CREATE) {
        verdicts::remember(mark, epoch, subject, to, decision);
    }
}

/// Whose packet it is: by its socket's cgroup, else by the socket's mark.
#[inline(always)]
pub(crate) fn subject_of(skb: *mut __sk_buff, mask: u64) -> Option<Subject> {
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
pub(crate) fn socket(skb: *mut __sk_buff) -> *mut c_void {
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
