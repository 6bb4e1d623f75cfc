//! Questions that leave and answers that come.
//!
//! A question is judged by its bytes before it is on the wire: what a lookup
//! says has left the host even if the answer is thrown away. An answer teaches
//! the addresses of a listed name before its reader can use them. It is passed
//! on whatever it holds: learning nothing from it refuses nothing new.
//!
//! Refused is every question that is not one plain message in the linear part
//! of its packet. Pages that user space gave to the kernel (`MSG_ZEROCOPY`,
//! `splice`) can change after they were judged.

use crate::decide::{self, Decision, Destination};
use crate::emit;
use crate::guarded::Subject;
use crate::maps::{ASKED, LEARNED, NAMES, OWN, PREFIXES, QUESTIONS, SETTINGS};
use crate::names;
use crate::packet::{IPV4, IPV6, load};
use crate::selected;
use aya_ebpf::bindings::{__sk_buff, BPF_ANY};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_skb_load_bytes};
use aya_ebpf::helpers::{bpf_get_socket_cookie, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::maps::lpm_trie::Key;
use core::arch::asm;
use core::ffi::c_void;
use merestone_abi::{
    ANSWER_WITHIN_NS, DENIED_NAME, EventKind, GENERATION_SLOTS, Hook, LEARNED_SLOTS, LEAST_TTL_S,
    Learned, LearnedKey, LostReason, MOST_TTL_S, NAME_BYTES, NAME_HEADER_BITS, NamePrefix,
    PREFIX_HEADER_BITS, Pending, Prefix, Question, Reason, Resolver, Verdict, protocol,
};
use merestone_dns::{
    Address, HEADER_BYTES, KEY_BYTES, Lookup, MESSAGE_BYTES, Message, PORT, Standing, Step, Walk,
    Work,
};

const _: () = {
    assert!(KEY_BYTES == NAME_BYTES);
    assert!(size_of::<Lookup>() == size_of::<Key<NamePrefix>>());
};

const UDP_HEADER: u32 = 8;
/// Records of an answer that are read.
const MOST_RECORDS: u32 = 32;
/// Programs that may be at it on one processor at once: a softirq, or another
/// task, can come between.
const DESKS: u32 = 4;

/// Where one message is worked on; too large for the stack.
#[repr(C)]
struct Desk {
    /// 1 while somebody is at it.
    taken: u64,
    /// Records of the answer; of a question the rule that refuses its name.
    records: u32,
    /// The generation it is learned under.
    generation: u32,
    /// Where the message lies in the packet, and how long it is.
    at: u32,
    length: u32,
    walk: Walk,
    pending: Pending,
    work: Work,
    learned: Learned,
}

#[map]
static DESK: PerCpuArray<Desk> = PerCpuArray::with_max_entries(DESKS, 0);

/// A desk that nobody else is at.
#[inline(always)]
fn sit_down() -> Option<*mut Desk> {
    for number in 0..DESKS {
        let desk = DESK.get_ptr_mut(number)?;
        let mut before = 1_u64;
        // SAFETY: `desk` is a map value whose first word is 8-aligned. The
        // instruction is of Linux 5.12.
        unsafe { asm!("{0} = xchg_64({1} + 0, {0})", inout(reg) before, in(reg) desk) };
        if before == 0 {
            return Some(desk);
        }
    }
    None
}

#[inline(always)]
fn stand_up(desk: *mut Desk) {
    // SAFETY: `desk` came from `sit_down`.
    unsafe { (&raw mut (*desk).taken).write_volatile(0) };
}

/// Judges a datagram that the rules for addresses let through: a question by
/// its name; an answer not at all, because a guarded process is no resolver.
#[inline(always)]
pub(crate) fn judge(
    skb: *mut __sk_buff,
    subject: &Subject,
    to: &Destination,
    source: u16,
    decision: &mut Decision,
) {
    if decision.verdict != Verdict::DENY
        && to.protocol == protocol::UDP
        && (to.port == PORT || source == PORT)
        && names::in_force()
    {
        question(skb, subject, to, decision);
    }
}

#[inline(never)]
fn question(skb: *mut __sk_buff, subject: &Subject, to: &Destination, decision: &mut Decision) {
    let generation = decision.generation;
    let boundary = selected::boundary(subject);
    let Some(kind) = names::resolver(&to.address, boundary, generation) else {
        return;
    };
    let mut reason = Reason::NAME_FORM;
    let mut name = 0;
    let mut rule = 0;
    if let Some((at, length)) = whole_datagram(skb) {
        match sit_down() {
            None => reason = Reason::NO_ROOM,
            Some(desk) => {
                let asker = Asker {
                    owner: owner(boundary, generation),
                    resolver: to.address,
                    group: subject.group,
                    tgid: subject.tgid,
                    boundary: u32::from(boundary),
                    trusted: u32::from(kind == Resolver::TRUSTED),
                };
                reason = ask(skb, desk, &asker, (u64::from(at) << 32) | u64::from(length));
                // SAFETY: `desk` came from `sit_down`.
                name = unsafe { (&raw const (*desk).work.name).read_volatile() };
                // SAFETY: as above.
                rule = unsafe { (&raw const (*desk).records).read_volatile() };
                stand_up(desk);
            }
        }
    }
    if reason == Reason::RULE {
        return;
    }
    *decision = decide::refuse(reason);
    if reason == Reason::NAME {
        decision.name = name;
        decision.rule = rule as u16;
    }
}

/// Who asks whom.
#[repr(C)]
struct Asker {
    resolver: [u8; 16],
    group: u64,
    tgid: u32,
    boundary: u32,
    owner: [u8; 4],
    trusted: u32,
}

#[inline(always)]
fn owner(boundary: u16, generation: u32) -> [u8; 4] {
    let generation = (generation as u16).to_be_bytes();
    let boundary = boundary.to_be_bytes();
    [generation[0], generation[1], boundary[0], boundary[1]]
}

/// Reads the question and remembers it: [`Reason::RULE`] where it may be asked.
/// `place` holds the message's offset, and below it its length.
#[inline(never)]
fn ask(skb: *mut __sk_buff, desk: *mut Desk, asker: &Asker, place: u64) -> Reason {
    // SAFETY: `desk` came from `sit_down`, so nobody else reads or writes it.
    let desk = unsafe { &mut *desk };
    desk.records = 0;
    let work = &mut desk.work;
    let length = place as u32;
    if length > MESSAGE_BYTES as u32 || !read(skb, work, (place >> 32) as u32, length) {
        return Reason::NAME_FORM;
    }
    walk(work);
    write_key(work);
    let Ok(asked) = work.question() else {
        return Reason::NAME_FORM;
    };
    work.lookup.owner = asker.owner;
    let set = listed(work);
    if set.is_none_or(|set| set & DENIED_NAME != 0) {
        desk.records = set.unwrap_or(0) & 0xffff;
        // For the alert alone: a name that found no room is told without.
        ASKED
            .insert(work.name, &work.lookup.key, BPF_ANY.into())
            .ok();
        return Reason::NAME;
    }
    if asker.trusted != 0 {
        // SAFETY: the context is valid.
        let cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
        let question = Question {
            cookie,
            resolver: asker.resolver,
            id: u32::from(asked.id),
            reserved: 0,
        };
        let pending = Pending {
            group: asker.group,
            spelled: asked.spelled,
            // SAFETY: the helper takes no arguments and cannot fail.
            asked_boot_ns: unsafe { bpf_ktime_get_boot_ns() },
            boundary: asker.boundary,
            tgid: asker.tgid,
        };
        // Without room nothing is learned, and so nothing more is let through.
        QUESTIONS.insert(question, pending, BPF_ANY.into()).ok();
    }
    Reason::RULE
}

/// The rule set of the name on the desk, its owner filled in.
#[inline(always)]
fn listed(work: &mut Work) -> Option<u32> {
    work.lookup.bits = NAME_HEADER_BITS + 8 * NAME_BYTES as u32;
    let key = (&raw const work.lookup).cast::<Key<NamePrefix>>();
    // SAFETY: the two have one layout, asserted above, and no padding.
    let key = unsafe { &*key };
    NAMES.get(key).copied()
}

// Each a function of its own; see `merestone_dns::Work`.
#[inline(never)]
fn walk(work: &mut Work) {
    work.walk();
}

#[inline(never)]
fn write_key(work: &mut Work) {
    work.write_key();
}

/// Where the transport header of a plain, whole UDP packet lies.
#[inline(always)]
fn udp_header(skb: *mut __sk_buff) -> Option<u32> {
    // SAFETY: the context is valid.
    let ethertype = unsafe { (&raw const (*skb).protocol).read_volatile() };
    if ethertype == IPV4 {
        let header: [u8; 10] = load(skb, 0).ok()?;
        // No options, no fragment.
        let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
        (header[0] == 0x45 && fragment == 0 && header[9] == protocol::UDP).then_some(20)
    } else if ethertype == IPV6 {
        let next: u8 = load(skb, 6).ok()?;
        (next == protocol::UDP).then_some(40)
    } else {
        None
    }
}

/// Offset and length of the message, where the packet is a question's: one
/// whole datagram, all of it in memory that only the kernel writes.
#[inline(always)]
fn whole_datagram(skb: *mut __sk_buff) -> Option<(u32, u32)> {
    let at = udp_header(skb)?;
    let header: [u8; 8] = load(skb, at).ok()?;
    let source = u16::from_be_bytes([header[0], header[1]]);
    let length = u32::from(u16::from_be_bytes([header[4], header[5]]));
    // SAFETY: the context is valid.
    let total = unsafe { (&raw const (*skb).len).read_volatile() };
    // SAFETY: as above.
    let segment = unsafe { (&raw const (*skb).gso_size).read_volatile() };
    // SAFETY: as above.
    let data = unsafe { (&raw const (*skb).data).read_volatile() };
    // SAFETY: as above.
    let data_end = unsafe { (&raw const (*skb).data_end).read_volatile() };
    let linear = (data_end as u64).wrapping_sub(data as u64);
    let fits = at + length == total && u64::from(total) <= linear;
    if source == PORT || segment != 0 || !fits || length < UDP_HEADER + HEADER_BYTES + 5 {
        return None;
    }
    Some((at + UDP_HEADER, length - UDP_HEADER))
}

/// Reads up to a desk full of the message.
#[inline(always)]
fn read(skb: *mut __sk_buff, work: &mut Work, at: u32, length: u32) -> bool {
    if length == 0 {
        return false;
    }
    work.length = length;
    let mut bytes = u64::from(length - 1);
    // SAFETY: arithmetic; out of the compiler's sight, so that the verifier
    // sees the bound.
    unsafe { asm!("{0} &= 511", inout(reg) bytes) };
    // SAFETY: the helper writes at most 512 bytes, which the array has.
    let failed = unsafe {
        bpf_skb_load_bytes(
            skb.cast_const().cast(),
            at,
            work.message.as_mut_ptr().cast(),
            (bytes + 1) as u32,
        )
    };
    failed == 0
}

const _: () = assert!(MESSAGE_BYTES == 512);

/// Learns from a packet that came in, if it is an answer that is waited for.
#[inline(always)]
pub(crate) fn learn_from(skb: *mut __sk_buff) {
    let Some(at) = udp_header(skb) else {
        return;
    };
    let Ok(header) = load::<[u8; 6]>(skb, at) else {
        return;
    };
    if u16::from_be_bytes([header[0], header[1]]) != PORT {
        return;
    }
    let length = u32::from(u16::from_be_bytes([header[4], header[5]]));
    if length >= UDP_HEADER + HEADER_BYTES + 5 {
        answer(skb, at, length - UDP_HEADER);
    }
}

/// The bytes of an answer.
struct Bytes {
    skb: *mut __sk_buff,
    at: u32,
    length: u32,
}

impl Message for Bytes {
    #[inline(always)]
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        if at + N as u32 > self.length {
            return None;
        }
        load(self.skb, self.at + at).ok()
    }
}

