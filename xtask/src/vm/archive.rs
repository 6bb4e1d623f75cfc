//! The initial ramdisk: a cpio archive in the form the kernel reads
//! (Documentation/driver-api/early-userspace/buffer-format.rst), written here
//! so that it needs no root and is the same bytes every time.
//!
//! It is small on purpose: the firmware hashes it into a PCR.

use anyhow::{Context as _, Result};

/// An archive in the making.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    pub(crate) fn directory(&mut self, path: &str) -> Result<()> {
        self.entry(path, 0o040_755, &[])
    }

    pub(crate) fn program(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.entry(path, 0o100_755, content)
    }

    pub(crate) fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.entry(path, 0o100_644, content)
    }

    pub(crate) fn link(&mut self, path: &str, to: &str) -> Result<()> {
        self.entry(path, 0o120_777, to.as_bytes())
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len()).with_context(|| format!("{path} is too large"))?;
        let name_size = u32::try_from(path.len() + 1)?;
        self.inode += 1;
        // magic, ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor,
        // rdevmajor, rdevminor, namesize, check
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_header_and_content_starts_at_a_multiple_of_four() {
        let mut archive = Archive::default();
        archive.directory("d").unwrap();
        archive.file("d/f", b"12345").unwrap();
        let bytes = archive.finish().unwrap();
        let headers: Vec<usize> = (0..bytes.len() - 5)
            .filter(|at| &bytes[*at..at + 6] == b"070701")
            .collect();
        assert_eq!(headers.len(), 3);
        assert!(headers.iter().all(|at| at % 4 == 0));
    }
}
