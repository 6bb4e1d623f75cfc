//! The proofs of a file: out of the log's published tiles, verified before anybody gets them.
//!
//! A proof costs a few tiles however long the log is. Where tiles are missing, or what they give
//! does not lead to a sealed root, that is told with the tiles that are wrong, and this file's
//! proofs are made by hashing every leaf instead, which takes as long as the log is. A proof that
//! does not hold then either is not made: leaves and statements are of two trees.

use super::ExportError;
use super::tree::Tree;
use crate::ledger::{PublishedTiles, Reader};
use merestone_evidence::{Digest, Frontier, verify_consistency, verify_inclusion};
use merestone_tlog::{Nodes, consistency_proof, inclusion_proof, peaks};

/// Size and root of a tree.
pub(super) type Sealed = (u64, Digest);

/// Tiles that are named; more are as wrong.
const MOST_NAMED: usize = 8;

/// A list of nodes, and what shows that it is the right one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Proof {
    /// That a leaf of this index and hash is in a tree.
    Inclusion { leaf: (u64, Digest), tree: Sealed },
    /// That one tree is the beginning of another.
    Consistency { from: Sealed, to: Sealed },
    /// The peaks of a tree.
    Peaks { tree: Sealed },
}

impl Proof {
    /// Leaves of the tree that it is of.
    const fn size(&self) -> u64 {
        let (Self::Inclusion { tree, .. }
        | Self::Consistency { to: tree, .. }
        | Self::Peaks { tree }) = self;
        tree.0
    }

    fn out_of<N: Nodes>(&self, nodes: &mut N) -> Result<Vec<Digest>, N::Error> {
        match *self {
            Self::Inclusion { leaf, tree } => inclusion_proof(nodes, leaf.0, tree.0),
            Self::Consistency { from, to } => consistency_proof(nodes, from.0, to.0),
            Self::Peaks { tree } => peaks(nodes, tree.0),
        }
    }

    fn verify(&self, path: &[Digest]) -> Result<(), String> {
        match *self {
            Self::Inclusion {
                leaf: (index, leaf),
                tree: (size, root),
            } => {
                verify_inclusion(index, size, &leaf, path, &root).map_err(|error| error.to_string())
            }
            Self::Consistency { from, to } => {
                verify_consistency(from.0, to.0, path, &from.1, &to.1)
                    .map_err(|error| error.to_string())
            }
            Self::Peaks { tree: (size, root) } => {
                let frontier = Frontier::from_peaks(size, path.to_vec());
                let got = frontier.map_err(|error| error.to_string())?.root();
                let same = got == root;
                same.then_some(())
                    .ok_or_else(|| format!("they lead to {got}, sealed is {root}"))
            }
        }
    }
}

/// Whoever makes the proofs of one file.
pub(super) struct Proofs<'r> {
    reader: &'r Reader,
    /// Until the tiles fail once: not opened yet, or open.
    tiles: Option<PublishedTiles>,
    whole: Option<Tree>,
    /// The tiles that are not the log's, where hashing has shown it.
    wrong: Vec<String>,
}

impl<'r> Proofs<'r> {
    pub(super) const fn of(reader: &'r Reader) -> Self {
        Self {
            reader,
            tiles: None,
            whole: None,
            wrong: Vec::new(),
        }
    }

    /// A proof that holds.
    pub(super) fn make(&mut self, proof: &Proof) -> Result<Vec<Digest>, ExportError> {
        let (path, held) = self.try_to(proof)?;
        held.map_err(|why| ExportError::Proof {
            size: proof.size(),
            why,
        })?;
        Ok(path)
    }

    /// The proof, and whether it holds: for a tree that others say this log had.
    pub(super) fn try_to(
        &mut self,
        proof: &Proof,
    ) -> Result<(Vec<Digest>, Result<(), String>), ExportError> {
        if proof.size() == 0 {
            return Ok((Vec::new(), Ok(())));
        }
        let tree = match self.whole.take() {
            Some(tree) => tree,
            None => match self.out_of_tiles(proof) {
                Ok(path) => return Ok((path, Ok(()))),
                Err(why) => self.hash_all(&why)?,
            },
        };
        let tree = self.whole.insert(tree);
        let Ok(path) = proof.out_of(&mut &*tree);
        let held = proof.verify(&path);
        Ok((path, held))
    }

