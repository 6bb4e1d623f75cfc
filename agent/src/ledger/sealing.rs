//! Sessions and epochs on their way to the disk: the statement first, then its quote.
//!
//! It asks no TPM: what is to be kept is handed to it, in an order that it insists on.

use super::seals::{Current, sealed_by};
use super::session::{self, Journal, NvAt, SessionDir, StoredSession};
use super::{Ledger, LedgerError, file, held};
use merestone_evidence::{
    Digest, GpuReport, NvCertified, Quote, Record as _, SealedEpoch, SessionStatement, sha256,
};

/// An epoch statement whose quote is missing, and what is needed to get it.
#[derive(Debug, Clone)]
pub struct Pending {
    /// Canonical bytes of the epoch statement.
    pub statement: Vec<u8>,
    /// The session it belongs to.
    pub session: StoredSession,
    /// The quote before it: of the last sealed epoch, or of the session.
    pub last_quote: Quote,
}

/// How the session before came to its end, as far as the disk tells.
#[derive(Debug, Clone)]
pub struct Left {
    /// The session.
    pub session: StoredSession,
    /// Its last sealed epoch.
    pub epoch: Option<SealedEpoch>,
    /// Its end is certified.
    pub is_ended: bool,
}

impl Ledger {
    /// The epoch that still wants its quote, if there is one.
    pub fn pending(&self) -> Result<Option<Pending>, LedgerError> {
        let seals = held(&self.seals);
        let Some(current) = &seals.current else {
            return Ok(None);
        };
        let Some(statement) = current.journal.pending.clone() else {
            return Ok(None);
        };
        let path = &current.dir.path;
        let session = current.dir.read()?.ok_or_else(|| LedgerError::Missing {
            path: path.join("statement"),
        })?;
        let last = current.last.as_ref().map(|epoch| epoch.quote.clone());
        let last_quote = last.or_else(|| session.quote.clone());
        let last_quote = last_quote.ok_or_else(|| LedgerError::Missing {
            path: path.join("quote"),
        })?;
        Ok(Some(Pending {
            statement,
            session,
            last_quote,
        }))
    }

    /// Write down the statement of a new session.
    pub fn begin_session(&self, statement: &[u8], ak_public: &[u8]) -> Result<(), LedgerError> {
        let (got, limit) = (statement.len(), SessionStatement::LIMITS.bytes);
        if got > limit {
            return Err(LedgerError::TooBig { got, limit });
        }
        let mut seals = held(&self.seals);
        if seals
            .current
            .as_ref()
            .is_some_and(|current| current.journal.pending.is_some())
        {
            return Err(LedgerError::Order {
                doing: "begin a session while an epoch is pending",
            });
        }
        let number = seals.newest + 1;
        let dir = SessionDir::new(&self.log, number);
        dir.create(statement, ak_public)?;
        seals.newest = number;
        let journal = Journal::open(dir.epochs_path(), session::Tail::default())?;
        seals.current = Some(Current {
            dir,
            journal,
            last: None,
        });
        Ok(())
    }

    /// Add the quote over the session statement and the logs of the boot.
    pub fn seal_session(
        &self,
        quote: &Quote,
        boot_log: Option<&[u8]>,
        ima_log: Option<&[u8]>,
    ) -> Result<(), LedgerError> {
        let seals = held(&self.seals);
        let current = seals.current.as_ref().ok_or(LedgerError::Order {
            doing: "seal a session that was not begun",
        })?;
        current
            .dir
            .seal(quote, [("boot_log", boot_log), ("ima_log", ima_log)])
    }

    /// Replace the current session's measurement list by a longer one.
    pub fn replace_ima_log(&self, list: &[u8]) -> Result<(), LedgerError> {
        let seals = held(&self.seals);
        let current = seals.current.as_ref().ok_or(LedgerError::Order {
            doing: "store a measurement list",
        })?;
        file::replace(&current.dir.path.join("ima_log"), list)
    }

