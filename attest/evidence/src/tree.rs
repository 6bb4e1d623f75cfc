//! The RFC 9162 §2.1 tree: hashes, root, and a frontier that grows leaf by leaf.
//!
//! Leaves and nodes hash under different prefixes, and an odd node is promoted, never
//! doubled; so no other list of leaves has the same root (N52).

use crate::Digest;
use sha2::{Digest as _, Sha256};

/// Hash of a leaf's data.
#[must_use]
pub fn leaf_hash(data: &[u8]) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(data);
    Digest(hasher.finalize().into())
}

/// Hash of an inner node.
#[must_use]
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left.0);
    hasher.update(right.0);
    Digest(hasher.finalize().into())
}

/// Root of the empty tree.
#[must_use]
pub fn empty_root() -> Digest {
    crate::sha256(&[])
}

/// Root over leaf hashes.
#[must_use]
pub fn root_of(leaves: &[Digest]) -> Digest {
    let mut frontier = Frontier::new();
    for leaf in leaves {
        frontier.append(*leaf);
    }
    frontier.root()
}

/// Why peaks are not those of a tree of the size.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a tree of {size} leaves has {want} peaks, not {got}")]
pub struct FrontierError {
    /// Leaves.
    pub size: u64,
    /// Peaks given.
    pub got: usize,
    /// Peaks such a tree has.
    pub want: u32,
}

/// The roots of the perfect subtrees that make up a tree, left to right: enough to append
/// and to know the root, in 32 bytes a set bit of the size.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Digest>,
}

impl Frontier {
    /// The empty tree.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            size: 0,
            peaks: Vec::new(),
        }
    }

    /// A tree known by its peaks.
    pub fn from_peaks(size: u64, peaks: Vec<Digest>) -> Result<Self, FrontierError> {
        let want = size.count_ones();
        if u32::try_from(peaks.len()).ok() != Some(want) {
            return Err(FrontierError {
                size,
                got: peaks.len(),
                want,
            });
        }
        Ok(Self { size, peaks })
    }

    /// Leaves so far.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The peaks, left to right.
    #[must_use]
    pub fn peaks(&self) -> &[Digest] {
        &self.peaks
    }

    /// Adds a leaf by its hash.
    pub fn append(&mut self, leaf: Digest) {
        // Each trailing one of the size is a subtree as big as the one just completed.
        let mut node = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                node = node_hash(&left, &node);
            }
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Digest {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else {
            return empty_root();
        };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }
}
