//! The sealed part of a log, read without a lock, also beside a running agent.
//!
//! The checkpoint is read first and once; everything it covers is on the disk
//! and never changes, so what comes out fits together.

use super::{
    LedgerError, NvAt, StoredLogs, StoredSession,
    checkpoint::Checkpoint,
    file,
    frame::Next,
    leaves, log_path,
    nodes::PublishedTiles,
    receipts::{Kept, Shelf},
    session::{self, SessionDir},
    tiles,
};
use merestone_evidence::{Digest, GpuReport, NvCertified, SealedEpoch, root_of};
use merestone_tlog::MAX_NOTE;
use std::{
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
};

const KEY_LIMIT: u64 = 4096;

/// A log, open for reading.
#[derive(Debug)]
pub struct Reader {
    log: PathBuf,
    checkpoint: Checkpoint,
}

impl Reader {
    /// Open the log of a state directory as it is sealed now.
    pub fn open(state_dir: &Path) -> Result<Self, LedgerError> {
        let log = log_path(state_dir);
        let checkpoint = Checkpoint::read(&log)?.ok_or_else(|| LedgerError::Missing {
            path: Checkpoint::path(&log),
        })?;
        Ok(Self { log, checkpoint })
    }

    /// Leaves that are sealed.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.checkpoint.size
    }

    /// The checkpoint that is published, as bytes and as read; `None` before the first.
    pub fn published(&self) -> Result<Option<(Vec<u8>, merestone_tlog::Checkpoint)>, LedgerError> {
        let published = tiles::published(&self.log)?;
        Ok(published.map(|(bytes, _, checkpoint)| (bytes, checkpoint)))
    }

    /// What signs the checkpoints, as others pin it; `None` before the first start.
    pub fn log_key(&self) -> Result<Option<String>, LedgerError> {
        let bytes = file::read_if_there(&self.log.join("vkey"), KEY_LIMIT)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned()))
    }

    /// Notes that were put in `cosigned/`, by name.
    pub fn cosigned(&self) -> Result<Vec<(PathBuf, Vec<u8>)>, LedgerError> {
        let path = self.log.join("cosigned");
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(LedgerError::io("list", path)(error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(LedgerError::io("list", &path))?.path());
        }
        paths.sort();
        let mut notes = Vec::new();
        for path in paths.into_iter().filter(|path| path.is_file()) {
            let bytes = file::read(&path, MAX_NOTE as u64)?;
            notes.push((path, bytes));
        }
        Ok(notes)
    }

    /// The receipt of an id, sealed or not.
    pub fn receipt(&self, id: &[u8; 16]) -> Result<Option<Kept>, LedgerError> {
        Shelf::open(&self.log)?.find(id)
    }

    /// The receipts of leaves, in their order; a leaf may have none.
    pub fn receipts(&self, leaves: Range<u64>) -> Result<Vec<Kept>, LedgerError> {
        Shelf::open(&self.log)?.of_leaves(leaves)
    }

    /// Sessions that were sealed, oldest first.
    pub fn sessions(&self) -> Result<Vec<StoredSession>, LedgerError> {
        let mut sessions = Vec::new();
        for number in session::numbers(&self.log)? {
            let stored = SessionDir::new(&self.log, number).read()?;
            sessions.extend(stored.filter(|session| session.quote.is_some()));
        }
        Ok(sessions)
    }

    /// Sealed epochs of a session, in order.
    pub fn epochs(&self, session: u64) -> Result<Vec<SealedEpoch>, LedgerError> {
        if session > self.checkpoint.session {
            return Ok(Vec::new());
        }
        let path = SessionDir::new(&self.log, session).epochs_path();
        let to = (session == self.checkpoint.session).then_some(self.checkpoint.epoch_bytes);
        let mut epochs = Vec::new();
        session::walk(&path, to.unwrap_or(0), to, |epoch| epochs.push(epoch))?;
        Ok(epochs)
    }

    /// What the TPM certified of its memory at the start or the end of a session.
    pub fn nv(&self, session: u64, at: NvAt) -> Result<Option<Vec<NvCertified>>, LedgerError> {
        SessionDir::new(&self.log, session).read_nv(at)
    }

    /// What the GPUs of a session said of themselves.
    pub fn gpu_reports(&self, session: u64) -> Result<Option<Vec<GpuReport>>, LedgerError> {
        SessionDir::new(&self.log, session).read_gpu_reports()
    }

    /// The logs of a session's boot.
    pub fn boot_logs(&self, session: u64) -> Result<StoredLogs, LedgerError> {
        SessionDir::new(&self.log, session).read_logs()
    }

    /// Location evidence that an epoch of a session sealed, where it is still there.
    pub fn location(&self, session: u64, digest: &Digest) -> Result<Option<Vec<u8>>, LedgerError> {
        SessionDir::new(&self.log, session).read_location(digest)
    }

    /// Leaves `from..to`.
    pub fn leaves(&self, from: u64, to: u64) -> Result<Vec<Vec<u8>>, LedgerError> {
        let mut found = Vec::new();
        if from >= to {
            return Ok(found);
        }
        let index_path = leaves::index_path(&self.log);
        let index = File::open(&index_path).map_err(LedgerError::io("open", &index_path))?;
        let (start, _) = leaves::read_index(&index, &index_path, from)?;
        let path = leaves::data_path(&self.log);
        let data = File::open(&path).map_err(LedgerError::io("open", &path))?;
        let length = data
            .metadata()
            .map_err(LedgerError::io("read", &path))?
            .len();
        let mut frames = leaves::frames_from(&data, &path, start, length)?;
        for _leaf in from..to {
            match frames.next().map_err(LedgerError::io("read", &path))? {
                Next::Frame(frame) => found.push(frame.data),
                Next::Broken { offset, why } => {
                    return Err(LedgerError::damaged(path, offset, why));
                }
                Next::End => {
                    return Err(LedgerError::damaged(
                        path,
                        length,
                        "sealed records are missing",
                    ));
                }
            }
        }
        Ok(found)
    }

    /// The published tiles, to make proofs of; else why there are none.
    pub(crate) fn tiles(&self) -> Result<PublishedTiles, String> {
        PublishedTiles::open(&self.log)
    }

    /// Hashes of the sealed leaves, checked against the sealed root.
    pub fn hashes(&self) -> Result<Vec<Digest>, LedgerError> {
        let path = leaves::index_path(&self.log);
        let index = File::open(&path).map_err(LedgerError::io("open", &path))?;
        let hashes = leaves::read_hashes(&index, &path, self.checkpoint.size)?;
        if root_of(&hashes) != self.checkpoint.root {
            let why =
                "its hashes do not lead to the sealed root; a start of the agent makes it again";
            return Err(LedgerError::damaged(path, 0, why));
        }
        Ok(hashes)
    }
}
