//! Everything a verifier needs, in one file. Nothing in it is trusted for being in it.

use crate::canonical::{Limits, Record};
use crate::{Blob, BundleKind, Digest, NvCertified};
use minicbor::{Decode, Encode};

/// One register's value.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct PcrValue {
    /// Register number.
    #[n(0)]
    pub index: u8,
    /// Its value in the SHA-256 bank.
    #[n(1)]
    pub value: Digest,
}

/// What a TPM signed, and the values it signed a digest of.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Quote {
    /// `TPMS_ATTEST`, marshalled.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE`, marshalled.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
    /// The registers, ascending.
    #[n(2)]
    pub pcrs: Vec<PcrValue>,
}

/// An epoch statement and the quote over it.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct SealedEpoch {
    /// Canonical bytes of an [`crate::EpochStatement`].
    #[cbor(n(0), with = "minicbor::bytes")]
    pub statement: Vec<u8>,
    /// The quote.
    #[n(1)]
    pub quote: Quote,
    /// The counter of epochs, certified for the statement.
    #[n(2)]
    pub nv: Option<Vec<NvCertified>>,
}

/// A session statement, the quote over it, the logs of that boot, and its epochs.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct SealedSession {
    /// Canonical bytes of a [`crate::SessionStatement`].
    #[cbor(n(0), with = "minicbor::bytes")]
    pub statement: Vec<u8>,
    /// The quote.
    #[n(1)]
    pub quote: Quote,
    /// The firmware's event log (`binary_bios_measurements`).
    #[cbor(n(2), with = "minicbor::bytes")]
    pub boot_log: Option<Vec<u8>>,
    /// The kernel's measurement list (`binary_runtime_measurements`).
    #[cbor(n(3), with = "minicbor::bytes")]
    pub ima_log: Option<Vec<u8>>,
    /// Every epoch of the session up to the last one shown, in order.
    #[n(4)]
    pub epochs: Vec<SealedEpoch>,
    /// NV indices, certified for the session statement.
    #[n(5)]
    pub nv_start: Option<Vec<NvCertified>>,
    /// The counter of sessions, certified for [`crate::session_end`] of the last statement.
    #[n(6)]
    pub nv_end: Option<Vec<NvCertified>>,
    /// What its GPUs said of themselves, where they do.
    #[n(7)]
    pub gpu_reports: Option<Vec<GpuReport>>,
}

/// A GPU's report on itself, as the driver gave it.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct GpuReport {
    /// What the agent calls the GPU.
    #[n(0)]
    pub uuid: String,
    /// One signed SPDM `GET_MEASUREMENTS` exchange; its nonce is the digest of the session's
    /// statement.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub report: Vec<u8>,
    /// Its certificate and those between it and its maker's root, PEM.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub certificates: Vec<u8>,
}

/// A gapless run of leaves and what the tree looked like before it.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Span {
    /// Index of the first leaf.
    #[n(0)]
    pub start: u64,
    /// Peaks of the tree over the first `start` leaves, left to right.
    #[n(1)]
    pub frontier: Vec<Digest>,
    /// The leaves.
    #[n(2)]
    pub leaves: Vec<Blob>,
}

/// Shows that a tree is the beginning of a bigger one.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct ConsistencyProof {
    /// Size of the smaller tree.
    #[n(0)]
    pub from_size: u64,
    /// Size of the bigger tree.
    #[n(1)]
    pub to_size: u64,
    /// RFC 9162 §2.1.4.1.
    #[n(2)]
    pub path: Vec<Digest>,
}

/// Shows that a leaf is in a tree.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct InclusionProof {
    /// Index of the leaf.
    #[n(0)]
    pub index: u64,
    /// Size of the tree.
    #[n(1)]
    pub size: u64,
    /// The leaf's data.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub leaf: Vec<u8>,
    /// RFC 9162 §2.1.3.1.
    #[n(3)]
    pub path: Vec<Digest>,
}

/// The file.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Bundle {
    /// Type string.
    #[n(0)]
    pub kind: BundleKind,
    /// When it was written; nothing rests on it.
    #[n(1)]
    pub created_ms: u64,
    /// Start of the period asked for.
    #[n(2)]
    pub from_ms: u64,
    /// End of the period asked for.
    #[n(3)]
    pub to_ms: u64,
    /// The node it claims to be of.
    #[n(4)]
    pub node: String,
    /// `TPMT_PUBLIC` of the attestation key, marshalled.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub ak_public: Vec<u8>,
    /// Sessions that intersect the period, in order.
    #[n(6)]
    pub sessions: Vec<SealedSession>,
    /// Every leaf of the epochs that intersect the period; absent in a receipt.
    #[n(7)]
    pub span: Option<Span>,
    /// For epochs outside the span.
    #[n(8)]
    pub consistency: Vec<ConsistencyProof>,
    /// Single leaves.
    #[n(9)]
    pub proofs: Vec<InclusionProof>,
    /// Enrolment certificates of this node and key: `COSE_Sign1` over an [`crate::Enrolment`].
    #[n(10)]
    pub enrolments: Option<Vec<Blob>>,
    /// Measurements of the place, each sealed by the epoch that has its digest: canonical bytes
    /// of a [`crate::LocationEvidence`].
    #[n(11)]
    pub location: Option<Vec<Blob>>,
    /// A checkpoint of the log with the signatures of who saw it: a C2SP signed note.
    #[cbor(n(12), with = "minicbor::bytes")]
    pub checkpoint: Option<Vec<u8>>,
    /// Receipts of records shown: `COSE_Sign1` over a [`crate::Receipt`], by the session's key.
    #[n(13)]
    pub receipts: Option<Vec<Blob>>,
}

impl Record for Bundle {
    const LIMITS: Limits = Limits {
        bytes: 512 << 20,
        depth: 10,
    };
    const KIND: &'static str = BundleKind::TEXT;
}
