//! The one verdict: may this group send to that destination?
//!
//! One longest match finds the rule set, one bounded walk finds the entry;
//! none means denied. An empty map reaches nothing.

use crate::grants;
use crate::guarded::Subject;
use crate::maps::{PREFIXES, RULE_SETS, SETTINGS};
use crate::names;
use crate::protocols;
use crate::selected;
use crate::stance;
use aya_ebpf::maps::lpm_trie::Key;
use merestone_abi::{
    Event, GENERATION_SLOTS, PREFIX_HEADER_BITS, Prefix, RULE_ENTRIES, Reason, Verdict, protocol,
};

/// Where something is sent.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Destination {
    /// Network order; an IPv4 address in its mapped form.
    pub(crate) address: [u8; 16],
    /// 0 where the protocol has none.
    pub(crate) port: u16,
    /// IP protocol number.
    pub(crate) protocol: u8,
    /// A non-first fragment: it has no ports, whatever its protocol.
    pub(crate) fragment: bool,
    /// Always zero; named, because all of it must be written before another
    /// function that the verifier walks by itself may read it.
    pub(crate) reserved: u32,
}

/// What was decided, and by what.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Decision {
    pub(crate) verdict: Verdict,
    pub(crate) reason: Reason,
    pub(crate) rule: u16,
    pub(crate) generation: u32,
    /// Digest of the name that was asked for, with [`Reason::NAME`].
    pub(crate) name: u64,
}

pub(crate) const EPERM: i32 = -1;

/// What an LSM hook answers.
#[inline(always)]
pub(crate) fn answer(verdict: Verdict) -> i32 {
    if verdict == Verdict::DENY { EPERM } else { 0 }
}

/// `::ffff:0:0/96`, RFC 4291 §2.5.5.2.
const MAPPED: (u64, u32) = (0, 0xffff);
/// `64:ff9b::/96`, RFC 6052 §2.1.
const NAT64: (u64, u32) = (0x0064_ff9b_0000_0000, 0);

/// The mapped form of an IPv4 address in network order.
#[inline(always)]
pub(crate) fn mapped(v4: [u8; 4]) -> [u8; 16] {
    let mut address = [0; 16];
    address[10] = 0xff;
    address[11] = 0xff;
    address[12] = v4[0];
    address[13] = v4[1];
    address[14] = v4[2];
    address[15] = v4[3];
    address
}

/// The IPv4 address that an IPv6 one carries to a translator or a relay.
#[inline(always)]
fn embedded(address: &[u8; 16]) -> Option<[u8; 16]> {
    if head(address) == NAT64 {
        return Some(mapped([address[12], address[13], address[14], address[15]]));
    }
    // 2002::/16, RFC 3056 §2.
    if address[0] == 0x20 && address[1] == 0x02 {
        return Some(mapped([address[2], address[3], address[4], address[5]]));
    }
    None
}

/// The first 96 bits.
#[inline(always)]
fn head(address: &[u8; 16]) -> (u64, u32) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *address;
    (
        u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        u32::from_be_bytes([i, j, k, l]),
    )
}

/// Whether an address is an IPv4 one in its mapped form.
#[inline(always)]
pub(crate) fn is_mapped(address: &[u8; 16]) -> bool {
    head(address) == MAPPED
}

/// Judges what a guarded group sends: by its boundary, and where no rule
/// decides by its grants. `length` is that of a packet that is about to leave,
/// which a grant counts; 0 where nothing leaves yet.
#[inline(always)]
pub(crate) fn decide_for(
    subject: &Subject,
    to: &Destination,
    length: u32,
    decision: &mut Decision,
) {
    decide(to, selected::boundary(subject), decision);
    if decision.verdict != Verdict::ALLOW && decision.reason == Reason::NO_RULE {
        grants::ask(to, subject, length, decision);
    }
}

/// Judges a destination by the rules alone. Every verdict comes from here.
#[inline(always)]
pub(crate) fn decide(to: &Destination, boundary: u16, decision: &mut Decision) {
    merestone_decide(to, u32::from(boundary), decision);
}

/// [`decide`] as a function with a type of its own (BTF, global linkage): the
/// verifier walks it once, for any arguments, and not again for each way in
/// which a caller can come to it (kernel/bpf/verifier.c `do_check_subprogs`).
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn merestone_decide(
    to: *const Destination,
    boundary: u32,
    decision: *mut Decision,
) -> i32 {
    // SAFETY: the callers pass references; the verifier wants the null checks.
    if let (Some(to), Some(decision)) = (unsafe { to.as_ref() }, unsafe { decision.as_mut() }) {
        by_rules(to, boundary as u16, decision);
    }
    0
}

#[inline(always)]
fn by_rules(to: &Destination, boundary: u16, decision: &mut Decision) {
    if stance::denies_all() {
        *decision = refuse(Reason::AGENT_LOST);
        return;
    }
    *decision = refuse(Reason::NO_RULE);
    // A verdict of `refuse` may be AUDIT; what the rules say comes first.
    let refused = decision.verdict;
    judge(&to.address, to, boundary, decision);
    names::judge(to, boundary, decision);
    if decision.verdict != Verdict::DENY
        && let Some(inner) = embedded(&to.address)
    {
        let outer = *decision;
        judge(&inner, to, boundary, decision);
        if decision.verdict == Verdict::DENY {
            decision.reason = Reason::EMBEDDED;
        } else if decision.verdict == Verdict::ALLOW || outer.verdict == Verdict::AUDIT {
            *decision = outer;
        }
    }
    if decision.verdict != Verdict::DENY {
        names::hold(to, boundary, decision);
    }
    if decision.verdict == Verdict::DENY {
        decision.verdict = refused;
    }
}

