//! What others read of the log: tiles, checkpoint, key.

use super::{
    tests::{entry, epoch, quote},
    tiles::tiles_path,
    *,
};
use merestone_evidence::{Body, EntryKind, leaf_hash};
use merestone_tlog::{
    Checkpoint as Published, Note, Tile, TileSource, VerifierKey, entries, entries_path, replay,
};
use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _};

pub(super) const NODE: &str = "gpu-01";

pub(super) fn told(NewKey { key, previous }: NewKey) -> Entry {
    Entry {
        kind: EntryKind,
        time_ms: 1,
        boot_ns: 1,
        body: Body::LogKey { key, previous },
    }
}

/// Static files as a witness reads them, entries included.
pub(super) struct Copy(pub(super) PathBuf);

impl TileSource for Copy {
    type Error = String;
    fn tile(&mut self, tile: Tile) -> Result<Vec<u8>, String> {
        let full = Tile { width: 256, ..tile };
        let bytes = fs::read(self.0.join(tile.path()));
        let bytes = bytes.or_else(|_| fs::read(self.0.join(full.path())));
        let mut bytes = bytes.map_err(|error| format!("{}: {error}", tile.path()))?;
        bytes.truncate(usize::from(tile.width) * 32);
        Ok(bytes)
    }
    fn leaves(&mut self, tile: Tile, hashes: &[Digest]) -> Result<(), String> {
        let partial = fs::read(self.0.join(entries_path(tile.index, tile.width)));
        let bytes = partial.or_else(|_| fs::read(self.0.join(entries_path(tile.index, 256))));
        let bytes = bytes.map_err(|error| error.to_string())?;
        let found = entries(&bytes).map_err(|error| error.to_string())?;
        let same = hashes
            .iter()
            .zip(&found)
            .all(|(hash, data)| leaf_hash(data) == *hash);
        (same && found.len() >= hashes.len())
            .then_some(())
            .ok_or_else(|| format!("entries of {}", tile.path()))
    }
}

/// The checkpoint as published, held against the files beside it and against a known tree.
pub(super) fn look(
    state_dir: &Path,
    known: (u64, Digest),
) -> Result<Option<(Published, Note)>, String> {
    let root = tiles_path(&log_path(state_dir));
    let Ok(bytes) = fs::read(root.join("checkpoint")) else {
        return Ok(None);
    };
    let note = Note::parse(&bytes).map_err(|error| error.to_string())?;
    let now = Published::parse(note.text()).map_err(|error| error.to_string())?;
    replay(known, &now, &mut Copy(root)).map_err(|error| error.to_string())?;
    Ok(Some((now, note)))
}

fn seal(ledger: &Ledger, sequence: u64) {
    ledger.write_ahead(&epoch(ledger, sequence)).unwrap();
    ledger.seal_epoch(&quote(1)).unwrap();
}

fn append(ledger: &Ledger, count: u64) {
    for number in 0..count {
        ledger.append(&entry(number)).unwrap();
    }
}

fn key(state_dir: &Path) -> VerifierKey {
    let text = fs::read_to_string(state_dir.join("log/vkey")).unwrap();
    VerifierKey::parse(text.trim_end()).unwrap()
}

fn files(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            let below = files(&entry.path());
            found.extend(below.iter().map(|below| format!("{name}/{below}")));
        } else {
            found.insert(name);
        }
    }
    found
}

#[test]
fn every_sealed_epoch_is_published_and_grows_from_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(dir.path()).unwrap();
    ledger.begin_session(b"session", b"key").unwrap();
    ledger.seal_session(&quote(0), None, None).unwrap();
    ledger.publish_as(NODE, told).unwrap();
    assert!(
        look(dir.path(), (0, merestone_evidence::empty_root()))
            .unwrap()
            .is_none()
    );
    let mut known = (0, merestone_evidence::empty_root());
    let mut number = 0;
    for (sequence, more) in (0..).zip([0_u64, 3, 0, 200, 51, 1, 1, 300, 2000]) {
        for _ in 0..more {
            ledger.append(&entry(number)).unwrap();
            number += 1;
        }
        seal(&ledger, sequence);
        let (now, note) = look(dir.path(), known).unwrap().unwrap();
        assert_eq!(
            (now.size, now.root),
            (ledger.sealed().size, ledger.sealed().root)
        );
        assert_eq!(now.sealed().unwrap().epoch, ledger.sealed().last.unwrap());
        assert_eq!(note.signed_by(&key(dir.path())), Ok(Some(0)));
        assert_eq!(now.origin, key(dir.path()).name());
        known = (now.size, now.root);
    }
    let size = number + 1;
    assert_eq!(
        known.0, size,
        "the entry that tells of the key is a leaf too"
    );
    // Partial files go once the full one is there, and nothing else is left lying about.
    let there = files(&tiles_path(&log_path(dir.path())));
    let full = size / 256;
    assert!(there.contains(&format!("tile/0/{:03}", full - 1)));
    for name in &there {
        let is_old = name.contains(".p/")
            && !name.contains(&format!("/{full:03}.p/"))
            && !name.starts_with("tile/1/");
        assert!(!is_old && !name.contains("new"), "{name}");
    }
    let mode = |name: &str| {
        let path = log_path(dir.path()).join(name);
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(
        (mode("key"), mode("tiles/checkpoint"), mode("tiles")),
        (0o600, 0o600, 0o700)
    );
}

