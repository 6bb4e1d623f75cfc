//! The proof of one leaf out of the published tiles: a handful of files, however long the log is.
//!
//! What it gives was verified against the root that the caller has from a sealed epoch, so tiles
//! that were changed prove nothing. It refuses rather than hash: the leaves are the record, and
//! whoever asks can hash them.

use super::file;
use super::tiles::{published, tiles_path};
use merestone_evidence::{Digest, verify_inclusion};
use merestone_tlog::{TILE_WIDTH, Tile, TileNodes, inclusion_proof};
use std::path::Path;

/// Bytes of a full tile.
const MOST_BYTES: u64 = TILE_WIDTH * 32;

/// The inclusion proof of the leaf with this index and hash in the tree of this size and root;
/// else why the tiles have none.
pub(super) fn inclusion(
    log: &Path,
    (index, leaf): (u64, Digest),
    (size, root): (u64, Digest),
) -> Result<Vec<Digest>, String> {
    let published = published(log).map_err(|error| error.to_string())?;
    let (_, _, checkpoint) = published.ok_or("nothing is published yet")?;
    if checkpoint.size < size {
        let published = checkpoint.size;
        return Err(format!(
            "{published} leaves are published and not yet {size}"
        ));
    }
    let folder = tiles_path(log);
    let mut nodes = TileNodes::new(checkpoint.size, |tile| read(&folder, tile));
    let path = inclusion_proof(&mut nodes, index, size).map_err(|error| error.to_string())?;
    verify_inclusion(index, size, &leaf, &path, &root)
        .map_err(|error| format!("the tiles are not those of the sealed tree: {error}"))?;
    Ok(path)
}

/// A tile's bytes. A partial one goes once it is full, so the full one may be there instead.
fn read(folder: &Path, tile: Tile) -> Result<Vec<u8>, String> {
    let bytes_of = |tile: Tile| {
        let path = folder.join(tile.path());
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
