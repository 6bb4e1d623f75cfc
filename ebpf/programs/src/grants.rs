//! Grants: what the rules do not allow, one group may still send to one
//! destination, for a time, up to a number of bytes.
//!
//! Asked only where no rule decided: a deny is never lifted. The count is of
//! bytes of IP packets as they leave the stack; a packet that would exceed it
//! is refused, and no two processors can spend the same byte. A hook that sees
//! no packet asks with a length of 0, which counts nothing.

use crate::decide::{Decision, Destination};
use crate::emit;
use crate::guarded::Subject;
use crate::maps::{GRANT_USES, GRANTS};
use crate::protocols;
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::helpers::generated::bpf_loop;
use core::arch::asm;
use core::ffi::c_void;
use merestone_abi::{
    EventKind, GRANT_PORTS, GRANT_PROTOCOLS, Grant, GrantUse, Hook, MAX_GRANTS, Reason, Verdict,
};

/// How often a processor tries to count while others count as well. Then the
/// packet is refused: TCP sends it again, and nothing was sent uncounted.
const TRIES: u32 = 16;

/// What one look at the grants has at hand.
struct Search<'a> {
    to: &'a Destination,
    subject: &'a Subject,
    decision: &'a mut Decision,
    now_ns: u64,
    length: u32,
}

/// Looks for a grant after the rules have found nothing. By `bpf_loop` (Linux
/// 5.17): the verifier walks one look and not one for each place, on top of
/// everything that can come before.
#[inline(never)]
pub(crate) fn ask(to: &Destination, subject: &Subject, length: u32, decision: &mut Decision) {
    if subject.group == 0 {
        return;
    }
    let mut search = Search {
        to,
        subject,
        decision,
        now_ns: 0,
        length,
    };
    let look: extern "C" fn(u32, *mut c_void) -> i64 = look;
    // SAFETY: `look` gets `search`, which outlives the call.
    unsafe {
        bpf_loop(MAX_GRANTS, look as *mut c_void, (&raw mut search).cast(), 0);
    }
}

/// Looks at one place; 1 ends the search.
extern "C" fn look(place: u32, search: *mut c_void) -> i64 {
    // SAFETY: `ask` passes its own.
    let search = unsafe { &mut *search.cast::<Search<'_>>() };
    let Search {
        to,
        subject,
        length,
        ..
    } = *search;
    let Some(grant) = GRANTS.get(place) else {
        return 1;
    };
    if grant.group != subject.group || !matches(grant, to) {
        return 0;
    }
    if search.now_ns == 0 {
        // SAFETY: the helper takes no arguments and cannot fail.
        search.now_ns = unsafe { bpf_ktime_get_boot_ns() };
    }
    let now_ns = search.now_ns;
    if now_ns < grant.from_boot_ns {
        return 0;
    }
    let decision = &mut *search.decision;
    // The number by which events name a grant: its place, from 1.
    decision.rule = place as u16 + 1;
    if now_ns < grant.until_boot_ns && spend(grant, place, u64::from(length)) {
        decision.verdict = Verdict::ALLOW;
        decision.reason = Reason::GRANT;
        return 1;
    }
    decision.reason = Reason::GRANT_SPENT;
    if length != 0 && now_ns < grant.until_boot_ns && is_first_refusal(place) {
        tell(to, subject, length, place);
    }
    0
}

#[inline(always)]
fn matches(grant: &Grant, to: &Destination) -> bool {
    let (address, network, mask) = (
        words(&to.address),
        words(&grant.address),
        words(&grant.mask),
    );
    let differs = ((address.0 ^ network.0) & mask.0) | ((address.1 ^ network.1) & mask.1);
    if differs != 0 {
        return false;
    }
    let mut is_protocol = false;
    for i in 0..GRANT_PROTOCOLS {
        is_protocol |= grant.protocols[i] == to.protocol;
    }
    // 0 fills the places that are not used.
    if !is_protocol || to.protocol == 0 {
        return false;
    }
    if grant.ports == 0 {
        return true;
    }
    if !protocols::has_ports(to.protocol) {
        return false;
    }
    let mut is_port = to.fragment;
    for i in 0..GRANT_PORTS {
        let [low, high] = grant.ranges[i];
        is_port |= i < grant.ports as usize && low <= to.port && to.port <= high;
    }
    is_port
}

#[inline(always)]
fn words(bytes: &[u8; 16]) -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes;
    (
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
    )
}

/// Takes `length` bytes off what is left; false where that is too little.
#[inline(always)]
fn spend(grant: &Grant, place: u32, length: u64) -> bool {
    let Some(used) = GRANT_USES.get_ptr_mut(place) else {
        return false;
    };
    // SAFETY: `used` is a map value; only its field's address is taken.
    let bytes = unsafe { &raw mut (*used).bytes };
    // SAFETY: as above.
    let mut seen = unsafe { bytes.read_volatile() };
    if length == 0 {
        return seen < grant.limit_bytes;
    }
    for _ in 0..TRIES {
        let next = seen.wrapping_add(length);
        if next > grant.limit_bytes || next < seen {
            return false;
        }
        let found = exchange(bytes, seen, next);
        if found == seen {
            // SAFETY: as above.
            emit::add(unsafe { &raw mut (*used).packets }, 1);
            return true;
        }
        seen = found;
    }
    false
}

/// Writes `new` where `old` stands; returns what stood there.
#[inline(always)]
fn exchange(slot: *mut u64, old: u64, new: u64) -> u64 {
    let found;
    // `core` has no such operation for this target. The instruction is of
    // Linux 5.12.
    // SAFETY: `slot` is a map value the verifier has checked; it is 8-aligned.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({0} + 0, r0, {1})",
            in(reg) slot,
            in(reg) new,
            inlateout("r0") old => found,
        );
    }
    found
}

/// Whether nothing was refused under this grant before.
#[inline(always)]
fn is_first_refusal(place: u32) -> bool {
    let Some(used) = GRANT_USES.get_ptr_mut(place) else {
        return false;
    };
    let used: *mut GrantUse = used;
    // SAFETY: `used` is a map value; only its field's address is taken.
    let refused = unsafe { &raw mut (*used).refused };
    exchange(refused, 0, 1) == 0
}

/// Says that a grant is spent; once for each.
#[inline(never)]
fn tell(to: &Destination, subject: &Subject, length: u32, place: u32) {
    emit::send(EventKind::GRANT, Hook::EGRESS, subject, |event| {
        event.address = to.address;
        event.port = to.port;
        event.protocol = to.protocol;
        event.length = length;
        event.other = place;
        event.verdict = Verdict::DENY;
        event.reason = Reason::GRANT_SPENT;
        event.rule = place as u16 + 1;
    });
}