    fn out_of_tiles(&mut self, proof: &Proof) -> Result<Vec<Digest>, String> {
        let mut tiles = match self.tiles.take() {
            Some(tiles) => tiles,
            None => self.reader.tiles()?,
        };
        let (published, size) = (tiles.size(), proof.size());
        if published < size {
            return Err(format!(
                "{published} leaves are published and not yet {size}"
            ));
        }
        let path = proof.out_of(&mut tiles);
        // Kept also where they are wrong: to be named.
        self.tiles = Some(tiles);
        let path = path?;
        let held = proof.verify(&path);
        held.map_err(|error| format!("the tiles are not those of the sealed tree: {error}"))?;
        Ok(path)
    }

    fn hash_all(&mut self, why: &str) -> Result<Tree, ExportError> {
        let tree = Tree::over(self.reader.hashes()?);
        let tiles = self.tiles.take();
        let wrong = tiles.iter().flat_map(PublishedTiles::held);
        let wrong = wrong.filter(|(tile, hashes)| !tree.has(*tile, hashes));
        self.wrong = wrong.map(|(tile, _)| tile.path()).collect();
        let more = self.wrong.len().saturating_sub(MOST_NAMED);
        let named = self.wrong.iter().take(MOST_NAMED);
        let wrong = named.map(String::as_str).collect::<Vec<_>>().join(", ");
        tracing::warn!(
            why,
            wrong,
            more,
            "proofs are made from the leaves, not from the tiles"
        );
        Ok(tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{
        Ledger, NewKey,
        tests::{entry, epoch, quote},
    };
    use merestone_evidence::{Body, Entry, EntryKind, consistency_path};
    use std::fs;
    use std::path::{Path, PathBuf};

    fn told(NewKey { key, previous }: NewKey) -> Entry {
        Entry {
            kind: EntryKind,
            time_ms: 1,
            boot_ns: 1,
            body: Body::LogKey { key, previous },
        }
    }

    /// A log whose epochs end at these sizes; those sizes with their roots.
    fn sealed_at(state_dir: &Path, sizes: &[u64]) -> Vec<Sealed> {
        let (ledger, _) = Ledger::open(state_dir).unwrap();
        ledger.begin_session(b"session", b"key").unwrap();
        ledger.seal_session(&quote(0), None, None).unwrap();
        ledger.publish_as("gpu-01", told).unwrap();
        let mut sealed = Vec::new();
        for (sequence, &size) in (0..).zip(sizes) {
            for number in ledger.size()..size {
                ledger.append(&entry(number)).unwrap();
            }
            ledger.write_ahead(&epoch(&ledger, sequence)).unwrap();
            ledger.seal_epoch(&quote(1)).unwrap();
            assert_eq!(ledger.sealed().size, size);
            sealed.push((size, ledger.sealed().root));
        }
        sealed
    }

    fn tile(state_dir: &Path, name: &str) -> PathBuf {
        state_dir.join("log/tiles").join(name)
    }

    /// Out of tiles alone, and the same as by hashing all leaves: at every sealed size, and for
    /// any two trees.
    fn same_as_the_whole_tree(state_dir: &Path, sealed: &[Sealed]) {
        let reader = Reader::open(state_dir).unwrap();
        let hashes = reader.hashes().unwrap();
        let (whole, most) = (Tree::over(hashes.clone()), hashes.len() as u64);
        let root = |size| {
            let Ok(peaks) = peaks(&mut &whole, size);
            (size, Frontier::from_peaks(size, peaks).unwrap().root())
        };
        let mut proofs = Proofs::of(&reader);
        let mut same = |proof: Proof| {
            let Ok(want) = proof.out_of(&mut &whole);
            assert_eq!(proofs.make(&proof).unwrap(), want, "{proof:?}");
            assert!(proofs.whole.is_none(), "nothing was hashed");
        };
        let leaf = |index: u64| (index, hashes[usize::try_from(index).unwrap()]);
        for &tree in sealed {
            let size = tree.0;
            assert_eq!(tree, root(size));
            same(Proof::Peaks { tree });
            let places = [0, 1, 255, 256, size / 3, size.saturating_sub(2), size - 1];
            for index in places.into_iter().filter(|index| *index < size) {
                let leaf = leaf(index);
                same(Proof::Inclusion { leaf, tree });
            }
            for &from in sealed.iter().filter(|from| from.0 <= size) {
                same(Proof::Consistency { from, to: tree });
            }
        }
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |limit: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % limit
        };
        for _round in 0..300 {
            let tree = root(1 + below(most));
            let (from, leaf) = (root(1 + below(tree.0)), leaf(below(tree.0)));
            same(Proof::Peaks { tree });
            same(Proof::Inclusion { leaf, tree });
            same(Proof::Consistency { from, to: tree });
        }
    }

    #[test]
    fn proofs_out_of_tiles_are_those_of_the_whole_tree_about_every_border_of_a_tile() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = [1, 2, 3, 254, 255, 256, 257, 258, 511, 512, 513, 700];
        let sealed = sealed_at(dir.path(), &sizes);
        same_as_the_whole_tree(dir.path(), &sealed);
    }

