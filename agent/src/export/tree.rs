//! Proofs out of a whole tree held in memory: what a bundle wants many of.
//!
//! A day has thousands of epochs and each wants a proof; hashing the tree anew
//! for each is quadratic. Here every perfect subtree is hashed once (64 bytes a
//! leaf), after which a proof costs a few dozen hashes.

use merestone_evidence::{Digest, empty_root, node_hash};
use merestone_tlog::Nodes;
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

    /// The peaks of the tree over the first `size` leaves, left to right.
    pub(super) fn peaks(&self, size: u64) -> Vec<Digest> {
        let Ok(peaks) = merestone_tlog::peaks(&mut &*self, size);
        peaks
    }

    /// The consistency proof from `from` to `to` leaves (RFC 9162 §2.1.4.1).
    pub(super) fn consistency(&self, from: u64, to: u64) -> Vec<Digest> {
        let Ok(path) = merestone_tlog::consistency_proof(&mut &*self, from, to);
        path
    }

    /// The inclusion proof of leaf `at` among the first `size` (RFC 9162 §2.1.3.1).
    pub(super) fn inclusion(&self, at: u64, size: u64) -> Vec<Digest> {
        let Ok(path) = merestone_tlog::inclusion_proof(&mut &*self, at, size);
        path
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
            assert_eq!(tree.peaks(to), frontier.peaks(), "peaks of {to}");
            for from in 1..to {
                assert_eq!(
                    Some(tree.inclusion(from, to)),
                    inclusion_path(&leaves, from, to),
                    "{from} in {to}"
                );
                assert_eq!(
                    Some(tree.consistency(from, to)),
                    consistency_path(&leaves, from, to),
                    "{from} to {to}"
                );
            }
        }
    }
}
