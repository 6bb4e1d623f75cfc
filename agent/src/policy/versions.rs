//! No way back: which versions of signed boundaries were accepted.
//!
//! Kept in the agent's state directory. A signed boundary whose version is
//! lower than one that was accepted is refused, and so is one of the same
//! version that is not the same file: an old boundary, however well signed,
//! does not come back. Whoever can write the state directory is root, and root
//! can do more than that; but a file that cannot be read is an error, never a
//! new beginning.

use super::Compiled;
use crate::config::fault::{Faults, Origin};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The file's name in the state directory.
const NAME: &str = "boundary-versions.json";
/// Larger ones were not written here.
const LIMIT_BYTES: u64 = 1 << 20;

/// The highest version of each file of a boundary.
#[derive(Debug)]
pub struct Versions {
    path: PathBuf,
    seen: BTreeMap<String, Seen>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    version: u64,
    /// SHA-256 of the file, hexadecimal.
    sha256: String,
}

impl Versions {
    /// Reads what was accepted so far; nothing, where there is no such file.
    pub fn open(state_dir: &Path) -> Result<Self, Faults> {
        let path = state_dir.join(NAME);
        if !path.exists() {
            return Ok(Self {
                path,
                seen: BTreeMap::new(),
            });
        }
        let bytes = crate::config::fault::read(&path, LIMIT_BYTES)?;
        match serde_json::from_slice(&bytes) {
            Ok(seen) => Ok(Self { path, seen }),
            Err(error) => {
                let hint = "put the file back; without it, an older boundary could come back";
                Err(one(&path, error.to_string(), hint))
            }
        }
    }

    /// Accepts a boundary and remembers it, or says what it would take back.
    pub fn accept(mut self, boundary: &Compiled) -> Result<(), Faults> {
        let mut faults = Faults::new();
        for part in &boundary.parts {
            let version = part.version.unwrap_or(0);
            let sha256 = hex::encode(part.digest);
            if let Some(seen) = self.seen.get(&part.stem) {
                let message = if version < seen.version {
                    format!(
                        "version {version} is older than version {}, which was in force",
                        seen.version
                    )
                } else if version == seen.version && sha256 != seen.sha256 {
                    format!("version {version} was in force with other contents")
                } else {
                    continue;
                };
                let place = Origin::Whole {
                    path: part.path.clone(),
                };
                let hint = format!(
                    "give it a version above {} and have it signed",
                    seen.version
                );
                faults.push(place, message, hint);
            }
        }
        faults.into_result(())?;
        for part in &boundary.parts {
            let seen = Seen {
                version: part.version.unwrap_or(0),
                sha256: hex::encode(part.digest),
            };
            self.seen.insert(part.stem.clone(), seen);
        }
        self.write().map_err(|error| {
            let hint = "is the state directory there, and not full?";
            one(&self.path, format!("cannot be written: {error}"), hint)
        })
    }

    fn write(&self) -> std::io::Result<()> {
        let bytes = serde_json::to_vec_pretty(&self.seen)?;
        replace(&self.path, &bytes)
    }
}

fn one(path: &Path, message: String, hint: &str) -> Faults {
    let mut faults = Faults::new();
    let path = path.to_owned();
    faults.push(Origin::Whole { path }, message, hint);
    faults
}

/// Writes a file whole and for good: after a crash there is the old one or the
/// new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder)?;
    let fresh = path.with_extension("new");
    let mut file = std::fs::File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::{compile, parse};
    use super::*;

    fn boundary(version: u64, comment: &str) -> Compiled {
        let text = format!("name = \"n\"\nversion = {version}\n# {comment}\n");
        compile(&parse(Path::new("b.toml"), text.into()).unwrap()).unwrap()
    }

    #[test]
    fn an_older_version_does_not_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let accept = |version, comment| {
            let versions = Versions::open(directory.path()).unwrap();
            versions.accept(&boundary(version, comment))
        };
        accept(3, "a").unwrap();
        accept(3, "a").unwrap();
        let error = accept(3, "b").unwrap_err().to_string();
        assert!(error.contains("version 3 was in force with other contents"));
        let error = accept(2, "a").unwrap_err().to_string();
        assert!(error.contains("version 2 is older than version 3"));
        accept(4, "b").unwrap();
        assert!(accept(3, "a").is_err());
    }

    #[test]
    fn a_broken_memory_is_no_new_beginning() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(NAME), "{").unwrap();
        assert!(Versions::open(directory.path()).is_err());
    }
}
