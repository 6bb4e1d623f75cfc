//! Which file NVML was loaded from, and whether it is a test library.
//!
//! The digest is of the file that is mapped, found by the address of one of its functions: a path
//! alone says nothing after the file was replaced.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// No NVML library is larger; a file that is would not be one.
const MAX_BYTES: u64 = 512 << 20;

/// The loaded NVML library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LibraryIdentity {
    /// The path it was mapped from.
    pub path: PathBuf,
    /// SHA-256 of the mapped file, in hex; `None` when the file could not be read.
    pub sha256: Option<String>,
    /// Whether it is a test library: named by the configuration, or marked as one.
    pub test: bool,
}

/// Whether a library may be used: a test library in a release build only if it was allowed.
pub(super) const fn permitted(test: bool, release_build: bool, allowed: bool) -> bool {
    !test || !release_build || allowed
}

/// One line of `/proc/self/maps`.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    range: String,
    path: PathBuf,
}

/// Finds the file that is mapped at `address`.
pub(super) fn identify(address: usize, test: bool) -> Option<LibraryIdentity> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let mapping = maps.lines().find_map(|line| parse(line, address))?;
    let sha256 = open(&mapping).and_then(digest);
    Some(LibraryIdentity {
        path: mapping.path,
        sha256,
        test,
    })
}

/// The mapping of a line if it holds `address` and is of a file.
fn parse(line: &str, address: usize) -> Option<Mapping> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    if !(start..end).contains(&address) {
        return None;
    }
    // perms offset dev inode path: the path begins at the first slash, as none before has one.
    let path = rest.get(rest.find('/')?..)?;
    Some(Mapping {
        range: range.to_owned(),
        // show_map_vma escapes a newline in it (fs/proc/task_mmu.c).
        path: PathBuf::from(path.replace("\\012", "\n")),
    })
}

/// The mapped file itself where the kernel lets us (`CAP_CHECKPOINT_RESTORE`), else the path if it
/// was not deleted.
fn open(mapping: &Mapping) -> Option<File> {
    let exact = Path::new("/proc/self/map_files").join(&mapping.range);
    File::open(exact).ok().or_else(|| {
        let deleted = mapping.path.as_os_str().to_str()?.ends_with(" (deleted)");
        if deleted {
            None
        } else {
            File::open(&mapping.path).ok()
        }
    })
}

fn digest(file: File) -> Option<String> {
    let size = file.metadata().ok()?.len();
    if size > MAX_BYTES {
        return None;
    }
    let mut hash = Sha256::new();
    let mut reader = file.take(MAX_BYTES);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = reader.read(&mut buffer).ok()?;
        match buffer.get(..count)? {
            [] => return Some(hex::encode(hash.finalize())),
            bytes => hash.update(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{identify, parse, permitted};
    use std::path::Path;

    #[test]
    fn a_release_build_takes_a_test_library_only_when_it_was_allowed() {
        assert!(permitted(false, true, false));
        assert!(permitted(true, false, false));
        assert!(permitted(true, true, true));
        assert!(!permitted(true, true, false));
    }

    #[test]
    fn a_mapping_is_found_by_an_address_inside_it() {
        let line = "7f10-7f20 r-xp 00001000 fe:01 77   /opt/a b/lib\\012x.so";
        let found = parse(line, 0x7f1f).unwrap();
        assert_eq!(found.path, Path::new("/opt/a b/lib\nx.so"));
        assert_eq!(parse(line, 0x7f20), None);
        assert_eq!(
            parse("7f10-7f20 rw-p 00000000 00:00 0 [heap]", 0x7f10),
            None
        );
        assert_eq!(parse("", 0), None);
    }

    #[test]
    fn the_digest_is_of_the_file_that_is_mapped() {
        let here = identify as *const () as usize;
        let found = identify(here, false).unwrap();
        let own = std::env::current_exe().unwrap();
        assert_eq!(found.path, own);
        assert_eq!(found.sha256.map(|digest| digest.len()), Some(64));
    }
}
