//! The kernel's decision, made in user space from the same tables.
//!
//! It mirrors the object's `decide`: the longest prefix that matches, then the
//! first entry of its set that matches, then the IPv4 address inside an IPv6
//! one. It never decides about traffic; it answers questions.

use super::compile::{Compiled, CompiledPrefix};
use super::names;
use super::network::{Network, mapped};
use merestone_abi::{Reason, RuleEntry, Verdict, protocol};
use std::net::Ipv4Addr;

/// What the kernel would do, and why.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Decision {
    /// Allow, deny, or audit where a rule only reports; the boundary's own
    /// mode is not decided here.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The rule that decided, 0 for none.
    pub rule: u16,
    /// The longest prefix that matches the address, if any.
    pub prefix: Option<CompiledPrefix>,
}

/// Whether an entry matches; a non-first fragment carries no ports, so it
/// matches by address and protocol alone.
fn matches(entry: RuleEntry, protocol: u8, port: u16, fragment: bool) -> bool {
    if entry.protocol != protocol::ANY && entry.protocol != protocol {
        return false;
    }
    if entry.port_low == 0 && entry.port_high == u16::MAX {
        return true;
    }
    protocol::has_ports(protocol)
        && (fragment || (entry.port_low <= port && port <= entry.port_high))
}

/// Judges one address, whatever it embeds. An IPv4 address is in mapped form;
/// `port` is 0 for protocols without ports.
#[must_use]
pub fn judge(
    compiled: &Compiled,
    boundary: u16,
    address: [u8; 16],
    protocol: u8,
    port: u16,
    fragment: bool,
) -> Decision {
    let prefix = longest(&compiled.prefixes, boundary, address);
    let found = prefix.and_then(|prefix| judge_set(compiled, prefix.set, protocol, port, fragment));
    let (verdict, reason, rule) = match found {
        Some((verdict @ (Verdict::ALLOW | Verdict::AUDIT), rule)) => (verdict, Reason::RULE, rule),
        Some((_, rule)) => (Verdict::DENY, Reason::RULE, rule),
        None => (Verdict::DENY, Reason::NO_RULE, 0),
    };
    Decision {
        verdict,
        reason,
        rule,
        prefix,
    }
}

/// Judges by one rule set: the first entry that matches, and its rule.
pub(super) fn judge_set(
    compiled: &Compiled,
    set: u32,
    protocol: u8,
    port: u16,
    fragment: bool,
) -> Option<(Verdict, u16)> {
    let set = compiled.sets.get(set as usize)?;
    let mut entries = set.entries.iter().take(set.length as usize);
    let entry = entries.find(|entry| matches(**entry, protocol, port, fragment))?;
    Some((Verdict(entry.action), entry.rule))
}

/// Judges an address and the IPv4 address inside it, if it embeds one, by the
/// default boundary: both must be allowed.
#[must_use]
pub fn lookup(
    compiled: &Compiled,
    address: [u8; 16],
    protocol: u8,
    port: u16,
    fragment: bool,
) -> Decision {
    lookup_in(compiled, 0, address, protocol, port, fragment)
}

/// The same by the boundary of that number.
#[must_use]
pub fn lookup_in(
    compiled: &Compiled,
    boundary: u16,
    address: [u8; 16],
    protocol: u8,
    port: u16,
    fragment: bool,
) -> Decision {
    let decision = by_rules(compiled, boundary, address, protocol, port, fragment);
    if decision.verdict != Verdict::DENY
        && !fragment
        && names::hold(compiled, boundary, address, protocol, port)
    {
        return Decision {
            verdict: Verdict::DENY,
            reason: Reason::NAME_FORM,
            rule: 0,
            ..decision
        };
    }
    decision
}

fn by_rules(
    compiled: &Compiled,
    boundary: u16,
    address: [u8; 16],
    protocol: u8,
    port: u16,
    fragment: bool,
) -> Decision {
    let outer = judge(compiled, boundary, address, protocol, port, fragment);
    let Some(inner) = embedded(address) else {
        return outer;
    };
    if outer.verdict == Verdict::DENY {
        return outer;
    }
    let inner = mapped(inner.into());
    let inner = judge(compiled, boundary, inner, protocol, port, fragment);
    match inner.verdict {
        Verdict::DENY => Decision {
            reason: Reason::EMBEDDED,
            ..inner
        },
        Verdict::AUDIT if outer.verdict == Verdict::ALLOW => inner,
        _ => outer,
    }
}

/// The IPv4 address that a translator or a tunnel would take out of an IPv6
/// one: NAT64's well-known prefix (RFC 6052 §2.1) and 6to4 (RFC 3056 §2).
#[must_use]
pub fn embedded(address: [u8; 16]) -> Option<Ipv4Addr> {
    match address {
        [0x00, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
        | [0x20, 0x02, a, b, c, d, ..] => Some(Ipv4Addr::new(a, b, c, d)),
        _ => None,
    }
}

/// The longest prefix that matches: what the kernel's trie answers.
fn longest(
    prefixes: &[CompiledPrefix],
    boundary: u16,
    address: [u8; 16],
) -> Option<CompiledPrefix> {
    (0..=128).rev().find_map(|bits| {
        let network = Network::of(address, bits);
        let key = (boundary, network.address, bits);
        prefixes
            .binary_search_by_key(&key, |prefix| {
                (prefix.boundary, prefix.address, prefix.bits)
            })
            .ok()
            .and_then(|at| prefixes.get(at).copied())
    })
}
