//! The right edge of a tree, level by level as tiles have it: enough to grow and to know the root.

use crate::tile::{TILE_WIDTH, Tile};
use merestone_evidence::{Digest, Frontier, root_of};

/// At each level the hashes of the tile that is not full yet.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rows {
    size: u64,
    rows: Vec<Vec<Digest>>,
}

impl Rows {
    /// The empty tree.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            size: 0,
            rows: Vec::new(),
        }
    }

    /// A tree known by its rows; `None` where they are not those of a tree of this size.
    #[must_use]
    pub fn from_rows(size: u64, rows: Vec<Vec<Digest>>) -> Option<Self> {
        let mut left = size;
        for row in &rows {
            if row.len() as u64 != left % TILE_WIDTH {
                return None;
            }
            left /= TILE_WIDTH;
        }
        (left == 0).then_some(Self { size, rows })
    }

    /// Leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf by its hash; `full` is called with every tile that this makes full.
    pub fn append(&mut self, leaf: Digest, mut full: impl FnMut(Tile, &[Digest])) {
        let (mut node, mut before) = (leaf, self.size);
        self.size += 1;
        for level in 0..8_u8 {
            let at = usize::from(level);
            if self.rows.len() == at {
                self.rows.push(Vec::new());
            }
            let Some(row) = self.rows.get_mut(at) else {
                return;
            };
            row.push(node);
            if (row.len() as u64) < TILE_WIDTH {
                return;
            }
            let tile = Tile {
                level,
                index: before / TILE_WIDTH,
                width: 256,
            };
            full(tile, row);
            node = root_of(row);
            row.clear();
            before /= TILE_WIDTH;
        }
    }

    /// The partial tiles of this tree with their hashes, lowest level first.
    pub fn partial(&self) -> impl Iterator<Item = (Tile, &[Digest])> {
        (0..8_u8).zip(&self.rows).filter_map(|(level, row)| {
            let tile = Tile {
                level,
                index: self.size.checked_shr(8 * (u32::from(level) + 1))?,
                width: u16::try_from(row.len()).ok().filter(|width| *width > 0)?,
            };
            Some((tile, row.as_slice()))
        })
    }

    /// Root over the leaves.
    #[must_use]
    pub fn root(&self) -> Digest {
        // Peaks left to right: the highest row first, within a row the biggest subtree first.
        let mut peaks = Vec::new();
        for row in self.rows.iter().rev() {
            let mut rest = row.as_slice();
            for bit in (0..8).rev().filter(|bit| row.len() >> bit & 1 == 1) {
                let (subtree, right) = rest.split_at(rest.len().min(1 << bit));
                peaks.push(root_of(subtree));
                rest = right;
            }
        }
        Frontier::from_peaks(self.size, peaks).map_or(Digest::ZERO, |frontier| frontier.root())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tile::tiles_of;
    use merestone_evidence::leaf_hash;
    use std::collections::BTreeMap;

    #[test]
    fn rows_have_the_root_of_the_reference_and_make_every_tile_once() {
        let mut rows = Rows::new();
        let mut frontier = Frontier::new();
        let mut made: BTreeMap<(u8, u64), usize> = BTreeMap::new();
        for leaf in 0..66_000_u32 {
            let hash = leaf_hash(&leaf.to_be_bytes());
            frontier.append(hash);
            rows.append(hash, |tile, hashes| {
                assert_eq!(hashes.len(), 256);
                assert!(
                    made.insert((tile.level, tile.index), hashes.len())
                        .is_none()
                );
            });
            let size = u64::from(leaf) + 1;
            if size < 600 || size % 997 == 0 || size.is_multiple_of(256) {
                assert_eq!(rows.root(), frontier.root(), "{size}");
                let mut all = made.clone();
                for (tile, hashes) in rows.partial() {
                    assert!(all.insert((tile.level, tile.index), hashes.len()).is_none());
                }
                let want = tiles_of(0, size);
                let want = want.map(|tile| ((tile.level, tile.index), usize::from(tile.width)));
                assert_eq!(all, want.collect(), "{size}");
            }
        }
        assert_eq!(Rows::from_rows(rows.size, rows.rows.clone()), Some(rows));
    }
}
