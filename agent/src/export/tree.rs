//! A whole tree held in memory: where proofs come from when the published tiles have none.
//!
//! A day has thousands of epochs and each may want a proof; hashing the tree anew
//! for each is quadratic. Here every perfect subtree is hashed once (64 bytes a
//! leaf), after which a proof costs a few dozen hashes.

use merestone_evidence::{Digest, empty_root, node_hash};
use merestone_tlog::{Nodes, TILE_WIDTH, Tile};
use std::convert::Infallible;

/// All perfect subtrees over some leaves.
pub(super) struct Tree {
    /// `levels[k][i]` is the root over leaves `i << k .. (i + 1) << k`.
    levels: Vec<Vec<Digest>>,
}

impl Tree {
    pub(super) fn over(leaves: Vec<Digest>) -> Self {
        let mut levels = vec![leaves];
        loop {
            let above: Vec<Digest> = levels.last().map_or_else(Vec::new, |level| {
                level
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|[left, right]| node_hash(left, right))
                    .collect()
            });
            if above.is_empty() {
                return Self { levels };
            }
            levels.push(above);
        }
    }

    /// Whether a tile is one of this tree, as far as the tree goes: tiles may have grown since.
    pub(super) fn has(&self, tile: Tile, hashes: &[Digest]) -> bool {
        let Some(level) = self.levels.get(usize::from(tile.level) * 8) else {
            return true;
        };
        let first = tile.index.saturating_mul(TILE_WIDTH);
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let own = level.get(first..).unwrap_or_default();
        own.iter().zip(hashes).all(|(own, hash)| own == hash)
    }
}

impl Nodes for &Tree {
    type Error = Infallible;

    fn node(&mut self, level: u32, index: u64) -> Result<Digest, Infallible> {
        let found = usize::try_from(level).ok();
        let found = found.and_then(|level| self.levels.get(level));
        let found = found.and_then(|level| level.get(usize::try_from(index).ok()?));
        Ok(found.copied().unwrap_or_else(empty_root))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use merestone_evidence::{Frontier, consistency_path, inclusion_path, leaf_hash};
    use merestone_tlog::{consistency_proof, inclusion_proof, peaks};

    #[test]
    fn proofs_peaks_and_roots_are_those_of_the_reference() {
        let leaves: Vec<Digest> = (0..70_u8).map(|leaf| leaf_hash(&[leaf])).collect();
        let tree = Tree::over(leaves.clone());
        for to in 0..=70_u64 {
            let mut frontier = Frontier::new();
            leaves
                .iter()
                .take(usize::try_from(to).unwrap())
                .for_each(|leaf| frontier.append(*leaf));
            let mut nodes = &tree;
            assert_eq!(
                peaks(&mut nodes, to).unwrap(),
                frontier.peaks(),
                "peaks of {to}"
            );
            for from in 1..to {
                assert_eq!(
                    inclusion_proof(&mut nodes, from, to).ok(),
                    inclusion_path(&leaves, from, to),
                    "{from} in {to}"
                );
                assert_eq!(
                    consistency_proof(&mut nodes, from, to).ok(),
                    consistency_path(&leaves, from, to),
                    "{from} to {to}"
                );
            }
        }
    }
}
