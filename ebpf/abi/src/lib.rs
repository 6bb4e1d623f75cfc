//! The binary contract between the kernel programs and the agent.
//!
//! Everything here crosses a map or the ring buffer as bytes. So every type is
//! `repr(C)`, has no padding the compiler put there, and holds only integers:
//! an enumeration is a newtype over its integer, because the other side may
//! one day send a number this build does not know.
//!
//! Addresses are always 16 bytes in network order; an IPv4 address is its
//! IPv4-mapped form (`::ffff:a.b.c.d`, RFC 4291 §2.5.5.2). Ports are in host
//! order. Times are nanoseconds since boot (`bpf_ktime_get_boot_ns`).
#![no_std]
#![forbid(unsafe_code)]
#![expect(
    clippy::inline_always,
    reason = "a call in a kernel program costs stack, of which there are 512 bytes"
)]

mod boundary;
mod counters;
mod event;
mod grant;
mod guard;
pub mod maps;
mod names;
mod select;
mod tamper;
mod turn;

pub use boundary::{
    Deputies, GENERATION_SLOTS, MAX_PREFIXES, MAX_RULE_SETS, PREFIX_HEADER_BITS, Prefix,
    PrefixValue, Protocols, RULE_ENTRIES, RuleEntry, RuleSet, Settings,
};
pub use counters::{
    COUNTER_SLOTS, FastCount, GroupCount, LOST_SLOTS, LostReason, PROTOCOL_BUCKETS, counter_slot,
    protocol_bucket,
};
pub use event::{Attempt, Event, EventKind, Hook, Reason, Verdict};
pub use grant::{GRANT_PORTS, GRANT_PROTOCOLS, Grant, GrantUse, MAX_GRANTS};
pub use guard::{
    Armed, Asked, CachedVerdict, Device, DeviceClass, Group, GroupId, MAX_LEVEL, SocketMark,
    TREE_GROUP, Task, TaskFlags,
};
pub use names::{
    ANSWER_WITHIN_NS, DENIED_NAME, LEARNED_SLOTS, LEAST_TTL_S, Learned, LearnedKey, MAX_ASKED,
    MAX_LEARNED, MAX_NAMES, MAX_OWN, MAX_QUESTIONS, MAX_RESOLVERS, MOST_TTL_S, NAME_BYTES,
    NAME_HEADER_BITS, NamePrefix, Pending, Question, Resolver, ResolverPrefix,
};
pub use select::{MAX_SELECTORS, SELECTOR_BYTES, Selected};
pub use tamper::{AgentState, Glass, Protected, Stance};
pub use turn::{
    FRAME_HEADER, Form, FrameSide, Frames, MAX_FRAMES, MAX_TURNS, StreamKey, TURN_HEAD,
    TURN_RING_BYTES, Turn, TurnState,
};

/// The version of this contract; the agent refuses pins made under another.
pub const ABI_VERSION: u32 = 3;

/// The rule number of the built-in rule that lets loopback be.
pub const LOOPBACK_RULE: u16 = u16::MAX;

/// IP protocol numbers as the boundary names them (IANA protocol registry).
pub mod protocol {
    /// Any protocol.
    pub const ANY: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;

    /// Whether the protocol starts with a source and a destination port.
    #[must_use]
    #[inline(always)]
    pub const fn has_ports(protocol: u8) -> bool {
        matches!(protocol, TCP | UDP | DCCP | SCTP | UDP_LITE)
    }
}
