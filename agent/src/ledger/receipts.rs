//! Receipts beside the log: what was signed once cannot be signed again, since the key that did
//! is gone with its session.
//!
//! One file of frames in the order of their leaves, each: id, index and hash of the leaf, the
//! message. Runs ([`super::runs`]) tell where an id's frame is; what came after the last run is
//! held in memory, 65,536 receipts at most, and read again at a start.
//!
//! A receipt of a leaf that the log does not have (a power cut took the leaf's end and not the
//! receipt's) is cut off with all after it: nobody can have been given one, since a receipt is
//! handed out only after both are on the disk.

use super::{
    LedgerError, file,
    frame::{Frames, Next, frame},
    runs::{Run, Runs},
};
use merestone_evidence::{Digest, RECEIPT_BYTES, leaf_hash};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Seek as _, SeekFrom, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Receipts that are held in memory before they become a run.
const MOST_RECENT: usize = 65_536;
/// Bytes before the message: id, index, hash of the leaf.
const HEAD_BYTES: usize = 16 + 8 + 32;
const RECORD_LIMIT: usize = HEAD_BYTES + RECEIPT_BYTES;

/// A receipt as it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kept {
    /// Its id.
    pub id: [u8; 16],
    /// The leaf it is about.
    pub index: u64,
    /// That leaf's hash.
    pub leaf: Digest,
    /// The `COSE_Sign1`.
    pub message: Vec<u8>,
}

impl Kept {
    fn bytes(id: [u8; 16], index: u64, leaf: &Digest, message: &[u8]) -> Vec<u8> {
        [&id, index.to_be_bytes().as_slice(), &leaf.0, message].concat()
    }

    fn parse(data: &[u8]) -> Option<Self> {
        let (id, rest) = data.split_first_chunk()?;
        let (index, rest) = rest.split_first_chunk()?;
        let (leaf, message) = rest.split_first_chunk()?;
        Some(Self {
            id: *id,
            index: u64::from_be_bytes(*index),
            leaf: Digest(*leaf),
            message: message.to_vec(),
        })
    }
}

fn data_path(log: &Path) -> PathBuf {
    log.join("receipts")
}

fn frames(
    data: &File,
    path: &Path,
    bytes: Range<u64>,
) -> Result<Frames<BufReader<File>>, LedgerError> {
    let own = data.try_clone().map_err(LedgerError::io("read", path))?;
    let mut reader = BufReader::new(own);
    reader
        .seek(SeekFrom::Start(bytes.start))
        .map_err(LedgerError::io("read", path))?;
    Ok(Frames::new(reader, bytes.start, bytes.end, RECORD_LIMIT))
}

/// The receipts, open for writing.
#[derive(Debug)]
pub(crate) struct Receipts {
    path: PathBuf,
    data: Arc<File>,
    end: u64,
    runs: Runs,
    recent: BTreeMap<[u8; 16], u64>,
    /// Where the first of `recent` is.
    recent_from: u64,
}

impl Receipts {
    /// `leaf` gives the hash of a leaf of the log.
    pub(crate) fn open(
        log: &Path,
        leaf: impl Fn(u64) -> Option<Digest>,
    ) -> Result<Self, LedgerError> {
        let path = data_path(log);
        let data = file::open_append(&path)?;
        file::sync_parent(&path)?;
        let reading = |error| LedgerError::io("read", &path)(error);
        let length = data.metadata().map_err(reading)?.len();
        let mut runs = Runs::open(log)?;
        runs.forget_beyond(length, |run| {
            let last = last_of(&data, &path, run).ok().flatten();
            last.is_some_and(|kept| leaf(kept.index) == Some(kept.leaf))
        })?;
        let recent_from = runs.end();
        let mut receipts = Self {
            end: recent_from,
            recent: BTreeMap::new(),
            recent_from,
            runs,
            data: Arc::new(data),
            path,
        };
        receipts.take_up(length, leaf)?;
        Ok(receipts)
    }

    /// Reads what no run covers and cuts what is torn, or about no leaf of the log.
    fn take_up(
        &mut self,
        length: u64,
        leaf: impl Fn(u64) -> Option<Digest>,
    ) -> Result<(), LedgerError> {
        let reading = |error| LedgerError::io("read", &self.path)(error);
        let mut frames = frames(&self.data, &self.path, self.recent_from..length)?;
        while let Next::Frame(frame) = frames.next().map_err(reading)? {
            let kept = Kept::parse(&frame.data);
            let Some(kept) = kept.filter(|kept| leaf(kept.index) == Some(kept.leaf)) else {
                break;
            };
            self.recent.insert(kept.id, frame.offset);
            self.end = frames.offset();
            if self.recent.len() >= MOST_RECENT {
                self.runs.add(self.recent_from..self.end, &self.recent)?;
                self.recent.clear();
                self.recent_from = self.end;
            }
        }
        if self.end < length {
            let bytes = length - self.end;
            tracing::warn!(bytes, "receipts of records that a crash took away are cut");
            let cutting = |error| LedgerError::io("cut", &self.path)(error);
            self.data.set_len(self.end).map_err(cutting)?;
            self.data.sync_all().map_err(cutting)?;
        }
        Ok(())
    }

