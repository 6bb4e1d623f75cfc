//! The boundary as the kernel holds it: prefixes that point at rule sets.
//!
//! User space flattens `boundary.toml` so that the kernel needs one longest
//! match and one bounded walk: each prefix carries every rule that applies at
//! it, denies first, then allows from the most to the least specific. The
//! first entry that matches decides; none means denied.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of [`Prefix`] before the address: always matched in full.
pub const PREFIX_HEADER_BITS: u32 = 32;
/// Prefixes a generation's trie has room for.
pub const MAX_PREFIXES: u32 = 1_048_576;
/// Rule sets a generation may have.
pub const MAX_RULE_SETS: u32 = 2048;
/// Generations that can be in the maps at once: the live one and the next.
pub const GENERATION_SLOTS: u32 = 2;
/// Entries in a rule set.
pub const RULE_ENTRIES: usize = 32;

/// The data part of an LPM key: the boundary, then the address.
///
/// Each generation has a trie of its own: a reload fills the next generation's
/// beside the live one and then switches [`Settings::generation`]: no packet
/// sees half a policy.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct Prefix {
    /// Always zero.
    pub reserved: [u8; 2],
    /// The boundary's number, big endian; 0 is the default boundary.
    pub boundary: [u8; 2],
    /// The network address.
    pub address: [u8; 16],
}

/// What the trie holds for a prefix.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct PrefixValue {
    /// Index into the rule-set array, the generation's slot already added.
    pub set: u32,
}

/// One condition and what to do when it holds.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct RuleEntry {
    /// Lowest destination port; 0 to 65535 means any port and no port.
    pub port_low: u16,
    /// Highest destination port.
    pub port_high: u16,
    /// The rule's number in the boundary file, from 1; see the agent's policy.
    pub rule: u16,
    /// IP protocol number, [`crate::protocol::ANY`] for all.
    pub protocol: u8,
    /// [`crate::Verdict::ALLOW`], [`crate::Verdict::DENY`] or, for a rule that
    /// only audits, [`crate::Verdict::AUDIT`], as its integer.
    pub action: u8,
}

/// Every rule that applies at a prefix, in the order they are tried.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct RuleSet {
    /// Entries in use.
    pub length: u32,
    /// Always zero.
    pub reserved: u32,
    /// The entries; those past `length` are zero.
    pub entries: [RuleEntry; RULE_ENTRIES],
}

/// What every decision reads first; one array element, written whole.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Settings {
    /// The generation packets are judged under.
    pub generation: u32,
    /// 1 where the live generation only audits: a denial is reported and let
    /// pass. Indexed by `generation % GENERATION_SLOTS`, so that the mode
    /// changes with the rules it belongs to.
    pub audit: [u8; 2],
    /// [`Deputies`] of each slot's generation, indexed like `audit`.
    pub deputies: [u8; 2],
    /// 1 where a slot's generation has rules for names, so that DNS questions
    /// are judged; indexed like `audit`.
    pub names: [u8; 2],
    /// 1 where a slot's generation selects other boundaries for some groups, so
    /// that [`crate::maps::SELECTED`] is asked; indexed like `audit`.
    pub selects: [u8; 2],
    /// [`Protocols`] that the rules of a slot's generation allow somewhere but
    /// loopback; indexed like `audit`.
    pub protocols: [u8; 2],
    /// Always zero.
    pub reserved: [u8; 2],
}

/// Which protocols beside TCP and UDP a boundary lets anything be sent by.
#[derive(Clone, Copy, Debug)]
pub struct Protocols;

impl Protocols {
    /// A rule allows any protocol.
    pub const ANY: u8 = 1;
    /// A rule allows ICMP, of either version.
    pub const ICMP: u8 = 2;
}

/// What becomes of a guarded process that asks somebody outside its group.
/// Either way it is reported.
#[derive(Clone, Copy, Debug)]
pub struct Deputies;

impl Deputies {
    /// Connections to loopback listeners outside the group are refused.
    pub const DENY_LOOPBACK: u8 = 1;
    /// Unix sockets of processes outside the group are refused.
    pub const DENY_UNIX: u8 = 2;
}

const _: () = {
    assert!(size_of::<Prefix>() == 20);
    assert!(size_of::<RuleEntry>() == 8);
    assert!(size_of::<RuleSet>() == 8 + 8 * RULE_ENTRIES);
    assert!(size_of::<Settings>() == 16);
};
