//! A disk that loses power, for tests: what was asked of it, and what it may have kept.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's own disk")]

use std::{cell::RefCell, io, path::PathBuf};

/// One thing that was asked of the disk.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// A file is there, empty if it was not.
    Create {
        path: PathBuf,
    },
    /// A file is there and empty.
    Truncate {
        path: PathBuf,
    },
    Append {
        path: PathBuf,
        bytes: Vec<u8>,
    },
    Cut {
        path: PathBuf,
        length: u64,
    },
    Sync {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    SyncDirectory {
        path: PathBuf,
    },
    MakeDirectory {
        path: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    RemoveDirectory {
        path: PathBuf,
    },
}

thread_local! {
    static RECORD: RefCell<Option<Vec<Op>>> = const { RefCell::new(None) };
}

/// Called before each change.
pub(crate) fn tell(op: Op) -> io::Result<()> {
    RECORD.with_borrow_mut(|record| {
        if let Some(record) = record {
            record.push(op);
        }
    });
    Ok(())
}
