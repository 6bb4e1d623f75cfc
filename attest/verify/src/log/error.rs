//! Why leaves are not those that were sealed.

use crate::refusal::Grade;
use merestone_evidence::{DecodeError, Digest, FrontierError, ProofError};

/// Why leaves are not those that were sealed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Sizes do not follow one another.
    #[error("{at}: the tree has {got} leaves where {want} were")]
    Sizes {
        /// Which statement.
        at: String,
        /// In the statement.
        got: u64,
        /// In the statement before it, or at least so many.
        want: u64,
    },
    /// The same size with another root.
    #[error("{at}: the tree of {size} leaves has root {got} where it had {want}")]
    Root {
        /// Which statement.
        at: String,
        /// Leaves.
        size: u64,
        /// Root found.
        got: Digest,
        /// Root sealed.
        want: Digest,
    },
    /// A cumulative count went back.
    #[error("{at}: the count of {what} went back from {want} to {got}")]
    Count {
        /// Which epoch.
        at: String,
        /// Of what.
        what: String,
        /// Later.
        got: u64,
        /// Earlier.
        want: u64,
    },
    /// The span's peaks are not those of a tree of its size.
    #[error("the span: {0}")]
    Frontier(#[from] FrontierError),
    /// The span begins or ends where no tree was sealed.
    #[error("the span {what} at leaf {got}, where no quote sealed the tree")]
    Edge {
        /// Begins or ends.
        what: &'static str,
        /// The leaf.
        got: u64,
    },
    /// An epoch of the period without its leaves.
    #[error("{at}: leaves {from} to {to} lie in the period and are not shown")]
    Incomplete {
        /// Which epoch.
        at: String,
        /// First leaf.
        from: u64,
        /// Leaf after the last.
        to: u64,
    },
    /// A consistency proof doesn't hold.
    #[error("{at}: {source}")]
    Consistency {
        /// Which epoch.
        at: String,
        /// Why.
        source: ProofError,
    },
    /// No consistency proof where one is needed.
    #[error("{at}: no proof that the tree of {to} leaves begins with that of {from}")]
    NoProof {
        /// Which epoch.
        at: String,
        /// Smaller size.
        from: u64,
        /// Bigger size.
        to: u64,
    },
    /// An inclusion proof doesn't hold.
    #[error("leaf {index}: {source}")]
    Inclusion {
        /// The leaf.
        index: u64,
        /// Why.
        source: ProofError,
    },
    /// An inclusion proof in a tree that nothing sealed.
    #[error("leaf {index}: no quote sealed a tree of {size} leaves")]
    Unsealed {
        /// The leaf.
        index: u64,
        /// The size.
        size: u64,
    },
    /// An entry of a time after its epoch.
    #[error("leaf {index}: its time is {got}, its epoch closed at {want}")]
    Late {
        /// The leaf.
        index: u64,
        /// Its time.
        got: String,
        /// When its epoch closed.
        want: String,
    },
    /// The checkpoint in the file is none, or somebody did not sign it who seems to have.
    #[error("the checkpoint in the file: {why}")]
    Checkpoint {
        /// What is wrong.
        why: String,
    },
    /// A checkpoint that no pinned key of its log signed.
    #[error("{at}: no pinned key of the log {origin} signed it")]
    Unsigned {
        /// Which checkpoint.
        at: String,
        /// The log that it says it is of.
        origin: String,
    },
    /// A checkpoint that names an epoch which seals another tree, or which is not in the chain.
    #[error("{at}: epoch {epoch}, which it names, does not seal its tree")]
    Binding {
        /// Which checkpoint.
        at: String,
        /// The epoch.
        epoch: Digest,
    },
    /// A witness saw more than is shown.
    #[error(
        "{at}: at {seen} a witness saw {want} leaves, within the period, and the file has {got}: epochs were cut off its end"
    )]
    Cut {
        /// Which checkpoint.
        at: String,
        /// When.
        seen: String,
        /// Leaves in the file.
        got: u64,
        /// Leaves seen.
        want: u64,
    },
    /// The file could be opened and not be read.
    #[error("the leaves: {0}")]
    Unreadable(DecodeError),
    /// The leaves are no longer those that were hashed first.
    #[error("the file was changed while it was read")]
    Changed,
    /// A leaf that is not an entry.
    #[error("leaf {index}: {source}")]
    Entry {
        /// The leaf.
        index: u64,
        /// Why.
        source: DecodeError,
    },
}

impl LogError {
    pub(crate) const fn grade(&self) -> Grade {
        match self {
            // The seal holds; a clock, or who wrote the entry, was wrong.
            Self::Incomplete { .. } | Self::Late { .. } | Self::Cut { .. } => Grade::Failed,
            Self::NoProof { .. } => Grade::Indeterminate,
            _ => Grade::Untrusted,
        }
    }
}
