//! The nodes of the published tiles: what a proof wants of a tree, however long the log is.
//!
//! Nothing is checked here. Whoever makes a proof of them verifies it against a root that is
//! sealed before it is handed out ([`crate::export`]), so tiles that were changed prove nothing.

use super::file;
use super::tiles::{published, tiles_path};
use merestone_evidence::Digest;
use merestone_tlog::{Nodes, TILE_WIDTH, Tile, TileNodes};
use std::path::{Path, PathBuf};

/// Bytes of a full tile.
const MOST_BYTES: u64 = TILE_WIDTH * 32;

type Read = Box<dyn FnMut(Tile) -> Result<Vec<u8>, String>>;

/// The tiles of the published tree, each read once.
pub(crate) struct PublishedTiles {
    size: u64,
    nodes: TileNodes<Read>,
}

impl PublishedTiles {
    pub(super) fn open(log: &Path) -> Result<Self, String> {
        let published = published(log).map_err(|error| error.to_string())?;
        let (_, _, checkpoint) = published.ok_or("nothing is published yet")?;
        let (folder, size) = (tiles_path(log), checkpoint.size);
        let source: Read = Box::new(move |tile| read(&folder, tile));
        let nodes = TileNodes::new(size, source);
        Ok(Self { size, nodes })
    }

    /// Leaves that are published.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// The tiles that were read so far, with their hashes.
    pub(crate) fn held(&self) -> impl Iterator<Item = (Tile, &[Digest])> {
        self.nodes.held()
    }
}

impl Nodes for PublishedTiles {
    type Error = String;

    fn node(&mut self, level: u32, index: u64) -> Result<Digest, String> {
        let node = self.nodes.node(level, index);
        node.map_err(|error| error.to_string())
    }
}

/// A tile's bytes. A partial one goes once it is full, so the full one may be there instead.
fn read(folder: &Path, tile: Tile) -> Result<Vec<u8>, String> {
    let bytes_of = |tile: Tile| {
        let path: PathBuf = folder.join(tile.path());
        file::read_if_there(&path, MOST_BYTES).map_err(|error| error.to_string())
    };
    let mut found = bytes_of(tile)?;
    if found.is_none() && !tile.is_full() {
        found = bytes_of(Tile { width: 256, ..tile })?.map(|mut bytes| {
            bytes.truncate(usize::from(tile.width) * 32);
            bytes
        });
    }
    found.ok_or_else(|| format!("{} is missing", tile.path()))
}