    pub(crate) fn append(
        &mut self,
        id: [u8; 16],
        index: u64,
        leaf: &Digest,
        message: &[u8],
    ) -> Result<(), LedgerError> {
        let data = Kept::bytes(id, index, leaf, message);
        if data.len() > RECORD_LIMIT {
            let (got, limit) = (data.len(), RECORD_LIMIT);
            return Err(LedgerError::TooBig { got, limit });
        }
        let bytes = frame(&data, &leaf_hash(&data));
        if let Err(error) = (&*self.data).write_all(&bytes) {
            // A full disk may take half of it; nothing may stand behind that half.
            let undone = self.data.set_len(self.end);
            let doing = if undone.is_ok() {
                "append to"
            } else {
                "append to (and clean up)"
            };
            return Err(LedgerError::io(doing, &self.path)(error));
        }
        self.recent.insert(id, self.end);
        self.end += bytes.len() as u64;
        if self.recent.len() >= MOST_RECENT {
            self.make_run();
        }
        Ok(())
    }

    /// The receipt is kept whether or not its run can be written; then the next one tries again.
    fn make_run(&mut self) {
        let synced = self
            .data
            .sync_data()
            .map_err(LedgerError::io("sync", &self.path));
        let covered = self.recent_from..self.end;
        match synced.and_then(|()| self.runs.add(covered, &self.recent)) {
            Ok(()) => {
                self.recent.clear();
                self.recent_from = self.end;
            }
            Err(error) => tracing::warn!(%error, "the index of receipts is not written"),
        }
    }

    pub(crate) fn has(&self, id: &[u8; 16]) -> Result<bool, LedgerError> {
        if self.recent.contains_key(id) {
            return Ok(true);
        }
        Ok(self.runs.find(id)?.is_some())
    }

    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// Where it ends, and the file, to sync it without holding up writers.
    pub(crate) fn file(&self) -> (u64, Arc<File>) {
        (self.end, Arc::clone(&self.data))
    }
}

/// The last receipt that a run covers; none where the run does not end with one.
fn last_of(data: &File, path: &Path, run: &Run) -> Result<Option<Kept>, LedgerError> {
    let Some(offset) = run.last_offset() else {
        return Ok(None);
    };
    let mut frames = frames(data, path, offset..run.covers().end)?;
    let next = frames.next().map_err(LedgerError::io("read", path))?;
    Ok(match next {
        Next::Frame(frame) if frames.offset() == run.covers().end => Kept::parse(&frame.data),
        _ => None,
    })
}

/// Receipts as they are on the disk, read without a lock, also beside a running agent.
#[derive(Debug)]
pub(crate) struct Shelf {
    path: PathBuf,
    data: Option<File>,
    length: u64,
    runs: Runs,
}

impl Shelf {
    pub(crate) fn open(log: &Path) -> Result<Self, LedgerError> {
        let path = data_path(log);
        // The runs first: what they cover is in the file by then.
        let runs = Runs::open(log)?;
        let data = match File::open(&path) {
            Ok(data) => Some(data),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(LedgerError::io("open", path)(error)),
        };
        let length = match &data {
            Some(data) => data
                .metadata()
                .map_err(LedgerError::io("read", &path))?
                .len(),
            None => 0,
        };
        Ok(Self {
            path,
            data,
            length,
            runs,
        })
    }

    /// The receipt of an id.
    pub(crate) fn find(&self, id: &[u8; 16]) -> Result<Option<Kept>, LedgerError> {
        let Some(data) = &self.data else {
            return Ok(None);
        };
        if let Some(offset) = self.runs.find(id)?
            && let Some(kept) = self.walk(data, offset..self.length)?.next()
        {
            return Ok(Some(kept?).filter(|kept| kept.id == *id));
        }
        for kept in self.walk(data, self.runs.end()..self.length)? {
            let kept = kept?;
            if kept.id == *id {
                return Ok(Some(kept));
            }
        }
        Ok(None)
    }

    /// The receipts of leaves `from..to`, in their order.
    pub(crate) fn of_leaves(&self, leaves: Range<u64>) -> Result<Vec<Kept>, LedgerError> {
        let mut found = Vec::new();
        let Some(data) = &self.data else {
            return Ok(found);
        };
        let mut start = 0;
        for begin in self.runs.starts() {
            let first = self.walk(data, begin..self.length)?.next().transpose()?;
            if first.is_some_and(|first| first.index <= leaves.start) {
                start = begin;
            }
        }
        for kept in self.walk(data, start..self.length)? {
            let kept = kept?;
            if kept.index >= leaves.end {
                break;
            }
            if kept.index >= leaves.start {
                found.push(kept);
            }
        }
        Ok(found)
    }

