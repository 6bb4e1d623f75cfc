//! The file to be judged: left on the disk where it can be, and worked on by two threads.
//!
//! A bundle of a million records is half a gigabyte. It is read in pieces, each more than once;
//! the library finds out if a piece is not the same again.

use crate::fault::Fault;
use crate::files;
use merestone_evidence::{Digest, Source, Stored};
use merestone_verify::Workers;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The largest file worth reading into memory: what cannot be read twice, like a pipe.
const MOST_IN_MEMORY: u64 = 512 << 20;
/// Read at a time for the digest.
const PIECE: usize = 1 << 20;
/// More threads than this help nobody: the rest is reading.
const MOST_THREADS: usize = 4;

/// A file to be judged.
pub(crate) enum Evidence {
    OnDisk(OnDisk),
    InMemory(Vec<u8>),
}

/// A regular file, of the length that it had when it was opened.
pub(crate) struct OnDisk {
    file: Mutex<File>,
    size: u64,
}

impl Stored for OnDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn fill(&self, at: u64, into: &mut [u8]) -> Result<(), String> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let read = file
            .seek(SeekFrom::Start(at))
            .and_then(|_at| file.read_exact(into));
        read.map_err(|error| error.to_string())
    }
}

impl Evidence {
    pub(crate) fn open(path: &Path) -> Result<Self, Fault> {
        let fault = |error: std::io::Error| Fault::read(path, &error);
        if path.as_os_str() != "-" {
            let file = File::open(path).map_err(fault)?;
            let about = file.metadata().map_err(fault)?;
            if about.is_file() {
                return Ok(Self::OnDisk(OnDisk {
                    file: Mutex::new(file),
                    size: about.len(),
                }));
            }
        }
        files::read(path, MOST_IN_MEMORY).map(Self::InMemory)
    }

    pub(crate) fn source(&self) -> Source<'_> {
        match self {
            Self::OnDisk(file) => Source::Stored(file),
            Self::InMemory(bytes) => Source::Memory(bytes),
        }
    }

    /// Of the whole file.
    pub(crate) fn sha256(&self, path: &Path) -> Result<Digest, Fault> {
        let mut hasher = Sha256::new();
        match self {
            Self::InMemory(bytes) => hasher.update(bytes),
            Self::OnDisk(file) => {
                let mut piece = vec![0; PIECE];
                let mut at = 0;
                while at < file.size {
                    let left = usize::try_from(file.size - at).unwrap_or(PIECE);
                    let piece = piece.get_mut(..left.min(PIECE)).unwrap_or_default();
                    file.fill(at, piece).map_err(|error| Fault::Read {
                        file: path.display().to_string(),
                        error,
                    })?;
                    hasher.update(&*piece);
                    at += piece.len() as u64;
                }
            }
        }
        Ok(Digest(hasher.finalize().into()))
    }
}

/// As many threads as there are processors, up to a few.
pub(crate) struct Threads(usize);

impl Threads {
    pub(crate) fn of_this_machine() -> Self {
        let there = std::thread::available_parallelism().map_or(1, usize::from);
        Self(there.min(MOST_THREADS))
    }
}

impl Workers for Threads {
    fn run(&self, jobs: usize, job: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= jobs {
                    return;
                }
                job(number);
            }
        };
        std::thread::scope(|scope| {
            for number in 1..self.0.min(jobs) {
                let name = format!("verify-{number}");
                // Without further threads the first does it all.
                drop(
                    std::thread::Builder::new()
                        .name(name)
                        .spawn_scoped(scope, work),
                );
            }
            work();
        });
    }
}
