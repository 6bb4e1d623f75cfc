//! The examples of the C2SP specifications, and everything that they forbid.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

use merestone_evidence::{Digest, Frontier, leaf_hash};
use merestone_tlog::{
    Algorithm, Checkpoint, CheckpointError, KeyError, MAX_NOTE, Note, NoteError, ReplayError, Rows,
    Signer, Tile, TileSource, VerifierKey, entries, entry, replay,
};
use std::collections::BTreeMap;

/// c2sp.org/signed-note, "Example".
const FOO: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const MESSAGE: &str = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
/// c2sp.org/tlog-cosignature, the first example.
const BEHIND_THE_SOFA: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

fn signer(name: &str, algorithm: Algorithm, seed: u8) -> Signer {
    Signer::from_seed(name, algorithm, &[seed; 32]).unwrap()
}

#[test]
fn the_example_of_the_specification_verifies_and_is_written_again_to_the_byte() {
    let key = VerifierKey::parse(FOO).unwrap();
    assert_eq!(key.to_string(), FOO);
    let note = Note::parse(MESSAGE.as_bytes()).unwrap();
    assert_eq!(note.text(), "This is an example message.\n");
    assert_eq!(note.signed_by(&key).unwrap(), Some(0));
    assert_eq!(note.bytes(), MESSAGE.as_bytes());
    let other = MESSAGE.replace("message", "massage");
    let note = Note::parse(other.as_bytes()).unwrap();
    assert_eq!(
        note.signed_by(&key),
        Err(NoteError::Signature {
            name: "example.com/foo".into()
        })
    );
}

#[test]
fn the_example_checkpoint_is_read_with_its_cosignature() {
    let note = Note::parse(BEHIND_THE_SOFA.as_bytes()).unwrap();
    assert_eq!(note.bytes(), BEHIND_THE_SOFA.as_bytes());
    let checkpoint = Checkpoint::parse(note.text()).unwrap();
    assert_eq!(checkpoint.origin, "example.com/behind-the-sofa");
    assert_eq!(checkpoint.size, 20_852_163);
    assert_eq!(checkpoint.text(), note.text());
    assert_eq!(checkpoint.sealed(), None);
    let cosignature = &note.signatures()[1];
    assert_eq!(cosignature.bytes.len(), 72);
    let time = u64::from_be_bytes(cosignature.bytes[..8].try_into().unwrap());
    assert_eq!(time, 1_679_315_147, "the time in the specification's text");
}

#[test]
fn a_note_that_is_spelled_in_any_other_way_is_refused() {
    let good = MESSAGE;
    for bad in [
        "",
        "\n",
        "text\n",
        "text\n\n",
        good.trim_end(),
        &good.replace("\n\n", "\n"),
        &format!("{good}\n"),
        &format!("{good}x\n"),
        &good.replace('\u{2014}', "-"),
        &good.replace("example message", "example\tmessage"),
        &good.replace("example message", "example\rmessage"),
        &good.replace("example message", "example\0message"),
        &good.replace("\u{2014} example.com/foo ", "\u{2014} example.com/foo  "),
        &good.replace("\u{2014} example.com/foo ", "\u{2014}  "),
        &good.replace("\u{2014} example.com/foo ", "\u{2014} example.com+foo "),
        &good.replace("yaQM=", "yaQM"),
        &good.replace("yaQM=", "yaQN="),
        "text\n\n\u{2014} name AAAAAA==\n",
    ] {
        assert!(Note::parse(bad.as_bytes()).is_err(), "{bad:?}");
    }
    assert!(Note::parse(b"\xff\n\n\xe2\x80\x94 a AAAAAAA=\n").is_err());
    assert!(matches!(
        Note::parse(&vec![b'a'; MAX_NOTE + 1]),
        Err(NoteError::TooLong { .. })
    ));
    let line = "\u{2014} a AAAAAAA=\n";
    let note = |lines| Note::parse(format!("text\n\n{}", line.repeat(lines)).as_bytes());
    assert!(note(16).is_ok(), "sixteen have to be accepted");
    assert!(matches!(note(65), Err(NoteError::TooMany { .. })));
}

#[test]
fn a_note_is_split_at_its_last_empty_line() {
    let text = "one\n\ntwo\n";
    let signer = signer("log", Algorithm::Ed25519, 1);
    let note = Note::sign(text.to_owned(), &signer);
    let again = Note::parse(&note.bytes()).unwrap();
    assert_eq!(again, note);
    assert_eq!(again.text(), text);
    assert_eq!(again.signed_by(&signer.verifier()).unwrap(), Some(0));
}

