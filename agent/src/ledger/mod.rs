//! The evidence log on disk: append-only, crash-tolerant, owned by one process.
//!
//! ```text
//! STATE_DIR/log/lock          held by the agent that writes
//!               leaves        every entry, framed, in order
//!               index         offset and leaf hash of each; derived
//!               receipts      every receipt, framed, in the order of their leaves
//!               receipts.d/   where each id's receipt is; derived
//!               checkpoint    how far all of this is sealed by a quote
//!               sessions/     statements, quotes, boot and IMA logs, epochs
//!               key, vkey     signs what is published, and who checks it
//!               tiles/        what is sealed, as static files for others; derived
//!               cosigned/     checkpoints as witnesses gave them back
//! ```
//!
//! An entry is in the file (though perhaps not yet on the disk) when `append`
//! returns, so a killed agent loses none; the disk is synced before an epoch
//! statement names the root. At start everything is read and hashed again:
//! a torn end behind the last sealed epoch is cut and reported, anything wrong
//! before it makes the agent refuse to start. Leaves that no epoch sealed stay
//! and are sealed by the first epoch of the next session.
//!
//! It refuses to forget: nothing here deletes or rewrites a sealed byte.

mod checkpoint;
#[cfg(test)]
mod cuts;
mod error;
mod file;
mod frame;
mod key;
mod leaves;
mod nodes;
#[cfg(test)]
mod power;
#[cfg(test)]
mod published;
mod reader;
mod receipts;
mod runs;
mod session;
#[cfg(test)]
mod tests;
mod tiles;

pub use error::LedgerError;
pub use key::NewKey;
pub use leaves::Cut;
pub use reader::Reader;
pub use receipts::Kept;
pub(crate) use session::LOG_LIMIT;
pub use session::{NvAt, StoredLogs, StoredSession};

use checkpoint::Checkpoint;
use file::Appended;
use leaves::Leaves;
use merestone_evidence::{
    Body, Digest, Entry, EpochStatement, GpuReport, Grade, NvCertified, Quote, Record as _,
    RecordCounts, SealedEpoch, SessionStatement, decode, encode, sha256,
};
use merestone_tlog::Sealed as Sealing;
use receipts::Receipts;
use rustix::fs::{FlockOperation, flock};
use session::{Journal, SessionDir};
use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tiles::Tiles;

/// The log, open for writing. Share it behind an `Arc`.
#[derive(Debug)]
pub struct Ledger {
    log: PathBuf,
    leaves: Mutex<Leaves>,
    receipts: Mutex<Receipts>,
    /// Leaves and bytes of receipts that are known to be on the disk.
    durable: Mutex<(u64, u64)>,
    seals: Mutex<Seals>,
    /// What others read, once it is known under which name.
    tiles: Mutex<Option<Tiles>>,
    /// Holds the lock as long as it is open.
    _lock: Appended,
}

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// A torn end was cut off the leaves.
    pub cut: Option<Cut>,
    /// Leaves that no epoch has sealed yet.
    pub unsealed: u64,
}

/// How far the log is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// Leaves under the last quote.
    pub size: u64,
    /// Root over them.
    pub root: Digest,
    /// Digest of the last sealed epoch statement, if there is one.
    pub last: Option<Digest>,
}

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

