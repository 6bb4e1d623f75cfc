//! Somebody else's RFC 9162 tree, crate `ct-merkle`, takes our roots and proofs, and we take its.
//!
//! Every pair of sizes up to where subtrees of each shape have come by, by value and by verdict:
//! a proof is the same bytes in both, and a hash of it changed is refused by both.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
use merestone_evidence::{
    Digest, Frontier, consistency_path, inclusion_path, leaf_hash, verify_consistency,
    verify_inclusion,
};
use sha2::Sha256;

/// Past two levels of tiles' halves and every shape of a last, ragged subtree.
const MOST: u64 = 70;

type Theirs = MemoryBackedTree<Sha256, Vec<u8>>;

fn bytes(path: &[Digest]) -> Vec<u8> {
    path.iter().flat_map(|hash| hash.0).collect()
}

fn path(bytes: &[u8]) -> Vec<Digest> {
    let hashes = bytes.chunks(32);
    hashes
        .map(|hash| Digest(hash.try_into().unwrap()))
        .collect()
}

/// Our root of the first leaves, as ct-merkle has roots.
fn root(leaves: &[Digest]) -> (Digest, RootHash<Sha256>) {
    let mut frontier = Frontier::new();
    for leaf in leaves {
        frontier.append(*leaf);
    }
    let root = frontier.root();
    (root, RootHash::new(root.0.into(), leaves.len() as u64))
}

/// A path with one bit of one of its hashes changed.
fn spoiled(path: &[Digest]) -> Vec<Digest> {
    let mut other = path.to_vec();
    let middle = other.len() / 2;
    other[middle].0[9] ^= 1;
    other
}

#[test]
fn ct_merkle_takes_our_roots_and_inclusion_proofs_and_we_take_its_n50_n52() {
    let (mut tree, mut items, mut hashes) = (Theirs::new(), Vec::new(), Vec::new());
    for size in 1..=MOST {
        let leaf = size.to_be_bytes().repeat(3);
        tree.push(leaf.clone());
        hashes.push(leaf_hash(&leaf));
        items.push(leaf);
        let (ours, as_theirs) = root(&hashes);
        assert_eq!(tree.root(), as_theirs, "the root of {size} leaves");
        for (index, leaf) in (0..).zip(&items) {
            let at = usize::try_from(index).unwrap();
            let made = inclusion_path(&hashes, index, size).unwrap();
            let given = tree.prove_inclusion(at);
            assert_eq!(given.as_bytes(), bytes(&made), "leaf {index} of {size}");
            let proof = InclusionProof::try_from_bytes(bytes(&made)).unwrap();
            as_theirs.verify_inclusion(leaf, index, &proof).unwrap();
            let taken = path(given.as_bytes());
            verify_inclusion(index, size, &hashes[at], &taken, &ours).unwrap();
            if !made.is_empty() {
                let wrong = spoiled(&made);
                assert!(verify_inclusion(index, size, &hashes[at], &wrong, &ours).is_err());
                let wrong = InclusionProof::try_from_bytes(bytes(&wrong)).unwrap();
                assert!(as_theirs.verify_inclusion(leaf, index, &wrong).is_err());
            }
        }
    }
}

#[test]
fn ct_merkle_takes_our_consistency_proofs_and_we_take_its_n51() {
    let leaves: Vec<Vec<u8>> = (0..MOST).map(|n| n.to_be_bytes().to_vec()).collect();
    let hashes: Vec<Digest> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
    let mut tree = Theirs::new();
    for (to, leaf) in (1..=MOST).zip(leaves) {
        tree.push(leaf);
        let newer = root(&hashes[..usize::try_from(to).unwrap()]);
        for from in 1..to {
            let older = root(&hashes[..usize::try_from(from).unwrap()]);
            let made = consistency_path(&hashes, from, to).unwrap();
            let given = tree.prove_consistency(usize::try_from(to - from).unwrap());
            assert_eq!(given.as_bytes(), bytes(&made), "from {from} to {to}");
            let proof = ConsistencyProof::try_from_bytes(bytes(&made)).unwrap();
            newer.1.verify_consistency(&older.1, &proof).unwrap();
            verify_consistency(from, to, &path(given.as_bytes()), &older.0, &newer.0).unwrap();
            let wrong = spoiled(&made);
            assert!(verify_consistency(from, to, &wrong, &older.0, &newer.0).is_err());
            let wrong = ConsistencyProof::try_from_bytes(bytes(&wrong)).unwrap();
            assert!(newer.1.verify_consistency(&older.1, &wrong).is_err());
        }
    }
}