#[test]
fn what_is_missing_of_the_tiles_is_made_again_from_the_leaves() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        ledger.begin_session(b"session", b"key").unwrap();
        ledger.seal_session(&quote(0), None, None).unwrap();
        ledger.publish_as(NODE, told).unwrap();
        append(&ledger, 700);
        seal(&ledger, 0);
    }
    let root = tiles_path(&log_path(dir.path()));
    let before = (files(&root), fs::read(root.join("checkpoint")).unwrap());
    fs::remove_dir_all(&root).unwrap();
    let (ledger, _) = Ledger::open(dir.path()).unwrap();
    ledger
        .publish_as(NODE, |_| panic!("the key is there"))
        .unwrap();
    drop(ledger);
    assert_eq!(
        before,
        (files(&root), fs::read(root.join("checkpoint")).unwrap())
    );
}

#[test]
fn a_full_tile_is_never_written_again_and_a_log_that_was_set_back_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = tiles_path(&log_path(dir.path()));
    let (ledger, _) = Ledger::open(dir.path()).unwrap();
    ledger.begin_session(b"session", b"key").unwrap();
    ledger.seal_session(&quote(0), None, None).unwrap();
    ledger.publish_as(NODE, told).unwrap();
    append(&ledger, 300);
    seal(&ledger, 0);
    drop(ledger);
    let checkpoint = fs::read(root.join("checkpoint")).unwrap();
    fs::remove_file(root.join("checkpoint")).unwrap();
    let tile = root.join("tile/0/000");
    let mut bytes = fs::read(&tile).unwrap();
    bytes[0] ^= 1;
    fs::write(&tile, &bytes).unwrap();
    let (ledger, _) = Ledger::open(dir.path()).unwrap();
    ledger.publish_as(NODE, told).unwrap();
    assert!(
        !root.join("checkpoint").exists(),
        "over a wrong tile nothing is signed"
    );
    assert_eq!(fs::read(&tile).unwrap(), bytes);
    drop(ledger);
    // Another tree under the published size, or a longer one than is sealed.
    let note = Note::parse(&checkpoint).unwrap();
    for (size, error) in [(301, "another tree"), (400, "set back")] {
        let mut other = Published::parse(note.text()).unwrap();
        (other.size, other.root) = (size, Digest([3; 32]));
        let secret = fs::read_to_string(dir.path().join("log/key")).unwrap();
        let signer = merestone_tlog::Signer::parse(secret.trim_end()).unwrap();
        fs::write(
            root.join("checkpoint"),
            Note::sign(other.text(), &signer).bytes(),
        )
        .unwrap();
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        let refused = ledger.publish_as(NODE, told).unwrap_err().to_string();
        assert!(refused.contains(error), "{refused}");
    }
}

#[test]
fn a_key_that_was_taken_away_is_followed_by_one_of_the_same_name_that_an_entry_tells() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(dir.path()).unwrap();
    ledger.begin_session(b"session", b"key").unwrap();
    ledger.seal_session(&quote(0), None, None).unwrap();
    let mut first = None;
    ledger
        .publish_as(NODE, |made| {
            first = Some(made.clone());
            told(made)
        })
        .unwrap();
    seal(&ledger, 0);
    drop(ledger);
    let first = first.unwrap();
    assert_eq!(first.previous, None);
    fs::remove_file(dir.path().join("log/key")).unwrap();
    let (ledger, _) = Ledger::open(dir.path()).unwrap();
    let mut second = None;
    ledger
        .publish_as(NODE, |made| {
            second = Some(made.clone());
            told(made)
        })
        .unwrap();
    let second = second.unwrap();
    assert_eq!(second.previous, Some(first.key.clone()));
    assert_eq!(ledger.log_key(), Some(second.key));
    let old = VerifierKey::parse(&first.key).unwrap();
    assert_eq!(old.name(), key(dir.path()).name());
    let (_, note) = look(dir.path(), (0, merestone_evidence::empty_root()))
        .unwrap()
        .unwrap();
    assert_eq!(
        note.signed_by(&old),
        Ok(None),
        "signed again by the new key"
    );
    assert_eq!(note.signed_by(&key(dir.path())), Ok(Some(0)));
}
