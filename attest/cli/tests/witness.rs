//! A witness as its operator sees it: keys, copies, forks, exit codes.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use merestone_evidence::{Digest, leaf_hash, sha256};
use merestone_tlog::{
    Algorithm, Checkpoint, Note, Rows, Signer, Tile, VerifierKey, entries_path, entry,
};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ORIGIN: &str = "merestone/gpu-01/01020304";

/// A host's static files, a witness's desk, and the keys of both.
struct Desk {
    dir: tempfile::TempDir,
    log: Signer,
}

impl Desk {
    fn new() -> Self {
        let desk = Self {
            dir: tempfile::tempdir().unwrap(),
            log: Signer::from_seed(ORIGIN, Algorithm::Ed25519, &[1; 32]).unwrap(),
        };
        let made = desk.run(&[
            "witness",
            "keygen",
            "--name",
            "example.org/w1",
            "--out",
            "w1",
        ]);
        assert_eq!(made.status.code(), Some(0), "{}", words(&made));
        desk
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_merestone-verify"))
            .args(words)
            .current_dir(self.dir.path())
            .output()
            .unwrap()
    }

    fn witness(&self, from: &str, more: &[&str]) -> Output {
        let key = self.log.verifier().to_string();
        let words = [
            "witness", "--from", from, "--log", &key, "--state", "seen", "--key", "w1",
        ];
        self.run(&[words.as_slice(), more].concat())
    }

    fn key(&self) -> VerifierKey {
        let text = std::fs::read_to_string(self.file("w1.pub")).unwrap();
        VerifierKey::parse(text.trim_end()).unwrap()
    }

    fn seen(&self) -> PathBuf {
        self.file("seen")
            .join(sha256(ORIGIN.as_bytes()).to_string())
    }

    /// The files of a log of `leaves`, each as `leaf` has it.
    fn publish(&self, to: &str, leaves: u64, leaf: impl Fn(u64) -> Vec<u8>) -> Checkpoint {
        let root = self.file(to);
        let put = |name: &str, bytes: &[u8]| {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        let hashes =
            |hashes: &[Digest]| -> Vec<u8> { hashes.iter().flat_map(|hash| hash.0).collect() };
        let mut rows = Rows::new();
        let mut bundle = Vec::new();
        for at in 0..leaves {
            bundle.extend(entry(&leaf(at)).unwrap());
            rows.append(leaf_hash(&leaf(at)), |tile, all| {
                put(&tile.path(), &hashes(all));
            });
            let width = u16::try_from(at % 256 + 1).unwrap();
            if width == 256 || at + 1 == leaves {
                put(&entries_path(at / 256, width), &bundle);
                bundle.clear();
            }
        }
        for (tile, all) in rows.partial() {
            put(&tile.path(), &hashes(all));
        }
        let checkpoint = Checkpoint {
            origin: ORIGIN.into(),
            size: leaves,
            root: rows.root(),
            extensions: vec![],
        };
        put(
            "checkpoint",
            &Note::sign(checkpoint.text(), &self.log).bytes(),
        );
        checkpoint
    }
}

fn words(output: &Output) -> String {
    let (out, error) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(error)
    )
}

fn plain(at: u64) -> Vec<u8> {
    format!("entry {at}").into_bytes()
}

