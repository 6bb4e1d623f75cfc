//! The verdict a socket remembers, and when a packet may pass by it.
//!
//! Only two verdicts are remembered: that a rule allows a destination, and that
//! nobody guarded is behind the socket. Only packets whose headers are plain
//! pass by the first: no option, no extension header, no fragment, the very
//! address, port and protocol. Everything else is parsed and judged anew. A
//! refusal is never remembered, nor what a grant let through, nor a question
//! to a name server under a boundary with names.

use crate::decide::{Decision, Destination};
use crate::emit;
use crate::guarded::Subject;
use crate::maps::SETTINGS;
use crate::packet::{IPV4, IPV6};
use crate::stance;
use aya_ebpf::bindings::__sk_buff;
use core::arch::asm;
use core::ptr;
use merestone_abi::{
    CachedVerdict, GENERATION_SLOTS, GroupId, Reason, SocketMark, Verdict, maps, protocol,
};

/// What a socket remembers that holds now.
pub(crate) enum Remembered {
    /// Nothing that helps.
    Nothing,
    /// Nobody guarded is behind it.
    Unguarded,
    /// A packet is allowed, and counted at this place.
    Allowed(u32),
}

/// `field` of what `$mark` remembers, read once.
macro_rules! read {
    ($cached:expr, $field:ident) => {
        // SAFETY: `$cached` points into a map value; volatile, because others
        // write it.
        unsafe { (&raw const (*$cached).$field).read_volatile() }
    };
}

macro_rules! write {
    ($cached:expr, $field:ident, $value:expr) => {
        // SAFETY: as in `read`.
        unsafe { (&raw mut (*$cached).$field).write_volatile($value) }
    };
}

/// The same pointer, by way of a value read before: a processor that reorders
/// reads keeps those in order whose address depends on an earlier one.
#[inline(always)]
fn after<T>(value: u64, pointer: *const T) -> *const T {
    let mut zero = value;
    // SAFETY: arithmetic; opaque, so that the dependency is not optimised away.
    unsafe { asm!("{0} &= 0", inout(reg) zero, options(pure, nomem, nostack)) };
    pointer.wrapping_byte_add(zero as usize)
}

/// What the mark says about this packet, under the epoch that is live.
#[inline(always)]
pub(crate) fn recall(skb: *mut __sk_buff, mark: *const SocketMark, epoch: u32) -> Remembered {
    // SAFETY: `mark` is a map value; only an address is taken.
    let cached = unsafe { &raw const (*mark).cached };
    let before = read!(cached, sequence);
    let cached = after(before, cached);
    let verdict = read!(cached, verdict);
    if before & 1 != 0 || read!(cached, epoch) != epoch {
        return Remembered::Nothing;
    }
    if verdict == CachedVerdict::UNGUARDED {
        // Sequence and epoch need no second look: whoever wrote this verdict
        // wrote the epoch for it, or the next comparison fails.
        // SAFETY: as above.
        let group = unsafe { (&raw const (*mark).group).read_volatile() };
        let again = read!(after(group, cached), sequence);
        return if group == 0 && again == before {
            Remembered::Unguarded
        } else {
            Remembered::Nothing
        };
    }
    if verdict != CachedVerdict::ALLOW || stance::denies_all() {
        return Remembered::Nothing;
    }
    let Some(settings) = SETTINGS.get(0) else {
        return Remembered::Nothing;
    };
    if read!(cached, generation) != settings.generation {
        return Remembered::Nothing;
    }
    let slot = read!(cached, counted);
    let difference = difference(skb, cached);
    let again = read!(after(difference | u64::from(slot), cached), sequence);
    if difference == 0 && again == before {
        Remembered::Allowed(slot)
    } else {
        Remembered::Nothing
    }
}

/// The IPv4 flags and offset that only a fragment has: more fragments, and the
/// offset (RFC 791 §3.1).
const FRAGMENTED: u16 = 0x3fff_u16.to_be();

/// 0 where the packet is plain and goes where the remembered one went.
#[inline(always)]
fn difference(skb: *mut __sk_buff, cached: *const CachedVerdict) -> u64 {
    // SAFETY: the context is valid; volatile, because the verifier wants each
    // field loaded whole.
    let ethertype = unsafe { (&raw const (*skb).protocol).read_volatile() };
    // SAFETY: as above.
    let start = unsafe { (&raw const (*skb).data).read_volatile() } as usize;
    // SAFETY: as above.
    let end = unsafe { (&raw const (*skb).data_end).read_volatile() } as usize;
    // SAFETY: `cached` points into a map value.
    let words: [u64; 2] = unsafe {
        (&raw const (*cached).address)
            .cast::<[u64; 2]>()
            .read_volatile()
    };
    let port = read!(cached, port);
    let number = read!(cached, protocol);
    let known = u64::from(port) << 8 | u64::from(number);
    if ethertype == IPV4 {
        if start + 24 > end {
            return u64::MAX;
        }
        let head = at::<u8>(start, 0);
        let fragment = at::<u16>(start, 6) & FRAGMENTED;
        let got = u64::from(at::<u16>(start, 22)) << 8 | u64::from(at::<u8>(start, 9));
        // The upper half of a mapped address, then the rest of it.
        let tail = u64::from(at::<u32>(start, 16)) << 32 | u64::from(0xffff_0000_u32);
        words[0] | (words[1] ^ tail) | u64::from(head ^ 0x45) | u64::from(fragment) | (got ^ known)
    } else if ethertype == IPV6 {
        if start + 44 > end {
            return u64::MAX;
        }
        let head = at::<u8>(start, 0) & 0xf0;
        let got = u64::from(at::<u16>(start, 42)) << 8 | u64::from(at::<u8>(start, 6));
        (words[0] ^ at::<u64>(start, 24))
            | (words[1] ^ at::<u64>(start, 32))
            | u64::from(head ^ 0x60)
            | (got ^ known)
    } else {
        u64::MAX
    }
}

