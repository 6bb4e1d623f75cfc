//! The words spoken on the control socket: one JSON object a line, each way.
//!
//! A client sends one [`Request`]; the agent answers with [`Reply`] lines: one,
//! or for `flows` one per event and a closing [`Reply::Done`]. The socket's
//! mode lets its group read; who may change something is checked by peer
//! credentials (see [`crate::serve`]).

use crate::canary;
use crate::flow::FlowEvent;
use crate::grant::Terms;
use crate::pods::Pod;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What a client may ask. Variants without fields have braces, because serde
/// would otherwise let unknown fields pass.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The state of enforcement and evidence.
    Status {},
    /// The guarded groups and their processes.
    Guarded {},
    /// Recent flows, then new ones where `follow`.
    Flows {
        /// Go on with new events until the client hangs up.
        #[serde(default)]
        follow: bool,
        /// Only what was refused, or would have been.
        #[serde(default)]
        denied: bool,
        /// How many past events at most.
        #[serde(default = "default_limit")]
        limit: usize,
    },
    /// The addresses that names have now.
    Names {},
    /// The pods that are known, and their labels.
    Pods {},
    /// Read the boundary again and swap it in.
    Reload {},
    /// Let an operator past the protection, by a signed token.
    OpenGlass {
        /// The signed message, in hex.
        token: String,
    },
    /// The same because root asks, where no signer is named.
    OpenGlassUnsigned {
        /// Why.
        reason: String,
        /// For how long.
        seconds: u64,
        /// For what.
        actions: Vec<String>,
    },
    /// Close protection again.
    CloseGlass {},
    /// Put a signed grant into force.
    GrantApply {
        /// The signed file, hexadecimal.
        message: String,
    },
    /// The grants, and what was used of them.
    GrantList {},
    /// Take a grant out of force.
    GrantRevoke {
        /// Its name.
        name: String,
    },
    /// Have the canary try every way out now.
    Drill {},
    /// Close the epoch now, so that a report covers all up to this moment.
    Seal {},
}

impl Request {
    /// Whether it changes the agent's state, and so is for root alone.
    pub const fn changes_state(&self) -> bool {
        match self {
            Self::Reload {}
            | Self::Drill {}
            | Self::Seal {}
            | Self::OpenGlass { .. }
            | Self::OpenGlassUnsigned { .. }
            | Self::CloseGlass {}
            | Self::GrantApply { .. }
            | Self::GrantRevoke { .. } => true,
            Self::Status {}
            | Self::Guarded {}
            | Self::GrantList {}
            | Self::Names {}
            | Self::Pods {}
            | Self::Flows { .. } => false,
        }
    }
}

const fn default_limit() -> usize {
    1000
}

/// What the agent answers.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Guarded`].
    Guarded {
        /// The guarded groups.
        groups: Vec<GuardedGroup>,
    },
    /// To [`Request::Names`].
    Names {
        /// What is learned, by name and address.
        names: Vec<LearnedInfo>,
    },
    /// To [`Request::Pods`].
    Pods {
        /// What is known.
        pods: Vec<Pod>,
    },
    /// To [`Request::GrantList`].
    Grants {
        /// The grants, the latest first.
        grants: Vec<GrantInfo>,
    },
    /// To [`Request::Drill`].
    Drill {
        /// What each way out came to; one row, `guard`, where the canary is not
        /// guarded.
        rows: Vec<DrillRow>,
    },
    /// One event, to [`Request::Flows`].
    Flow(Box<FlowEvent>),
    /// The request was carried out.
    Done {
        /// What was done, in a sentence.
        detail: String,
    },
    /// It was not.
    Refused {
        /// Why.
        error: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

/// Requests that guarded servers answered, since the agent started.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct RecordsInfo {
    /// Whether they are followed.
    pub enabled: bool,
    /// Entries of grade R1.
    pub observed: u64,
    /// Entries of grade R2.
    pub bound: u64,
    /// Told again, because they went on after they had counted as over.
    pub amended: u64,
    /// Health and metrics, left out.
    pub left_out: u64,
    /// Under way now.
    pub open: u64,
    /// Receipts issued.
    #[serde(default)]
    pub receipts: u64,
    /// Records that no receipt was issued for: no session was open, or the disk refused.
    #[serde(default)]
    pub unreceipted: u64,
}

/// A name with the digest of what it names.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct BoundaryInfo {
    /// The boundary's own name.
    pub name: String,
    /// SHA-256 of its file, in hex.
    pub digest: String,
}