#[test]
fn keys_that_are_not_what_they_say_are_refused() {
    let parse = VerifierKey::parse;
    assert_eq!(parse("example.com/foo"), Err(KeyError::Form));
    assert_eq!(
        parse(&FOO.replace("530d903a", "530D903A")),
        Err(KeyError::Form)
    );
    assert!(matches!(
        parse(&FOO.replace("530d903a", "530d903b")),
        Err(KeyError::Id { .. })
    ));
    assert!(matches!(
        parse(&FOO.replace("/foo", "/bar")),
        Err(KeyError::Id { .. })
    ));
    assert_eq!(parse(&FOO.replace("/foo", "/f oo")), Err(KeyError::Name));
    assert_eq!(parse("+530d903a+AekyeRrm"), Err(KeyError::Name));
    assert!(matches!(parse("a+00000000+Bukye Rrm"), Err(KeyError::Form)));
    assert!(matches!(
        parse("a+00000000+Bukyeg=="),
        Err(KeyError::Algorithm { got: 6 })
    ));
    let signer = signer("log", Algorithm::Ed25519, 1);
    let secret = signer.secret();
    assert_eq!(
        Signer::parse(&secret).unwrap().verifier(),
        signer.verifier()
    );
    assert!(Signer::parse(&secret.replace("log+", "lag+")).is_err());
    assert!(Signer::parse(&signer.verifier().to_string()).is_err());
    assert!(!format!("{signer:?}").contains("PRIVATE"));
}

#[test]
fn one_key_of_two_uses_has_two_ids_and_neither_signs_for_the_other() {
    let log = signer("same", Algorithm::Ed25519, 3);
    let witness = signer("same", Algorithm::Cosignature, 3);
    assert_ne!(log.verifier().id(), witness.verifier().id());
    assert!(log.verifier().is_same_key(&witness.verifier()));
    let mut note = Note::sign("o\n0\nx\n".into(), &log);
    assert_eq!(note.signed_by(&witness.verifier()), Ok(None));
    let mut forged = witness.sign(note.text(), 7);
    forged.id = log.verifier().id();
    note.add(forged);
    assert!(note.signed_by(&log.verifier()).is_err());
}

#[test]
fn a_cosignature_signs_its_time_and_the_whole_text() {
    let witness = signer("w1", Algorithm::Cosignature, 4);
    let mut note = Note::sign("o\n1\nx\n".into(), &signer("o", Algorithm::Ed25519, 5));
    note.add(witness.sign(note.text(), 1_679_315_147));
    let read = Note::parse(&note.bytes()).unwrap();
    assert_eq!(read.signed_by(&witness.verifier()), Ok(Some(1_679_315_147)));
    let mut late = note.clone();
    let mut signature = witness.sign(note.text(), 5);
    signature.bytes[7] ^= 1;
    late.add(signature);
    assert!(late.signed_by(&witness.verifier()).is_err());
    let mut endless = note.clone();
    endless.add(witness.sign(note.text(), 1 << 63));
    assert!(endless.signed_by(&witness.verifier()).is_err());
    note.add(witness.sign(note.text(), 1_679_315_200));
    assert_eq!(note.signatures().len(), 2, "the older one makes way");
}

#[test]
fn checkpoints_that_are_spelled_in_any_other_way_are_refused() {
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    let parse = Checkpoint::parse;
    assert!(parse(&format!("o\n7\n{root}\n")).is_ok());
    assert!(parse(&format!("o\n7\n{root}\nmore of it\n")).is_ok());
    for (bad, why) in [
        (format!("o\n7\n{root}"), CheckpointError::Lines),
        (format!("o\n7\n{root}\n\n"), CheckpointError::Lines),
        (format!("\n7\n{root}\n"), CheckpointError::Lines),
        (format!("o\n7\n{root}\n\nx\n"), CheckpointError::Lines),
        ("o\n7\n".into(), CheckpointError::Lines),
        (format!("o\n07\n{root}\n"), CheckpointError::Size),
        (format!("o\n+7\n{root}\n"), CheckpointError::Size),
        (format!("o\n7 \n{root}\n"), CheckpointError::Size),
        (format!("o\n0x7\n{root}\n"), CheckpointError::Size),
        (
            format!("o\n18446744073709551616\n{root}\n"),
            CheckpointError::Size,
        ),
        (format!("o\n7\n{root}=\n"), CheckpointError::Root),
        ("o\n7\nCsUYapGG\n".into(), CheckpointError::Root),
        (format!("o\n0\n{root}\n"), CheckpointError::Empty),
    ] {
        assert_eq!(parse(&bad), Err(why), "{bad:?}");
    }
}

