//! The log as others read it: nothing is believed but what a pinned key signed, what is read is
//! written again to the byte, and a mirror passes only with the log's own tiles.
//!
//! The first byte says what the others are: a note, a checkpoint, keys, an entry bundle, or
//! changes to the tiles of a sound log.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merestone_evidence::{Digest, leaf_hash, root_of};
use merestone_tlog::{
    Algorithm, Checkpoint, Note, ReplayError, Rows, Signer, TILE_WIDTH, Tile, TileSource,
    VerifierKey, entries, entry, replay, tiles_of,
};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Leaves of the log that is changed: two full tiles and a part.
const LEAVES: u64 = 600;
const TIME_S: u64 = 1_767_225_600;

fn signers() -> &'static [Signer; 2] {
    static SIGNERS: OnceLock<[Signer; 2]> = OnceLock::new();
    SIGNERS.get_or_init(|| {
        let of = |name, algorithm| Signer::from_seed(name, algorithm, &[1; 32]);
        [
            of("log.example", Algorithm::Ed25519).expect("a name"),
            of("witness.example", Algorithm::Cosignature).expect("a name"),
        ]
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Some((what, rest)) = bytes.split_first() else {
        return;
    };
    match what % 5 {
        0 => note(rest),
        1 => checkpoint(rest),
        2 => keys(rest),
        3 => bundle(rest),
        _ => mirror(rest),
    }
});

fn note(bytes: &[u8]) {
    let Ok(note) = Note::parse(bytes) else {
        return;
    };
    assert_eq!(note.bytes(), bytes);
    for signer in signers() {
        let key = signer.verifier();
        // The key is known here, so whatever holds can be made again.
        if let Ok(Some(time_s)) = note.signed_by(&key) {
            let again = signer.sign(note.text(), time_s);
            assert!(note.signatures().contains(&again));
        }
        let only = note.only(std::slice::from_ref(&key));
        assert!(only.signatures().len() <= note.signatures().len());
        let mut more = note.clone();
        more.add(signer.sign(note.text(), TIME_S));
        let whole = more.only(std::slice::from_ref(&key));
        assert_eq!(whole.signatures().len(), 1);
        assert!(matches!(whole.signed_by(&key), Ok(Some(_))));
        assert!(more.merge(&note));
    }
    checkpoint(note.text().as_bytes());
}

fn checkpoint(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(checkpoint) = Checkpoint::parse(text) {
        assert_eq!(checkpoint.text(), text);
        if let Some(sealed) = checkpoint.sealed() {
            let lines = sealed.lines();
            let same = |line: &String| {
                let mut there = checkpoint.extensions.iter();
                there.any(|other| other.eq_ignore_ascii_case(line))
            };
            assert!(lines.iter().all(same));
        }
    }
}

fn keys(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(key) = VerifierKey::parse(text) {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(signer) = Signer::parse(text) {
        assert_eq!(signer.secret(), text);
        let key = signer.verifier();
        assert_eq!(VerifierKey::parse(&key.to_string()).as_ref(), Ok(&key));
    }
}

fn bundle(bytes: &[u8]) {
    if let Ok(found) = entries(bytes) {
        let again = found.iter().map(|data| entry(data).expect("it was short"));
        assert_eq!(again.collect::<Vec<_>>().concat(), bytes);
    }
}

struct Log {
    hashes: Vec<Digest>,
    /// Of the whole tree, and of each smaller one where the tile is full there.
    tiles: BTreeMap<Tile, Vec<u8>>,
}

fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let hashes: Vec<Digest> = (0..LEAVES).map(|at| leaf_hash(&at.to_be_bytes())).collect();
        let mut tiles = BTreeMap::new();
        let bytes = |hashes: &[Digest]| hashes.iter().flat_map(|hash| hash.0).collect();
        let mut rows = Rows::new();
        for hash in &hashes {
            rows.append(*hash, |tile, hashes| {
                tiles.insert(tile, bytes(hashes));
            });
        }
        for (tile, hashes) in rows.partial() {
            tiles.insert(tile, bytes(hashes));
        }
        assert_eq!(tiles.len(), tiles_of(0, LEAVES).count());
        Log { hashes, tiles }
    })
}

/// A mirror with bytes changed; it knows whether anything that was changed was asked for.
struct Mirror<'c> {
    changes: &'c [u8],
    is_changed: bool,
    next: u64,
}

impl TileSource for Mirror<'_> {
    type Error = &'static str;

    fn tile(&mut self, tile: Tile) -> Result<Vec<u8>, Self::Error> {
        let sound = log().tiles.get(&tile).ok_or("no such tile")?;
        let mut bytes = sound.clone();
        for change in self.changes.chunks_exact(5).take(8) {
            let [level, index, high, low, value] = *change else {
                continue;
            };
            if (level % 4, u64::from(index % 8)) != (tile.level, tile.index) {
                continue;
            }
            let at = usize::from(high) << 8 | usize::from(low);
            if high >= 0xf0 {
                bytes.truncate(usize::from(low) * 32);
            } else if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        self.is_changed |= bytes != *sound;
        Ok(bytes)
    }

    fn leaves(&mut self, tile: Tile, hashes: &[Digest]) -> Result<(), Self::Error> {
        assert_eq!(hashes.len(), usize::from(tile.width));
        assert!(self.next == 0 || tile.index * TILE_WIDTH == self.next);
        self.next = (tile.index + 1) * TILE_WIDTH;
        Ok(())
    }
}

/// Two bytes how much was known, one whether the root is, and changes of five bytes each.
fn mirror(bytes: &[u8]) {
    let Some(([high, low, lie], changes)) = bytes.split_first_chunk::<3>() else {
        return;
    };
    let from = (u64::from(*high) << 8 | u64::from(*low)) % (LEAVES + 2);
    let known = usize::try_from(from).ok();
    let known = known.and_then(|known| log().hashes.get(..known));
    let mut root = root_of(known.unwrap_or_default());
    root.0[0] ^= u8::from(*lie == 1);
    let now = Checkpoint {
        origin: "log.example".to_owned(),
        size: LEAVES,
        root: root_of(&log().hashes),
        extensions: Vec::new(),
    };
    let mut source = Mirror {
        changes,
        is_changed: false,
        next: 0,
    };
    let outcome = replay((from, root), &now, &mut source);
    if from > LEAVES {
        assert!(matches!(outcome, Err(ReplayError::Shrunk { .. })));
    } else {
        assert_eq!(outcome.is_ok(), !source.is_changed && *lie != 1);
    }
}
