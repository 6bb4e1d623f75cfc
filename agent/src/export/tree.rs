//! Proofs out of a whole tree held in memory.
//!
//! A day has thousands of epochs and each wants a proof; hashing the tree anew
//! for each is quadratic. Here every perfect subtree is hashed once (64 bytes a
//! leaf), after which a proof costs a few dozen hashes.

use merestone_evidence::{Digest, empty_root, node_hash};

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
        let mut peaks = Vec::new();
        let mut from = 0;
        for level in (0..u64::BITS).rev().filter(|level| size >> level & 1 == 1) {
            peaks.push(self.root(from, from + (1 << level)));
            from += 1 << level;
        }
        peaks
    }

    /// The consistency proof from `from` to `to` leaves (RFC 9162 §2.1.4.1).
    pub(super) fn consistency(&self, from: u64, to: u64) -> Vec<Digest> {
        let mut path = Vec::new();
        let (mut start, mut end) = (0, to);
        // The smaller tree's own root is known to who checks, until the walk
        // enters a right subtree.
        let mut is_known = true;
        while from < end {
            let middle = start + split(end - start);
            if from <= middle {
                path.push(self.root(middle, end));
                end = middle;
            } else {
                path.push(self.root(start, middle));
                start = middle;
                is_known = false;
            }
        }
        if !is_known {
            path.push(self.root(start, end));
        }
        path.reverse();
        path
    }

    /// The inclusion proof of leaf `at` among the first `size` (RFC 9162 §2.1.3.1).
    pub(super) fn inclusion(&self, at: u64, size: u64) -> Vec<Digest> {
        let mut path = Vec::new();
        let (mut start, mut end) = (0, size);
        while end - start > 1 && (start..end).contains(&at) {
            let middle = start + split(end - start);
            if at < middle {
                path.push(self.root(middle, end));
                end = middle;
            } else {
                path.push(self.root(start, middle));
                start = middle;
            }
        }
        path.reverse();
        path
    }

    /// Root over leaves `from..to`, where `from` is a multiple of the smallest
    /// power of two that is not below the length (as in every RFC 9162 split).
    fn root(&self, from: u64, to: u64) -> Digest {
        let length = to - from;
        if length.is_power_of_two() {
            let level = length.trailing_zeros();
            let found = usize::try_from(level)
                .ok()
                .and_then(|level| self.levels.get(level));
            let found = found.and_then(|level| {
                level.get(usize::try_from(from >> length.trailing_zeros()).ok()?)
            });
            return found.copied().unwrap_or_else(empty_root);
        }
        if length == 0 {
            return empty_root();
        }
        let middle = from + split(length);
        node_hash(&self.root(from, middle), &self.root(middle, to))
    }
}

/// The biggest power of two below `length`.
const fn split(length: u64) -> u64 {
    length.next_power_of_two() >> 1
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
