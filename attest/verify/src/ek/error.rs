//! Why an endorsement key's certificate is not believed.

use crate::refusal::Grade;

/// Why an endorsement key's certificate is not believed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EkError {
    /// Not a certificate.
    #[error("{what}: not an x.509 certificate: {detail}")]
    Form {
        /// Which one.
        what: String,
        /// The parser's words.
        detail: String,
    },
    /// A file with too much in it.
    #[error("{got} {what} where at most {limit} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        got: usize,
        /// How many may be.
        limit: usize,
    },
    /// Something that this program does not know how to judge.
    #[error("{subject}: {what} {got} is not known here")]
    Unknown {
        /// Whose certificate.
        subject: String,
        /// What it is.
        what: &'static str,
        /// Its value.
        got: String,
    },
    /// A hash that no longer says anything.
    #[error("{subject} is signed with {got}, which can be forged")]
    Weak {
        /// Whose certificate.
        subject: String,
        /// The algorithm.
        got: &'static str,
    },
    /// Nobody pinned stands at the end.
    #[error(
        "no pinned root or known intermediate issued {subject}: its issuer is {issuer}; pin that vendor's root, or add the intermediate certificate"
    )]
    NoIssuer {
        /// Whose certificate.
        subject: String,
        /// Who it names as its issuer.
        issuer: String,
    },
    /// A signature does not hold.
    #[error("{subject} was not signed by {issuer}, which it names as its issuer")]
    Signature {
        /// Whose certificate.
        subject: String,
        /// The issuer's name.
        issuer: String,
    },
    /// The issuer may not issue.
    #[error("{issuer} may not issue {subject}: {why}")]
    Issuer {
        /// Whose certificate.
        subject: String,
        /// The issuer's name.
        issuer: String,
        /// Why not.
        why: &'static str,
    },
    /// A certificate that says something else than an endorsement key's.
    #[error("{subject} is not the certificate of an endorsement key: {why}")]
    Profile {
        /// Whose certificate.
        subject: String,
        /// What is wrong.
        why: String,
    },
    /// A critical extension that is not understood.
    #[error("{subject} has the critical extension {oid}, which is not known here")]
    Critical {
        /// Whose certificate.
        subject: String,
        /// The extension.
        oid: String,
    },
    /// Not valid at that time.
    #[error("{subject} is valid from {from} to {until}, not at {at} (seconds since 1970)")]
    Validity {
        /// Whose certificate.
        subject: String,
        /// Start.
        from: u64,
        /// End.
        until: u64,
        /// The time asked about.
        at: u64,
    },
}

impl EkError {
    /// How bad it is.
    #[must_use]
    pub const fn grade(&self) -> Grade {
        match self {
            Self::Unknown { .. } => Grade::Indeterminate,
            Self::Validity { .. } => Grade::Failed,
            Self::Form { .. }
            | Self::TooMany { .. }
            | Self::Weak { .. }
            | Self::NoIssuer { .. }
            | Self::Signature { .. }
            | Self::Issuer { .. }
            | Self::Profile { .. }
            | Self::Critical { .. } => Grade::Untrusted,
        }
    }
}