    #[test]
    fn proofs_out_of_tiles_are_those_of_the_whole_tree_where_a_third_level_begins() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = [255, 257, 4_000, 65_279, 65_280, 65_535, 65_536, 65_537];
        let sealed = sealed_at(dir.path(), &sizes);
        same_as_the_whole_tree(dir.path(), &sealed);
    }

    #[test]
    fn a_damaged_tile_is_found_and_named_and_the_proof_is_made_from_the_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = sealed_at(dir.path(), &[3, 255, 257, 600]);
        let reader = Reader::open(dir.path()).unwrap();
        let hashes = reader.hashes().unwrap();
        let [from, to] = [sealed[1], sealed[3]];
        let wanted = Proof::Consistency { from, to };
        let want = consistency_path(&hashes, from.0, to.0).unwrap();
        for name in ["tile/0/000", "tile/0/002.p/88", "tile/1/000.p/2"] {
            let path = tile(dir.path(), name);
            let bytes = fs::read(&path).unwrap();
            // Each hash of the tile that this proof has to look at.
            let mut found = 0;
            for at in (0..bytes.len()).step_by(32) {
                let mut wrong = bytes.clone();
                wrong[at + 7] ^= 4;
                fs::write(&path, wrong).unwrap();
                let mut proofs = Proofs::of(&reader);
                assert_eq!(proofs.make(&wanted).unwrap(), want, "{name} at {at}");
                if proofs.whole.is_some() {
                    assert_eq!(proofs.wrong, [name], "at {at}");
                    found += 1;
                }
            }
            assert!(found > 0, "{name}");
            for length in [bytes.len() - 32, bytes.len() - 1, 0] {
                fs::write(&path, &bytes[..length]).unwrap();
                let why = Proofs::of(&reader).out_of_tiles(&wanted).unwrap_err();
                assert!(why.contains(&format!("has {length} bytes")), "{why}");
                assert_eq!(Proofs::of(&reader).make(&wanted).unwrap(), want);
            }
            fs::remove_file(&path).unwrap();
            let why = Proofs::of(&reader).out_of_tiles(&wanted).unwrap_err();
            assert_eq!(why, format!("{name} is missing"));
            assert_eq!(Proofs::of(&reader).make(&wanted).unwrap(), want);
            fs::write(&path, bytes).unwrap();
        }
        let mut proofs = Proofs::of(&reader);
        proofs.make(&wanted).unwrap();
        assert!(proofs.whole.is_none(), "mended");
    }

    #[test]
    fn a_proof_of_another_tree_than_the_leaves_have_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = sealed_at(dir.path(), &[3, 255, 300]);
        let reader = Reader::open(dir.path()).unwrap();
        let (from, to) = (sealed[1], sealed[2]);
        let leaf = (7, reader.hashes().unwrap()[7]);
        let other = Digest([3; 32]);
        for proof in [
            Proof::Consistency {
                from: (from.0, other),
                to,
            },
            Proof::Consistency {
                from,
                to: (to.0, other),
            },
            Proof::Inclusion {
                leaf: (7, other),
                tree: to,
            },
            Proof::Inclusion {
                leaf,
                tree: (to.0, other),
            },
            Proof::Peaks {
                tree: (to.0, other),
            },
            Proof::Inclusion {
                leaf,
                tree: (to.0 + 1, to.1),
            },
        ] {
            let mut proofs = Proofs::of(&reader);
            let refused = proofs.make(&proof).unwrap_err();
            assert!(matches!(refused, ExportError::Proof { .. }), "{refused}");
            assert!(proofs.wrong.is_empty(), "no tile is wrong");
        }
    }

    #[test]
    fn what_is_sealed_and_not_published_yet_is_proven_from_the_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = sealed_at(dir.path(), &[3, 255, 300]);
        let checkpoint = tile(dir.path(), "checkpoint");
        let reader = Reader::open(dir.path()).unwrap();
        let wanted = Proof::Consistency {
            from: sealed[0],
            to: sealed[2],
        };
        let want = Proofs::of(&reader).make(&wanted).unwrap();
        fs::remove_file(checkpoint).unwrap();
        let mut proofs = Proofs::of(&reader);
        assert_eq!(
            proofs.out_of_tiles(&wanted).unwrap_err(),
            "nothing is published yet"
        );
        assert_eq!(proofs.make(&wanted).unwrap(), want);
    }
}
