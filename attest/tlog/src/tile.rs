//! Where the hashes of a tree lie: 256 to a tile, named by level and index.

use core::fmt::Write as _;
use merestone_evidence::Digest;

/// Hashes in a full tile.
pub const TILE_WIDTH: u64 = 256;

/// A tile of a tree of some size.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Tile {
    /// 0 for leaf hashes; above, roots of full tiles of the level below.
    pub level: u8,
    /// From 0, left to right.
    pub index: u64,
    /// Hashes, 1 to 256; less than 256 is a partial tile.
    pub width: u16,
}

/// A tile of the wrong length.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{path} has {got} bytes, a tile of {width} hashes has {want}")]
pub struct TileLength {
    /// The tile.
    pub path: String,
    /// Bytes in it.
    pub got: usize,
    /// Bytes of such a tile.
    pub want: usize,
    /// Its hashes.
    pub width: u16,
}

impl Tile {
    /// The hashes in the bytes of this tile, left to right.
    pub(crate) fn hashes(self, bytes: &[u8]) -> Result<Vec<Digest>, TileLength> {
        let (hashes, rest) = bytes.as_chunks::<32>();
        if hashes.len() != usize::from(self.width) || !rest.is_empty() {
            return Err(TileLength {
                path: self.path(),
                got: bytes.len(),
                want: usize::from(self.width) * 32,
                width: self.width,
            });
        }
        Ok(hashes.iter().copied().map(Digest).collect())
    }

    /// The tile as a tree of `size` leaves has it; `None` where it has no hash of it.
    #[must_use]
    pub fn of(level: u8, index: u64, size: u64) -> Option<Self> {
        let hashes = nodes(level, size);
        let from = index.checked_mul(TILE_WIDTH)?;
        let width = hashes.checked_sub(from)?.min(TILE_WIDTH);
        let width = u16::try_from(width).ok().filter(|width| *width > 0)?;
        Some(Self {
            level,
            index,
            width,
        })
    }

    /// Whether no later tree changes it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        u64::from(self.width) == TILE_WIDTH
    }

    /// Its path under the log's prefix.
    #[must_use]
    pub fn path(&self) -> String {
        format!("tile/{}/{}", self.level, place(self.index, self.width))
    }
}

/// Path of the entry bundle beside a tile of leaf hashes.
#[must_use]
pub fn entries_path(index: u64, width: u16) -> String {
    format!("tile/entries/{}", place(index, width))
}

/// Hashes of a level in a tree of `size` leaves.
const fn nodes(level: u8, size: u64) -> u64 {
    match (level as u32).checked_mul(8) {
        Some(shift) if shift < u64::BITS => size >> shift,
        _ => 0,
    }
}

/// Every tile that a tree of `size` leaves has and one of `from` had not, as this tree has them;
/// level by level, left to right.
pub fn tiles_of(from: u64, size: u64) -> impl Iterator<Item = Tile> {
    (0..8_u8).flat_map(move |level| {
        let (before, now) = (nodes(level, from), nodes(level, size));
        let indices = if now > before {
            before / TILE_WIDTH..now.div_ceil(TILE_WIDTH)
        } else {
            0..0
        };
        indices.filter_map(move |index| Tile::of(level, index, size))
    })
}

fn place(index: u64, width: u16) -> String {
    let mut groups = vec![index % 1000];
    let mut rest = index / 1000;
    while rest > 0 {
        groups.push(rest % 1000);
        rest /= 1000;
    }
    let mut path = String::new();
    for (left, group) in (0..groups.len()).rev().zip(groups.iter().rev()) {
        let mark = if left > 0 { "x" } else { "" };
        let end = if left > 0 { "/" } else { "" };
        // Writing to a String cannot fail.
        let _infallible = write!(path, "{mark}{group:03}{end}");
    }
    if u64::from(width) < TILE_WIDTH {
        let _infallible = write!(path, ".p/{width}");
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let tile = |index, width| Tile {
            level: 0,
            index,
            width,
        };
        assert_eq!(tile(1_234_067, 256).path(), "tile/0/x001/x234/067");
        assert_eq!(tile(0, 112).path(), "tile/0/000.p/112");
        assert_eq!(entries_path(1000, 256), "tile/entries/x001/000");
        assert_eq!(entries_path(273, 1), "tile/entries/273.p/1");
    }

    #[test]
    fn a_tree_of_70000_has_the_tiles_that_the_specification_counts() {
        let tiles: Vec<Tile> = tiles_of(0, 70_000).collect();
        let at = |level| tiles.iter().filter(move |tile| tile.level == level);
        assert_eq!(at(0).filter(|tile| tile.is_full()).count(), 273);
        let partial = |level| at(level).find(|tile| !tile.is_full()).unwrap().width;
        assert_eq!((partial(0), partial(1), partial(2)), (112, 17, 1));
        assert_eq!(at(1).filter(|tile| tile.is_full()).count(), 1);
        assert_eq!(at(3).count(), 0);
        let small: Vec<Tile> = tiles_of(0, 256).collect();
        assert_eq!(small.len(), 2);
        assert!(small[0].is_full());
        assert_eq!((small[1].level, small[1].width), (1, 1));
        assert_eq!(tiles_of(256, 256).count(), 0);
    }
}
