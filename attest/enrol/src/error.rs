//! Why an enrolment goes no further.

use crate::SignError;
use crate::credential::CredentialError;
use merestone_evidence::DecodeError;
use merestone_verify::Grade;
use merestone_verify::ek::EkError;
use merestone_verify::tpm::{EkPublicError, PublicError};

/// Why an enrolment goes no further.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnrolError {
    /// A file that is not what it should be.
    #[error("the {what}: {source}")]
    Form {
        /// Which file.
        what: &'static str,
        /// What is wrong.
        source: DecodeError,
    },
    /// An id that cannot be one.
    #[error("the node id {got:?} is not 1 to 64 letters, digits, `.`, `-` and `_`")]
    Node {
        /// The id.
        got: String,
    },
    /// The Name does not stand for the key (N22).
    #[error("the attestation key's name {got} is not that of its public area, {want}")]
    AkName {
        /// What the request says.
        got: String,
        /// What it is.
        want: String,
    },
    /// A kind of attestation key that is not known.
    #[error(transparent)]
    AkPublic(#[from] PublicError),
    /// The attestation key could sign what others say (N21).
    #[error("the attestation key's attributes are wrong in: {wrong}")]
    AkAttributes {
        /// Which.
        wrong: String,
    },
    /// An endorsement key that cannot be used.
    #[error(transparent)]
    EkPublic(#[from] EkPublicError),
    /// Its certificate is not believed.
    #[error("endorsement certificate: {0}")]
    Ek(#[from] EkError),
    /// The certificate is of another key (N23).
    #[error("the endorsement certificate is not of the endorsement key in the request")]
    EkKey,
    /// A vendor that the authority does not want.
    #[error("the TPM is made by {got:?}; authority.toml accepts {want:?}")]
    Vendor {
        /// Its manufacturer.
        got: String,
        /// Those accepted.
        want: Vec<String>,
    },
    /// The secret could not be sealed.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// An answer to something else.
    #[error("the answer is not to this challenge: its {what} differs")]
    Other {
        /// What differs.
        what: &'static str,
    },
    /// Used before (N26).
    #[error("enrolment {serial} was accepted before; a secret counts once, write a new challenge")]
    Used {
        /// Which.
        serial: String,
    },
    /// Waited too long.
    #[error("the challenge is {age_s} s old, at most {limit_s} s are allowed; write a new one")]
    Old {
        /// Its age.
        age_s: u64,
        /// The limit.
        limit_s: u64,
    },
    /// The secret was not shown.
    #[error("the answer does not show the secret: another TPM, or another attestation key")]
    Secret,
    /// An index that the host did not offer.
    #[error("the request does not name NV index {index:#010x}")]
    NoIndex {
        /// The index.
        index: u32,
    },
    /// No geotag was offered.
    #[error("the request has no geotag; on the host: merestone enroll request --geotag …")]
    NoGeotag,
    /// A geotag that nobody can vouch for.
    #[error("the geotag of the request: {why}")]
    Geotag {
        /// What is wrong.
        why: String,
    },
    /// Terms that contradict each other.
    #[error("the certificate would end before it begins")]
    Validity,
    /// Nothing could be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl EnrolError {
    /// How bad it is; the exit code says the same.
    #[must_use]
    pub const fn grade(&self) -> Grade {
        match self {
            Self::Ek(source) => source.grade(),
            Self::AkPublic(_) | Self::EkPublic(EkPublicError::Unsupported { .. }) => {
                Grade::Indeterminate
            }
            Self::Vendor { .. }
            | Self::Old { .. }
            | Self::NoIndex { .. }
            | Self::NoGeotag
            | Self::Validity => Grade::Failed,
            Self::Form { .. }
            | Self::Node { .. }
            | Self::AkName { .. }
            | Self::AkAttributes { .. }
            | Self::EkPublic(_)
            | Self::EkKey
            | Self::Geotag { .. }
            | Self::Credential(_)
            | Self::Other { .. }
            | Self::Used { .. }
            | Self::Secret
            | Self::Sign(_) => Grade::Untrusted,
        }
    }
}
