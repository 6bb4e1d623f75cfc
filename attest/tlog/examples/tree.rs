//! Our tree against crate `ct-merkle`, in one run and in turns: appending, the root, a proof, and
//! the same proof out of tiles on the disk.
//!
//! `tree LEAVES ROUNDS` prints one JSON object a round: seconds of each, ours and theirs. The
//! roots and the proofs are the same, or it stops.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement, and stops where it cannot"
)]

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use merestone_evidence::{Digest, Frontier, inclusion_path, leaf_hash, verify_inclusion};
use merestone_tlog::{Rows, Tile, TileNodes, inclusion_proof};
use sha2::Sha256;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

/// As long as a record of an inference in a pod.
const LEAF_BYTES: usize = 630;

fn main() {
    let arguments: Vec<u64> = std::env::args()
        .skip(1)
        .map(|text| text.parse().unwrap())
        .collect();
    let [count, rounds] = arguments[..] else {
        panic!("tree LEAVES ROUNDS");
    };
    let leaves: Vec<Vec<u8>> = (0..count)
        .map(|number| {
            let mut leaf = vec![0x5a; LEAF_BYTES];
            leaf[..8].copy_from_slice(&number.to_be_bytes());
            leaf
        })
        .collect();
    let folder = std::env::temp_dir().join(format!("merestone-tree-{}", std::process::id()));
    place(&leaves, &folder);
    for _ in 0..rounds {
        round(&leaves, &folder);
    }
    fs::remove_dir_all(&folder).unwrap();
}

/// Writes the tree's tiles, as the agent publishes them.
fn place(leaves: &[Vec<u8>], folder: &Path) {
    let write = |tile: Tile, hashes: &[Digest]| {
        let path = folder.join(tile.path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
        fs::write(path, bytes).unwrap();
    };
    let mut rows = Rows::new();
    for leaf in leaves {
        rows.append(leaf_hash(leaf), write);
    }
    for (tile, hashes) in rows.partial() {
        write(tile, hashes);
    }
}

fn seconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let began = Instant::now();
    let made = black_box(work());
    (began.elapsed().as_secs_f64(), made)
}

fn round(leaves: &[Vec<u8>], folder: &Path) {
    let (ours, (hashes, root)) = seconds(|| {
        let mut frontier = Frontier::new();
        let hashes: Vec<Digest> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
        for hash in &hashes {
            frontier.append(*hash);
        }
        (hashes, frontier.root())
    });
    // Their tree wants leaves of its own: made before the clock starts.
    let copies = leaves.to_vec();
    let (theirs, tree) = seconds(|| {
        let mut tree = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        for leaf in copies {
            tree.push(leaf);
        }
        tree
    });
    let theirs_root = tree.root();
    assert_eq!(theirs_root.as_bytes()[..], root.0);
    let (size, index) = (leaves.len() as u64, leaves.len() / 3);
    let (our_proof, path) = seconds(|| inclusion_path(&hashes, index as u64, size).unwrap());
    let (their_proof, proof) = seconds(|| tree.prove_inclusion(index));
    let same: Vec<u8> = path.iter().flat_map(|hash| hash.0).collect();
    assert_eq!(proof.as_bytes(), same);
    let (tile_proof, out_of_tiles) = seconds(|| {
        let read = |tile: Tile| fs::read(folder.join(tile.path()));
        inclusion_proof(&mut TileNodes::new(size, read), index as u64, size).unwrap()
    });
    assert_eq!(out_of_tiles, path);
    let leaf = &leaves[index];
    let (our_check, held) =
        seconds(|| verify_inclusion(index as u64, size, &leaf_hash(leaf), &path, &root));
    held.unwrap();
    let (their_check, held) = seconds(|| theirs_root.verify_inclusion(leaf, index as u64, &proof));
    held.unwrap();
    println!(
        "{{\"leaves\": {size}, \"append\": [{ours}, {theirs}], \"prove\": [{our_proof}, \
         {their_proof}], \"prove_tiles\": [{tile_proof}, {their_proof}], \"check\": [{our_check}, \
         {their_check}]}}"
    );
}