    /// Keep location evidence whose digest the next epoch statement has.
    pub fn keep_location(&self, digest: &Digest, bytes: &[u8]) -> Result<(), LedgerError> {
        let seals = held(&self.seals);
        let current = seals.current.as_ref().ok_or(LedgerError::Order {
            doing: "keep location evidence",
        })?;
        current.dir.keep_location(digest, bytes)
    }

    /// Put an epoch statement on the disk, before the TPM hears of it.
    pub fn write_ahead(&self, statement: &[u8]) -> Result<(), LedgerError> {
        held(&self.seals).current()?.journal.write_ahead(statement)
    }

    /// Add the quote over the pending epoch statement.
    pub fn seal_epoch(&self, quote: &Quote) -> Result<(), LedgerError> {
        let mut seals = held(&self.seals);
        let current = seals.current()?;
        let statement = current.journal.seal(quote)?;
        current.last = Some(SealedEpoch {
            statement: statement.clone(),
            quote: quote.clone(),
            nv: None,
        });
        let (number, epoch_bytes) = (current.dir.number, current.journal.end());
        let (checkpoint, last) =
            sealed_by(&statement, number, epoch_bytes).ok_or(LedgerError::Order {
                doing: "seal something that is not an epoch statement",
            })?;
        (seals.checkpoint, seals.last) = (checkpoint, Some(last));
        // The epoch file is the record and has it; a checkpoint that lags is
        // caught up with by the next epoch or the next start.
        if let Err(error) = seals.checkpoint.write(&self.log) {
            tracing::warn!(%error, "checkpoint not written");
        }
        drop(seals);
        // The same holds for what others read.
        if let Err(error) = self.publish() {
            tracing::warn!(%error, "tiles not published");
        }
        Ok(())
    }

    /// Add the counter, certified for the epoch that was sealed last.
    pub fn count_epoch(&self, certified: &[NvCertified]) -> Result<(), LedgerError> {
        let mut seals = held(&self.seals);
        let current = seals.current()?;
        let epoch = current.last.as_mut().ok_or(LedgerError::Order {
            doing: "count an epoch that was not sealed",
        })?;
        current.journal.count(certified)?;
        epoch.nv = Some(certified.to_vec());
        seals.checkpoint.epoch_bytes = seals.current()?.journal.end();
        if let Err(error) = seals.checkpoint.write(&self.log) {
            tracing::warn!(%error, "checkpoint not written");
        }
        Ok(())
    }

    /// Keep what GPUs said of themselves for the session of that statement, if it is still the
    /// current one.
    pub fn keep_gpu_reports(
        &self,
        statement: &Digest,
        reports: &[GpuReport],
    ) -> Result<(), LedgerError> {
        let mut seals = held(&self.seals);
        let dir = &seals.current()?.dir;
        let is_current = dir
            .read()?
            .is_some_and(|stored| sha256(&stored.statement) == *statement);
        if !is_current {
            return Err(LedgerError::Order {
                doing: "keep reports of gpus for a session that ended",
            });
        }
        dir.keep_gpu_reports(reports)
    }

    /// Keep what the TPM certified of its memory for the current session.
    pub fn keep_nv(&self, at: NvAt, certified: &[NvCertified]) -> Result<(), LedgerError> {
        held(&self.seals).current()?.dir.keep_nv(at, certified)
    }

    /// How the newest session on the disk stands; `None` where none was sealed.
    pub fn left(&self) -> Result<Option<Left>, LedgerError> {
        let seals = held(&self.seals);
        let Some(current) = &seals.current else {
            return Ok(None);
        };
        let session = current
            .dir
            .read()?
            .filter(|session| session.quote.is_some());
        let is_ended = current.dir.read_nv(NvAt::End)?.is_some();
        Ok(session.map(|session| Left {
            session,
            epoch: current.last.clone(),
            is_ended,
        }))
    }

    /// Give up the pending epoch: the TPM can no longer vouch for it.
    pub fn abandon_epoch(&self, reason: &str) -> Result<(), LedgerError> {
        held(&self.seals).current()?.journal.abandon(reason)
    }
}
