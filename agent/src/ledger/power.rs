//! A disk that loses power or fills up, for tests.
//!
//! [`tell`] hears of every change that the log asks of the disk. [`Recording`] keeps them, and
//! [`image`] builds what a power cut after some of them may have left: what was synced is there;
//! of what was not, each file has nothing, a beginning, or some of its sectors with zeroes
//! between them, and each directory the first few of its changes. That is less than any
//! journalling file system promises.

use super::tests::Places;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

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

#[derive(Default)]
struct Record {
    ops: Vec<Op>,
    /// Operations from here to there find no space.
    full: Option<(usize, usize)>,
}

thread_local! {
    static RECORD: RefCell<Option<Record>> = const { RefCell::new(None) };
}

/// Called before each change.
pub(crate) fn tell(op: Op) -> io::Result<()> {
    RECORD.with_borrow_mut(|record| {
        let Some(record) = record else {
            return Ok(());
        };
        let takes_space = !matches!(
            op,
            Op::Cut { .. } | Op::Remove { .. } | Op::RemoveDirectory { .. }
        );
        let at = record.ops.len();
        let is_full = record
            .full
            .is_some_and(|(from, to)| (from..to).contains(&at));
        record.ops.push(op);
        if takes_space && is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    })
}

/// Changes are heard of while this lives, on this thread.
pub(crate) struct Recording(());

#[expect(
    clippy::unused_self,
    reason = "only who holds the recording asks of it"
)]
impl Recording {
    pub(crate) fn begin() -> Self {
        RECORD.with_borrow_mut(|record| *record = Some(Record::default()));
        Self(())
    }

    pub(crate) fn full(&self, from: usize, to: usize) {
        RECORD.with_borrow_mut(|record| {
            if let Some(record) = record {
                record.full = Some((from, to));
            }
        });
    }

    pub(crate) fn length(&self) -> usize {
        RECORD.with_borrow(|record| record.as_ref().map_or(0, |record| record.ops.len()))
    }

    pub(crate) fn end(self) -> Vec<Op> {
        RECORD.with_borrow_mut(|record| record.take().map_or_else(Vec::new, |record| record.ops))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        RECORD.with_borrow_mut(|record| *record = None);
    }
}

/// A file, whatever its name.
#[derive(Clone, Default)]
struct File {
    synced: Vec<u8>,
    /// Contents after each change since.
    unsynced: Vec<Vec<u8>>,
}

#[derive(Clone, Copy)]
enum Node {
    File(usize),
    Directory,
}

/// Changes of one directory, each of one name or two at once.
#[derive(Clone, Default)]
struct Directory {
    synced: BTreeMap<OsString, Node>,
    unsynced: Vec<Vec<(OsString, Option<Node>)>>,
}

#[derive(Default)]
struct Disk {
    files: Vec<File>,
    directories: BTreeMap<PathBuf, Directory>,
    /// What a process sees.
    names: BTreeMap<PathBuf, usize>,
}

fn name(path: &Path) -> OsString {
    path.file_name().unwrap_or_default().to_owned()
}

impl Disk {
    fn parent(&mut self, path: &Path) -> &mut Directory {
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        self.directories.entry(parent).or_default()
    }

    fn file(&mut self, path: &Path) -> &mut File {
        let at = self.names[path];
        &mut self.files[at]
    }

    fn create(&mut self, path: &Path) {
        if !self.names.contains_key(path) {
            let at = self.files.len();
            self.files.push(File::default());
            self.names.insert(path.to_owned(), at);
            let link = vec![(name(path), Some(Node::File(at)))];
            self.parent(path).unsynced.push(link);
        }
    }

