//! Deputies: processes outside a guarded group that it asks over loopback or
//! over a Unix socket, and that may send what it must not.
//!
//! Each is reported once a connection; where the boundary says so it is
//! refused. Who is asked is judged by the socket that would answer: its cgroup
//! or its mark. It does not know what the deputy does with what it hears, and
//! it does not report whoever asks the group: that is what a server is for.

use crate::decide::{self, Decision, Destination};
use crate::emit;
use crate::guarded::{self, Subject};
use crate::layout::{SK_CGROUP_DATA, field};
use crate::lineage;
use crate::listener;
use crate::maps::SETTINGS;
use crate::sockets;
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type, bpf_sock,
    bpf_sock_addr,
};
use aya_ebpf::helpers::generated::{
    bpf_sk_ancestor_cgroup_id, bpf_sk_cgroup_id, bpf_sk_fullsock, bpf_sk_release,
    bpf_sk_storage_get, bpf_skc_to_tcp_sock,
};
use aya_ebpf::macros::btf_map;
use core::ptr;
use merestone_abi::{
    Asked, Deputies, EventKind, GENERATION_SLOTS, Hook, Reason, Verdict, protocol,
};

/// What each socket asked last; not pinned: a new agent tells once more.
#[btf_map]
pub(crate) static DEPUTIES_ASKED: Storage = Storage::new();

/// A BTF map definition: the loader reads the types, never the values.
#[repr(C)]
pub(crate) struct Storage {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const Asked,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: the fields are null and never dereferenced; the loader replaces the
// address of the static by the map.
unsafe impl Sync for Storage {}

impl Storage {
    const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }
}

/// The loopback link of every network namespace (include/net/flow.h
/// `LOOPBACK_IFINDEX`): what is sent through it stays on this host.
const LOOPBACK: u32 = 1;
/// include/net/tcp_states.h
const TCP_SYN_SENT: u32 = 2;

/// Whether the live boundary refuses deputies of this kind.
#[inline(always)]
fn is_denied(kind: u8) -> bool {
    let Some(settings) = SETTINGS.get(0) else {
        return true;
    };
    let slots = u16::from_le_bytes(settings.deputies);
    (slots >> (8 * (settings.generation % GENERATION_SLOTS))) as u8 & kind != 0
}

/// The verdict on asking a deputy: ALLOW, or what a refusal comes to.
#[inline(always)]
pub(crate) fn verdict(kind: u8) -> Decision {
    let mut decision = decide::refuse(Reason::DEPUTY);
    if !is_denied(kind) {
        decision.verdict = Verdict::ALLOW;
    }
    decision
}

