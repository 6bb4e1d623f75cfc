//! Why an enrolment certificate does not vouch for the evidence beside it.

use super::CoseError;
use crate::ek::EkError;
use crate::refusal::Grade;
use merestone_evidence::{DecodeError, Serial};

/// Why an enrolment certificate does not vouch for the evidence beside it.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// More than anybody needs.
    #[error("{got} enrolment certificates where 1 to {limit} are allowed")]
    Count {
        /// How many there are.
        got: usize,
        /// How many may be.
        limit: usize,
    },
    /// Not signed by a pinned authority.
    #[error("enrolment certificate {number}: {source}")]
    Signature {
        /// Its place in the file, from 1.
        number: usize,
        /// Why.
        source: CoseError,
    },
    /// Signed, and not an enrolment.
    #[error("enrolment certificate {number}: {source}")]
    Form {
        /// Its place in the file, from 1.
        number: usize,
        /// Why.
        source: DecodeError,
    },
    /// Signed, and contradicting itself.
    #[error("enrolment {serial}: {why}")]
    Contradiction {
        /// Its number.
        serial: Serial,
        /// How.
        why: &'static str,
    },
    /// Of another node.
    #[error("enrolment {serial} is of node {got:?}, the file is of node {want:?}")]
    Node {
        /// Its number.
        serial: Serial,
        /// Its node.
        got: String,
        /// The file's.
        want: String,
    },
    /// Of another key.
    #[error("enrolment {serial} is of the attestation key {got}, the file is signed by {want}")]
    Key {
        /// Its number.
        serial: Serial,
        /// Name of its key.
        got: String,
        /// Name of the file's key.
        want: String,
    },
    /// The endorsement certificate leads nowhere.
    #[error("enrolment {serial}: {source}")]
    Ek {
        /// Its number.
        serial: Serial,
        /// Why.
        source: EkError,
    },
    /// Another endorsement certificate than the one that was enrolled.
    #[error("enrolment {serial} carries an endorsement certificate that is not the one it names")]
    EkDigest {
        /// Its number.
        serial: Serial,
    },
    /// Sealed outside the validity.
    #[error("no enrolment certificate is valid for what was sealed at {at}: {detail}")]
    NotValid {
        /// When.
        at: String,
        /// Validities there are.
        detail: String,
    },
    /// Sealed after the certificate was revoked.
    #[error(
        "enrolment {serial} is revoked for what was sealed from {from} on ({reason:?}), and this was at {at}"
    )]
    Revoked {
        /// Its number.
        serial: Serial,
        /// Since when.
        from: String,
        /// Why.
        reason: String,
        /// When it was sealed.
        at: String,
    },
    /// The authority states another place than the host.
    #[error("enrolment {serial} states {what} {want:?}, the agent stated {got:?}")]
    Site {
        /// Its number.
        serial: Serial,
        /// Country, region or facility.
        what: &'static str,
        /// The authority's.
        want: String,
        /// The agent's.
        got: String,
    },
}

impl EnrolmentError {
    /// How bad it is.
    #[must_use]
    pub const fn grade(&self) -> Grade {
        match self {
            Self::Ek { source, .. } => source.grade(),
            Self::NotValid { .. } | Self::Site { .. } => Grade::Failed,
            Self::Count { .. }
            | Self::Signature { .. }
            | Self::Form { .. }
            | Self::Contradiction { .. }
            | Self::Node { .. }
            | Self::Key { .. }
            | Self::EkDigest { .. }
            | Self::Revoked { .. } => Grade::Untrusted,
        }
    }
}
