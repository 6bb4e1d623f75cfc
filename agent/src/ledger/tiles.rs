//! What is sealed, as static files that others mirror: c2sp.org/tlog-tiles.
//!
//! ```text
//! tiles/checkpoint                  signed note: origin, size, root, session and epoch
//!       tile/LEVEL/INDEX[.p/WIDTH]  hashes, 256 to a full tile
//!       tile/entries/INDEX[.p/WIDTH]
//! ```
//!
//! All of it follows from the leaves and is made again from them where it is missing: the leaves
//! are the record. A file is written aside, synced and renamed; the directories are synced; then
//! the checkpoint that needs them takes the place of the one before. A full tile is never
//! written again, partial ones go once the full one is there. It publishes nothing that no quote
//! seals, and refuses to sign a tree that is not the one it signed before, grown.

use super::{
    LedgerError, file,
    frame::Next,
    leaves::{self, frames_from, read_hashes, read_index},
};
use merestone_evidence::Digest;
use merestone_tlog::{
    Checkpoint, MAX_NOTE, Note, Rows, Sealed, Signer, TILE_WIDTH, Tile, VerifierKey, entries_path,
    entry,
};
use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
};

/// The published part of a log.
#[derive(Debug)]
pub(crate) struct Tiles {
    log: PathBuf,
    root: PathBuf,
    signer: Signer,
    /// Of the tree that the published checkpoint names.
    rows: Rows,
    /// That checkpoint, as it was signed.
    text: String,
}

/// Where the static files of a log are.
pub(crate) fn tiles_path(log: &Path) -> PathBuf {
    log.join("tiles")
}

/// The published checkpoint of a log, where there is one.
pub(crate) fn published(log: &Path) -> Result<Option<(Vec<u8>, Note, Checkpoint)>, LedgerError> {
    let path = tiles_path(log).join("checkpoint");
    let Some(bytes) = file::read_if_there(&path, MAX_NOTE as u64)? else {
        return Ok(None);
    };
    let damaged = |why: String| LedgerError::damaged(&path, 0, why);
    let note = Note::parse(&bytes).map_err(|error| damaged(error.to_string()))?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| damaged(error.to_string()))?;
    Ok(Some((bytes, note, checkpoint)))
}

impl Tiles {
    /// Take up what is published, of the `sealed` leaves of the log.
    pub(crate) fn open(log: &Path, signer: Signer, sealed: u64) -> Result<Self, LedgerError> {
        let root = tiles_path(log);
        file::make_directory_durable(&root)?;
        let mut tiles = Self {
            log: log.to_owned(),
            root,
            signer,
            rows: Rows::new(),
            text: String::new(),
        };
        let Some((_, note, checkpoint)) = published(log)? else {
            return Ok(tiles);
        };
        let path = tiles.root.join("checkpoint");
        if checkpoint.size > sealed {
            let why = format!(
                "it names {} leaves and {sealed} are sealed: the log was set back",
                checkpoint.size
            );
            return Err(LedgerError::damaged(path, 0, why));
        }
        let index = leaves::index_path(log);
        let file = File::open(&index).map_err(LedgerError::io("open", &index))?;
        for hash in read_hashes(&file, &index, checkpoint.size)? {
            tiles.rows.append(hash, |_, _| {});
        }
        if tiles.rows.root() != checkpoint.root {
            let why = "it names another tree than the leaves have";
            return Err(LedgerError::damaged(path, 0, why));
        }
        // Signed by a key that has gone: to be signed again.
        if note.signed_by(&tiles.key()) == Ok(Some(0)) {
            note.text().clone_into(&mut tiles.text);
        }
        // A crash came between the checkpoint and the clearing up.
        let mut full = Vec::new();
        for level in 0..8_u8 {
            let index = checkpoint.size.checked_shr(8 * (u32::from(level) + 1));
            let last = index.and_then(|index| index.checked_sub(1));
            full.extend(last.map(|index| Tile {
                level,
                index,
                width: 256,
            }));
        }
        tiles.clear_partial(&full)?;
        Ok(tiles)
    }

    /// Who checks what is published.
    pub(crate) fn key(&self) -> VerifierKey {
        self.signer.verifier()
    }

