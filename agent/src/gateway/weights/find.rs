//! Finding weight files: in what the operator named, or among what processes
//! of this cgroup hold open or have mapped.

use super::list::{Key, Weight, common};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// How weight files are called.
const ENDINGS: [&str; 12] = [
    "safetensors",
    "gguf",
    "ggml",
    "bin",
    "pt",
    "pth",
    "ckpt",
    "onnx",
    "engine",
    "plan",
    "npz",
    "h5",
];
/// Smaller ones that a process opens are caches and settings.
const LEAST_OPENED_BYTES: u64 = 1 << 20;
/// Files and directories looked at below what the operator named.
const MOST_NAMED: usize = 16_384;

/// Whether a path is called like a weight file. Caches of downloads call them
/// by their digest (`blobs/<64 hex>`, `blobs/sha256-<64 hex>`).
fn is_weight(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    if ending.is_some_and(|ending| ENDINGS.contains(&ending.to_ascii_lowercase().as_str())) {
        return true;
    }
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let digest = name.strip_prefix("sha256-").unwrap_or(name);
    let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest
        && path
            .parent()
            .is_some_and(|parent| parent.ends_with("blobs"))
}

fn open(path: &Path) -> Option<File> {
    // A pipe of that name must not hold us.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits();
    let mut options = File::options();
    options
        .read(true)
        .custom_flags(i32::try_from(nonblock).ok()?);
    options.open(path).ok()
}

/// The files below what the operator named; symbolic links to files are
/// followed, to directories not.
pub(super) fn named(paths: &[PathBuf]) -> Vec<Weight> {
    let mut found = Vec::new();
    let mut looked = 0;
    for root in paths {
        let base = if root.is_dir() {
            root.as_path()
        } else {
            root.parent().unwrap_or(root)
        };
        let mut open_paths = vec![root.clone()];
        while let Some(path) = open_paths.pop() {
            looked += 1;
            if looked > MOST_NAMED {
                tracing::warn!("more than {MOST_NAMED} files are named: no digest of the model");
                return Vec::new();
            }
            let is_link = path.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
            if path.is_dir() {
                if !is_link || path == *root {
                    let entries = fs::read_dir(&path).into_iter().flatten().flatten();
                    open_paths.extend(entries.map(|entry| entry.path()));
                }
            } else if (is_weight(&path) || path == *root)
                && let Some(file) = open(&path)
                && let Some(key) = Key::of(&file)
            {
                let name = path.strip_prefix(base).unwrap_or(&path).to_owned();
                found.push(Weight {
                    name,
                    file: Some(file),
                    key,
                });
            }
        }
    }
    found
}

/// A process: its id and when it started.
type Process = (u32, u64);

/// What was seen open, for as long as one who opened it lives.
#[derive(Debug, Default)]
pub(super) struct Seen {
    files: BTreeMap<PathBuf, (Key, BTreeSet<Process>)>,
}

impl Seen {
    /// Looks at every process of this cgroup, or at those that descend from
    /// this one; nothing is told unless one of them listens on the server's
    /// port.
    pub(super) fn look(&mut self, port: u16, below: bool) -> Vec<Weight> {
        let processes: BTreeSet<Process> = members(below).into_iter().collect();
        let opened = self.look_at(&processes);
        let sockets = listeners(port);
        let has_server = processes.iter().any(|(pid, _)| holds(*pid, &sockets));
        if has_server { opened } else { Vec::new() }
    }

    fn look_at(&mut self, processes: &BTreeSet<Process>) -> Vec<Weight> {
        let mut handles = BTreeMap::new();
        for process in processes {
            for (path, file) in open_files(process.0) {
                let Some(key) = Key::of(&file).filter(|key| key.size >= LEAST_OPENED_BYTES) else {
                    continue;
                };
                let (known, owners) = self
                    .files
                    .entry(path)
                    .or_insert_with(|| (key, BTreeSet::new()));
                *known = key;
                owners.insert(*process);
                handles.entry(key).or_insert(file);
            }
        }
        self.files.retain(|_, (_, owners)| {
            owners.retain(|owner| processes.contains(owner));
            !owners.is_empty()
        });
        let folder = common(self.files.keys().map(PathBuf::as_path));
        let weights = self.files.iter().map(|(path, (key, _))| Weight {
            name: path.strip_prefix(&folder).unwrap_or(path).to_owned(),
            file: handles.remove(key),
            key: *key,
        });
        weights.collect()
    }
}

/// The processes of this one's cgroup but itself; where `below` only those that
/// descend from it.
fn members(below: bool) -> Vec<Process> {
    let own = std::process::id();
    let cgroup = |pid: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let line = text.lines().find(|line| line.starts_with("0::"));
        line.map(ToOwned::to_owned)
    };
    let Some(ours) = cgroup("self") else {
        return Vec::new();
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let all: BTreeMap<u32, (u32, u64)> = ids.filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let descends = |pid: u32| {
        let parents =
            std::iter::successors(Some(pid), |pid| all.get(pid).map(|(parent, _)| *parent));
        // Ids are used again: a torn reading could have a loop.
        parents.take(64).any(|parent| parent == own)
    };
    let wanted = all
        .iter()
        .filter(|(pid, _)| **pid != own && (!below || descends(**pid)));
    let here = wanted.filter(|(pid, _)| cgroup(&pid.to_string()).is_some_and(|one| one == ours));
    here.map(|(pid, (_, started))| (*pid, *started)).collect()
}