#[inline(never)]
fn answer(skb: *mut __sk_buff, header: u32, length: u32) {
    let resolver = if header == 20 {
        load(skb, 12).map(decide::mapped)
    } else {
        load(skb, 8)
    };
    let Ok(resolver) = resolver else {
        return;
    };
    let at = header + UDP_HEADER;
    let Ok(id) = load::<[u8; 2]>(skb, at) else {
        return;
    };
    // SAFETY: the context is valid.
    let cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
    let question = Question {
        cookie,
        resolver,
        id: u32::from(u16::from_be_bytes(id)),
        reserved: 0,
    };
    // SAFETY: an entry that gives way meanwhile is one of another question.
    let Some(pending) = (unsafe { QUESTIONS.get(question) }) else {
        return;
    };
    let Some(desk) = sit_down() else {
        return emit::lost(LostReason::NAMES_FULL);
    };
    // SAFETY: `desk` came from `sit_down`, so nobody else reads or writes it.
    unsafe {
        (*desk).pending = *pending;
        (*desk).at = at;
        (*desk).length = length;
        (*desk).learned.resolver = resolver;
    }
    let end = matches(skb, desk);
    if end != 0 {
        // One answer to one question.
        QUESTIONS.remove(question).ok();
        records(skb, desk, end);
    }
    stand_up(desk);
}

