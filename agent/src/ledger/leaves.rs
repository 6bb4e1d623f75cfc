//! The leaves: one file of frames, one index of offsets and leaf hashes.
//!
//! The index (40 bytes a leaf: offset, hash) is derived and made again when it
//! does not fit; the leaves are the record.

use super::{
    LedgerError,
    file::{self, Appended},
    frame::{Frames, Next, frame},
};
use merestone_evidence::{Digest, Entry, Frontier, Record as _, RecordCounts, leaf_hash};
use std::{
    fs::File,
    io::{BufReader, Read as _, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

const INDEX_BYTES: u64 = 40;
/// Bytes of the index that are written at once when it is made again.
const INDEX_BATCH: usize = 40 << 10;
const RECORD_LIMIT: usize = Entry::LIMITS.bytes;

/// The end of the file that a crash left behind and that was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Where the torn record began.
    pub offset: u64,
    /// How many bytes were cut.
    pub bytes: u64,
}

#[derive(Debug)]
pub(crate) struct Leaves {
    path: PathBuf,
    data: Arc<Appended>,
    index: Arc<Appended>,
    frontier: Frontier,
    end: u64,
    /// Appended since it was opened.
    pub(crate) records: RecordCounts,
}

pub(crate) fn data_path(log: &Path) -> PathBuf {
    log.join("leaves")
}

pub(crate) fn index_path(log: &Path) -> PathBuf {
    log.join("index")
}

impl Leaves {
    /// Read everything, check the sealed part, cut a torn end.
    pub(crate) fn open(
        log: &Path,
        sealed: (u64, Digest),
    ) -> Result<(Self, Option<Cut>), LedgerError> {
        let (path, index_path) = (data_path(log), index_path(log));
        let data = Appended::open(&path)?;
        let index = Appended::open(&index_path)?;
        file::sync_parent(&path)?;
        let scan = Scan::run(&path, data.file(), index.file(), sealed)?;
        if let Some(cut) = &scan.cut {
            data.cut(cut.offset)
                .map_err(LedgerError::io("cut", &path))?;
            data.sync().map_err(LedgerError::io("sync", &path))?;
        }
        let size = scan.frontier.size();
        let mut leaves = Self {
            path,
            data: Arc::new(data),
            index: Arc::new(index),
            frontier: scan.frontier,
            end: scan.end,
            records: RecordCounts::default(),
        };
        leaves.mend_index(&index_path, scan.index_good, size)?;
        Ok((leaves, scan.cut))
    }

    pub(crate) const fn size(&self) -> u64 {
        self.frontier.size()
    }

    pub(crate) fn root(&self) -> Digest {
        self.frontier.root()
    }

    /// The files, to sync them without holding up writers.
    pub(crate) fn files(&self) -> [Arc<Appended>; 2] {
        [Arc::clone(&self.data), Arc::clone(&self.index)]
    }

    /// The hash of a leaf; none where there is no such leaf, or its index cannot be read.
    pub(crate) fn hash(&self, at: u64) -> Option<Digest> {
        if at >= self.size() {
            return None;
        }
        read_index(self.index.file(), &self.path, at)
            .ok()
            .map(|(_, hash)| hash)
    }

    /// Its index and hash.
    pub(crate) fn append(&mut self, data: &[u8]) -> Result<(u64, Digest), LedgerError> {
        if data.is_empty() || data.len() > RECORD_LIMIT {
            return Err(LedgerError::TooBig {
                got: data.len(),
                limit: RECORD_LIMIT,
            });
        }
        let hash = leaf_hash(data);
        let bytes = frame(data, &hash);
        let written = self.data.append(&bytes);
        let written = written.and_then(|()| self.index.append(&index_record(self.end, &hash)));
        if let Err(error) = written {
            // A full disk may take half of it; nothing may stand behind that half.
            let undone = self
                .data
                .cut(self.end)
                .and_then(|()| self.index.cut(self.size() * INDEX_BYTES));
            let doing = if undone.is_ok() {
                "append to"
            } else {
                "append to (and clean up)"
            };
            return Err(LedgerError::io(doing, &self.path)(error));
        }
        let index = self.size();
        self.end += bytes.len() as u64;
        self.frontier.append(hash);
        Ok((index, hash))
    }

    /// Keep the first `good` records of the index and write the rest again.
    fn mend_index(&mut self, path: &Path, good: u64, size: u64) -> Result<(), LedgerError> {
        let writing = |error| LedgerError::io("write", path)(error);
        let length = self.index.length().map_err(writing)?;
        if good == size && length == size * INDEX_BYTES {
            return Ok(());
        }
        self.index.cut(good * INDEX_BYTES).map_err(writing)?;
        let start = match good.checked_sub(1) {
            None => 0,
            Some(last) => {
                let (offset, _) = read_index(self.index.file(), path, last)?;
                let mut length = [0; 4];
                self.data
                    .file()
                    .read_exact_at(&mut length, offset)
                    .map_err(LedgerError::io("read", &self.path))?;
                offset + super::frame::HEADER_BYTES + u64::from(u32::from_be_bytes(length))
            }
        };
        let mut records = Vec::with_capacity(INDEX_BATCH);
        let mut frames = frames_from(self.data.file(), &self.path, start, self.end)?;
        while let Next::Frame(frame) = frames.next().map_err(LedgerError::io("read", &self.path))? {
            records.extend(index_record(frame.offset, &frame.hash));
            if records.len() >= INDEX_BATCH {
                self.index.append(&records).map_err(writing)?;
                records.clear();
            }
        }
        self.index.append(&records).map_err(writing)
    }
}

fn index_record(offset: u64, hash: &Digest) -> [u8; 40] {
    let mut record = [0; 40];
    let (first, second) = record.split_at_mut(8);
    first.copy_from_slice(&offset.to_be_bytes());
    second.copy_from_slice(&hash.0);
    record
}

/// Offset and hash of leaf `at`.
pub(crate) fn read_index(index: &File, path: &Path, at: u64) -> Result<(u64, Digest), LedgerError> {
    let (mut offset, mut hash) = ([0; 8], [0; 32]);
    let begin = at * INDEX_BYTES;
    index
        .read_exact_at(&mut offset, begin)
        .map_err(LedgerError::io("read", path))?;
    index
        .read_exact_at(&mut hash, begin + 8)
        .map_err(LedgerError::io("read", path))?;
    Ok((u64::from_be_bytes(offset), Digest(hash)))
}

/// Hashes of the first `size` leaves.
pub(crate) fn read_hashes(
    index: &File,
    path: &Path,
    size: u64,
) -> Result<Vec<Digest>, LedgerError> {
    let mut from = BufReader::new(index);
    from.seek(SeekFrom::Start(0))
        .map_err(LedgerError::io("read", path))?;
    let mut hashes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    for _leaf in 0..size {
        let (mut offset, mut hash) = ([0; 8], [0; 32]);
        from.read_exact(&mut offset)
            .map_err(LedgerError::io("read", path))?;
        from.read_exact(&mut hash)
            .map_err(LedgerError::io("read", path))?;
        hashes.push(Digest(hash));
    }
    Ok(hashes)
}

/// Frames of the file between two offsets.
pub(crate) fn frames_from<'f>(
    data: &'f File,
    path: &Path,
    from: u64,
    to: u64,
) -> Result<Frames<BufReader<&'f File>>, LedgerError> {
    let mut reader = BufReader::new(data);
    reader
        .seek(SeekFrom::Start(from))
        .map_err(LedgerError::io("read", path))?;
    Ok(Frames::new(reader, from, to, RECORD_LIMIT))
}