/// A log as static files, in memory.
#[derive(Clone, Default)]
struct Files {
    tiles: BTreeMap<(u8, u64), Vec<Digest>>,
    rows: Rows,
}

impl Files {
    fn append(&mut self, leaf: u64) {
        let tiles = &mut self.tiles;
        self.rows
            .append(leaf_hash(&leaf.to_be_bytes()), |tile, hashes| {
                tiles.insert((tile.level, tile.index), hashes.to_vec());
            });
    }

    fn to(leaves: u64) -> Self {
        let mut files = Self::default();
        (0..leaves).for_each(|leaf| files.append(leaf));
        files
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            origin: "o".into(),
            size: self.rows.size(),
            root: self.rows.root(),
            extensions: vec![],
        }
    }

    fn publish(&mut self) {
        let partial: Vec<_> = self
            .rows
            .partial()
            .map(|(tile, hashes)| ((tile.level, tile.index), hashes.to_vec()))
            .collect();
        self.tiles.extend(partial);
    }
}

impl TileSource for Files {
    type Error = String;
    fn tile(&mut self, tile: Tile) -> Result<Vec<u8>, String> {
        let hashes = self.tiles.get(&(tile.level, tile.index));
        let hashes = hashes.ok_or_else(|| tile.path())?;
        let hashes = hashes.iter().take(usize::from(tile.width));
        Ok(hashes.flat_map(|hash| hash.0).collect())
    }
    fn leaves(&mut self, _: Tile, _: &[Digest]) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn every_step_of_a_growing_log_replays_and_every_other_one_is_refused() {
    let sizes = [
        0, 1, 2, 255, 256, 257, 511, 512, 513, 1000, 65_535, 65_536, 65_537, 66_000,
    ];
    let mut all = Vec::new();
    let mut files = Files::default();
    for size in sizes {
        while files.rows.size() < size {
            files.append(files.rows.size());
        }
        files.publish();
        let mut frontier = Frontier::new();
        (0..size).for_each(|leaf| frontier.append(leaf_hash(&leaf.to_be_bytes())));
        assert_eq!(files.rows.root(), frontier.root());
        all.push((size, frontier.root()));
        let now = files.checkpoint();
        // From every size to the small trees, from a few to the big ones.
        let from =
            |known: &&(u64, Digest)| size < 2000 || [0, 257, 65_535, size].contains(&known.0);
        for &known in all.iter().filter(from) {
            replay(known, &now, &mut files.clone()).unwrap();
            let other = (known.0, Digest([7; 32]));
            let refused = replay(other, &now, &mut files.clone());
            assert!(
                matches!(refused, Err(ReplayError::Fork { .. })),
                "{known:?}"
            );
        }
        let more = (size + 1, Digest::ZERO);
        let refused = replay(more, &now, &mut files.clone());
        assert!(matches!(refused, Err(ReplayError::Shrunk { .. })));
    }
}

#[test]
fn a_changed_short_or_absent_tile_is_refused_whichever_it_is() {
    for (leaves, keys) in [
        (1000, &[(0, 0), (0, 2), (0, 3), (1, 0)][..]),
        (65_600, &[(2, 0)]),
    ] {
        changed(leaves, keys);
    }
}

fn changed(leaves: u64, keys: &[(u8, u64)]) {
    let mut good = Files::to(leaves);
    good.publish();
    let now = good.checkpoint();
    let empty = (0, merestone_evidence::empty_root());
    replay(empty, &now, &mut good.clone()).unwrap();
    for &key in keys {
        for change in 0..3 {
            let mut files = good.clone();
            let tile = files.tiles.get_mut(&key).unwrap();
            match change {
                0 => tile[0].0[0] ^= 1,
                1 => drop(tile.pop()),
                _ => drop(files.tiles.remove(&key)),
            }
            assert!(replay(empty, &now, &mut files).is_err(), "{key:?} {change}");
        }
    }
}

#[test]
fn bundles_of_entries_are_read_back_and_torn_ones_refused() {
    let all = [&b"one"[..], b"", &vec![7; 65_535]];
    let bytes: Vec<u8> = all.iter().flat_map(|data| entry(data).unwrap()).collect();
    assert_eq!(entries(&bytes).unwrap(), all);
    assert!(entry(&vec![0; 65_536]).is_err());
    assert!(entries(&bytes[..bytes.len() - 1]).is_err());
    assert!(entries(&bytes[..1]).is_err());
    assert_eq!(entries(b"").unwrap(), Vec::<&[u8]>::new());
}
