//! The digest of a process's program, within bounds.
//!
//! The kernel's own link `/proc/PID/exe` is read, so the bytes are those that run, also when the path
//! was deleted or replaced. A file system in user space could keep a reader waiting for ever, so the
//! reading is done by a thread; the caller waits [`PATIENCE`] and finds the result in the cache later.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{AtFlags, Statx, StatxFlags};
use sha2::{Digest as _, Sha256};

use super::proc::Entry;

/// How long the caller waits.
const PATIENCE: Duration = Duration::from_millis(250);
/// A larger program gets no digest.
const MAX_BYTES: u64 = 2 << 30;
/// How many programs are read at once; a stuck one holds its place.
const MAX_READING: usize = 4;
/// How many digests are remembered.
const MAX_KNOWN: usize = 4096;

/// Which content: the file, and what changes with every change of it. A change time cannot be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    device: (u32, u32),
    inode: u64,
    size: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

struct Cache {
    known: BTreeMap<Key, String>,
    reading: BTreeSet<Key>,
}

static CACHE: Mutex<Cache> = Mutex::new(Cache {
    known: BTreeMap::new(),
    reading: BTreeSet::new(),
});

fn cache() -> MutexGuard<'static, Cache> {
    CACHE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The digest of the program, in hex.
pub(super) fn of(process: &Entry) -> Option<String> {
    let key = key(&process.exe_stat()?);
    if key.size > MAX_BYTES {
        return None;
    }
    let found = {
        let mut cache = cache();
        if let Some(known) = cache.known.get(&key) {
            return Some(known.clone());
        }
        if cache.reading.len() >= MAX_READING || !cache.reading.insert(key) {
            return None;
        }
        drop(cache);
        start(process, key)
    };
    found?.recv_timeout(PATIENCE).ok()
}

fn start(process: &Entry, key: Key) -> Option<mpsc::Receiver<String>> {
    let (sender, receiver) = mpsc::channel();
    let started = process.duplicate().map(|process| {
        std::thread::Builder::new()
            .name("exe-digest".into())
            .spawn(move || read(&process, key, &sender))
    });
    if let Some(Ok(_)) = started {
        Some(receiver)
    } else {
        cache().reading.remove(&key);
        None
    }
}

fn read(process: &Entry, key: Key, sender: &Sender<String>) {
    let digest = hash(process, key);
    let mut cache = cache();
    cache.reading.remove(&key);
    let Some(digest) = digest else { return };
    if cache.known.len() >= MAX_KNOWN {
        cache.known.clear();
    }
    cache.known.insert(key, digest.clone());
    drop(cache);
    // The caller may have stopped waiting; the cache has it.
    sender.send(digest).ok();
}

/// The content's digest, if it is that content before and after: an exec in between is seen, and a
/// write too.
fn hash(process: &Entry, wanted: Key) -> Option<String> {
    let file = process.open_exe()?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut reader = (&file).take(MAX_BYTES);
    loop {
        let count = reader.read(&mut buffer).ok()?;
        match buffer.get(..count)? {
            [] => break,
            bytes => hash.update(bytes),
        }
    }
    let flags = AtFlags::EMPTY_PATH;
    let after = rustix::fs::statx(&file, "", flags, StatxFlags::BASIC_STATS).ok()?;
    (key(&after) == wanted).then(|| hex::encode(hash.finalize()))
}

fn key(stat: &Statx) -> Key {
    Key {
        device: (stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
        size: stat.stx_size,
        modified: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        changed: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
    }
}
