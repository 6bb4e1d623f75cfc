//! One leaf of the log: its canonical bytes are the leaf's data.

use crate::canonical::{Limits, Record};
use crate::{Cause, Digest, EntryKind, FlowVerdict, Mode};
use minicbor::{Decode, Encode};

/// A process, as seen when the entry was made.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Process {
    /// Process id in the host's namespace.
    #[n(0)]
    pub pid: u32,
    /// Start time in clock ticks since boot: with the pid, unique.
    #[n(1)]
    pub start_ticks: u64,
    /// Path of the executable.
    #[n(2)]
    pub exe: String,
    /// Its digest, where it could be read.
    #[n(3)]
    pub exe_sha256: Option<Digest>,
    /// Command name.
    #[n(4)]
    pub comm: String,
    /// Control group path.
    #[n(5)]
    pub cgroup: String,
    /// Container id, where the path shows one.
    #[n(6)]
    pub container_id: Option<String>,
    /// Pod uid, where the path shows one.
    #[n(7)]
    pub pod_uid: Option<String>,
}

/// The device node whose opening guarded a group.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct DeviceNode {
    /// Major number.
    #[n(0)]
    pub major: u32,
    /// Minor number.
    #[n(1)]
    pub minor: u32,
    /// Class: `compute`, `graphics`, `mig`, …
    #[n(2)]
    pub class: String,
}

/// One process's use of a GPU.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct GpuUse {
    /// Process id.
    #[n(0)]
    pub pid: u32,
    /// Memory it holds, where the driver says.
    #[n(1)]
    pub memory_bytes: Option<u64>,
}

/// One reading of one GPU. Absent is not zero.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct GpuReading {
    /// The card.
    #[n(0)]
    pub uuid: String,
    /// Per cent of the last sample period with a kernel running.
    #[n(1)]
    pub utilisation_percent: Option<u32>,
    /// Memory in use.
    #[n(2)]
    pub memory_used_bytes: Option<u64>,
    /// Power draw.
    #[n(3)]
    pub power_milliwatts: Option<u64>,
    /// Energy since the driver was loaded.
    #[n(4)]
    pub energy_millijoules: Option<u64>,
    /// Processes on the card.
    #[n(5)]
    pub processes: Vec<GpuUse>,
}

/// What a signed grant allows.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct GrantTerms {
    /// SHA-256 of the signer's public key.
    #[n(0)]
    pub signer: Digest,
    /// The control group that may send.
    #[n(1)]
    pub group: String,
    /// The network it may send to.
    #[n(2)]
    pub to: String,
    /// Ranges of ports, first and last; none for any.
    #[n(3)]
    pub ports: Vec<(u16, u16)>,
    /// IP protocol numbers; none for any.
    #[n(4)]
    pub protocols: Vec<u8>,
    /// How many bytes of IP packets.
    #[n(5)]
    pub limit_bytes: u64,
    /// Not before, milliseconds since the Unix epoch; 0 for at once.
    #[n(6)]
    pub from_ms: u64,
    /// Not from then on.
    #[n(7)]
    pub until_ms: u64,
    /// Why, in the words of whoever signed.
    #[n(8)]
    pub reason: String,
}

/// A pod that came under another boundary.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct PodMove {
    /// Its uid, as its cgroup bears it.
    #[n(0)]
    pub uid: String,
    /// Namespace and name, as in `serving/vllm-0`.
    #[n(1)]
    pub name: String,
    /// The name of the boundary that judges it; none where it is known no
    /// longer, so that everything is denied.
    #[n(2)]
    pub boundary: Option<String>,
}

