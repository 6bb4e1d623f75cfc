//! Why what the TPM signed of its memory is not accepted, or does not fit what is shown.

use crate::refusal::Grade;
use crate::tpm::{AttestError, NvPublicError, SignatureError};
use merestone_evidence::Digest;

/// Why a certification is not accepted (N30a, N30b).
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NvError {
    /// Not signed by the attestation key.
    #[error("nv certification: {0}")]
    Signature(#[from] SignatureError),
    /// Not a certification of an index.
    #[error("nv certification: {0}")]
    Attest(#[from] AttestError),
    /// Not an index that can be used so.
    #[error(transparent)]
    Public(#[from] NvPublicError),
    /// Made for something else.
    #[error("the nv certification is for {got:?}, not for {want}")]
    Binding {
        /// Hexadecimal extraData.
        got: String,
        /// What it should be for.
        want: Digest,
    },
    /// Of an index that the session does not declare.
    #[error("the nv certification is of index {got}, which the session does not declare")]
    Name {
        /// The Name, hexadecimal.
        got: String,
    },
    /// Another index than the one that the authority vouches for.
    #[error("nv index {index:#010x} is {got}, the authority vouches for {want}")]
    Enrolled {
        /// The handle.
        index: u32,
        /// Name of that in the session.
        got: String,
        /// Name in the certificate.
        want: String,
    },
    /// Not of the whole index.
    #[error("the nv certification is of {got} bytes at {offset}, the index has {want}")]
    Part {
        /// Bytes certified.
        got: usize,
        /// Where they begin.
        offset: u16,
        /// Bytes of the index.
        want: u16,
    },
    /// The same index twice, or two indices with one use.
    #[error("nv index {index:#010x} is there twice")]
    Twice {
        /// The handle.
        index: u32,
    },
    /// Certified before what it is for was sealed.
    #[error("the nv certification is older than the quote that it belongs to")]
    Before,
}

/// Why counters do not fit the sessions and epochs shown.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TailError {
    /// A counter went back (N30d).
    #[error("the counter of {what} is {got} after {want}: a counter of a tpm never goes back")]
    Back {
        /// Of what.
        what: &'static str,
        /// Found.
        got: u64,
        /// Shown before.
        want: u64,
    },
    /// More was counted than is shown (N58).
    #[error(
        "the counter of {what} is {got}, what is shown comes to {want}: {} of them not shown, or somebody else counted",
        got.saturating_sub(*want)
    )]
    Missing {
        /// Of what.
        what: &'static str,
        /// Found.
        got: u64,
        /// Shown.
        want: u64,
    },
    /// A session that counts shows no certification.
    #[error("the session counts in the tpm and {lacks}")]
    Uncertified {
        /// What it lacks.
        lacks: &'static str,
    },
    /// More may be missing after losses of power than the policy allows.
    #[error("up to {got} epochs may be missing after losses of power; at most {limit} may be")]
    Crash {
        /// How many.
        got: u64,
        /// How many may be.
        limit: u64,
    },
}

impl TailError {
    pub(crate) const fn grade(&self) -> Grade {
        match self {
            Self::Back { .. } => Grade::Untrusted,
            Self::Missing { .. } | Self::Uncertified { .. } | Self::Crash { .. } => Grade::Failed,
        }
    }
}
