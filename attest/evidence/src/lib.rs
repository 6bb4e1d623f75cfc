//! The forms evidence takes: statements, leaves, the tree over them, the bundle.
//!
//! There is one encoding: deterministic CBOR (RFC 8949 §4.2) in closed maps with
//! integer keys. What is hashed, signed and quoted is exactly the encoded bytes;
//! [`decode`] refuses every other spelling of the same value.
//!
//! This crate does no input or output, reads no clock, draws no random numbers and
//! checks no signature. A value that decodes is well formed; it is not yet true.
#![forbid(unsafe_code)]

mod bundle;
mod canonical;
mod digest;
mod enrolment;
mod entry;
mod epoch;
mod inference;
mod kind;
mod location;
mod nv;
mod proof;
mod receipt;
mod session;
mod shape;
mod stored;
mod tree;

pub use bundle::{
    Bundle, ConsistencyProof, GpuReport, InclusionProof, PcrValue, Quote, SealedEpoch,
    SealedSession, Span,
};
pub use canonical::{DecodeError, Limits, Record, decode, encode};
pub use digest::{Digest, SessionId, sha256};
pub use enrolment::{
    EkIdentity, EnrolAnswer, EnrolChallenge, EnrolPending, EnrolRequest, Enrolment, NvIndex,
    Replaced, Revocation, Revocations, Serial,
};
pub use entry::{Body, DeviceNode, Entry, GpuReading, GpuUse, GrantTerms, PodMove, Process};
pub use epoch::{
    Canary, Cause, ClockQuality, Counter, EpochStatement, FlowVerdict, GpuEnergy, Loss,
    RecordCounts,
};
pub use inference::{Binding, End, Grade, GroupEgress, Inference, Onward};
pub use kind::{
    BundleKind, EnrolAnswerKind, EnrolChallengeKind, EnrolPendingKind, EnrolRequestKind,
    EnrolmentKind, EntryKind, EpochKind, GeotagKind, LandmarkKind, LocationKind, RevocationsKind,
    SessionKind,
};
pub use location::{
    CloudDocument, LandmarkStatement, LocationEvidence, answer_message, cloud_audience, cloud_nonce,
};
pub use minicbor::bytes::ByteVec as Blob;
pub use nv::{
    Geotag, GeotagOffer, GeotagVouched, NvCertified, NvCounter, NvCounters, NvHeld, geotag_offer,
    session_end,
};
pub use proof::{
    ProofError, consistency_path, inclusion_path, verify_consistency, verify_inclusion,
};
pub use receipt::{
    NONCE_BYTES, PROFILE, RECEIPT_BYTES, Receipt, answer_digest, receipt_id, request_digest, ueid,
};
pub use session::{
    Agent, Boundary, GpuDevice, GpuInventory, Kernel, Mode, Program, SessionStatement, Site, Tier,
    TpmInfo,
};
pub use shape::ShapeError;
pub use stored::{Leaves, MOST_BUNDLE_BYTES, Run, RunBytes, Source, Stored, open_bundle};
pub use tree::{Frontier, FrontierError, empty_root, leaf_hash, node_hash, root_of};