/// Judges the first packet of a flow that a rule allows and that stays on this
/// host. Later ones cost a comparison.
#[inline(never)]
pub(crate) fn local(
    skb: *mut __sk_buff,
    subject: &Subject,
    to: &Destination,
    decision: &mut Decision,
) {
    // SAFETY: the context is valid; volatile, because the verifier wants the
    // field loaded whole.
    if unsafe { (&raw const (*skb).ifindex).read_volatile() } != LOOPBACK {
        return;
    }
    // SAFETY: the context is valid.
    let sk = unsafe { (*skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return;
    }
    // SAFETY: not null, so a socket of some kind.
    let sk = unsafe { bpf_sk_fullsock(sk) };
    if sk.is_null() || !is_first(sk, to) {
        return;
    }
    let Some(asked) = answerer(skb, sk, subject, to) else {
        return;
    };
    let verdict = verdict(Deputies::DENY_LOOPBACK);
    emit::send(EventKind::DEPUTY, Hook::EGRESS, subject, |event| {
        decide::describe(event, to, &verdict);
        event.cookie = asked.cgroup;
        event.other = asked.owner;
    });
    if verdict.verdict != Verdict::ALLOW {
        *decision = verdict;
    }
}

/// Whether this packet opens something: a SYN, or the first datagram there.
#[inline(always)]
fn is_first(sk: *mut bpf_sock, to: &Destination) -> bool {
    if to.protocol == protocol::TCP {
        // SAFETY: a full socket; volatile, as above.
        return unsafe { (&raw const (*sk).state).read_volatile() } == TCP_SYN_SENT;
    }
    if to.protocol != protocol::UDP || to.fragment {
        return false;
    }
    let map = (&raw const DEPUTIES_ASKED).cast_mut().cast();
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: a full socket; the helper returns its storage or null.
    let known = unsafe { bpf_sk_storage_get(map, sk.cast(), ptr::null_mut(), create) };
    // SAFETY: as above. Two writers can race: both ask, and both tell.
    let Some(known) = (unsafe { known.cast::<Asked>().as_mut() }) else {
        return true;
    };
    if known.address == to.address && known.port == to.port {
        return false;
    }
    known.address = to.address;
    known.port = to.port;
    true
}

/// Somebody who would answer, outside the group.
struct Answerer {
    cgroup: u64,
    owner: u32,
}

/// Finds who listens there; none where it is the group itself, or nobody.
#[inline(always)]
fn answerer(
    skb: *mut __sk_buff,
    sk: *mut bpf_sock,
    subject: &Subject,
    to: &Destination,
) -> Option<Answerer> {
    // SAFETY: a full socket; volatile, as above.
    let port = unsafe { (&raw const (*sk).src_port).read_volatile() } as u16;
    // From the address itself, as it is with loopback.
    let (mut tuple, size) = listener::tuple((&to.address, port), (&to.address, to.port));
    let found = listener::find(skb.cast(), &mut tuple, size, to.protocol);
    if found.is_null() {
        return None;
    }
    // SAFETY: a full socket that is held until it is released below.
    let cgroup = unsafe { bpf_sk_cgroup_id(found.cast()) };
    let level = guarded::group(subject.group).map_or(0, |group| i32::from(group.level));
    // SAFETY: as above; the helper checks the level itself.
    let above = unsafe { bpf_sk_ancestor_cgroup_id(found.cast(), level) };
    let held_by_cgroup = cgroup == subject.group || (level > 0 && above == subject.group);
    let marked = sockets::subject(found.cast());
    let owner = sockets::owner(found.cast());
    // A connected datagram socket is a client that has asked this group.
    // SAFETY: as above; volatile, as above.
    let is_client = to.protocol == protocol::UDP
        && unsafe { (&raw const (*found).dst_port).read_volatile() } != 0;
    // SAFETY: it was found, and is released once.
    unsafe { bpf_sk_release(found.cast()) };
    let held_by_mark = marked.is_some_and(|marked| marked.group == subject.group);
    if held_by_cgroup || held_by_mark || is_client {
        return None;
    }
    Some(Answerer { cgroup, owner })
}

/// The quick answer at connect(2), where deputies are refused: whether the
/// listener on loopback is somebody outside. The report is egress's.
#[inline(always)]
pub(crate) fn refuses_connect(
    ctx: *mut bpf_sock_addr,
    subject: &Subject,
    to: &Destination,
) -> bool {
    if to.protocol != protocol::TCP || !is_loopback(&to.address) {
        return false;
    }
    if !is_denied(Deputies::DENY_LOOPBACK) {
        return false;
    }
    let (mut tuple, size) = listener::tuple((&to.address, 0), (&to.address, to.port));
    let found = listener::find(ctx.cast(), &mut tuple, size, protocol::TCP);
    if found.is_null() {
        return false;
    }
    let marked = sockets::subject(found.cast());
    // SAFETY: a full socket that is held until it is released below.
    let typed: *const u8 = unsafe { bpf_skc_to_tcp_sock(found.cast()) }.cast();
    let held = !typed.is_null() && is_in_group(typed, subject.group);
    // SAFETY: it was found, and is released once.
    unsafe { bpf_sk_release(found.cast()) };
    !held && marked.is_none_or(|marked| marked.group != subject.group)
}

/// 127.0.0.0/8 and ::1.
#[inline(always)]
fn is_loopback(address: &[u8; 16]) -> bool {
    if decide::is_mapped(address) {
        return address[12] == 127;
    }
    let mut head = 0;
    for byte in address.iter().take(15) {
        head |= *byte;
    }
    head == 0 && address[15] == 1
}

/// Whether a socket was made in the group's cgroup or below it.
///
/// `sk` is a sock by the verifier's knowledge.
#[inline(always)]
pub(crate) fn is_in_group(sk: *const u8, group: u64) -> bool {
    // SAFETY: a sock; the first field of its sock_cgroup_data is the cgroup.
    let cgroup: *const u8 = unsafe { field(sk, &SK_CGROUP_DATA) };
    if cgroup.is_null() {
        return false;
    }
    lineage::cgroup_id(cgroup) == group || lineage::is_below(cgroup, group)
}

/// The cgroup a socket was made in; 0 where it has none.
#[inline(always)]
pub(crate) fn cgroup_of(sk: *const u8) -> u64 {
    // SAFETY: as above.
    let cgroup: *const u8 = unsafe { field(sk, &SK_CGROUP_DATA) };
    if cgroup.is_null() {
        0
    } else {
        lineage::cgroup_id(cgroup)
    }
}
