//! The event file: one JSON object a line, reopened on SIGHUP for log rotation.
//!
//! A disk that is full or gone never stops enforcement: the line is counted as
//! lost, and the evidence log, which has its own rules, still has the entry.

use crate::flow::FlowEvent;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The file, where one is configured.
#[derive(Debug, Default)]
pub(super) struct Jsonl {
    path: Option<PathBuf>,
    file: Option<File>,
    lost: u64,
}

impl Jsonl {
    /// Opens the file for appending, its folder made where it is missing.
    pub(super) fn open(path: Option<&Path>) -> io::Result<Self> {
        let mut this = Self {
            path: path.map(Path::to_owned),
            ..Self::default()
        };
        this.reopen()?;
        Ok(this)
    }

    /// Opens the file again, after it was moved away.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o640)
            .open(path)?;
        self.file = Some(file);
        Ok(())
    }

    /// Writes one line.
    pub(super) fn write(&mut self, event: &FlowEvent) {
        let Some(file) = &mut self.file else {
            return;
        };
        let written = serde_json::to_vec(event)
            .map_err(io::Error::other)
            .and_then(|mut line| {
                line.push(b'\n');
                file.write_all(&line)
            });
        if let Err(error) = written {
            if self.lost == 0 {
                tracing::error!(%error, "cannot write the event file; lines are lost");
            }
            self.lost += 1;
        }
    }

    /// Lines that could not be written.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Names;

    #[test]
    fn a_rotated_file_is_followed_after_reopen() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log/events.jsonl");
        let mut jsonl = Jsonl::open(Some(&path)).expect("opens");
        let event = FlowEvent::new(&merestone_abi::Event::default(), Names::default(), 1);
        jsonl.write(&event);
        std::fs::rename(&path, folder.path().join("log/old")).expect("moves");
        jsonl.write(&event);
        jsonl.reopen().expect("opens again");
        jsonl.write(&event);
        let lines = |path: &Path| {
            std::fs::read_to_string(path)
                .expect("reads")
                .lines()
                .count()
        };
        assert_eq!(lines(&folder.path().join("log/old")), 2);
        assert_eq!(lines(&path), 1);
    }

    #[test]
    fn a_full_disk_is_counted_and_not_fatal() {
        let mut jsonl = Jsonl {
            path: None,
            file: Some(
                OpenOptions::new()
                    .write(true)
                    .open("/dev/full")
                    .expect("opens"),
            ),
            lost: 0,
        };
        let event = FlowEvent::new(&merestone_abi::Event::default(), Names::default(), 1);
        jsonl.write(&event);
        jsonl.write(&event);
        assert_eq!(jsonl.lost(), 2);
    }
}