    /// What is torn at the end is being written, or was when somebody fell over.
    fn walk(
        &self,
        data: &File,
        bytes: Range<u64>,
    ) -> Result<impl Iterator<Item = Result<Kept, LedgerError>>, LedgerError> {
        let mut frames = frames(data, &self.path, bytes)?;
        let path = self.path.clone();
        Ok(std::iter::from_fn(move || match frames.next() {
            Ok(Next::Frame(frame)) => Kept::parse(&frame.data).map(Ok),
            Ok(Next::End | Next::Broken { .. }) => None,
            Err(error) => Some(Err(LedgerError::io("read", path.clone())(error))),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> [u8; 16] {
        let digest = merestone_evidence::sha256(&number.to_be_bytes());
        digest.0[..16].try_into().unwrap()
    }

    fn leaf(number: u64) -> Digest {
        leaf_hash(&number.to_be_bytes())
    }

    fn fill(receipts: &mut Receipts, numbers: Range<u64>) {
        for number in numbers {
            let message = format!("receipt {number}");
            receipts
                .append(id(number), number, &leaf(number), message.as_bytes())
                .unwrap();
        }
    }

    #[test]
    fn receipts_are_found_by_id_before_and_after_a_restart_and_across_runs() {
        let dir = tempfile::tempdir().unwrap();
        let mut receipts = Receipts::open(dir.path(), |at| Some(leaf(at))).unwrap();
        fill(&mut receipts, 0..150_000);
        assert_eq!(receipts.recent.len(), 150_000 - 2 * MOST_RECENT);
        let shelf = Shelf::open(dir.path()).unwrap();
        for number in [0, 65_535, 65_536, 131_072, 149_999] {
            assert!(receipts.has(&id(number)).unwrap(), "{number}");
            let kept = shelf.find(&id(number)).unwrap().unwrap();
            assert_eq!((kept.index, kept.leaf), (number, leaf(number)));
        }
        assert!(!receipts.has(&id(150_000)).unwrap());
        assert!(shelf.find(&id(150_000)).unwrap().is_none());
        let some = shelf.of_leaves(65_530..65_540).unwrap();
        let indices: Vec<u64> = some.iter().map(|kept| kept.index).collect();
        assert_eq!(indices, (65_530..65_540).collect::<Vec<_>>());
        drop(receipts);
        let receipts = Receipts::open(dir.path(), |at| Some(leaf(at))).unwrap();
        assert!(receipts.has(&id(7)).unwrap() && receipts.has(&id(149_999)).unwrap());
    }

    #[test]
    fn a_torn_end_and_receipts_of_lost_leaves_are_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let mut receipts = Receipts::open(dir.path(), |at| Some(leaf(at))).unwrap();
        fill(&mut receipts, 0..10);
        let end = receipts.end;
        drop(receipts);
        let path = data_path(dir.path());
        let torn = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        torn.set_len(end - 3).unwrap();
        let receipts = Receipts::open(dir.path(), |at| Some(leaf(at))).unwrap();
        assert!(receipts.has(&id(8)).unwrap() && !receipts.has(&id(9)).unwrap());
        drop(receipts);
        let mut receipts = Receipts::open(dir.path(), |at| (at < 5).then(|| leaf(at))).unwrap();
        assert!(receipts.has(&id(4)).unwrap() && !receipts.has(&id(5)).unwrap());
        fill(&mut receipts, 5..7);
        let shelf = Shelf::open(dir.path()).unwrap();
        assert_eq!(shelf.of_leaves(0..100).unwrap().len(), 7);
    }

    #[test]
    fn a_run_that_covers_more_than_there_is_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut receipts = Receipts::open(dir.path(), |at| Some(leaf(at))).unwrap();
        fill(&mut receipts, 0..70_000);
        drop(receipts);
        // The log lost its end: the run's last receipt is of a leaf that is not there.
        let mut receipts =
            Receipts::open(dir.path(), |at| (at < 60_000).then(|| leaf(at))).unwrap();
        assert!(receipts.has(&id(59_999)).unwrap() && !receipts.has(&id(60_000)).unwrap());
        fill(&mut receipts, 60_000..70_000);
        assert!(receipts.has(&id(69_999)).unwrap());
        assert_eq!(
            Shelf::open(dir.path())
                .unwrap()
                .of_leaves(0..99_999)
                .unwrap()
                .len(),
            70_000
        );
    }
}