/// Where the records begin, if the message answers what was asked and the name
/// is still listed; leaves its rule set on the desk. 0 for no.
#[inline(never)]
fn matches(skb: *mut __sk_buff, desk: *mut Desk) -> u32 {
    matching(skb, desk).unwrap_or(0)
}

#[inline(always)]
fn matching(skb: *mut __sk_buff, desk: *mut Desk) -> Option<u32> {
    // SAFETY: `desk` came from `sit_down`, so nobody else reads or writes it.
    let desk = unsafe { &mut *desk };
    // SAFETY: the helper takes no arguments and cannot fail.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if now.wrapping_sub(desk.pending.asked_boot_ns) > ANSWER_WITHIN_NS {
        return None;
    }
    let (at, length) = (desk.at, desk.length);
    let work = &mut desk.work;
    let most = MESSAGE_BYTES as u32;
    let held = if length < most { length } else { most };
    if !read(skb, work, at, held) {
        return None;
    }
    walk(work);
    write_key(work);
    let (asked, count) = work.answer().ok()?;
    if asked.spelled != desk.pending.spelled {
        return None;
    }
    let settings = SETTINGS.get(0)?;
    desk.generation = settings.generation;
    work.lookup.owner = owner(desk.pending.boundary as u16, settings.generation);
    desk.learned.set = listed(work)?;
    if desk.learned.set & DENIED_NAME != 0 {
        return None;
    }
    desk.learned.digest = work.name;
    desk.learned.name = work.lookup.key;
    desk.records = u32::from(count);
    Some(asked.end)
}

