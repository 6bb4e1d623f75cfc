//! Why a database gives no answer.

use std::path::{Path, PathBuf};

/// One reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GeoError {
    /// It cannot be read.
    #[error("{path} cannot be read: {source}")]
    Io {
        /// The database.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is too large.
    #[error("{path} is larger than {limit} bytes")]
    Size {
        /// The database.
        path: PathBuf,
        /// The most that is read.
        limit: u64,
    },
    /// It is not a database, or a broken one.
    #[error("{path} is not a sound MMDB file: {detail}")]
    Broken {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Its search tree has no end.
    #[error("{path} has more than {limit} entries: is its search tree broken?")]
    Leaves {
        /// The database.
        path: PathBuf,
        /// The most that is looked at.
        limit: u64,
    },
}

impl GeoError {
    pub(super) fn broken(path: &Path, error: &maxminddb::MaxMindDbError) -> Self {
        Self::Broken {
            path: path.to_owned(),
            detail: error.to_string(),
        }
    }
}