fn files(at: &Path) -> Vec<String> {
    let names = std::fs::read_dir(at).unwrap();
    let mut names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn n57_a_growing_log_is_signed_with_the_time_and_the_state_is_there_first() {
    let desk = Desk::new();
    let mut last = 0;
    for leaves in [0, 1, 255, 256, 300, 300, 900] {
        let checkpoint = desk.publish("copy", leaves, plain);
        let done = desk.witness("copy", &["--out", "signed", "--entries"]);
        assert_eq!(done.status.code(), Some(0), "{}", words(&done));
        let bytes = std::fs::read(desk.file("signed")).unwrap();
        assert_eq!(
            std::fs::read(desk.seen().join("checkpoint")).unwrap(),
            bytes
        );
        let note = Note::parse(&bytes).unwrap();
        assert_eq!(note.text(), checkpoint.text());
        assert_eq!(note.signed_by(&desk.log.verifier()), Ok(Some(0)));
        let time = note.signed_by(&desk.key()).unwrap().unwrap();
        assert!(time >= last && time > 1_700_000_000, "{time}");
        last = time;
    }
    assert_eq!(files(&desk.seen()), ["checkpoint", "lock"]);
}

#[test]
fn a_log_that_forked_or_shrank_is_not_signed_and_both_checkpoints_are_kept() {
    for (leaves, other) in [
        (600, false),
        (700, true),
        (800, true),
        (20, true),
        (20, false),
    ] {
        let desk = Desk::new();
        desk.publish("copy", 700, plain);
        assert_eq!(desk.witness("copy", &[]).status.code(), Some(0));
        let before = std::fs::read(desk.seen().join("checkpoint")).unwrap();
        let leaf = |at: u64| {
            if other && at == 10 {
                b"other".to_vec()
            } else {
                plain(at)
            }
        };
        desk.publish("fork", leaves, leaf);
        let refused = desk.witness("fork", &["--out", "signed"]);
        assert_eq!(
            refused.status.code(),
            Some(1),
            "{leaves} {other}: {}",
            words(&refused)
        );
        assert!(!desk.file("signed").exists());
        assert_eq!(
            std::fs::read(desk.seen().join("checkpoint")).unwrap(),
            before
        );
        let forks = desk.seen().join("forks");
        let fork = forks.join(&files(&forks)[0]);
        assert_eq!(std::fs::read(fork.join("known")).unwrap(), before);
        let shown = std::fs::read(desk.file("fork/checkpoint")).unwrap();
        assert_eq!(std::fs::read(fork.join("shown")).unwrap(), shown);
        // The log that was known goes on.
        desk.publish("copy", 1000, plain);
        assert_eq!(desk.witness("copy", &[]).status.code(), Some(0));
    }
}

#[test]
fn a_copy_that_is_not_whole_or_not_its_own_is_not_signed() {
    let desk = Desk::new();
    let tile = |level, index, width| {
        Tile {
            level,
            index,
            width,
        }
        .path()
    };
    for (spoilt, exit) in [
        (tile(0, 0, 256), 3),
        (tile(0, 1, 44), 3),
        (tile(1, 0, 1), 3),
        (entries_path(1, 44), 3),
    ] {
        for gone in [true, false] {
            desk.publish("copy", 300, plain);
            let path = desk.file("copy").join(&spoilt);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[3] ^= 1;
            if gone {
                std::fs::remove_file(&path).unwrap();
            } else {
                std::fs::write(&path, bytes).unwrap();
            }
            let refused = desk.witness("copy", &["--entries"]);
            assert_eq!(
                refused.status.code(),
                Some(exit),
                "{spoilt}: {}",
                words(&refused)
            );
        }
    }
    // Hashes alone do not need the entries.
    desk.publish("copy", 300, plain);
    std::fs::remove_dir_all(desk.file("copy/tile/entries")).unwrap();
    assert_eq!(desk.witness("copy", &[]).status.code(), Some(0));
}

#[test]
fn n34_only_the_key_that_is_given_makes_a_checkpoint_the_logs() {
    let mut desk = Desk::new();
    desk.publish("copy", 3, plain);
    let own = desk.log.clone();
    for (name, seed) in [(ORIGIN, 2), ("merestone/gpu-02/01020304", 1)] {
        desk.log = Signer::from_seed(name, Algorithm::Ed25519, &[seed; 32]).unwrap();
        let refused = desk.witness("copy", &[]);
        assert_eq!(refused.status.code(), Some(1), "{}", words(&refused));
    }
    desk.log = own;
    assert!(
        !desk.file("seen").exists(),
        "nothing is kept of a stranger's log"
    );
    assert_eq!(desk.witness("copy", &[]).status.code(), Some(0));
    // Another witness's state is not gone on with.
    desk.run(&[
        "witness",
        "keygen",
        "--name",
        "example.org/w2",
        "--out",
        "w2",
    ]);
    std::fs::copy(desk.file("w2"), desk.file("w1")).unwrap();
    let refused = desk.witness("copy", &[]);
    assert_eq!(refused.status.code(), Some(4), "{}", words(&refused));
}

#[test]
fn faults_of_the_call_exit_4() {
    let desk = Desk::new();
    desk.publish("copy", 3, plain);
    let key = desk.key().to_string();
    for call in [
        &["witness"][..],
        &["witness", "--from", "copy"],
        &["witness", "keygen", "--name", "two words", "--out", "w3"],
        &[
            "witness",
            "keygen",
            "--name",
            "example.org/w1",
            "--out",
            "w1",
        ],
        &[
            "witness", "--from", "copy", "--log", &key, "--state", "seen", "--key", "w1",
        ],
        &[
            "witness", "--from", "copy", "--log", "no+key", "--state", "seen", "--key", "w1",
        ],
        &[
            "witness", "--from", "copy", "--log", "nowhere", "--state", "seen", "--key", "w1",
        ],
    ] {
        let refused = desk.run(call);
        assert_eq!(
            refused.status.code(),
            Some(4),
            "{call:?}: {}",
            words(&refused)
        );
    }
    assert_eq!(desk.witness("nowhere", &[]).status.code(), Some(4));
}

#[cfg(unix)]
#[test]
fn the_private_key_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let desk = Desk::new();
    let mode = |name: &str| {
        let metadata = std::fs::metadata(desk.file(name)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode("w1"), 0o600);
    let text = std::fs::read_to_string(desk.file("w1")).unwrap();
    assert_eq!(
        Signer::parse(text.trim_end()).unwrap().verifier(),
        desk.key()
    );
}