/// An address that a name has now.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LearnedInfo {
    /// The name.
    pub name: String,
    /// The address.
    pub address: IpAddr,
    /// The resolver that said so.
    pub resolver: IpAddr,
    /// How long yet nothing forbids to use it anew.
    pub seconds: u64,
    /// The number of the boundary whose rules list the name; 0 is the default.
    pub boundary: u16,
}

/// How much is learned of names.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct NamesInfo {
    /// Names and wildcards that rules list, in all boundaries.
    pub listed: usize,
    /// Names that have an address now.
    pub names: usize,
    /// Addresses that names have now.
    pub addresses: usize,
}

/// What is known of pods, where the kubelet is asked.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct PodsInfo {
    /// Whom the agent asks.
    pub kubelet: String,
    /// Pods that are known.
    pub known: usize,
    /// Those of them that a `[[select]]` names by labels.
    pub selected: usize,
    /// Pods for which the kernel has no room: they stay unknown.
    pub without_room: usize,
    /// Entries without a uid of the right form: not known either.
    pub left_out: usize,
    /// When it answered last, milliseconds since the Unix epoch.
    pub last_ms: Option<u64>,
    /// Why it does not answer now.
    pub error: Option<String>,
}

/// One grant.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct GrantInfo {
    /// What it says.
    pub terms: Terms,
    /// When it ends, RFC 3339.
    pub until: String,
    /// `accepted`, `spent`, `expired` or `revoked`.
    pub state: String,
    /// Whether it is in force.
    pub in_force: bool,
    /// Bytes sent under it.
    pub used_bytes: u64,
    /// SHA-256 of the signed file, hexadecimal.
    pub sha256: String,
    /// SHA-256 of the signer's key, hexadecimal.
    pub signer: String,
}

/// A tier of enforcement and whether it was seen to load and attach.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TierInfo {
    /// Its name, for example `cgroup` or `lsm`.
    pub name: String,
    /// Whether every program of it is attached.
    pub active: bool,
    /// What is attached, or why it is not.
    pub detail: String,
}

/// One exact counter of the kernel's.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CounterInfo {
    /// The hook that decided.
    pub hook: String,
    /// What it decided.
    pub verdict: String,
    /// The IP protocol.
    pub protocol: String,
    /// Decisions since the programs' maps were made.
    pub count: u64,
}

/// How the evidence fares.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct EvidenceInfo {
    /// This host's node id.
    pub node: String,
    /// The attestation key's Name, in hex: what a verifier pins.
    pub ak_name: String,
    /// The running session, in hex.
    pub session: String,
    /// Entries in the log.
    pub entries: u64,
    /// Epochs sealed in this session.
    pub epochs: u64,
    /// When the last quote was made, milliseconds since the Unix epoch.
    pub last_quote_ms: Option<u64>,
    /// Why the last quote failed, where it did.
    pub quote_error: Option<String>,
    /// The TPM, and whether it is one in software.
    pub tpm: String,
    /// Set where the TPM is a program: what it signs proves little.
    pub software_tpm: bool,
}

/// Attempts on enforcement, alike.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TamperCount {
    /// What was tried, e.g. `unpin`.
    pub attempt: String,
    /// Whether it was refused; false: it was found afterwards, or let through.
    pub refused: bool,
    /// How often, since the agent started.
    pub count: u64,
}

/// A break-glass that is open.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BreakGlassInfo {
    /// SHA-256 of the token, in hex; zeroes where root asked without one.
    pub token: String,
    /// Why, in the operator's words.
    pub reason: String,
    /// Until when, milliseconds since the Unix epoch.
    pub until_ms: u64,
    /// For what.
    pub actions: Vec<String>,
}

impl BreakGlassInfo {
    /// In a line.
    #[must_use]
    pub fn line(&self) -> String {
        let left = self.until_ms.saturating_sub(crate::clock::now_ms()) / 1000;
        format!(
            "OPEN for {left} s more, for {}: {}",
            self.actions.join(", "),
            self.reason
        )
    }
}

/// How enforcement itself is kept.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct TamperInfo {
    /// `hold` or `deny-all`.
    pub on_agent_loss: String,
    /// Attempts since the agent started.
    pub attempts: Vec<TamperCount>,
    /// What is open for an operator.
    pub break_glass: Option<BreakGlassInfo>,
}

/// What a way out came to.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DrillRow {
    /// Its name.
    pub vector: String,
    /// What was tried.
    pub what: String,
    /// What it came to.
    pub result: canary::Result,
    /// What was seen: the call's answer, the kernel's counts, its report.
    pub proof: String,
}