const _: () = assert!(
    cfg!(target_endian = "little"),
    "`difference` lays out words"
);

#[inline(always)]
fn at<T: Copy>(start: usize, offset: usize) -> T {
    // SAFETY: the caller has compared with the packet's end, and the verifier
    // makes sure of it.
    unsafe { ptr::with_exposed_provenance::<T>(start + offset).read_unaligned() }
}

/// Makes a socket remember a verdict that may be remembered.
#[inline(always)]
pub(crate) fn remember(
    mark: *mut SocketMark,
    epoch: u32,
    subject: &Subject,
    to: &Destination,
    decision: &Decision,
) {
    if decision.verdict != Verdict::ALLOW || decision.reason != Reason::RULE || to.fragment {
        return;
    }
    if to.protocol != protocol::TCP && to.protocol != protocol::UDP {
        return;
    }
    if asks_for_a_name(to, decision.generation) {
        return;
    }
    let slot = emit::fast_slot(subject.group);
    if slot >= maps::MAX_FAST {
        return;
    }
    // SAFETY: `mark` is a map value; only an address is taken.
    let cached = unsafe { &raw mut (*mark).cached };
    if !claim(cached) {
        return;
    }
    write!(cached, group, subject.group);
    write!(cached, address, to.address);
    write!(cached, port, to.port.to_be());
    write!(cached, protocol, to.protocol);
    write!(cached, counted, slot);
    write!(cached, generation, decision.generation);
    write!(cached, epoch, epoch);
    write!(cached, verdict, CachedVerdict::ALLOW);
    release(cached);
}

/// Makes a socket remember that nobody guarded is behind it.
#[inline(always)]
pub(crate) fn remember_unguarded(mark: *mut SocketMark, epoch: u32) {
    // SAFETY: as above.
    let cached = unsafe { &raw mut (*mark).cached };
    if !claim(cached) {
        return;
    }
    write!(cached, epoch, epoch);
    write!(cached, verdict, CachedVerdict::UNGUARDED);
    release(cached);
}

/// Whether a socket remembers that `group` may send there.
#[inline(always)]
pub(crate) fn has_allowed(
    mark: *const SocketMark,
    epoch: u32,
    group: GroupId,
    to: &Destination,
) -> bool {
    let Some(settings) = SETTINGS.get(0) else {
        return false;
    };
    if stance::denies_all() {
        return false;
    }
    // SAFETY: `mark` is a map value; only an address is taken.
    let cached = unsafe { &raw const (*mark).cached };
    let before = read!(cached, sequence);
    let cached = after(before, cached);
    let address = read!(cached, address);
    let is_same = read!(cached, verdict) == CachedVerdict::ALLOW
        && read!(cached, epoch) == epoch
        && read!(cached, generation) == settings.generation
        && read!(cached, group) == group
        && read!(cached, port) == to.port.to_be()
        && read!(cached, protocol) == to.protocol
        && address == to.address;
    emit::fence();
    is_same && before & 1 == 0 && read!(cached, sequence) == before
}

/// Whether a socket remembers that `group` might send there once, under
/// whatever epoch and generation.
#[inline(always)]
pub(crate) fn had_allowed(mark: *const SocketMark, group: GroupId, to: &Destination) -> bool {
    // SAFETY: `mark` is a map value; only an address is taken.
    let cached = unsafe { &raw const (*mark).cached };
    let before = read!(cached, sequence);
    let cached = after(before, cached);
    let address = read!(cached, address);
    let is_same = read!(cached, verdict) == CachedVerdict::ALLOW
        && read!(cached, group) == group
        && read!(cached, port) == to.port.to_be()
        && read!(cached, protocol) == to.protocol
        && address == to.address;
    emit::fence();
    is_same && before & 1 == 0 && read!(cached, sequence) == before
}

/// Begins to write; false while another does, in an interrupted program too.
#[inline(always)]
fn claim(cached: *mut CachedVerdict) -> bool {
    // SAFETY: as above.
    let sequence = unsafe { &raw mut (*cached).sequence };
    emit::fetch_or(sequence, 1) & 1 == 0
}

#[inline(always)]
fn release(cached: *mut CachedVerdict) {
    // SAFETY: as above.
    let sequence = unsafe { &raw mut (*cached).sequence };
    emit::fetch_add(sequence, 1);
}

/// DNS, plain and over TLS, under a boundary that judges each question.
#[inline(always)]
fn asks_for_a_name(to: &Destination, generation: u32) -> bool {
    if to.port != 53 && to.port != 853 {
        return false;
    }
    let names = SETTINGS.get(0).map_or([1; 2], |settings| settings.names);
    u16::from_le_bytes(names) >> (8 * (generation % GENERATION_SLOTS)) & 1 != 0
}
