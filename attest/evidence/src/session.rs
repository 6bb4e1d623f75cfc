//! What the agent says of itself when it starts; sealed by a quote over its digest.

use crate::canonical::{Limits, Record};
use crate::{Digest, NvCounters, NvHeld, SessionId, SessionKind};
use minicbor::{Decode, Encode};

/// Whether refused flows are stopped or only reported.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(index_only)]
pub enum Mode {
    /// Refused flows are stopped.
    #[n(0)]
    Enforce,
    /// Refused flows are reported and let through.
    #[n(1)]
    Audit,
}

/// The agent program.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Agent {
    /// Its version.
    #[n(0)]
    pub version: String,
    /// Digest of the executable file.
    #[n(1)]
    pub sha256: Digest,
}

/// The boundary in force.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Boundary {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Digest of the boundary file.
    #[n(1)]
    pub sha256: Digest,
    /// Enforced or audited.
    #[n(2)]
    pub mode: Mode,
}

/// One loaded kernel program.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Program {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// The kernel's tag of its instructions.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub tag: [u8; 8],
    /// Digest of the instructions as the kernel gives them back, where it does.
    #[n(2)]
    pub sha256: Option<Digest>,
}

/// One tier of enforcement.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Tier {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Whether it is in force.
    #[n(1)]
    pub active: bool,
    /// Why, or why not.
    #[n(2)]
    pub detail: String,
}

/// One GPU.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct GpuDevice {
    /// The vendor's unique id.
    #[n(0)]
    pub uuid: String,
    /// Product name.
    #[n(1)]
    pub name: String,
    /// PCI address.
    #[n(2)]
    pub pci: Option<String>,
    /// Memory in bytes.
    #[n(3)]
    pub memory_bytes: Option<u64>,
    /// Firmware of the card.
    #[n(4)]
    pub vbios: Option<String>,
    /// Confidential-compute state, where the card says.
    #[n(5)]
    pub confidential: Option<String>,
}

/// What the GPU library showed at start.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct GpuInventory {
    /// The monitor's state: `ok`, `no_driver`, …
    #[n(0)]
    pub state: String,
    /// Driver version.
    #[n(1)]
    pub driver: Option<String>,
    /// Path of the library.
    #[n(2)]
    pub library: Option<String>,
    /// Digest of the library file.
    #[n(3)]
    pub library_sha256: Option<Digest>,
    /// The library is a test double.
    #[n(4)]
    pub test_library: bool,
    /// The cards.
    #[n(5)]
    pub devices: Vec<GpuDevice>,
}

/// The TPM, as the agent read it.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct TpmInfo {
    /// Vendor string.
    #[n(0)]
    pub manufacturer: String,
    /// Firmware version.
    #[n(1)]
    pub firmware: String,
    /// A program, not a chip.
    #[n(2)]
    pub software: bool,
}

/// The kernel that runs.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Kernel {
    /// `uname -r`.
    #[n(0)]
    pub release: String,
    /// The kernel's random id of this boot.
    #[n(1)]
    pub boot_id: String,
}

/// Where the operator says the host stands (level L0).
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Site {
    /// Region.
    #[n(0)]
    pub region: Option<String>,
    /// Country, ISO 3166-1 alpha-2.
    #[n(1)]
    pub country: Option<String>,
    /// Building or room.
    #[n(2)]
    pub facility: Option<String>,
}

/// One start of the agent.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct SessionStatement {
    /// Type string.
    #[n(0)]
    pub kind: SessionKind,
    /// The node's id.
    #[n(1)]
    pub node: String,
    /// This session.
    #[n(2)]
    pub session: SessionId,
    /// Digest of the last epoch statement of the session before, same node.
    #[n(3)]
    pub previous: Option<Digest>,
    /// When it started.
    #[n(4)]
    pub started_ms: u64,
    /// Ed25519 public key that lives as long as the session.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub session_key: [u8; 32],
    /// The agent program.
    #[n(6)]
    pub agent: Agent,
    /// The boundary in force at start.
    #[n(7)]
    pub boundary: Boundary,
    /// Digest of the eBPF object.
    #[n(8)]
    pub object_sha256: Digest,
    /// The kernel programs loaded from it.
    #[n(9)]
    pub programs: Vec<Program>,
    /// Every tier, active or not.
    #[n(10)]
    pub tiers: Vec<Tier>,
    /// Ways out that nothing covers on this host.
    #[n(11)]
    pub uncovered: Vec<String>,
    /// The GPUs.
    #[n(12)]
    pub gpu: GpuInventory,
    /// The TPM.
    #[n(13)]
    pub tpm: TpmInfo,
    /// Registers that every quote of this session selects, ascending, SHA-256 bank.
    #[n(14)]
    pub pcrs: Vec<u8>,
    /// The register that epoch digests are extended into.
    #[n(15)]
    pub chain_pcr: u8,
    /// The kernel.
    #[n(16)]
    pub kernel: Kernel,
    /// Leaves in the tree at start.
    #[n(17)]
    pub tree_size: u64,
    /// Root of the tree at start.
    #[n(18)]
    pub tree_root: Digest,
    /// Where the operator says this is.
    #[n(19)]
    pub site: Option<Site>,
    /// Tiers the configuration requires.
    #[n(20)]
    pub require: Vec<String>,
    /// The counters it counts with, or why it has none.
    #[n(21)]
    pub counters: Option<NvCounters>,
    /// The index that holds the geotag, where the host has one.
    #[n(23)]
    pub geotag: Option<NvHeld>,
}

impl Record for SessionStatement {
    const LIMITS: Limits = Limits {
        bytes: 256 << 10,
        depth: 6,
    };
    const KIND: &'static str = SessionKind::TEXT;
}
