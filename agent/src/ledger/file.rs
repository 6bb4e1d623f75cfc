//! Writing files so that after a power cut they are there whole or not at all.

use super::LedgerError;
use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Records name processes and destinations: for root alone.
pub(crate) const FILE_MODE: u32 = 0o600;

/// Open for reading and appending, made if missing.
pub(crate) fn open_append(path: &Path) -> Result<File, LedgerError> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(FILE_MODE)
        .open(path)
        .map_err(LedgerError::io("open", path))
}

/// Replace `path` by `bytes`, durably: a reader sees the old or the new.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), LedgerError> {
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(&fresh)
        .map_err(LedgerError::io("create", &fresh))?;
    file.write_all(bytes)
        .map_err(LedgerError::io("write", &fresh))?;
    file.sync_all().map_err(LedgerError::io("sync", &fresh))?;
    fs::rename(&fresh, path).map_err(LedgerError::io("rename to", path))?;
    sync_parent(path)?;
    sync_parent(path)
}

/// Make the directory entry of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), LedgerError> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    let directory = File::open(parent).map_err(LedgerError::io("open", parent))?;
    directory
        .sync_all()
        .map_err(LedgerError::io("sync", parent))
}

/// The whole of a file, `None` if there is none, refused above `limit`.
pub(crate) fn read_if_there(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, LedgerError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LedgerError::io("open", path)(error)),
    };
    let mut bytes = Vec::new();
    // One byte more than allowed tells "exactly the limit" from "more".
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(LedgerError::io("read", path))?;
    if bytes.len() as u64 > limit {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        return Err(LedgerError::TooBig {
            got: bytes.len(),
            limit,
        });
    }
    Ok(Some(bytes))
}

/// The same for a file that has to be there.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, LedgerError> {
    read_if_there(path, limit)?.ok_or_else(|| LedgerError::Missing {
        path: path.to_owned(),
    })
}
