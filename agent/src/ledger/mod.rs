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
mod publishing;
mod reader;
mod receipts;
mod runs;
mod sealing;
mod seals;
mod session;
#[cfg(test)]
pub(crate) mod tests;
mod tiles;

pub use error::LedgerError;
pub use key::NewKey;
pub use leaves::Cut;
pub(crate) use nodes::PublishedTiles;
pub use reader::Reader;
pub use receipts::Kept;
pub use sealing::{Left, Pending};
pub(crate) use session::LOG_LIMIT;
pub use session::{NvAt, StoredLogs, StoredSession};

use checkpoint::Checkpoint;
use file::Appended;
use leaves::Leaves;
use merestone_evidence::{Body, Digest, Entry, Grade, RecordCounts, encode};
use receipts::Receipts;
use rustix::fs::{FlockOperation, flock};
use seals::Seals;
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
