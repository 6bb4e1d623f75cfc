//! What happened since the last quote; extended into the chain register, then quoted.

use crate::canonical::{Limits, Record};
use crate::{Boundary, Digest, EpochKind, SessionId};
use minicbor::{Decode, Encode};

/// What was decided about a flow. The numbers are those of the kernel contract.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, Ord, PartialEq, PartialOrd)]
#[cbor(index_only)]
pub enum FlowVerdict {
    /// Let through by a rule.
    #[n(1)]
    Allow,
    /// Refused.
    #[n(2)]
    Deny,
    /// Would have been refused; let through because the boundary only audits.
    #[n(3)]
    Audit,
}

/// Why an epoch was closed.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(index_only)]
pub enum Cause {
    /// There were entries to seal.
    #[n(0)]
    Work,
    /// Nothing happened for a while.
    #[n(1)]
    Heartbeat,
    /// The boundary changed.
    #[n(2)]
    Boundary,
    /// The agent stops.
    #[n(3)]
    Shutdown,
    /// Written before a crash, sealed after it.
    #[n(4)]
    Recovered,
}

/// An exact, cumulative count of decisions in this session.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Counter {
    /// Where it was decided.
    #[n(0)]
    pub hook: String,
    /// What was decided.
    #[n(1)]
    pub verdict: FlowVerdict,
    /// Protocol group.
    #[n(2)]
    pub protocol: String,
    /// How often.
    #[n(3)]
    pub count: u64,
}

/// A cumulative count of things that could not be recorded.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Loss {
    /// Why.
    #[n(0)]
    pub reason: String,
    /// How many.
    #[n(1)]
    pub count: u64,
}

/// One GPU's energy counter.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct GpuEnergy {
    /// The card.
    #[n(0)]
    pub uuid: String,
    /// Since the driver was loaded, where the card counts.
    #[n(1)]
    pub millijoules: Option<u64>,
}

/// How good the host's wall clock was.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct ClockQuality {
    /// The kernel calls it synchronised.
    #[n(0)]
    pub synchronised: bool,
    /// The kernel's estimate of the error.
    #[n(1)]
    pub error_us: Option<u64>,
}

/// What the canary's and the drills' tries came to, counted over the session.
/// `runs` is the sum of the four outcomes; a try that proved nothing is an
/// error and never held.
#[derive(Clone, Debug, Decode, Default, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Canary {
    /// Tries.
    #[n(1)]
    pub runs: u64,
    /// Refused, and counted as refused by the kernel.
    #[n(2)]
    pub held: u64,
    /// Got out.
    #[n(3)]
    pub escaped: u64,
    /// Not to be had on this host, declared uncovered, allowed by the
    /// boundary, or only audited.
    #[n(4)]
    pub not_applicable: u64,
    /// When the last try ended, milliseconds since the Unix epoch; absent
    /// before the first.
    #[n(5)]
    pub last_ms: Option<u64>,
    /// The vectors that escaped in this session, by name, each once.
    #[n(6)]
    pub escaped_vectors: Vec<String>,
    /// Proved neither, a canary that was not guarded included.
    #[n(7)]
    pub errors: u64,
    /// Whether the canary was guarded when the epoch closed.
    #[n(8)]
    pub guarded: bool,
}

/// Entries about inferences that a session appended, amendments left out.
#[derive(Clone, Copy, Debug, Decode, Default, Encode, Eq, PartialEq)]
#[cbor(array)]
pub struct RecordCounts {
    /// Of grade R1.
    #[n(0)]
    pub observed: u64,
    /// Of grade R2.
    #[n(1)]
    pub bound: u64,
}

/// One sealed stretch of time.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct EpochStatement {
    /// Type string.
    #[n(0)]
    pub kind: EpochKind,
    /// The node's id.
    #[n(1)]
    pub node: String,
    /// The session it belongs to.
    #[n(2)]
    pub session: SessionId,
    /// Position in the session, from 0.
    #[n(3)]
    pub sequence: u64,
    /// Digest of the session statement (sequence 0) or of the epoch before.
    #[n(4)]
    pub previous: Digest,
    /// Start of the stretch.
    #[n(5)]
    pub opened_ms: u64,
    /// End of the stretch.
    #[n(6)]
    pub closed_ms: u64,
    /// Leaves before.
    #[n(7)]
    pub size_before: u64,
    /// Leaves after.
    #[n(8)]
    pub size_after: u64,
    /// Root of the tree over the first `size_after` leaves.
    #[n(9)]
    pub root: Digest,
    /// The boundary in force when the epoch closed.
    #[n(10)]
    pub boundary: Boundary,
    /// Digest of the eBPF object.
    #[n(11)]
    pub object_sha256: Digest,
    /// Exact decisions, cumulative over the session.
    #[n(12)]
    pub counters: Vec<Counter>,
    /// Losses, cumulative over the session.
    #[n(13)]
    pub lost: Vec<Loss>,
    /// Tiers in force.
    #[n(14)]
    pub tiers: Vec<String>,
    /// Ways out that nothing covers.
    #[n(15)]
    pub uncovered: Vec<String>,
    /// State of the GPU monitor.
    #[n(16)]
    pub gpu_state: String,
    /// Energy counters.
    #[n(17)]
    pub gpu_energy: Vec<GpuEnergy>,
    /// Guarded groups at the end.
    #[n(18)]
    pub groups: u64,
    /// Why it was closed.
    #[n(19)]
    pub cause: Cause,
    /// Quality of the wall clock.
    #[n(20)]
    pub clock: ClockQuality,
    /// The canary; absent where it is switched off.
    #[n(21)]
    pub canary: Option<Canary>,
    /// What the counter of epochs comes to with this one, where the session counts.
    #[n(23)]
    pub counter: Option<u64>,
    /// Records of inferences, cumulative over the session; absent in what older agents wrote.
    #[n(24)]
    pub records: Option<RecordCounts>,
}

impl Record for EpochStatement {
    const LIMITS: Limits = Limits {
        bytes: 256 << 10,
        depth: 6,
    };
    const KIND: &'static str = EpochKind::TEXT;
}
