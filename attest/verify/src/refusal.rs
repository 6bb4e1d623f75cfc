//! Why evidence is not accepted: a closed list, each with what was found and what was wanted.

use crate::boot::{EventLogError, ImaError};
use crate::chain::ChainError;
use crate::clock::ClockError;
use crate::counters::{NvError, TailError};
use crate::enrolment::EnrolmentError;
use crate::geotag::GeotagError;
use crate::gpu::GpuError;
use crate::incidents::IncidentError;
use crate::log::LogError;
use crate::policy::PolicyError;
use crate::quote::QuoteError;
use crate::receipts::ReceiptError;
use crate::tpm::{AttestError, PublicError, SignatureError};
use merestone_evidence::DecodeError;

/// How bad a refusal is; the exit code says the same.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Grade {
    /// Something needed was not there, or is of a kind not known here.
    Indeterminate,
    /// Sound, and against the trust policy.
    Failed,
    /// A signature, a hash or a structure is wrong.
    Untrusted,
}

/// Why evidence is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Not well formed.
    #[error(transparent)]
    Form(#[from] DecodeError),
    /// The file is of another use.
    #[error("{got}: {want}")]
    Purpose {
        /// What the file is.
        got: &'static str,
        /// What to do.
        want: &'static str,
    },
    /// No key is pinned for the node.
    #[error("no key is pinned for node {node:?}; a key is never trusted for being in the file")]
    UnknownNode {
        /// The node the file claims.
        node: String,
    },
    /// The key in the file is not the pinned one.
    #[error("the attestation key's name is {got}, pinned is {want}")]
    KeyName {
        /// Name of the key in the file.
        got: String,
        /// Pinned Name.
        want: String,
    },
    /// The key is the pinned one, and of a kind not known here.
    #[error(transparent)]
    Key(#[from] PublicError),
    /// The key is not an attestation key.
    #[error("the attestation key's attributes {got} are wrong in: {wrong}")]
    KeyAttributes {
        /// The attributes.
        got: String,
        /// Which are wrong.
        wrong: String,
    },
    /// The key hangs elsewhere than under the endorsement hierarchy.
    #[error(
        "{at}: the key's qualified name {got} is not that of an endorsement primary, {want}: its reset counters are obfuscated"
    )]
    KeyHierarchy {
        /// Which quote.
        at: String,
        /// Qualified Name in the quote.
        got: String,
        /// That of a primary key under the endorsement hierarchy.
        want: String,
    },
    /// A signature doesn't hold.
    #[error("{at}: {source}")]
    Signature {
        /// Which quote.
        at: String,
        /// Why.
        source: SignatureError,
    },
    /// What was signed is not a quote.
    #[error("{at}: {source}")]
    Attest {
        /// Which quote.
        at: String,
        /// Why.
        source: AttestError,
    },
    /// A quote is about something else.
    #[error("{at}: {source}")]
    Quote {
        /// Which quote.
        at: String,
        /// Why.
        source: QuoteError,
    },
    /// What the TPM signed of its memory is not what it should be.
    #[error("{at}: {source}")]
    Nv {
        /// Which statement.
        at: String,
        /// Why.
        source: NvError,
    },
    /// Counters do not fit what is shown.
    #[error("{at}: {source}")]
    Tail {
        /// Which statement.
        at: String,
        /// Why.
        source: TailError,
    },
    /// The geotag is not the one that the authority vouches for.
    #[error(transparent)]
    Geotag(#[from] GeotagError),
    /// A statement is not well formed.
    #[error("{at}: {source}")]
    Statement {
        /// Which statement.
        at: String,
        /// Why.
        source: DecodeError,
    },
    /// The firmware's log is not what was measured.
    #[error("{at}: boot event log: {source}")]
    EventLog {
        /// Which session.
        at: String,
        /// Why.
        source: EventLogError,
    },
    /// The kernel's list is not what was measured.
    #[error("{at}: ima list: {source}")]
    Ima {
        /// Which session.
        at: String,
        /// Why.
        source: ImaError,
    },
    /// The TPM's clock contradicts the order of the evidence.
    #[error("{at}: {source}")]
    Clock {
        /// Which quote.
        at: String,
        /// Why.
        source: ClockError,
    },
    /// Statements do not follow one another.
    #[error("{at}: {source}")]
    Chain {
        /// Which statement.
        at: String,
        /// Why.
        source: ChainError,
    },
    /// No authority that is pinned vouches for it.
    #[error(transparent)]
    Enrolment(#[from] EnrolmentError),
    /// What a GPU said of itself does not hold.
    #[error("{at}: {source}")]
    Gpu {
        /// Which session.
        at: String,
        /// Why.
        source: GpuError,
    },
    /// Leaves are not those that were sealed.
    #[error("{0}")]
    Log(#[from] LogError),
    /// A receipt, or a record, is not what it claims.
    #[error("{0}")]
    Receipt(#[from] ReceiptError),
    /// Sound, and not what the policy asks for.
    #[error("{0}")]
    Policy(#[from] PolicyError),
    /// Sound, and it tells of something that should not have been.
    #[error("{0}")]
    Incident(#[from] IncidentError),
}

impl Refusal {
    /// How bad it is.
    #[must_use]
    pub const fn grade(&self) -> Grade {
        match self {
            Self::Key(_) => Grade::Indeterminate,
            Self::KeyHierarchy { .. } | Self::Geotag(_) | Self::Incident(_) => Grade::Failed,
            Self::Clock { source, .. } => source.grade(),
            Self::Chain { source, .. } => source.grade(),
            Self::Tail { source, .. } => source.grade(),
            Self::Enrolment(source) => source.grade(),
            Self::Gpu { source, .. } => source.grade(),
            Self::Log(source) => source.grade(),
            Self::Receipt(source) => source.grade(),
            Self::Policy(source) => source.grade(),
            Self::Form(_)
            | Self::Purpose { .. }
            | Self::UnknownNode { .. }
            | Self::KeyName { .. }
            | Self::KeyAttributes { .. }
            | Self::Signature { .. }
            | Self::Attest { .. }
            | Self::Quote { .. }
            | Self::Nv { .. }
            | Self::Statement { .. }
            | Self::EventLog { .. }
            | Self::Ima { .. } => Grade::Untrusted,
        }
    }
}
