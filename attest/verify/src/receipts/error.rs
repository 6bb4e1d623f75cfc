//! Why receipts, or the records they are about, are not accepted.

use crate::enrolment::CoseError;
use crate::refusal::Grade;
use merestone_evidence::{DecodeError, Digest};

/// Why a receipt, or a record, is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// Not signed by the key of a session that is in the file.
    #[error("receipt {number}: {source}")]
    Signed {
        /// Its place in the file.
        number: usize,
        /// Why.
        source: CoseError,
    },
    /// Signed, and not a receipt.
    #[error("receipt {number}: {source}")]
    Form {
        /// Its place in the file.
        number: usize,
        /// Why.
        source: DecodeError,
    },
    /// It claims something else than the leaf, the key or the node.
    #[error("receipt {at}: its {what} is not that of the sealed record, session and node")]
    Claim {
        /// Its id.
        at: String,
        /// What is different.
        what: &'static str,
    },
    /// Two receipts have one id.
    #[error("receipt {at}: another one has the same id")]
    Twice {
        /// The id.
        at: String,
    },
    /// Two receipts are about one leaf.
    #[error("receipt {at}: another one is about leaf {index} too")]
    SameLeaf {
        /// Its id.
        at: String,
        /// The leaf.
        index: u64,
    },
    /// It is about a leaf that no tree in the file has.
    #[error("receipt {at}: leaf {index} is not sealed: the last tree shown has {size} leaves")]
    Unsealed {
        /// Its id.
        at: String,
        /// The leaf.
        index: u64,
        /// Leaves of the last tree.
        size: u64,
    },
    /// It is about a leaf that is not in the file.
    #[error("receipt {at}: leaf {index} is not shown, or not the epoch that sealed it")]
    NotShown {
        /// Its id.
        at: String,
        /// The leaf.
        index: u64,
    },
    /// The leaf is another one.
    #[error("receipt {at}: leaf {index} hashes to {want}, the receipt is about {got}")]
    Leaf {
        /// Its id.
        at: String,
        /// The leaf.
        index: u64,
        /// In the receipt.
        got: Digest,
        /// Of the leaf.
        want: Digest,
    },
    /// The leaf is no record of an inference.
    #[error("receipt {at}: leaf {index} is no record of an inference")]
    NotARecord {
        /// Its id.
        at: String,
        /// The leaf.
        index: u64,
    },
    /// Another session sealed the leaf.
    #[error("receipt {at}: it is of {got}, its leaf was sealed by {want}")]
    Epoch {
        /// Its id.
        at: String,
        /// Whose key signed it.
        got: String,
        /// What sealed the leaf.
        want: String,
    },
    /// It was issued outside the epoch.
    #[error("receipt {at}: issued at {got}, its epoch lasted from {from} to {to}")]
    Time {
        /// Its id.
        at: String,
        /// When it was issued.
        got: String,
        /// When the epoch opened.
        from: String,
        /// When it closed.
        to: String,
    },
    /// The request or answer in hand is not what was bound.
    #[error("receipt {at}: the {what} given has digest {got}, the record binds {want}")]
    Content {
        /// Its id.
        at: String,
        /// Request or answer.
        what: &'static str,
        /// Of what was given.
        got: Digest,
        /// In the receipt.
        want: Digest,
    },
    /// There is nothing to hold a request or answer against.
    #[error(
        "there is no digest to hold the request or answer against: only bound records (R2) have them"
    )]
    NoContents,
    /// A record that is not of the grade it claims.
    #[error("record {at}: {what}")]
    Graded {
        /// Its id.
        at: String,
        /// What is wrong.
        what: &'static str,
    },
    /// Entries that tell of one turn do not fit together.
    #[error("the kernel's turn {at}: {what}")]
    Turn {
        /// Its id.
        at: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl ReceiptError {
    /// How bad it is.
    #[must_use]
    pub const fn grade(&self) -> Grade {
        match self {
            Self::Unsealed { .. } | Self::NotShown { .. } | Self::NoContents => {
                Grade::Indeterminate
            }
            // Sealed as it stands; it is the log that says what cannot be.
            Self::Graded { .. } | Self::Turn { .. } => Grade::Failed,
            _ => Grade::Untrusted,
        }
    }
}
