//! How far the log is sealed: the line between "torn" and "damaged".
//!
//! Written after every epoch, whole or not at all. What it covers was synced to
//! disk before, so a fault in there is damage and the agent refuses to start;
//! what lies behind it may be the torn end of a crash and is cut. A reader that
//! stops at it never sees a record half written by a running agent.

use super::{LedgerError, file};
use merestone_evidence::{Digest, empty_root};
use minicbor::{Decode, Encode};
use std::path::{Path, PathBuf};

/// The sealed part of the log.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub(crate) struct Checkpoint {
    /// Leaves sealed.
    #[n(0)]
    pub(crate) size: u64,
    /// Root over them.
    #[n(1)]
    pub(crate) root: Digest,
    /// Number of the newest session that holds a sealed epoch, from 1; 0 for none.
    #[n(2)]
    pub(crate) session: u64,
    /// Bytes of that session's epoch file that are sealed.
    #[n(3)]
    pub(crate) epoch_bytes: u64,
    /// Digest of the last sealed epoch statement.
    #[n(4)]
    pub(crate) last: Option<Digest>,
}

impl Checkpoint {
    /// Of an empty log.
    pub(crate) fn empty() -> Self {
        Self {
            size: 0,
            root: empty_root(),
            session: 0,
            epoch_bytes: 0,
            last: None,
        }
    }

    pub(crate) fn path(log: &Path) -> PathBuf {
        log.join("checkpoint")
    }

    pub(crate) fn read(log: &Path) -> Result<Option<Self>, LedgerError> {
        let path = Self::path(log);
        let Some(bytes) = file::read_if_there(&path, 4096)? else {
            return Ok(None);
        };
        minicbor::decode(&bytes)
            .map(Some)
            .map_err(|error| LedgerError::damaged(path, 0, error.to_string()))
    }

    pub(crate) fn write(&self, log: &Path) -> Result<(), LedgerError> {
        let path = Self::path(log);
        let bytes = minicbor::to_vec(self)
            .map_err(|error| LedgerError::damaged(&path, 0, error.to_string()))?;
        file::replace(&path, &bytes)
    }
}
