//! Exact counters: per-CPU, so no event is ever needed to know the totals.

use crate::event::{Hook, Verdict};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Hook numbers a slot can hold.
const HOOKS: u32 = 32;
/// Verdict numbers a slot can hold.
const VERDICTS: u32 = 4;
/// Protocol groups, with the name users see; the last stands for all others.
pub const PROTOCOL_BUCKETS: [&str; 8] = [
    "none", "icmp", "tcp", "udp", "icmpv6", "sctp", "raw", "other",
];
/// Slots of the counter array.
pub const COUNTER_SLOTS: u32 = HOOKS * VERDICTS * 8;

/// The bucket of an IP protocol number.
#[must_use]
#[inline(always)]
pub const fn protocol_bucket(protocol: u8) -> u32 {
    match protocol {
        0 => 0,
        1 => 1,
        6 => 2,
        17 => 3,
        58 => 4,
        132 => 5,
        255 => 6,
        _ => 7,
    }
}

/// The slot that counts one decision.
#[must_use]
#[inline(always)]
pub const fn counter_slot(hook: Hook, verdict: Verdict, protocol: u8) -> u32 {
    let hook = (hook.0 as u32) & (HOOKS - 1);
    let verdict = (verdict.0 as u32) & (VERDICTS - 1);
    (hook * VERDICTS + verdict) * 8 + protocol_bucket(protocol)
}

/// What a guarded group sent and was refused.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct GroupCount {
    /// Packets let through at `cgroup_skb/egress`.
    pub allowed: u64,
    /// Their bytes.
    pub allowed_bytes: u64,
    /// Decisions refused, at any hook.
    pub denied: u64,
    /// Decisions that would have been refused in enforce mode.
    pub audited: u64,
}

/// Packets of a group that a remembered verdict let through at
/// `cgroup_skb/egress`. They are in no other counter: whoever reads the totals
/// adds these.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct FastCount {
    /// TCP packets.
    pub tcp: u64,
    /// UDP packets.
    pub udp: u64,
    /// Bytes of both.
    pub bytes: u64,
}

/// Why an event or an entry was lost; the index into the lost array.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(transparent)]
pub struct LostReason(pub u32);

impl LostReason {
    /// The ring buffer was full; the verdict stood.
    pub const RING_FULL: Self = Self(0);
    /// The group map was full; the open was refused.
    pub const GROUPS_FULL: Self = Self(1);
    /// The task map was full; the process was killed or held by its cgroup.
    pub const TASKS_FULL: Self = Self(2);
    /// The per-group counter map was full; the totals still count.
    pub const COUNTS_FULL: Self = Self(3);
    /// A socket could not be marked; the packet was refused.
    pub const SOCKET_MARK: Self = Self(4);
    /// An answer's address had no room and was not learned.
    pub const NAMES_FULL: Self = Self(5);
    /// A turn's end had no room, or the turn itself; it is in no record.
    pub const TURNS_FULL: Self = Self(6);
    /// Names for users, by index.
    pub const NAMES: [&'static str; LOST_SLOTS as usize] = [
        "ring_full",
        "groups_full",
        "tasks_full",
        "counts_full",
        "socket_mark",
        "names_full",
        "turns_full",
    ];
}

/// Slots of the lost array.
pub const LOST_SLOTS: u32 = 7;
