//! Which tokens were used: each opens once.
//!
//! A line of hexadecimal for each, synced before the token has any effect.
//! Whoever may write the state directory can make it forget; a token that is
//! used again then is in the evidence twice, and still ends when it says.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The file's name in the state directory.
const NAME: &str = "break-glass-used";

/// The digests of tokens that were used.
#[derive(Debug)]
pub(super) struct Used {
    path: PathBuf,
    known: BTreeSet<String>,
}

impl Used {
    /// Reads what earlier agents wrote down.
    pub(super) fn open(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(NAME);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let known = text.lines().map(ToOwned::to_owned).collect();
        Ok(Self { path, known })
    }

    /// Writes a token down; `false` where it is there already.
    pub(super) fn take(&mut self, sha256: &[u8; 32]) -> io::Result<bool> {
        let digest = hex::encode(sha256);
        if self.known.contains(&digest) {
            return Ok(false);
        }
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)?;
        writeln!(file, "{digest}")?;
        file.sync_all()?;
        self.known.insert(digest);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_once_also_by_the_next_agent() {
        let folder = tempfile::tempdir().unwrap();
        let mut used = Used::open(folder.path()).unwrap();
        assert!(used.take(&[7; 32]).unwrap());
        assert!(!used.take(&[7; 32]).unwrap());
        let mut later = Used::open(folder.path()).unwrap();
        assert!(!later.take(&[7; 32]).unwrap());
        assert!(later.take(&[8; 32]).unwrap());
    }
}
