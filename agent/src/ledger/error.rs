//! Why the log cannot be used, each with the file it is about.

use std::{io, path::PathBuf};

/// What can go wrong with the log on disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another agent has the log open.
    #[error("{} is in use by another agent; stop it or set another state_dir", path.display())]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// Something that was sealed is no longer what it was.
    #[error("{} is damaged at offset {offset}: {why}; restore it from a backup, or move the log directory away to begin a new log", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first byte that is wrong, as near as can be told.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// A file that must be there is not.
    #[error("{} is missing although the log was used before; restore it, or move the log directory away to begin a new log", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A record is bigger than any verifier accepts.
    #[error("a record of {got} bytes does not fit, at most {limit} do")]
    TooBig {
        /// Its length.
        got: usize,
        /// The most that is accepted.
        limit: usize,
    },
    /// Steps were taken out of order: a fault of the caller.
    #[error("the log is not in a state to {doing}")]
    Order {
        /// The step.
        doing: &'static str,
    },
}

impl LedgerError {
    /// There was no space, and there may be some later.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let Self::Io { source, .. } = self else {
            return false;
        };
        let kind = source.kind();
        matches!(
            kind,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }

    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }

    pub(crate) fn damaged(path: impl Into<PathBuf>, offset: u64, why: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.into(),
            offset,
            why: why.into(),
        }
    }
}
