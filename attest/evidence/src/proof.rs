//! Inclusion and consistency proofs, RFC 9162 §2.1.3 and §2.1.4.
//!
//! A proof says nothing about where its root came from; the caller must have the root
//! from a checked quote.

use crate::Digest;
use crate::tree::{node_hash, root_of};

/// Why a proof doesn't show what it should.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProofError {
    /// The leaf would lie beyond the tree.
    #[error("leaf {index} is outside a tree of {size}")]
    OutsideTree {
        /// Leaf index.
        index: u64,
        /// Tree size.
        size: u64,
    },
    /// The bigger tree is smaller, or the smaller one is empty and proves nothing.
    #[error("a tree of {from} cannot be shown to be the beginning of one of {to}")]
    Sizes {
        /// Size of the smaller tree.
        from: u64,
        /// Size of the bigger tree.
        to: u64,
    },
    /// Too few or too many hashes.
    #[error("{got} hashes in the proof, {want} wanted")]
    Length {
        /// Hashes given.
        got: usize,
        /// Hashes that sizes and index call for.
        want: usize,
    },
    /// The hashes lead to another root.
    #[error("the proof leads to root {got}, not {want}")]
    Root {
        /// Where it leads.
        got: Digest,
        /// Where it should.
        want: Digest,
    },
}

/// Checks that the leaf with hash `leaf` is at `index` in the tree of `size` with `root`.
pub fn verify_inclusion(
    index: u64,
    size: u64,
    leaf: &Digest,
    path: &[Digest],
    root: &Digest,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::OutsideTree { index, size });
    }
    let (inner, border) = decompose(index, size);
    let want = inner + border;
    if path.len() != want {
        return Err(ProofError::Length {
            got: path.len(),
            want,
        });
    }
    let (low, high) = path.split_at(inner);
    let node = climb(*leaf, low, index);
    let got = high.iter().fold(node, |node, left| node_hash(left, &node));
    same_root(got, *root)
}

/// Checks that the tree of `from` leaves with root `first` is the beginning of that of `to`
/// with root `second`.
pub fn verify_consistency(
    from: u64,
    to: u64,
    path: &[Digest],
    first: &Digest,
    second: &Digest,
) -> Result<(), ProofError> {
    if from == 0 || to < from {
        return Err(ProofError::Sizes { from, to });
    }
    if from == to {
        if !path.is_empty() {
            return Err(ProofError::Length {
                got: path.len(),
                want: 0,
            });
        }
        return same_root(*first, *second);
    }
    let (inner, border) = decompose(from - 1, to);
    // The smaller tree's last perfect subtree: where both walks begin.
    let shift = from.trailing_zeros() as usize;
    let inner = inner - shift;
    let perfect = from.is_power_of_two();
    let want = inner + border + usize::from(!perfect);
    if path.len() != want {
        return Err(ProofError::Length {
            got: path.len(),
            want,
        });
    }
    let (seed, rest) = match path.split_first() {
        Some((seed, rest)) if !perfect => (*seed, rest),
        _ => (*first, path),
    };
    let (low, high) = rest.split_at(inner);
    let bits = from.saturating_sub(1) >> shift;
    let old = low
        .iter()
        .enumerate()
        .filter(|(level, _)| bits >> level & 1 == 1)
        .fold(seed, |node, (_, left)| node_hash(left, &node));
    let old = high.iter().fold(old, |node, left| node_hash(left, &node));
    same_root(old, *first)?;
    let new = climb(seed, low, bits);
    let new = high.iter().fold(new, |node, left| node_hash(left, &node));
    same_root(new, *second)
}

/// The inclusion proof of leaf `index` among the first `size` of `leaves` (leaf hashes).
#[must_use]
pub fn inclusion_path(leaves: &[Digest], index: u64, size: u64) -> Option<Vec<Digest>> {
    let tree = leaves.get(..usize::try_from(size).ok()?)?;
    let mut at = usize::try_from(index).ok()?;
    if at >= tree.len() {
        return None;
    }
    let mut path = Vec::new();
    let mut rest = tree;
    while rest.len() > 1 {
        let (left, right) = rest.split_at(split(rest.len()));
        if at < left.len() {
            path.push(root_of(right));
            rest = left;
        } else {
            at -= left.len();
            path.push(root_of(left));
            rest = right;
        }
    }
    path.reverse();
    Some(path)
}

/// The consistency proof between the first `from` and the first `to` of `leaves` (leaf hashes).
#[must_use]
pub fn consistency_path(leaves: &[Digest], from: u64, to: u64) -> Option<Vec<Digest>> {
    let tree = leaves.get(..usize::try_from(to).ok()?)?;
    let mut at = usize::try_from(from).ok()?;
    if at == 0 || at > tree.len() {
        return None;
    }
    let mut path = Vec::new();
    let mut rest = tree;
    // True while the smaller tree's own root can still be a node of this subtree.
    let mut known = true;
    while at < rest.len() {
        let (left, right) = rest.split_at(split(rest.len()));
        if at <= left.len() {
            path.push(root_of(right));
            rest = left;
        } else {
            path.push(root_of(left));
            at -= left.len();
            rest = right;
            known = false;
        }
    }
    if !known {
        path.push(root_of(rest));
    }
    path.reverse();
    Some(path)
}

/// Levels below, and left siblings above, the point where `index`'s path joins the right border.
fn decompose(index: u64, size: u64) -> (usize, usize) {
    let inner = u64::BITS - (index ^ (size - 1)).leading_zeros();
    let border = index.checked_shr(inner).unwrap_or(0).count_ones();
    (inner as usize, border as usize)
}

fn climb(node: Digest, path: &[Digest], index: u64) -> Digest {
    path.iter()
        .enumerate()
        .fold(node, |node, (level, sibling)| {
            if index >> level & 1 == 0 {
                node_hash(&node, sibling)
            } else {
                node_hash(sibling, &node)
            }
        })
}

fn same_root(got: Digest, want: Digest) -> Result<(), ProofError> {
    if got == want {
        Ok(())
    } else {
        Err(ProofError::Root { got, want })
    }
}

/// The biggest power of two below `length`.
const fn split(length: usize) -> usize {
    length.next_power_of_two() >> 1
}