    /// Publish the first `size` leaves, which a quote seals.
    pub(crate) fn publish(
        &mut self,
        (data, index): (&File, &File),
        (size, root): (u64, Digest),
        sealed: Sealed,
    ) -> Result<(), LedgerError> {
        let text = Checkpoint {
            origin: self.signer.name().to_owned(),
            size,
            root,
            extensions: sealed.lines(),
        }
        .text();
        if text == self.text {
            return Ok(());
        }
        let mut step = Step {
            root: &self.root,
            rows: self.rows.clone(),
            directories: BTreeSet::new(),
            full: Vec::new(),
        };
        step.leaves(&self.log, (data, index), size)?;
        if step.rows.root() != root {
            let path = leaves::data_path(&self.log);
            let why = "the leaves do not have the root that was sealed";
            return Err(LedgerError::damaged(path, 0, why));
        }
        for (tile, hashes) in step.rows.clone().partial() {
            step.place(&tile.path(), &bytes_of(hashes))?;
        }
        for directory in &step.directories {
            file::sync_directory(directory)?;
        }
        let Step { rows, full, .. } = step;
        let note = Note::sign(text.clone(), &self.signer);
        file::replace(&self.root.join("checkpoint"), &note.bytes())?;
        (self.rows, self.text) = (rows, text);
        self.clear_partial(&full)
    }

    /// Remove the partial tiles that full ones have taken the place of.
    fn clear_partial(&self, full: &[Tile]) -> Result<(), LedgerError> {
        let partial = |path: String| self.root.join(format!("{path}.p"));
        for tile in full {
            file::remove_directory(&partial(tile.path()))?;
            if tile.level == 0 {
                file::remove_directory(&partial(entries_path(tile.index, tile.width)))?;
            }
        }
        Ok(())
    }
}

fn bytes_of(hashes: &[Digest]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// One publication under way.
struct Step<'t> {
    root: &'t Path,
    rows: Rows,
    /// With names that are not durable yet.
    directories: BTreeSet<PathBuf>,
    /// Tiles that this step made full.
    full: Vec<Tile>,
}

impl Step<'_> {
    /// Append leaves up to `size`, writing every tile and bundle that is full, and the last
    /// bundle.
    fn leaves(
        &mut self,
        log: &Path,
        (data, index): (&File, &File),
        size: u64,
    ) -> Result<(), LedgerError> {
        let from = self.rows.size();
        if from >= size {
            return Ok(());
        }
        let (path, index_path) = (leaves::data_path(log), leaves::index_path(log));
        // The bundle that the new leaves go into begins at the tile's first leaf.
        let first = from - from % TILE_WIDTH;
        let (start, _) = read_index(index, &index_path, first)?;
        let length = data
            .metadata()
            .map_err(LedgerError::io("read", &path))?
            .len();
        // A reader of its own: appending moves no offset, but reading would.
        let data = File::open(&path).map_err(LedgerError::io("open", &path))?;
        let mut frames = frames_from(&data, &path, start, length)?;
        let mut bundle = Vec::new();
        for at in first..size {
            let frame = match frames.next().map_err(LedgerError::io("read", &path))? {
                Next::Frame(frame) => frame,
                Next::Broken { offset, why } => {
                    return Err(LedgerError::damaged(path, offset, why));
                }
                Next::End => {
                    let why = "sealed records are missing";
                    return Err(LedgerError::damaged(path, length, why));
                }
            };
            let framed = entry(&frame.data)
                .map_err(|error| LedgerError::damaged(&path, frame.offset, error.to_string()))?;
            bundle.extend_from_slice(&framed);
            if at >= from {
                self.append(frame.hash)?;
            }
            let width = at % TILE_WIDTH + 1;
            if width == TILE_WIDTH || at + 1 == size {
                let width = u16::try_from(width).unwrap_or(u16::MAX);
                self.place(&entries_path(at / TILE_WIDTH, width), &bundle)?;
                bundle.clear();
            }
        }
        Ok(())
    }

    fn append(&mut self, hash: Digest) -> Result<(), LedgerError> {
        let mut made = Vec::new();
        self.rows
            .append(hash, |tile, hashes| made.push((tile, bytes_of(hashes))));
        for (tile, bytes) in made {
            self.place(&tile.path(), &bytes)?;
            self.full.push(tile);
        }
        Ok(())
    }

    /// Put a file in its place, unless it is there already.
    fn place(&mut self, name: &str, bytes: &[u8]) -> Result<(), LedgerError> {
        let path = self.root.join(name);
        let Some(directory) = path.parent() else {
            return Ok(());
        };
        file::make_directory(directory, &mut Vec::new())?;
        // Those above too: a step that failed, or a process that was killed, may have made them.
        let above = directory.ancestors();
        let above = above.take_while(|path| path.starts_with(self.root));
        self.directories.extend(above.map(Path::to_owned));
        match file::read_if_there(&path, bytes.len() as u64) {
            Ok(None) => file::place(&self.root.join(".new"), &path, bytes),
            Ok(Some(there)) if there == bytes => Ok(()),
            Ok(Some(_)) | Err(LedgerError::TooBig { .. }) => {
                let why = "what was published is never written again, and it differs from the leaves; remove the directory tiles while the agent is stopped";
                Err(LedgerError::damaged(path, 0, why))
            }
            Err(error) => Err(error),
        }
    }
}