#[derive(Debug)]
struct Seals {
    checkpoint: Checkpoint,
    /// What the last sealed epoch is.
    last: Option<Sealing>,
    /// The highest session number in use.
    newest: u64,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    dir: SessionDir,
    journal: Journal,
    /// The last sealed epoch of this session.
    last: Option<SealedEpoch>,
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

/// Where the log of a state directory is.
fn log_path(state_dir: &Path) -> PathBuf {
    state_dir.join("log")
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these with a step half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// Open the log of a state directory, made if it is not there.
    pub fn open(state_dir: &Path) -> Result<(Self, Opened), LedgerError> {
        let log = log_path(state_dir);
        file::make_directory_durable(&session::sessions_path(&log))?;
        let lock = lock(&log)?;
        let written = match Checkpoint::read(&log)? {
            Some(checkpoint) => checkpoint,
            None => first_checkpoint(&log)?,
        };
        let seals = Seals::open(&log, written)?;
        let sealed = seals.checkpoint;
        let (leaves, cut) = Leaves::open(&log, (sealed.size, sealed.root))?;
        if sealed != written {
            sealed.write(&log)?;
        }
        let receipts = Receipts::open(&log, |index| leaves.hash(index))?;
        let opened = Opened {
            cut,
            unsealed: leaves.size() - sealed.size,
        };
        Ok((
            Self {
                log,
                leaves: Mutex::new(leaves),
                receipts: Mutex::new(receipts),
                durable: Mutex::new((0, 0)),
                seals: Mutex::new(seals),
                tiles: Mutex::new(None),
                _lock: lock,
            },
            opened,
        ))
    }

    /// Append an entry; its index in the tree.
    pub fn append(&self, entry: &Entry) -> Result<u64, LedgerError> {
        self.append_hashed(entry).map(|(index, _)| index)
    }

    /// The same, with the leaf's hash.
    pub fn append_hashed(&self, entry: &Entry) -> Result<(u64, Digest), LedgerError> {
        let grade = match &entry.body {
            Body::Inference(record) if record.grade == Grade::Bound || !record.amends => {
                Some(record.grade)
            }
            _ => None,
        };
        let mut leaves = held(&self.leaves);
        let appended = leaves.append(&encode(entry))?;
        match grade {
            Some(Grade::Observed) => leaves.records.observed += 1,
            Some(Grade::Bound) => leaves.records.bound += 1,
            None => {}
        }
        Ok(appended)
    }

    /// Records appended since the log was opened, by grade.
    pub fn records(&self) -> RecordCounts {
        held(&self.leaves).records
    }

    /// Keep the receipt of a leaf. Like an entry it is in the file when this returns.
    pub fn keep_receipt(
        &self,
        id: [u8; 16],
        (index, leaf): (u64, Digest),
        message: &[u8],
    ) -> Result<(), LedgerError> {
        held(&self.receipts).append(id, index, &leaf, message)
    }

    /// Whether there is a receipt of that id.
    pub fn has_receipt(&self, id: &[u8; 16]) -> Result<bool, LedgerError> {
        held(&self.receipts).has(id)
    }

    /// Have every entry and receipt of now on the disk: after this a power cut takes none away.
    /// Callers that come at once share one sync.
    pub fn make_durable(&self) -> Result<(), LedgerError> {
        let wanted = (self.size(), held(&self.receipts).end());
        let mut durable = held(&self.durable);
        if durable.0 >= wanted.0 && durable.1 >= wanted.1 {
            return Ok(());
        }
        let (size, _) = self.sync()?;
        let (end, file) = held(&self.receipts).file();
        file.sync_data()
            .map_err(LedgerError::io("sync", &self.log))?;
        *durable = (size, end);
        Ok(())
    }

    /// Leaves so far.
    pub fn size(&self) -> u64 {
        held(&self.leaves).size()
    }

    /// Root over all leaves so far.
    pub fn root(&self) -> Digest {
        held(&self.leaves).root()
    }

    /// How far the log is sealed.
    pub fn sealed(&self) -> Sealed {
        let Checkpoint {
            size,
            root,
            last,
            session: _,
            epoch_bytes: _,
        } = held(&self.seals).checkpoint;
        Sealed { size, root, last }
    }

    /// Size and root, after all leaves they cover are on the disk. Appending
    /// goes on meanwhile.
    pub fn sync(&self) -> Result<(u64, Digest), LedgerError> {
        self.sync_counted().map(|(size, root, _)| (size, root))
    }

    /// The same, with the records among those leaves that were appended since the log was opened.
    pub fn sync_counted(&self) -> Result<(u64, Digest, RecordCounts), LedgerError> {
        let (size, root, records, files) = {
            let leaves = held(&self.leaves);
            (leaves.size(), leaves.root(), leaves.records, leaves.files())
        };
        for file in files {
            file.sync().map_err(LedgerError::io("sync", &self.log))?;
        }
        Ok((size, root, records))
    }

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

    /// Publish what is sealed, from now on, as a log of this node. The key that signs it is made
    /// at the first call, and again where its file was taken away; `tell` makes the entry that
    /// says so, which is on the disk before the key is used.
    pub fn publish_as(
        &self,
        node: &str,
        tell: impl FnOnce(NewKey) -> Entry,
    ) -> Result<(), LedgerError> {
        let signer = key::load(&self.log, node, |made| {
            self.append(&tell(made))?;
            self.sync().map(drop)
        })?;
        let (size, _) = self.sync()?;
        let sealed = held(&self.seals).checkpoint;
        let tiles = Tiles::open(&self.log, signer, sealed.size.min(size))?;
        *held(&self.tiles) = Some(tiles);
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

    /// Who checks what is published.
    pub fn log_key(&self) -> Option<String> {
        let tiles = held(&self.tiles);
        tiles.as_ref().map(|tiles| tiles.key().to_string())
    }

    fn publish(&self) -> Result<(), LedgerError> {
        let mut tiles = held(&self.tiles);
        let Some(tiles) = tiles.as_mut() else {
            return Ok(());
        };
        let (checkpoint, last) = {
            let seals = held(&self.seals);
            (seals.checkpoint, seals.last)
        };
        let Some(last) = last else {
            return Ok(());
        };
        let [data, index] = held(&self.leaves).files();
        tiles.publish(
            (data.file(), index.file()),
            (checkpoint.size, checkpoint.root),
            last,
        )
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

impl Seals {
    /// Walk the sessions from the checkpoint's on, taking up what was sealed
    /// after it and before a crash.
    fn open(log: &Path, written: Checkpoint) -> Result<Self, LedgerError> {
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

    fn current(&mut self) -> Result<&mut Current, LedgerError> {
        self.current.as_mut().ok_or(LedgerError::Order {
            doing: "write an epoch without a session",
        })
    }
}

/// The checkpoint that holds once `statement` is sealed, and what a published one names.
fn sealed_by(statement: &[u8], session: u64, epoch_bytes: u64) -> Option<(Checkpoint, Sealing)> {
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

fn lock(log: &Path) -> Result<Appended, LedgerError> {
    let path = log.join("lock");
    let lock = Appended::open(&path)?;
    match flock(lock.file(), FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LedgerError::InUse { path }),
        Err(error) => Err(LedgerError::io("lock", path)(error.into())),
    }
}

/// A log without a checkpoint has to be new.
fn first_checkpoint(log: &Path) -> Result<Checkpoint, LedgerError> {
    let leaves = leaves::data_path(log);
    let is_used = leaves.metadata().is_ok_and(|leaves| leaves.len() > 0);
    if is_used || !session::numbers(log)?.is_empty() {
        return Err(LedgerError::Missing {
            path: Checkpoint::path(log),
        });
    }
    let checkpoint = Checkpoint::empty();
    checkpoint.write(log)?;
    Ok(checkpoint)
}