/// A process's parent and when it started: fields 4 and 22 of its `stat`, after
/// the last `)`.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_ascii_whitespace();
    let parent = fields.nth(4 - 3)?.parse().ok()?;
    Some((parent, fields.nth(22 - 5)?.parse().ok()?))
}

/// Weight files that a process holds open or has mapped.
fn open_files(pid: u32) -> Vec<(PathBuf, File)> {
    let mut found = BTreeMap::new();
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    for entry in entries {
        if let Ok(path) = fs::read_link(entry.path())
            && is_weight(&path)
            && let Some(file) = open(&entry.path())
        {
            found.insert(path, file);
        }
    }
    for (path, inode) in mapped(&fs::read(format!("/proc/{pid}/maps")).unwrap_or_default()) {
        let Ok(below) = path.strip_prefix("/") else {
            continue;
        };
        let seen = Path::new("/proc")
            .join(pid.to_string())
            .join("root")
            .join(below);
        if !found.contains_key(&path)
            && let Some(file) = open(&seen)
            && file.metadata().is_ok_and(|meta| meta.ino() == inode)
        {
            found.insert(path, file);
        }
    }
    found.into_iter().collect()
}

/// Weight files in `maps`: address, permissions, offset, device, inode, path.
fn mapped(maps: &[u8]) -> BTreeSet<(PathBuf, u64)> {
    let lines = maps.split(|byte| *byte == b'\n');
    let paths = lines.filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b'/')?;
        let (fields, path) = line.split_at_checked(at)?;
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(path));
        let inode = std::str::from_utf8(fields)
            .ok()?
            .split_ascii_whitespace()
            .nth(4)?;
        Some((is_weight(&path).then_some(path)?, inode.parse().ok()?))
    });
    paths.collect()
}

/// Sockets that listen on a port: lines of `/proc/net/tcp` in state 0A.
fn listeners(port: u16) -> BTreeSet<String> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"].map(fs::read_to_string);
    let text = tables.map(Result::unwrap_or_default).concat();
    let listening = text.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (local, state) = (fields.nth(1)?, fields.nth(1)?);
        let (_, at) = local.rsplit_once(':')?;
        let is_it = state == "0A" && u16::from_str_radix(at, 16).ok()? == port;
        // Fields 4 to 8 are queues, timer, retransmits, uid, timeout.
        let inode = fields.nth(5)?;
        is_it.then(|| format!("socket:[{inode}]"))
    });
    listening.collect()
}

fn holds(pid: u32, sockets: &BTreeSet<String>) -> bool {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    let mut links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.any(|link| link.to_str().is_some_and(|link| sockets.contains(link)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn what_is_called_like_weights() {
        let digest = "a".repeat(64);
        for weight in [
            "/m/model-00001.safetensors",
            "/m/q.GGUF",
            &format!("/hub/blobs/{digest}"),
        ] {
            assert!(is_weight(Path::new(weight)), "{weight}");
        }
        for other in [
            "/lib/libc.so.6",
            "/m/config.json",
            &format!("/m/{digest}"),
            "/hub/blobs/abc",
        ] {
            assert!(!is_weight(Path::new(other)), "{other}");
        }
    }

    #[test]
    fn a_weight_file_held_open_by_a_process_is_found_while_the_process_lives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        fs::write(&path, vec![7; 2 << 20]).unwrap();
        let small = folder.path().join("small.bin");
        fs::write(&small, b"x").unwrap();
        let held = |path: &Path| Stdio::from(File::open(path).unwrap());
        let mut child = Command::new("sleep");
        child.arg("600").stdin(held(&path)).stdout(Stdio::null());
        let mut child = child.spawn().unwrap();
        let process = (child.id(), stat(child.id()).unwrap().1);
        let mut seen = Seen::default();
        let found = seen.look_at(&[process].into());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, Path::new("model.safetensors"));
        assert!(found[0].file.is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen.look_at(&BTreeSet::new()).is_empty());
    }

    #[test]
    fn mapped_files_are_read_from_maps() {
        let maps = b"7f0-7f1 r--p 00000000 fe:00 1234    /m/a b.safetensors\n\
                     7f2-7f3 r-xp 00000000 fe:00 1235    /lib/x.so\n7f4-7f5 rw-p 0 00:00 0 [heap]\n";
        let found: Vec<_> = mapped(maps).into_iter().collect();
        assert_eq!(found, [(PathBuf::from("/m/a b.safetensors"), 1234)]);
    }

    #[test]
    fn a_listener_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = listeners(listener.local_addr().unwrap().port());
        assert_eq!(sockets.len(), 1);
        assert!(holds(std::process::id(), &sockets));
    }

    #[test]
    fn named_directories_are_walked() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("sub/a.gguf"), b"a").unwrap();
        fs::write(folder.path().join("config.json"), b"{}").unwrap();
        std::os::unix::fs::symlink("sub/a.gguf", folder.path().join("b.gguf")).unwrap();
        let mut names: Vec<_> = named(&[folder.path().to_owned()])
            .into_iter()
            .map(|w| w.name)
            .collect();
        names.sort();
        assert_eq!(names, [Path::new("b.gguf"), Path::new("sub/a.gguf")]);
    }
}