/// The last try of one way out.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CanaryVector {
    /// What it came to.
    #[serde(flatten)]
    pub row: DrillRow,
    /// When, milliseconds since the Unix epoch.
    pub time_ms: u64,
}

/// The canary.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CanaryInfo {
    /// Whether it is guarded as a workload is; without that it shows nothing.
    pub guarded: bool,
    /// The same in words, and why not.
    pub state: String,
    /// Tries of this session by result, drills included.
    pub runs: Vec<(String, u64)>,
    /// When the last one ended, milliseconds since the Unix epoch.
    pub last_ms: Option<u64>,
    /// Decisions refused to its group; they are in `counters`, too.
    pub denied: u64,
    /// The last try of each way out.
    pub vectors: Vec<CanaryVector>,
}

impl CanaryInfo {
    /// In a line.
    #[must_use]
    pub fn line(&self) -> String {
        let runs: Vec<_> = self
            .runs
            .iter()
            .map(|(result, count)| format!("{count} {}", result.replace('_', " ")))
            .collect();
        let state = if self.guarded {
            self.state.clone()
        } else {
            self.state.replacen("not guarded", "NOT GUARDED", 1)
        };
        let last = self.last_ms.map_or_else(String::new, |last| {
            let ago = crate::clock::now_ms().saturating_sub(last) / 1000;
            format!(", last {ago} s ago")
        });
        format!("{state}; {}{last}", runs.join(", "))
    }
}

/// All that `merestone status` shows.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Status {
    /// Set where the cgroup tier is attached and the boundary enforces.
    pub enforcing: bool,
    /// `enforce` or `audit`.
    pub mode: String,
    /// The agent's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it started, RFC 3339.
    pub started: String,
    /// The boundary in force.
    pub boundary: BoundaryInfo,
    /// The generation the kernel judges under.
    pub generation: u32,
    /// Set where the last reload was refused: the old boundary stays.
    pub reload_error: Option<String>,
    /// Tiers, active or not.
    pub tiers: Vec<TierInfo>,
    /// Ways out that nothing here covers.
    pub uncovered: Vec<String>,
    /// Guarded cgroups and trees.
    pub groups: usize,
    /// Guarded processes known to the kernel.
    pub processes: usize,
    /// Decisions by hook, verdict and protocol, where not zero.
    pub counters: Vec<CounterInfo>,
    /// Lost events and entries by reason.
    pub lost: Vec<(String, u64)>,
    /// What is learned of names.
    #[serde(default)]
    pub names: NamesInfo,
    /// What is known of pods.
    #[serde(default)]
    pub pods: Option<PodsInfo>,
    /// Attempts on enforcement itself.
    #[serde(default)]
    pub tamper: TamperInfo,
    /// Requests that guarded servers answered.
    #[serde(default)]
    pub records: RecordsInfo,
    /// The canary, where it is switched on.
    #[serde(default)]
    pub canary: Option<CanaryInfo>,
    /// The GPU monitor's state.
    pub gpu: String,
    /// What that state means, and what to do.
    pub gpu_detail: String,
    /// The GPUs seen.
    pub gpus: Vec<String>,
    /// The evidence.
    pub evidence: EvidenceInfo,
    /// SHA-256 of the eBPF object, in hex.
    pub object_digest: String,
}

/// One guarded group, for `merestone guarded`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct GuardedGroup {
    /// The cgroup id, or the tree's root process.
    pub id: u64,
    /// `cgroup` or `tree`; `canary` for the agent's own.
    pub kind: String,
    /// The cgroup's path below the root, where it still exists.
    pub cgroup: Option<String>,
    /// Container id, where the path names one.
    pub container_id: Option<String>,
    /// Pod uid, where the path names one.
    pub pod_uid: Option<String>,
    /// Since when, RFC 3339.
    pub since: String,
    /// The device whose opening made it guarded, `major:minor`.
    pub device: String,
    /// The device's class.
    pub class: String,
    /// The process that opened it.
    pub opener: u32,
    /// Its processes now.
    pub processes: Vec<GuardedProcess>,
    /// Packets let through at egress.
    pub allowed: u64,
    /// Decisions refused, at any hook.
    pub denied: u64,
    /// Decisions reported only, in audit mode.
    pub audited: u64,
}

/// A process in a guarded group.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct GuardedProcess {
    /// Process id.
    pub pid: u32,
    /// Executable, where it can be read.
    pub exe: Option<String>,
    /// Command name.
    pub comm: String,
}
