//! Where the log is sealed to, and the session that is open, as the disk has it.
//!
//! It takes up what was sealed behind the checkpoint and before a crash; it writes nothing.

use super::LedgerError;
use super::checkpoint::Checkpoint;
use super::session::{self, Journal, SessionDir};
use merestone_evidence::{EpochStatement, SealedEpoch, decode, sha256};
use merestone_tlog::Sealed as Sealing;
use std::path::Path;

/// How far the log is sealed, and who writes on.
#[derive(Debug)]
pub(super) struct Seals {
    pub(super) checkpoint: Checkpoint,
    /// What the last sealed epoch is.
    pub(super) last: Option<Sealing>,
    /// The highest session number in use.
    pub(super) newest: u64,
    pub(super) current: Option<Current>,
}

/// The session that is open.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) dir: SessionDir,
    pub(super) journal: Journal,
    /// The last sealed epoch of this session.
    pub(super) last: Option<SealedEpoch>,
}

impl Seals {
    /// Walk the sessions from the checkpoint's on, taking up what was sealed
    /// after it and before a crash.
    pub(super) fn open(log: &Path, written: Checkpoint) -> Result<Self, LedgerError> {
        let numbers = session::numbers(log)?;
        if written.session != 0 && !numbers.contains(&written.session) {
            return Err(LedgerError::Missing {
                path: SessionDir::new(log, written.session).path,
            });
        }
        let mut seals = Self {
            checkpoint: written,
            last: None,
            newest: numbers.last().copied().unwrap_or(0),
            current: None,
        };
        for number in numbers
            .into_iter()
            .filter(|number| *number >= written.session)
        {
            let dir = SessionDir::new(log, number);
            let path = dir.epochs_path();
            let sealed_bytes = if number == written.session {
                written.epoch_bytes
            } else {
                0
            };
            let mut last: Option<SealedEpoch> = None;
            let tail = session::walk(&path, sealed_bytes, None, |epoch| last = Some(epoch))?;
            if let Some(epoch) = &last {
                let (checkpoint, sealing) = sealed_by(&epoch.statement, number, tail.sealed_end)
                    .ok_or_else(|| {
                        LedgerError::damaged(&path, 0, "the last record is not an epoch statement")
                    })?;
                (seals.checkpoint, seals.last) = (checkpoint, Some(sealing));
            }
            let journal = Journal::open(path, tail)?;
            seals.current = Some(Current { dir, journal, last });
        }
        Ok(seals)
    }

    pub(super) fn current(&mut self) -> Result<&mut Current, LedgerError> {
        self.current.as_mut().ok_or(LedgerError::Order {
            doing: "write an epoch without a session",
        })
    }
}

/// The checkpoint that holds once `statement` is sealed, and what a published one names.
pub(super) fn sealed_by(
    statement: &[u8],
    session: u64,
    epoch_bytes: u64,
) -> Option<(Checkpoint, Sealing)> {
    let epoch: EpochStatement = decode(statement).ok()?;
    let digest = sha256(statement);
    let checkpoint = Checkpoint {
        size: epoch.size_after,
        root: epoch.root,
        session,
        epoch_bytes,
        last: Some(digest),
    };
    let sealing = Sealing {
        session: epoch.session,
        epoch: digest,
    };
    Some((checkpoint, sealing))
}