/// What [`record`] is called with. It has to lie on the stack, of which there
/// is little in so deep a chain of calls; all else lies on the desk.
#[repr(C)]
struct Records {
    skb: *mut __sk_buff,
    desk: *mut Desk,
}

/// Learns from each record, by `bpf_loop` (Linux 5.17): the verifier walks a
/// record once, not once for each that there may be.
#[inline(never)]
fn records(skb: *mut __sk_buff, desk: *mut Desk, end: u32) {
    // SAFETY: as in `matching`.
    unsafe { (*desk).walk = Walk::new(end) };
    let mut records = Records { skb, desk };
    // SAFETY: the function has the form that the helper calls, and `records`
    // outlives the call.
    unsafe {
        bpf_loop(
            MOST_RECORDS,
            record as *mut c_void,
            (&raw mut records).cast(),
            0,
        )
    };
}

/// One record; 0 to go on.
extern "C" fn record(_number: u64, records: *mut Records) -> u64 {
    // SAFETY: `records` is what `bpf_loop` was given.
    let records = unsafe { &mut *records };
    // SAFETY: as in `matching`.
    let desk = unsafe { &mut *records.desk };
    if desk.records == 0 {
        return 1;
    }
    desk.records -= 1;
    let bytes = Bytes {
        skb: records.skb,
        at: desk.at,
        length: desk.length,
    };
    match desk.walk.next(&bytes) {
        None => return 1,
        Some(Step::Other) => {}
        Some(Step::Address(address)) => learn(records.desk, &address),
    }
    0
}

