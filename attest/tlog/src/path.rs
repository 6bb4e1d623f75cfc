//! Proofs out of the nodes of a tree, wherever they lie (RFC 9162 §2.1.3 and §2.1.4).
//!
//! A proof wants a few dozen nodes, and tiles hold all of them: so a proof costs a few tiles,
//! however big the tree is. Nothing is checked here: whoever hands a proof out verifies it first
//! against a root that is sealed, which also shows that the tiles are the tree's.

use crate::tile::{TILE_WIDTH, Tile, TileLength};
use merestone_evidence::{Digest, empty_root, node_hash, root_of};
use std::collections::BTreeMap;

/// Bits of an index within a tile: levels of the tree in a level of tiles.
const LEVELS: u32 = TILE_WIDTH.trailing_zeros();

/// Roots of perfect subtrees.
pub trait Nodes {
    /// Why one cannot be had.
    type Error;
    /// The root over leaves `index << level .. (index + 1) << level`.
    fn node(&mut self, level: u32, index: u64) -> Result<Digest, Self::Error>;
}

/// The inclusion proof of leaf `index` among the first `size`; empty for one that is not there.
pub fn inclusion_proof<N: Nodes>(
    nodes: &mut N,
    index: u64,
    size: u64,
) -> Result<Vec<Digest>, N::Error> {
    let mut path = Vec::new();
    let (mut start, mut end) = (0, size);
    while start < end && end - start > 1 && index < size {
        let middle = start + split(end - start);
        if index < middle {
            path.push(root(nodes, middle, end)?);
            end = middle;
        } else {
            path.push(root(nodes, start, middle)?);
            start = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The consistency proof from the first `from` to the first `to` leaves.
pub fn consistency_proof<N: Nodes>(
    nodes: &mut N,
    from: u64,
    to: u64,
) -> Result<Vec<Digest>, N::Error> {
    let mut path = Vec::new();
    let (mut start, mut end) = (0, to);
    // The smaller tree's own root is known to who checks, until the walk enters a right subtree.
    let mut is_known = true;
    while from < end {
        let middle = start + split(end - start);
        if from <= middle {
            path.push(root(nodes, middle, end)?);
            end = middle;
        } else {
            path.push(root(nodes, start, middle)?);
            start = middle;
            is_known = false;
        }
        if end - start <= 1 {
            break;
        }
    }
    if !is_known {
        path.push(root(nodes, start, end)?);
    }
    path.reverse();
    Ok(path)
}

/// The peaks of the tree over the first `size` leaves, left to right.
pub fn peaks<N: Nodes>(nodes: &mut N, size: u64) -> Result<Vec<Digest>, N::Error> {
    let mut peaks = Vec::new();
    let mut from = 0;
    for level in (0..u64::BITS).rev().filter(|level| size >> level & 1 == 1) {
        peaks.push(nodes.node(level, from >> level)?);
        from += 1 << level;
    }
    Ok(peaks)
}

/// Root over leaves `from..to`, where `from` is a multiple of the smallest power of two that is
/// not below the length, as in every split of RFC 9162.
fn root<N: Nodes>(nodes: &mut N, from: u64, to: u64) -> Result<Digest, N::Error> {
    let length = to.saturating_sub(from);
    if length == 0 {
        return Ok(empty_root());
    }
    if length.is_power_of_two() {
        let level = length.trailing_zeros();
        return nodes.node(level, from >> level);
    }
    let middle = from + split(length);
    Ok(node_hash(
        &root(nodes, from, middle)?,
        &root(nodes, middle, to)?,
    ))
}

/// The biggest power of two below `length`; of 1 it is none.
const fn split(length: u64) -> u64 {
    match length.checked_sub(1) {
        Some(rest) if rest > 0 => 1 << rest.ilog2(),
        _ => 0,
    }
}

/// Why a node cannot be had out of tiles.
#[derive(Debug, thiserror::Error)]
pub enum NodeError<E> {
    /// The tree is not so big.
    #[error("the tiles are of a tree of {size} leaves, which has no node {index} at level {level}")]
    Beyond {
        /// Level of the node, 0 for leaves.
        level: u32,
        /// Its index.
        index: u64,
        /// Leaves of the tree.
        size: u64,
    },
    /// A tile of the wrong length.
    #[error(transparent)]
    Length(#[from] TileLength),
    /// A tile cannot be had.
    #[error("{0}")]
    Source(E),
}

/// The nodes in the tiles of a tree; each tile is asked for once.
#[derive(Debug)]
pub struct TileNodes<F> {
    size: u64,
    source: F,
    held: BTreeMap<(u8, u64), Vec<Digest>>,
}

impl<F, E> TileNodes<F>
where
    F: FnMut(Tile) -> Result<Vec<u8>, E>,
{
    /// The tiles of a tree of `size` leaves, as `source` gives their bytes.
    pub const fn new(size: u64, source: F) -> Self {
        Self {
            size,
            source,
            held: BTreeMap::new(),
        }
    }

    /// The tiles that were asked for so far, with their hashes: to tell which is wrong.
    pub fn held(&self) -> impl Iterator<Item = (Tile, &[Digest])> {
        self.held.iter().map(|(&(level, index), hashes)| {
            let width = u16::try_from(hashes.len()).unwrap_or(u16::MAX);
            let tile = Tile {
                level,
                index,
                width,
            };
            (tile, hashes.as_slice())
        })
    }

    fn hashes(&mut self, tile: Tile) -> Result<&[Digest], NodeError<E>> {
        let place = (tile.level, tile.index);
        if !self.held.contains_key(&place) {
            let bytes = (self.source)(tile).map_err(NodeError::Source)?;
            let hashes = tile.hashes(&bytes)?;
            self.held.insert(place, hashes);
        }
        Ok(self.held.get(&place).map_or(&[], Vec::as_slice))
    }
}

impl<F, E> Nodes for TileNodes<F>
where
    F: FnMut(Tile) -> Result<Vec<u8>, E>,
{
    type Error = NodeError<E>;

    fn node(&mut self, level: u32, index: u64) -> Result<Digest, NodeError<E>> {
        let size = self.size;
        let beyond = || NodeError::Beyond { level, index, size };
        // The hashes of its tile that it is the root over.
        let inside = level % LEVELS;
        let first = index
            .checked_shl(inside)
            .filter(|first| first >> inside == index);
        let first = first.ok_or_else(beyond)?;
        let tile = u8::try_from(level / LEVELS).ok();
        let tile = tile.and_then(|level| Tile::of(level, first / TILE_WIDTH, size));
        let hashes = self.hashes(tile.ok_or_else(beyond)?)?;
        let from = usize::try_from(first % TILE_WIDTH).unwrap_or(usize::MAX);
        let over = hashes.get(from..from.saturating_add(1 << inside));
        over.map(root_of).ok_or_else(beyond)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;
    use merestone_evidence::{
        Frontier, consistency_path, inclusion_path, leaf_hash, verify_consistency, verify_inclusion,
    };
    use std::convert::Infallible;

    /// The tiles of a tree, and how many of them were asked for.
    struct Log {
        tiles: BTreeMap<Tile, Vec<u8>>,
        size: u64,
    }

    impl Log {
        fn of(leaves: &[Digest]) -> Self {
            let mut tiles = BTreeMap::new();
            let bytes = |hashes: &[Digest]| hashes.iter().flat_map(|hash| hash.0).collect();
            let mut rows = Rows::new();
            for leaf in leaves {
                rows.append(*leaf, |tile, hashes| {
                    tiles.insert(tile, bytes(hashes));
                });
            }
            for (tile, hashes) in rows.partial() {
                tiles.insert(tile, bytes(hashes));
            }
            let size = leaves.len() as u64;
            Self { tiles, size }
        }

        fn nodes(&self) -> TileNodes<impl FnMut(Tile) -> Result<Vec<u8>, String>> {
            TileNodes::new(self.size, |tile| {
                let found = self.tiles.get(&tile).cloned();
                found.ok_or_else(|| format!("{} is missing", tile.path()))
            })
        }
    }

    fn leaves(count: u64) -> Vec<Digest> {
        (0..count).map(|at| leaf_hash(&at.to_be_bytes())).collect()
    }

    /// The same numbers in every run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % limit
        }
    }

    #[test]
    fn proofs_out_of_tiles_are_those_of_hashing_all_leaves_at_random_sizes() {
        let all = leaves(66_000);
        let log = Log::of(&all);
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        for round in 0..40 {
            // Small trees, trees about a tile's edge, and any.
            let size = match round % 3 {
                0 => 1 + numbers.below(600),
                1 => (256 << numbers.below(5)) - 2 + numbers.below(5),
                _ if round == 2 => 66_000,
                _ => 1 + numbers.below(9_000),
            };
            let (index, from) = (numbers.below(size), 1 + numbers.below(size));
            let mut nodes = log.nodes();
            let path = inclusion_proof(&mut nodes, index, size).unwrap();
            assert_eq!(
                Some(path),
                inclusion_path(&all, index, size),
                "{index} of {size}"
            );
            let path = consistency_proof(&mut nodes, from, size).unwrap();
            assert_eq!(
                Some(path),
                consistency_path(&all, from, size),
                "{from} to {size}"
            );
            let mut frontier = Frontier::new();
            for leaf in &all[..usize::try_from(size).unwrap()] {
                frontier.append(*leaf);
            }
            assert_eq!(peaks(&mut nodes, size).unwrap(), frontier.peaks(), "{size}");
            assert!(
                nodes.held.len() <= 9,
                "{} tiles for {size}",
                nodes.held.len()
            );
        }
    }

    #[test]
    fn every_proof_in_every_small_tree_verifies() {
        let all = leaves(70);
        for size in 1..=70_u64 {
            let tree = &all[..usize::try_from(size).unwrap()];
            let log = Log::of(tree);
            let root = root_of(tree);
            for at in 0..size {
                let mut nodes = log.nodes();
                let path = inclusion_proof(&mut nodes, at, size).unwrap();
                let leaf = all[usize::try_from(at).unwrap()];
                verify_inclusion(at, size, &leaf, &path, &root).unwrap();
                let path = consistency_proof(&mut nodes, at + 1, size).unwrap();
                let first = root_of(&all[..=usize::try_from(at).unwrap()]);
                verify_consistency(at + 1, size, &path, &first, &root).unwrap();
            }
        }
    }

    #[test]
    fn a_tile_that_is_missing_short_or_not_yet_there_is_told() {
        let all = leaves(600);
        let mut log = Log::of(&all);
        let told = |log: &Log, index, size| {
            let path = inclusion_proof(&mut log.nodes(), index, size);
            path.unwrap_err().to_string()
        };
        assert!(told(&log, 3, 601).contains("a tree of 600 leaves"));
        let partial = Tile::of(0, 2, 600).unwrap();
        let bytes = log.tiles.remove(&partial).unwrap();
        assert_eq!(told(&log, 3, 600), "tile/0/002.p/88 is missing");
        // What does not need it can still be proven.
        assert!(inclusion_proof(&mut log.nodes(), 3, 512).is_ok());
        log.tiles.insert(partial, bytes[1..].to_vec());
        let why = told(&log, 3, 600);
        assert_eq!(
            why,
            "tile/0/002.p/88 has 2815 bytes, a tile of 88 hashes has 2816"
        );
    }

    #[test]
    fn nothing_is_proven_of_leaves_that_are_not_there() {
        struct None;
        impl Nodes for None {
            type Error = Infallible;
            fn node(&mut self, _level: u32, _index: u64) -> Result<Digest, Infallible> {
                Ok(Digest::ZERO)
            }
        }
        assert_eq!(inclusion_proof(&mut None, 7, 7), Ok(Vec::new()));
        assert_eq!(inclusion_proof(&mut None, 0, 0), Ok(Vec::new()));
        assert_eq!(consistency_proof(&mut None, 9, 8), Ok(Vec::new()));
        let mut nodes = Log::of(&leaves(3)).tiles;
        nodes.clear();
        assert!(matches!(
            TileNodes::new(3, |_tile| Err::<Vec<u8>, _>(())).node(63, u64::MAX),
            Err(NodeError::Beyond { .. })
        ));
    }
}