    fn change(&mut self, path: &Path, with: impl FnOnce(&mut Vec<u8>)) {
        let file = self.file(path);
        let mut now = file.unsynced.last().unwrap_or(&file.synced).clone();
        with(&mut now);
        file.unsynced.push(now);
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { path } => self.create(path),
            Op::Truncate { path } => {
                self.create(path);
                self.change(path, Vec::clear);
            }
            Op::Append { path, bytes } => self.change(path, |now| now.extend(bytes)),
            Op::Cut { path, length } => {
                let length = usize::try_from(*length).unwrap();
                self.change(path, |now| now.resize(length, 0));
            }
            Op::Sync { path } => {
                let file = self.file(path);
                if let Some(last) = file.unsynced.pop() {
                    file.synced = last;
                    file.unsynced.clear();
                }
            }
            Op::Rename { from, to } => {
                let at = self.names.remove(from).unwrap();
                self.names.insert(to.clone(), at);
                let (gone, there) = ((name(from), None), (name(to), Some(Node::File(at))));
                if from.parent() == to.parent() {
                    self.parent(to).unsynced.push(vec![gone, there]);
                } else {
                    self.parent(from).unsynced.push(vec![gone]);
                    self.parent(to).unsynced.push(vec![there]);
                }
            }
            Op::SyncDirectory { path } => {
                let directory = self.directories.entry(path.clone()).or_default();
                for change in core::mem::take(&mut directory.unsynced) {
                    settle(&mut directory.synced, change);
                }
            }
            Op::MakeDirectory { path } => {
                self.directories.insert(path.clone(), Directory::default());
                let link = vec![(name(path), Some(Node::Directory))];
                self.parent(path).unsynced.push(link);
            }
            Op::Remove { path } => {
                self.names.remove(path);
                self.parent(path).unsynced.push(vec![(name(path), None)]);
            }
            Op::RemoveDirectory { path } => {
                self.parent(path).unsynced.push(vec![(name(path), None)]);
            }
        }
    }

    /// Write down what one directory of `root` has, and those below it.
    fn settle(&self, path: &Path, to: &Path, places: &mut Places) {
        let Some(directory) = self.directories.get(path) else {
            return;
        };
        let mut names = directory.synced.clone();
        let kept = places.below(directory.unsynced.len() as u64 + 1);
        for change in directory
            .unsynced
            .iter()
            .take(usize::try_from(kept).unwrap())
        {
            settle(&mut names, change.clone());
        }
        for (name, node) in names {
            match node {
                Node::File(at) => fs::write(to.join(name), self.files[at].left(places)).unwrap(),
                Node::Directory => {
                    let below = to.join(&name);
                    fs::create_dir(&below).unwrap();
                    self.settle(&path.join(name), &below, places);
                }
            }
        }
    }
}

fn settle(names: &mut BTreeMap<OsString, Node>, change: Vec<(OsString, Option<Node>)>) {
    for (name, node) in change {
        match node {
            Some(node) => drop(names.insert(name, node)),
            None => drop(names.remove(&name)),
        }
    }
}

const SECTOR: usize = 512;

impl File {
    /// One of the things that a cut may leave.
    fn left(&self, places: &mut Places) -> Vec<u8> {
        let Some(last) = self.unsynced.last() else {
            return self.synced.clone();
        };
        match places.below(4) {
            0 => self.synced.clone(),
            1 => last.clone(),
            2 => {
                // The changes up to one, and of that one a part.
                let at = usize::try_from(places.below(self.unsynced.len() as u64)).unwrap();
                let before = at
                    .checked_sub(1)
                    .map_or(&self.synced, |at| &self.unsynced[at]);
                let (short, long) = (
                    before.len().min(self.unsynced[at].len()),
                    self.unsynced[at].len(),
                );
                let keep = short as u64 + places.below((long - short) as u64 + 1);
                self.unsynced[at][..usize::try_from(keep).unwrap()].to_vec()
            }
            _ => {
                // The length may be there before the bytes are, and sectors come in any order.
                let mut left = last.clone();
                let from = self.synced.len().min(last.len());
                let mut at = from;
                while at < left.len() {
                    let end = left.len().min((at / SECTOR + 1) * SECTOR);
                    if places.below(2) == 0 {
                        left[at..end].fill(0);
                    }
                    at = end;
                }
                let keep = from as u64 + places.below((left.len() - from) as u64 + 1);
                if places.below(2) == 0 {
                    left.truncate(usize::try_from(keep).unwrap());
                }
                left
            }
        }
    }
}

/// What a power cut after `ops` may have left of `root`, which was there before and empty.
pub(crate) fn image(ops: &[Op], root: &Path, to: &Path, places: &mut Places) {
    let mut disk = Disk::default();
    for op in ops {
        disk.apply(op);
    }
    disk.settle(root, to, places);
}
