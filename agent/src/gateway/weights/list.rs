//! Hashing files once, and the text whose digest stands for all of them.

use rustix::fs::{AtFlags, Statx, StatxFlags};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

/// Which content: what changes with every change of it. A change time cannot
/// be set.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Key {
    pub(super) device: (u32, u32),
    pub(super) inode: u64,
    pub(super) size: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

impl Key {
    fn from_stat(stat: &Statx) -> Self {
        Self {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            size: stat.stx_size,
            modified: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            changed: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        }
    }

    /// Of an open file, if it is a regular one.
    pub(super) fn of(file: &File) -> Option<Self> {
        let stat =
            rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).ok()?;
        let kind = rustix::fs::FileType::from_raw_mode(stat.stx_mode.into());
        kind.is_file().then(|| Self::from_stat(&stat))
    }
}

/// A weight file.
#[derive(Debug)]
pub(super) struct Weight {
    /// As it is told.
    pub(super) name: PathBuf,
    pub(super) file: Option<File>,
    pub(super) key: Key,
}

/// The digests known.
#[derive(Debug, Default)]
pub(super) struct Digests(BTreeMap<Key, [u8; 32]>);

impl Digests {
    /// The file's digest; hashed if it is not known. `None` where it cannot be
    /// read, or changed meanwhile.
    pub(super) fn of(&mut self, weight: &Weight) -> Option<[u8; 32]> {
        if let Some(known) = self.0.get(&weight.key) {
            return Some(*known);
        }
        let mut file = weight.file.as_ref()?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = file.read(&mut buffer).ok()?;
            match buffer.get(..count)? {
                [] => break,
                bytes => hash.update(bytes),
            }
        }
        if Key::of(file)? != weight.key {
            return None;
        }
        let digest = hash.finalize().into();
        self.0.insert(weight.key, digest);
        Some(digest)
    }
}

/// The list: one line each, sorted by name as bytes.
pub(super) fn text(how: &str, files: &[Weight], digests: &mut Digests) -> Option<String> {
    let mut lines = Vec::with_capacity(files.len());
    for weight in files {
        let digest = digests.of(weight)?;
        let name = escaped(&weight.name);
        lines.push((name, weight.key.size, hex::encode(digest)));
    }
    lines.sort();
    lines.dedup();
    let mut text = format!("merestone model files 1 {how}\n");
    for (name, size, digest) in lines {
        // Writing to a string cannot fail.
        writeln!(text, "{digest} {size} {name}").ok();
    }
    Some(text)
}

/// A name on one line.
fn escaped(name: &Path) -> String {
    let bytes = name.as_os_str().as_encoded_bytes();
    if bytes
        .iter()
        .all(|byte| byte.is_ascii_graphic() && *byte != b'\\')
    {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let parts = bytes.iter().map(|byte| match byte {
        b'\\' => "\\x5c".to_owned(),
        byte if byte.is_ascii_graphic() => char::from(*byte).to_string(),
        byte => format!("\\x{byte:02x}"),
    });
    parts.collect()
}

/// The deepest directory that holds all of them.
pub(super) fn common<'p>(paths: impl Iterator<Item = &'p Path>) -> PathBuf {
    let mut common: Option<Vec<Component<'p>>> = None;
    for path in paths {
        let folder: Vec<_> = path.parent().unwrap_or(path).components().collect();
        common = Some(match common {
            None => folder,
            Some(before) => {
                let same = before
                    .iter()
                    .zip(&folder)
                    .take_while(|(one, other)| one == other);
                let count = same.count();
                folder.into_iter().take(count).collect()
            }
        });
    }
    common.unwrap_or_default().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn weight(path: &Path, name: &str) -> Weight {
        let file = File::open(path).unwrap();
        Weight {
            name: name.into(),
            key: Key::of(&file).unwrap(),
            file: Some(file),
        }
    }

    #[test]
    fn the_list_is_what_sha256sum_says_of_each_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b.gguf");
        std::fs::write(&path, b"abc").unwrap();
        let files = [weight(&path, "z.gguf"), weight(&path, "a b\n.gguf")];
        let text = text("named", &files, &mut Digests::default()).unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let expected =
            format!("merestone model files 1 named\n{abc} 3 a\\x20b\\x0a.gguf\n{abc} 3 z.gguf\n");
        assert_eq!(text, expected);
    }

    #[test]
    fn a_file_is_hashed_once_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        std::fs::write(&path, b"abc").unwrap();
        let mut digests = Digests::default();
        let first = digests.of(&weight(&path, "a")).unwrap();
        let again = Weight {
            file: None,
            ..weight(&path, "a")
        };
        assert_eq!(digests.of(&again), Some(first));
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"d").unwrap();
        assert_eq!(digests.of(&again), Some(first));
        assert_ne!(digests.of(&weight(&path, "a")), Some(first));
        // Changed between the look and the reading.
        let before = weight(&path, "a");
        file.write_all(b"e").unwrap();
        assert_eq!(digests.of(&before), None);
    }

    #[test]
    fn names_are_below_the_deepest_common_directory() {
        let paths = ["/m/x/1/a", "/m/x/2/b", "/m/x/c"].map(Path::new);
        assert_eq!(common(paths.into_iter()), Path::new("/m/x"));
        assert_eq!(common([Path::new("/m/x/a")].into_iter()), Path::new("/m/x"));
    }
}
