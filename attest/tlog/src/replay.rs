//! From one checkpoint to the next, by the hashes themselves.
//!
//! The rows of the smaller tree are taken out of the bigger tree's tiles. They have to give the
//! smaller tree's root, which the caller knows; the leaves behind it are then appended, and have
//! to give the bigger one's. So the bigger tree begins with the smaller, and the tiles are its
//! own. Nothing is believed for lying beside a checkpoint.

use crate::checkpoint::Checkpoint;
use crate::rows::Rows;
use crate::tile::{TILE_WIDTH, Tile, TileLength};
use merestone_evidence::Digest;

/// Where tiles come from.
pub trait TileSource {
    /// Why one cannot be had.
    type Error;
    /// The bytes of a tile; a partial one may be answered by the first hashes of the full one.
    fn tile(&mut self, tile: Tile) -> Result<Vec<u8>, Self::Error>;
    /// Called with each run of new leaf hashes, in order, and the index of the first.
    fn leaves(&mut self, tile: Tile, hashes: &[Digest]) -> Result<(), Self::Error>;
}

/// Why a log is not the one that was known, grown.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError<E> {
    /// The log was longer before.
    #[error("the log shows {got} leaves and had {want}")]
    Shrunk {
        /// Leaves shown.
        got: u64,
        /// Leaves known.
        want: u64,
    },
    /// The tree that was known is not the beginning of this one.
    #[error("the tree of {size} leaves had root {want}; the tiles shown now give {got}")]
    Fork {
        /// Leaves known.
        size: u64,
        /// Root by the tiles.
        got: Digest,
        /// Root known.
        want: Digest,
    },
    /// The tiles are not those of the checkpoint beside them.
    #[error("the checkpoint of {size} leaves has root {want}; its tiles give {got}")]
    Root {
        /// Leaves of the checkpoint.
        size: u64,
        /// Root by the tiles.
        got: Digest,
        /// Root in the checkpoint.
        want: Digest,
    },
    /// A tile of the wrong length.
    #[error(transparent)]
    Length(#[from] TileLength),
    /// A tile above the leaves that does not follow from those below.
    #[error("{path} does not follow from the tiles below it")]
    Above {
        /// The tile.
        path: String,
    },
    /// A tile cannot be had.
    #[error("{0}")]
    Source(E),
}

/// Checks that `now` is the tree of `known` (size and root), grown, and that the tiles of all
/// that is new are its own.
pub fn replay<S: TileSource>(
    known: (u64, Digest),
    now: &Checkpoint,
    source: &mut S,
) -> Result<(), ReplayError<S::Error>> {
    let (from, root) = known;
    if now.size < from {
        return Err(ReplayError::Shrunk {
            got: now.size,
            want: from,
        });
    }
    let mut rows = rows_at(from, now.size, source)?;
    let got = rows.root();
    if got != root {
        return Err(ReplayError::Fork {
            size: from,
            got,
            want: root,
        });
    }
    let mut above = Vec::new();
    for index in from / TILE_WIDTH..now.size.div_ceil(TILE_WIDTH) {
        let Some(tile) = Tile::of(0, index, now.size) else {
            break;
        };
        let hashes = hashes_of(tile, source)?;
        source.leaves(tile, &hashes).map_err(ReplayError::Source)?;
        for (at, hash) in (index * TILE_WIDTH..).zip(hashes) {
            if at >= from {
                rows.append(hash, |tile, hashes| {
                    if tile.level > 0 {
                        above.push((tile, hashes.to_vec()));
                    }
                });
            }
        }
        for (tile, want) in above.drain(..) {
            follows(tile, &want, source)?;
        }
    }
    for (tile, want) in rows.partial().filter(|(tile, _)| tile.level > 0) {
        follows(tile, want, source)?;
    }
    let got = rows.root();
    if got != now.root {
        return Err(ReplayError::Root {
            size: now.size,
            got,
            want: now.root,
        });
    }
    Ok(())
}

/// The rows of the tree of `from` leaves, out of the tiles of one of `size`.
fn rows_at<S: TileSource>(
    from: u64,
    size: u64,
    source: &mut S,
) -> Result<Rows, ReplayError<S::Error>> {
    let mut rows = Vec::new();
    let mut nodes = from;
    for level in 0..8_u8 {
        if nodes == 0 {
            break;
        }
        let wanted = usize::try_from(nodes % TILE_WIDTH).unwrap_or_default();
        let mut row = Vec::new();
        if let Some(tile) = Tile::of(level, nodes / TILE_WIDTH, size).filter(|_| wanted > 0) {
            row = hashes_of(tile, source)?;
            row.truncate(wanted);
        }
        rows.push(row);
        nodes /= TILE_WIDTH;
    }
    // A tree that is not smaller has tiles at least as wide, so the rows fit.
    Ok(Rows::from_rows(from, rows).unwrap_or_default())
}

fn hashes_of<S: TileSource>(
    tile: Tile,
    source: &mut S,
) -> Result<Vec<Digest>, ReplayError<S::Error>> {
    let bytes = source.tile(tile).map_err(ReplayError::Source)?;
    Ok(tile.hashes(bytes.as_ref())?)
}

fn follows<S: TileSource>(
    tile: Tile,
    want: &[Digest],
    source: &mut S,
) -> Result<(), ReplayError<S::Error>> {
    if hashes_of(tile, source)? == want {
        return Ok(());
    }
    Err(ReplayError::Above { path: tile.path() })
}
