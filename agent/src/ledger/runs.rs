//! Where each receipt is: sorted runs of ids on the disk, so that millions are found without
//! millions in memory.
//!
//! A run covers a stretch of the receipts' file and is never changed. Ids are as good as random,
//! so a look into one run is one short read about where the id must be; an id that somebody chose
//! costs a binary search. All of it is derived from the receipts' file.

use super::{LedgerError, file};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

const MAGIC: [u8; 8] = *b"mrstrun1";
/// Magic, bytes covered (from, to), ids, offset of the last receipt covered.
const HEAD_BYTES: u64 = 40;
/// Id, offset.
const ENTRY_BYTES: u64 = 24;
/// Entries read around where an id is expected. Of 65,536 random ids the one at a place is off
/// by 128 on the average.
const AROUND: u64 = 400;

#[derive(Debug)]
pub(crate) struct Run {
    path: PathBuf,
    file: File,
    covers: Range<u64>,
    count: u64,
    last: u64,
}

impl Run {
    fn open(path: PathBuf) -> Result<Option<Self>, LedgerError> {
        let file = File::open(&path).map_err(LedgerError::io("open", &path))?;
        let mut head = [[0; 8]; 5];
        for (at, field) in (0..).step_by(8).zip(&mut head) {
            if file.read_exact_at(field, at).is_err() {
                return Ok(None);
            }
        }
        let [magic, from, to, count, last] = head;
        let [from, to, count, last] = [from, to, count, last].map(u64::from_be_bytes);
        let length = file
            .metadata()
            .map_err(LedgerError::io("read", &path))?
            .len();
        let whole = count
            .checked_mul(ENTRY_BYTES)
            .and_then(|bytes| bytes.checked_add(HEAD_BYTES));
        let is_run = magic == MAGIC && whole == Some(length) && from < to && count > 0;
        Ok(is_run.then_some(Self {
            path,
            file,
            covers: from..to,
            count,
            last,
        }))
    }

    pub(crate) fn covers(&self) -> Range<u64> {
        self.covers.clone()
    }

    /// Where the last receipt that it covers begins.
    pub(crate) fn last_offset(&self) -> Option<u64> {
        self.covers.contains(&self.last).then_some(self.last)
    }

    fn entry(&self, at: u64) -> Result<([u8; 16], u64), LedgerError> {
        let (mut id, mut offset) = ([0; 16], [0; 8]);
        let begin = HEAD_BYTES + at * ENTRY_BYTES;
        let reading = |error| LedgerError::io("read", &self.path)(error);
        self.file.read_exact_at(&mut id, begin).map_err(reading)?;
        self.file
            .read_exact_at(&mut offset, begin + 16)
            .map_err(reading)?;
        Ok((id, u64::from_be_bytes(offset)))
    }

    fn find(&self, id: &[u8; 16]) -> Result<Option<u64>, LedgerError> {
        let (prefix, _) = id.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let prefix = u64::from_be_bytes(*prefix);
        let expected = u64::try_from((u128::from(prefix) * u128::from(self.count)) >> 64);
        let expected = expected.unwrap_or(0);
        let from = expected.saturating_sub(AROUND);
        let to = expected.saturating_add(AROUND).min(self.count);
        let bytes = usize::try_from((to - from) * ENTRY_BYTES).unwrap_or(0);
        let mut near = vec![0; bytes];
        self.file
            .read_exact_at(&mut near, HEAD_BYTES + from * ENTRY_BYTES)
            .map_err(LedgerError::io("read", &self.path))?;
        let (near, _) = near.as_chunks::<24>();
        let of = |entry: &[u8; 24]| -> ([u8; 16], [u8; 8]) {
            let (id, offset) = entry.split_at(16);
            (
                id.try_into().unwrap_or_default(),
                offset.try_into().unwrap_or_default(),
            )
        };
        let ids = |entry: &[u8; 24]| of(entry).0;
        let is_here = |low: bool, entry: Option<&[u8; 24]>| {
            entry.is_some_and(|entry| {
                if low {
                    ids(entry) <= *id
                } else {
                    ids(entry) >= *id
                }
            })
        };
        let covered = (from == 0 || is_here(true, near.first()))
            && (to == self.count || is_here(false, near.last()));
        if covered {
            let place = near.binary_search_by(|entry| ids(entry).cmp(id));
            let found = place.ok().and_then(|place| near.get(place));
            return Ok(found.map(|entry| u64::from_be_bytes(of(entry).1)));
        }
        self.search(id)
    }

    fn search(&self, id: &[u8; 16]) -> Result<Option<u64>, LedgerError> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let (found, offset) = self.entry(middle)?;
            match found.cmp(id) {
                std::cmp::Ordering::Equal => return Ok(Some(offset)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }
}

/// All runs, each where the one before it ends.
#[derive(Debug)]
pub(crate) struct Runs {
    directory: PathBuf,
    runs: Vec<Run>,
}

impl Runs {
    pub(crate) fn open(log: &Path) -> Result<Self, LedgerError> {
        let directory = log.join("receipts.d");
        let mut found = BTreeMap::new();
        match fs::read_dir(&directory) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry.map_err(LedgerError::io("read", &directory))?;
                    if entry.path().extension().is_none()
                        && let Some(run) = Run::open(entry.path())?
                    {
                        found.insert(run.covers.start, run);
                    }
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(LedgerError::io("read", directory)(error)),
        }
        let mut runs = Self {
            directory,
            runs: Vec::new(),
        };
        for run in found.into_values() {
            if run.covers.start == runs.end() {
                runs.runs.push(run);
            }
        }
        Ok(runs)
    }

    /// Where the last one ends.
    pub(crate) fn end(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.covers.end)
    }

    pub(crate) fn starts(&self) -> impl Iterator<Item = u64> {
        self.runs.iter().map(|run| run.covers.start)
    }

    /// Takes away, from the last one back, what covers more than `length` bytes or does not hold.
    pub(crate) fn forget_beyond(
        &mut self,
        length: u64,
        holds: impl Fn(&Run) -> bool,
    ) -> Result<(), LedgerError> {
        while let Some(run) = self
            .runs
            .pop_if(|run| run.covers.end > length || !holds(run))
        {
            fs::remove_file(&run.path).map_err(LedgerError::io("remove", &run.path))?;
        }
        Ok(())
    }

    pub(crate) fn add(
        &mut self,
        covers: Range<u64>,
        ids: &BTreeMap<[u8; 16], u64>,
    ) -> Result<(), LedgerError> {
        file::make_directory_durable(&self.directory)?;
        let last = ids.values().copied().max().unwrap_or(covers.start);
        let mut bytes = MAGIC.to_vec();
        for field in [covers.start, covers.end, ids.len() as u64, last] {
            bytes.extend(field.to_be_bytes());
        }
        for (id, offset) in ids {
            bytes.extend(id);
            bytes.extend(offset.to_be_bytes());
        }
        let path = self.directory.join(format!("{:016x}", covers.start));
        file::replace(&path, &bytes)?;
        self.runs.extend(Run::open(path)?);
        Ok(())
    }

    /// Where the receipt of an id begins. The newest is asked first.
    pub(crate) fn find(&self, id: &[u8; 16]) -> Result<Option<u64>, LedgerError> {
        for run in self.runs.iter().rev() {
            if let Some(offset) = run.find(id)? {
                return Ok(Some(offset));
            }
        }
        Ok(None)
    }
}