/// Learns one address of the name on the desk.
#[inline(never)]
fn learn(desk: *mut Desk, address: &Address) {
    // SAFETY: as in `matching`.
    let desk = unsafe { &mut *desk };
    let generation = desk.generation;
    let boundary = desk.pending.boundary as u16;
    // SAFETY: the value is looked at and not read.
    let is_own = unsafe { OWN.get(address.bytes) }.is_some();
    if address.standing == Standing::Never
        || ((is_own || address.standing == Standing::Private)
            && !is_known(address, boundary, generation))
    {
        return;
    }
    let mut ttl_s = address.ttl_s;
    if ttl_s < LEAST_TTL_S {
        ttl_s = LEAST_TTL_S;
    } else if ttl_s > MOST_TTL_S {
        ttl_s = MOST_TTL_S;
    }
    // SAFETY: the helper takes no arguments and cannot fail.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let mut expires = now + u64::from(ttl_s) * 1_000_000_000;
    let mut key = LearnedKey {
        generation: (generation as u16).to_be_bytes(),
        boundary: boundary.to_be_bytes(),
        slot: 0,
        address: address.bytes,
    };
    // The name's own place; else a free one; else the one that ends soonest.
    let mut chosen = 0;
    let mut soonest = u64::MAX;
    let mut is_new = true;
    for slot in 0..LEARNED_SLOTS {
        key.slot = slot;
        // SAFETY: an entry that is replaced meanwhile costs its learner a place.
        let ends = match unsafe { LEARNED.get(key) } {
            Some(known) if known.digest == desk.learned.digest => {
                chosen = slot;
                is_new = known.expires_boot_ns <= now;
                if known.expires_boot_ns > expires {
                    expires = known.expires_boot_ns;
                }
                break;
            }
            Some(known) if known.expires_boot_ns > now => known.expires_boot_ns,
            _ => 0,
        };
        if ends < soonest {
            soonest = ends;
            chosen = slot;
        }
    }
    key.slot = chosen;
    desk.learned.expires_boot_ns = expires;
    if LEARNED.insert(key, &desk.learned, BPF_ANY.into()).is_err() {
        return emit::lost(LostReason::NAMES_FULL);
    }
    if is_new {
        tell(desk, address, ttl_s);
    }
}

/// Whether a rule for addresses allows something at a private address.
#[inline(always)]
fn is_known(address: &Address, boundary: u16, generation: u32) -> bool {
    let key = Key::new(
        PREFIX_HEADER_BITS + 128,
        Prefix {
            reserved: [0; 2],
            boundary: boundary.to_be_bytes(),
            address: address.bytes,
        },
    );
    let prefixes = PREFIXES.get(generation % GENERATION_SLOTS);
    let prefix = prefixes.and_then(|prefixes| prefixes.get(&key));
    prefix.is_some_and(|prefix| decide::allows_some(prefix.set))
}

#[inline(always)]
fn tell(desk: &Desk, address: &Address, ttl_s: u32) {
    let pending = &desk.pending;
    let digest = desk.learned.digest;
    ASKED
        .insert(digest, &desk.learned.name, BPF_ANY.into())
        .ok();
    let subject = Subject {
        group: pending.group,
        tgid: pending.tgid,
        boundary: pending.boundary as u16,
    };
    emit::send(EventKind::ANSWER, Hook::INGRESS, &subject, |event| {
        event.address = address.bytes;
        event.other = ttl_s;
        event.generation = desk.generation;
        event.major = (digest >> 32) as u32;
        event.minor = digest as u32;
    });
}