/// What happened.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
pub enum Body {
    /// The agent started.
    #[n(0)]
    #[cbor(map)]
    AgentStart {
        /// Its version.
        #[n(0)]
        version: String,
    },
    /// The agent stops.
    #[n(1)]
    #[cbor(map)]
    AgentStop {
        /// Why.
        #[n(0)]
        cause: String,
    },
    /// A group became guarded.
    #[n(2)]
    #[cbor(map)]
    GuardStart {
        /// The group.
        #[n(0)]
        group: u64,
        /// Its control group path.
        #[n(1)]
        cgroup: String,
        /// The process that opened the device.
        #[n(2)]
        process: Option<Process>,
        /// The device.
        #[n(3)]
        device: DeviceNode,
    },
    /// A group is no longer guarded.
    #[n(3)]
    #[cbor(map)]
    GuardStop {
        /// The group.
        #[n(0)]
        group: u64,
        /// Why.
        #[n(1)]
        cause: String,
    },
    /// A flow was decided.
    #[n(4)]
    #[cbor(map)]
    Flow {
        /// What was decided.
        #[n(0)]
        verdict: FlowVerdict,
        /// Where.
        #[n(1)]
        hook: String,
        /// Why.
        #[n(2)]
        reason: String,
        /// The guarded group.
        #[n(3)]
        group: u64,
        /// The process, where the hook knows it.
        #[n(4)]
        process: Option<Process>,
        /// Destination; IPv4 as `::ffff:a.b.c.d`.
        #[cbor(n(5), with = "minicbor::bytes")]
        address: [u8; 16],
        /// Destination port.
        #[n(6)]
        port: u16,
        /// IP protocol number.
        #[n(7)]
        protocol: u8,
        /// Rule number, 0 for none.
        #[n(8)]
        rule: u16,
        /// How many alike this entry stands for.
        #[n(9)]
        count: u64,
        /// Address family of the socket, where that is what was refused; the
        /// address is then all zero.
        #[n(10)]
        family: Option<u16>,
        /// The name that was asked for, or that the address had; without its
        /// last dot.
        #[n(11)]
        name: Option<String>,
    },
    /// The boundary was read again.
    #[n(5)]
    #[cbor(map)]
    Boundary {
        /// Its name.
        #[n(0)]
        name: String,
        /// Digest of the file.
        #[n(1)]
        sha256: Digest,
        /// Generation in the kernel.
        #[n(2)]
        generation: u32,
        /// Whether it took effect.
        #[n(3)]
        accepted: bool,
        /// Why not.
        #[n(4)]
        error: Option<String>,
        /// Enforced or audited.
        #[n(5)]
        mode: Mode,
        /// Its version, who signed it, the boundaries it selects, and the
        /// databases it was compiled with, by digest.
        #[n(6)]
        detail: Option<String>,
    },
    /// The GPUs were read.
    #[n(6)]
    #[cbor(map)]
    Gpu {
        /// The monitor's state.
        #[n(0)]
        state: String,
        /// One reading a card.
        #[n(1)]
        devices: Vec<GpuReading>,
    },
    /// Something could not be recorded.
    #[n(7)]
    #[cbor(map)]
    Lost {
        /// Why.
        #[n(0)]
        reason: String,
        /// How many since the last such entry.
        #[n(1)]
        count: u64,
    },
    /// A guarded process was moved to another control group.
    #[n(8)]
    #[cbor(map)]
    Left {
        /// The group it came from.
        #[n(0)]
        group: u64,
        /// Control group it went to.
        #[n(1)]
        cgroup: String,
        /// The process.
        #[n(2)]
        process: Option<Process>,
    },
    /// An epoch that was open when the agent died was found and closed.
    #[n(9)]
    #[cbor(map)]
    Recovered {
        /// How the epoch was closed.
        #[n(0)]
        cause: Cause,
        /// What was found.
        #[n(1)]
        detail: String,
    },
    /// Somebody tried to take enforcement away, or did.
    #[n(10)]
    #[cbor(map)]
    Tamper {
        /// What was tried: `detach`, `unpin`, `map_write`, `kill`, …
        #[n(0)]
        attempt: String,
        /// Whether it was refused; false: it was found afterwards.
        #[n(1)]
        refused: bool,
        /// Where it was seen: a hook, or `watch`.
        #[n(2)]
        hook: String,
        /// What it was aimed at.
        #[n(3)]
        target: String,
        /// Who tried, where that is known.
        #[n(4)]
        process: Option<Process>,
        /// How many alike this entry stands for.
        #[n(5)]
        count: u64,
        /// Whether what was found was put back; absent for an attempt that the
        /// kernel saw.
        #[n(6)]
        repaired: Option<bool>,
    },
    /// The canary, or a drill, tried to escape.
    #[n(11)]
    #[cbor(map)]
    Canary {
        /// `canary` or `drill`.
        #[n(0)]
        run: String,
        /// What was tried; `guard`, where the canary itself was not guarded.
        #[n(1)]
        vector: String,
        /// `held`, `escaped`, `not_applicable` or `error`.
        #[n(2)]
        result: String,
        /// What was seen.
        #[n(3)]
        detail: String,
    },
    /// A grant was taken into force, used, or came to its end.
    #[n(12)]
    #[cbor(map)]
    Grant {
        /// Its name.
        #[n(0)]
        name: String,
        /// Digest of the signed file.
        #[n(1)]
        sha256: Digest,
        /// `accepted`, `refused`, `used`, `spent`, `expired` or `revoked`.
        #[n(2)]
        state: String,
        /// Bytes sent under it so far.
        #[n(3)]
        bytes: u64,
        /// Details, e.g. why it was refused.
        #[n(4)]
        detail: String,
        /// What it allows; absent where it was refused.
        #[n(5)]
        terms: Option<GrantTerms>,
    },
    /// Protection was opened for an operator, or closed again.
    #[n(13)]
    #[cbor(map)]
    BreakGlass {
        /// Digest of the signed token.
        #[n(0)]
        sha256: Digest,
        /// `opened`, `refused` or `closed`.
        #[n(1)]
        state: String,
        /// Why, in the operator's words, or why it was refused.
        #[n(2)]
        reason: String,
        /// Until when it is open, milliseconds since the Unix epoch.
        #[n(3)]
        until_ms: u64,
        /// SHA-256 of the signer's public key; absent where nobody signed, and
        /// where it was found open at a start.
        #[n(4)]
        signer: Option<Digest>,
        /// What it lets through: `bpf`, `pins`, `signal`, …
        #[n(5)]
        actions: Vec<String>,
    },
    /// What a starting agent found of the enforcement it left behind.
    #[n(14)]
    #[cbor(map)]
    Found {
        /// What: `links`, `maps`, `agent_gap`, …
        #[n(0)]
        what: String,
        /// Whether it was kept as it had been left.
        #[n(1)]
        kept: bool,
        /// What was found.
        #[n(2)]
        detail: String,
    },
    /// A guarded process asked somebody outside its group on this host.
    #[n(15)]
    #[cbor(map)]
    Deputy {
        /// Whether it was refused.
        #[n(0)]
        refused: bool,
        /// The hook that saw it.
        #[n(1)]
        hook: String,
        /// The guarded group.
        #[n(2)]
        group: u64,
        /// Who asked, where the hook knows it.
        #[n(3)]
        process: Option<Process>,
        /// Whom: a loopback address and port, or a Unix socket's owner.
        #[n(4)]
        deputy: String,
        /// How many alike this entry stands for.
        #[n(5)]
        count: u64,
    },
    /// A request was answered on a guarded server's socket.
    #[n(16)]
    #[cbor(map)]
    Inference(#[n(0)] Box<crate::Inference>),
    /// A key was made that signs this log's checkpoints.
    #[n(20)]
    #[cbor(map)]
    LogKey {
        /// The key, as a C2SP vkey.
        #[n(0)]
        key: String,
        /// The one that it takes the place of.
        #[n(1)]
        previous: Option<String>,
    },
    /// Pods came under other boundaries by their labels.
    #[n(21)]
    #[cbor(map)]
    Pods {
        /// Which.
        #[n(0)]
        moved: Vec<PodMove>,
    },
}

/// One leaf.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Entry {
    /// Type string.
    #[n(0)]
    pub kind: EntryKind,
    /// Wall clock.
    #[n(1)]
    pub time_ms: u64,
    /// Nanoseconds since boot, suspend included.
    #[n(2)]
    pub boot_ns: u64,
    /// What happened.
    #[n(3)]
    pub body: Body,
}

impl Record for Entry {
    const LIMITS: Limits = Limits {
        // An entry bundle of c2sp.org/tlog-tiles has two bytes for the length.
        bytes: (64 << 10) - 1,
        depth: 8,
    };
    const KIND: &'static str = EntryKind::TEXT;
}