/// What a pass over the leaves found.
struct Scan {
    frontier: Frontier,
    end: u64,
    cut: Option<Cut>,
    /// How many records of the index fit the leaves.
    index_good: u64,
}

impl Scan {
    fn run(
        path: &Path,
        data: &File,
        index: &File,
        (sealed_size, sealed_root): (u64, Digest),
    ) -> Result<Self, LedgerError> {
        let reading = |error| LedgerError::io("read", path)(error);
        let length = data.metadata().map_err(reading)?.len();
        let mut frames = frames_from(data, path, 0, length)?;
        let mut index = IndexWalk::new(index).map_err(reading)?;
        let mut scan = Self {
            frontier: Frontier::new(),
            end: 0,
            cut: None,
            index_good: 0,
        };
        loop {
            if scan.frontier.size() == sealed_size && scan.frontier.root() != sealed_root {
                let offset = index.first_other.unwrap_or(0);
                return Err(LedgerError::damaged(
                    path,
                    offset,
                    "the records no longer hash to the root that was sealed",
                ));
            }
            match frames.next().map_err(reading)? {
                Next::Frame(frame) => {
                    index.step(frame.offset, &frame.hash);
                    scan.frontier.append(frame.hash);
                }
                Next::End => break,
                Next::Broken { offset, why } if scan.frontier.size() < sealed_size => {
                    return Err(LedgerError::damaged(path, offset, why));
                }
                Next::Broken { offset, .. } => {
                    scan.cut = Some(Cut {
                        offset,
                        bytes: length - offset,
                    });
                    break;
                }
            }
        }
        scan.end = frames.offset();
        if scan.frontier.size() < sealed_size {
            let why = format!(
                "it holds {} records, {sealed_size} were sealed",
                scan.frontier.size()
            );
            return Err(LedgerError::damaged(path, scan.end, why));
        }
        scan.index_good = index.good;
        Ok(scan)
    }
}

/// The index, read in step with the leaves.
struct IndexWalk<'f> {
    from: BufReader<&'f File>,
    good: u64,
    /// Offset of the first leaf whose index record says otherwise.
    first_other: Option<u64>,
    ended: bool,
}

impl<'f> IndexWalk<'f> {
    fn new(index: &'f File) -> std::io::Result<Self> {
        let mut from = BufReader::new(index);
        from.seek(SeekFrom::Start(0))?;
        Ok(Self {
            from,
            good: 0,
            first_other: None,
            ended: false,
        })
    }

    fn step(&mut self, offset: u64, hash: &Digest) {
        let mut record = [0; 40];
        if self.ended || self.from.read_exact(&mut record).is_err() {
            self.ended = true;
        } else if record != index_record(offset, hash) {
            self.first_other.get_or_insert(offset);
        } else if self.first_other.is_none() {
            self.good += 1;
        }
    }
}