/// A refusal for a reason that no rule can lift; under an auditing boundary it
/// is reported and passes.
#[inline(always)]
pub(crate) fn refuse(reason: Reason) -> Decision {
    let (generation, audit) = match SETTINGS.get(0) {
        Some(settings) => {
            let generation = settings.generation;
            let modes = u16::from_le_bytes(settings.audit);
            (
                generation,
                modes >> (8 * (generation % GENERATION_SLOTS)) & 1,
            )
        }
        None => (0, 0),
    };
    Decision {
        // DENY, or the next number, AUDIT; without a branch, which the
        // verifier would walk everything after twice for.
        verdict: Verdict(Verdict::DENY.0 + audit as u8),
        reason,
        rule: 0,
        generation,
        name: 0,
    }
}

const _: () = assert!(Verdict::AUDIT.0 == Verdict::DENY.0 + 1);

#[inline(always)]
fn judge(address: &[u8; 16], to: &Destination, boundary: u16, decision: &mut Decision) {
    decision.verdict = Verdict::DENY;
    decision.reason = Reason::NO_RULE;
    decision.rule = 0;
    let key = Key::new(
        PREFIX_HEADER_BITS + 128,
        Prefix {
            reserved: [0; 2],
            boundary: boundary.to_be_bytes(),
            address: *address,
        },
    );
    let Some(prefixes) = PREFIXES.get(decision.generation % GENERATION_SLOTS) else {
        return;
    };
    let Some(prefix) = prefixes.get(&key) else {
        return;
    };
    apply(prefix.set, to, decision);
}

/// Judges by one rule set. False: none of its entries matches.
#[inline(never)]
pub(crate) fn apply(set: u32, to: &Destination, decision: &mut Decision) -> bool {
    let Some(set) = RULE_SETS.get(set) else {
        return false;
    };
    let length = set.length;
    let span = span(to);
    for i in 0..RULE_ENTRIES {
        if i as u32 >= length {
            return false;
        }
        // SAFETY: `i` is below the array's length.
        let entry = unsafe { set.entries.get_unchecked(i) };
        let is_protocol = entry.protocol == protocol::ANY || entry.protocol == to.protocol;
        if is_protocol && entry.port_low <= span.0 && span.1 <= entry.port_high {
            decision.reason = Reason::RULE;
            decision.rule = entry.rule;
            if entry.action == Verdict::ALLOW.0 || entry.action == Verdict::AUDIT.0 {
                decision.verdict = Verdict(entry.action);
            }
            return true;
        }
    }
    false
}

/// Whether a rule set allows anything at all.
#[inline(never)]
pub(crate) fn allows_some(set: u32) -> bool {
    let Some(set) = RULE_SETS.get(set) else {
        return false;
    };
    for i in 0..RULE_ENTRIES {
        // SAFETY: the value is valid; volatile, because a loop that counts the
        // lesser of both down to zero has no bound for Linux 6.1.
        let length = unsafe { (&raw const set.length).read_volatile() };
        if i as u32 >= length {
            return false;
        }
        // SAFETY: `i` is below the array's length.
        let entry = unsafe { set.entries.get_unchecked(i) };
        if entry.action == Verdict::ALLOW.0 {
            return true;
        }
    }
    false
}

/// The ports a rule's range must hold, as (at least one, and the other).
///
/// A rule with ports is no rule for a protocol without: its range must be the
/// whole. A later fragment follows its first one, which was judged by port:
/// any range will do.
#[inline(always)]
fn span(to: &Destination) -> (u16, u16) {
    if !protocols::has_ports(to.protocol) {
        (0, u16::MAX)
    } else if to.fragment {
        (u16::MAX, 0)
    } else {
        (to.port, to.port)
    }
}

/// Whether an address is this host's loopback.
#[inline(always)]
pub(crate) fn is_loopback(address: &[u8; 16]) -> bool {
    if is_mapped(address) {
        return address[12] == 127;
    }
    head(address) == (0, 0) && address[12..] == [0, 0, 0, 1]
}

/// To connect to no address is to connect to this host (net/ipv4/route.c
/// `ip_route_output_key_hash_rcu`, net/ipv6/tcp_ipv6.c `tcp_v6_connect`).
#[inline(always)]
pub(crate) fn loopback_if_unspecified(mut address: [u8; 16]) -> [u8; 16] {
    let tail = address[12] | address[13] | address[14] | address[15];
    if tail == 0 {
        if head(&address) == (0, 0) {
            address[15] = 1;
        } else if is_mapped(&address) {
            address[12] = 127;
            address[15] = 1;
        }
    }
    address
}

/// Writes what was decided into an event.
#[inline(always)]
pub(crate) fn describe(event: &mut Event, to: &Destination, decision: &Decision) {
    event.address = to.address;
    event.port = to.port;
    event.protocol = to.protocol;
    event.verdict = decision.verdict;
    event.reason = decision.reason;
    event.rule = decision.rule;
    event.generation = decision.generation;
    event.major = (decision.name >> 32) as u32;
    event.minor = decision.name as u32;
}
