//! Writing files so that after a power cut they are there whole or not at all.
//!
//! Everything that changes the log on disk goes through here, one call a change, so that the
//! tests can record what was asked of the disk and replay it as a power cut would leave it.

use super::LedgerError;
use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// Records name processes and destinations: for root alone.
pub(crate) const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// In tests, says what is about to be done to the disk; a test may have it fail.
macro_rules! tell {
    ($op:ident $fields:tt) => {
        #[cfg(test)]
        super::power::tell(super::power::Op::$op $fields)?;
    };
}

/// A file that grows at its end, and is cut back where that failed.
#[derive(Debug)]
pub(crate) struct Appended {
    file: File,
    #[cfg(test)]
    path: PathBuf,
}

impl Appended {
    /// Open for reading and appending, made if missing.
    pub(crate) fn open(path: &Path) -> Result<Self, LedgerError> {
        let open = || -> io::Result<File> {
            tell!(Create {
                path: path.to_owned()
            });
            OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .mode(FILE_MODE)
                .open(path)
        };
        Ok(Self {
            file: open().map_err(LedgerError::io("open", path))?,
            #[cfg(test)]
            path: path.to_owned(),
        })
    }

    /// For reading.
    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    pub(crate) fn append(&self, bytes: &[u8]) -> io::Result<()> {
        tell!(Append {
            path: self.path.clone(),
            bytes: bytes.to_vec(),
        });
        (&self.file).write_all(bytes)
    }

    pub(crate) fn cut(&self, length: u64) -> io::Result<()> {
        tell!(Cut {
            path: self.path.clone(),
            length,
        });
        self.file.set_len(length)
    }

    /// Returns when every byte so far, and the length, are on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        tell!(Sync {
            path: self.path.clone(),
        });
        self.file.sync_data()
    }
}

/// Open for reading and appending, made if missing; what is done with it is not heard of.
pub(crate) fn open_append(path: &Path) -> Result<File, LedgerError> {
    Appended::open(path).map(|appended| appended.file)
}

/// Replace `path` by `bytes`, durably: a reader sees the old or the new.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), LedgerError> {
    place(&path.with_extension("new"), path, bytes)?;
    sync_parent(path)
}

/// Write `bytes` to `fresh`, sync them, and rename it to `path`. That name is durable once its
/// directory is synced.
pub(crate) fn place(fresh: &Path, path: &Path, bytes: &[u8]) -> Result<(), LedgerError> {
    let create = || -> io::Result<File> {
        tell!(Truncate {
            path: fresh.to_owned(),
        });
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(fresh)
    };
    let write = |mut file: &File| -> io::Result<()> {
        tell!(Append {
            path: fresh.to_owned(),
            bytes: bytes.to_vec(),
        });
        file.write_all(bytes)
    };
    let sync = |file: &File| -> io::Result<()> {
        tell!(Sync {
            path: fresh.to_owned(),
        });
        file.sync_all()
    };
    let rename = || -> io::Result<()> {
        tell!(Rename {
            from: fresh.to_owned(),
            to: path.to_owned(),
        });
        fs::rename(fresh, path)
    };
    let file = create().map_err(LedgerError::io("create", fresh))?;
    write(&file).map_err(LedgerError::io("write", fresh))?;
    sync(&file).map_err(LedgerError::io("sync", fresh))?;
    rename().map_err(LedgerError::io("rename to", path))
}

/// Make the directory entry of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), LedgerError> {
    path.parent().map_or(Ok(()), sync_directory)
}

/// Make the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), LedgerError> {
    // The parent of a relative name of one part.
    let path = if path.as_os_str() == OsStr::new("") {
        Path::new(".")
    } else {
        path
    };
    let sync = || -> io::Result<()> {
        tell!(SyncDirectory {
            path: path.to_owned(),
        });
        File::open(path)?.sync_all()
    };
    sync().map_err(LedgerError::io("sync", path))
}

/// Make a directory for root alone, and those above it. The directories whose names for it are
/// not durable yet are added to `unsynced`.
pub(crate) fn make_directory(path: &Path, unsynced: &mut Vec<PathBuf>) -> Result<(), LedgerError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_directory(parent, unsynced)?;
    }
    let make = || -> io::Result<()> {
        tell!(MakeDirectory {
            path: path.to_owned(),
        });
        DirBuilder::new().mode(DIRECTORY_MODE).create(path)
    };
    make().map_err(LedgerError::io("create", path))?;
    unsynced.push(parent.unwrap_or(Path::new(".")).to_owned());
    Ok(())
}

/// The same, durable when it returns; also where a killed process made it and synced nothing.
pub(crate) fn make_directory_durable(path: &Path) -> Result<(), LedgerError> {
    let mut unsynced = Vec::new();
    make_directory(path, &mut unsynced)?;
    unsynced.extend(path.ancestors().skip(1).take(2).map(Path::to_owned));
    unsynced.iter().try_for_each(|path| sync_directory(path))
}

/// Remove a directory of files, if it is there. What a crash leaves of it is removed again.
pub(crate) fn remove_directory(path: &Path) -> Result<(), LedgerError> {
    let remove = || -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            tell!(Remove { path: path.clone() });
            fs::remove_file(path)?;
        }
        tell!(RemoveDirectory {
            path: path.to_owned(),
        });
        fs::remove_dir(path)
    };
    match remove() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other.map_err(LedgerError::io("remove", path)),
    }
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
