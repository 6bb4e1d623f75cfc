//! What a proof costs: out of tiles on the disk, and by hashing every leaf.
//!
//! `proofs LEAVES ROUNDS` prints one JSON object a round: seconds of an inclusion and of a
//! consistency proof, each `[out of tiles, by hashing]`, and their hashes. Out of tiles is all that
//! the agent does: no tile is open before, and the proof is verified at the end. By hashing starts
//! with the leaf hashes in memory. Both give the same proof, or it stops.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement, and stops where it cannot"
)]

use merestone_evidence::{
    Digest, Frontier, consistency_path, inclusion_path, leaf_hash, verify_consistency,
    verify_inclusion,
};
use merestone_tlog::{Rows, Tile, TileNodes, consistency_proof, inclusion_proof};
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A tree, its tiles on the disk, and the roots of its beginnings.
struct Log {
    folder: PathBuf,
    leaves: Vec<Digest>,
    roots: Vec<Digest>,
}

impl Log {
    fn of(count: u64) -> Self {
        let folder = std::env::temp_dir().join(format!("merestone-proofs-{}", std::process::id()));
        let write = |tile: Tile, hashes: &[Digest]| {
            let path = folder.join(tile.path());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
            fs::write(path, bytes).unwrap();
        };
        let leaves: Vec<Digest> = (0..count).map(|at| leaf_hash(&at.to_be_bytes())).collect();
        let (mut rows, mut frontier) = (Rows::new(), Frontier::new());
        let mut roots = Vec::with_capacity(leaves.len());
        for leaf in &leaves {
            rows.append(*leaf, write);
            frontier.append(*leaf);
            roots.push(frontier.root());
        }
        for (tile, hashes) in rows.partial() {
            write(tile, hashes);
        }
        Self {
            folder,
            leaves,
            roots,
        }
    }

    fn size(&self) -> u64 {
        self.leaves.len() as u64
    }

    /// Of the first `size` leaves.
    fn root(&self, size: u64) -> &Digest {
        &self.roots[usize::try_from(size - 1).unwrap()]
    }

    fn read(folder: &Path, tile: Tile) -> std::io::Result<Vec<u8>> {
        fs::read(folder.join(tile.path()))
    }

    fn inclusion(&self, index: u64) -> ([f64; 2], Vec<Digest>) {
        let (size, leaf) = (self.size(), &self.leaves[usize::try_from(index).unwrap()]);
        let (tiles, path) = seconds(|| {
            let mut nodes = TileNodes::new(size, |tile| Self::read(&self.folder, tile));
            let path = inclusion_proof(&mut nodes, index, size).unwrap();
            verify_inclusion(index, size, leaf, &path, self.root(size)).unwrap();
            path
        });
        let (whole, same) = seconds(|| inclusion_path(&self.leaves, index, size).unwrap());
        assert_eq!(path, same);
        ([tiles, whole], path)
    }

    fn consistency(&self, from: u64) -> ([f64; 2], Vec<Digest>) {
        let to = self.size();
        let (tiles, path) = seconds(|| {
            let mut nodes = TileNodes::new(to, |tile| Self::read(&self.folder, tile));
            let path = consistency_proof(&mut nodes, from, to).unwrap();
            verify_consistency(from, to, &path, self.root(from), self.root(to)).unwrap();
            path
        });
        let (whole, same) = seconds(|| consistency_path(&self.leaves, from, to).unwrap());
        assert_eq!(path, same);
        ([tiles, whole], path)
    }
}

fn seconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let began = Instant::now();
    let made = black_box(work());
    (began.elapsed().as_secs_f64(), made)
}

fn main() {
    let arguments: Vec<u64> = std::env::args()
        .skip(1)
        .map(|text| text.parse().unwrap())
        .collect();
    let [count, rounds] = arguments[..] else {
        panic!("proofs LEAVES ROUNDS");
    };
    let log = Log::of(count);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _round in 0..rounds {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let (inclusion, included) = log.inclusion(state % count);
        let (consistency, joined) = log.consistency(1 + (state >> 20) % count);
        println!(
            "{{\"leaves\": {count}, \"inclusion\": {inclusion:?}, \"inclusion_hashes\": {}, \
             \"consistency\": {consistency:?}, \"consistency_hashes\": {}}}",
            included.len(),
            joined.len()
        );
    }
    fs::remove_dir_all(&log.folder).unwrap();
}
