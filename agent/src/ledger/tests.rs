//! The log against crashes and damage, at places a fixed generator picks.

use super::session::SessionDir;
use super::*;
use merestone_evidence::{
    Body, Boundary, Cause, ClockQuality, EntryKind, EpochKind, EpochStatement, Mode, PcrValue,
    Quote, SessionId, leaf_hash, root_of,
};
use std::fs;

/// xorshift64: the same places every run.
pub(super) struct Places(pub(super) u64);

impl Places {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

pub(crate) fn entry(number: u64) -> Entry {
    let reason = "x".repeat(usize::try_from(number % 90).unwrap());
    Entry {
        kind: EntryKind,
        time_ms: number,
        boot_ns: number,
        body: Body::Lost {
            reason,
            count: number,
        },
    }
}

pub(crate) fn epoch(ledger: &Ledger, sequence: u64) -> Vec<u8> {
    epoch_of(ledger, sequence, ledger.sync().unwrap())
}

pub(super) fn epoch_of(
    ledger: &Ledger,
    sequence: u64,
    (size_after, root): (u64, Digest),
) -> Vec<u8> {
    encode(&EpochStatement {
        kind: EpochKind,
        node: "n".into(),
        session: SessionId::default(),
        sequence,
        previous: Digest::ZERO,
        opened_ms: 0,
        closed_ms: 0,
        size_before: ledger.sealed().size,
        size_after,
        root,
        boundary: Boundary {
            name: "b".into(),
            sha256: Digest::ZERO,
            mode: Mode::Enforce,
        },
        object_sha256: Digest::ZERO,
        counters: vec![],
        lost: vec![],
        tiers: vec![],
        uncovered: vec![],
        gpu_state: "none".into(),
        gpu_energy: vec![],
        groups: 0,
        cause: Cause::Work,
        clock: ClockQuality {
            synchronised: false,
            error_us: None,
        },
        canary: None,
        location: None,
        counter: None,
        records: None,
    })
}

pub(crate) fn quote(number: u8) -> Quote {
    Quote {
        attest: vec![number; 145],
        signature: vec![number; 72],
        pcrs: vec![PcrValue {
            index: 15,
            value: Digest([number; 32]),
        }],
    }
}

/// A log of 40 sealed leaves in 4 epochs, and 10 leaves behind them.
fn filled(state_dir: &Path) -> Vec<Digest> {
    let (ledger, opened) = Ledger::open(state_dir).unwrap();
    assert_eq!(
        opened,
        Opened {
            cut: None,
            unsealed: 0
        }
    );
    ledger.begin_session(b"session", b"key").unwrap();
    ledger.seal_session(&quote(0), Some(b"boot"), None).unwrap();
    let mut hashes = Vec::new();
    for number in 0..50_u64 {
        assert_eq!(ledger.append(&entry(number)).unwrap(), number);
        hashes.push(leaf_hash(&encode(&entry(number))));
        if number % 10 == 9 && number < 40 {
            let sequence = number / 10;
            ledger.write_ahead(&epoch(&ledger, sequence)).unwrap();
            ledger
                .seal_epoch(&quote(u8::try_from(sequence).unwrap()))
                .unwrap();
        }
    }
    hashes
}

/// The same log in another place, without the disk's waits of writing it.
fn copied(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    copy(&log_path(from), &log_path(to.path()));
    to
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

fn leaves_file(state_dir: &Path) -> PathBuf {
    leaves::data_path(&log_path(state_dir))
}

/// Where each leaf's frame begins, and the end of the file.
fn offsets(state_dir: &Path) -> Vec<u64> {
    let index = fs::read(leaves::index_path(&log_path(state_dir))).unwrap();
    let mut offsets: Vec<u64> = index
        .chunks_exact(40)
        .map(|record| u64::from_be_bytes(record[..8].try_into().unwrap()))
        .collect();
    offsets.push(fs::metadata(leaves_file(state_dir)).unwrap().len());
    offsets
}

#[test]
fn a_log_is_read_back_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let hashes = filled(dir.path());
    let (ledger, opened) = Ledger::open(dir.path()).unwrap();
    assert_eq!(
        opened,
        Opened {
            cut: None,
            unsealed: 10
        }
    );
    assert_eq!((ledger.size(), ledger.root()), (50, root_of(&hashes)));
    assert_eq!(ledger.sealed().root, root_of(&hashes[..40]));
    let reader = Reader::open(dir.path()).unwrap();
    assert_eq!(reader.hashes().unwrap(), hashes[..40]);
    let leaves = reader.leaves(7, 33).unwrap();
    assert_eq!(
        leaves
            .iter()
            .map(|leaf| leaf_hash(leaf))
            .collect::<Vec<_>>(),
        hashes[7..33]
    );
    let sessions = reader.sessions().unwrap();
    assert_eq!(sessions.len(), 1);
    assert_eq!(reader.epochs(sessions[0].number).unwrap().len(), 4);
    assert_eq!(
        reader.boot_logs(1).unwrap(),
        StoredLogs {
            boot: Some(b"boot".to_vec()),
            ima: None
        }
    );
}

#[test]
fn a_torn_end_is_cut_and_everything_before_it_kept() {
    let mut places = Places(0x9E37_79B9_7F4A_7C15);
    let original = tempfile::tempdir().unwrap();
    let hashes = filled(original.path());
    for round in 0..60 {
        let dir = copied(original.path());
        let offsets = offsets(dir.path());
        let (sealed_end, end) = (offsets[40], offsets[50]);
        let at = sealed_end + places.below(end - sealed_end);
        let file = fs::OpenOptions::new()
            .write(true)
            .open(leaves_file(dir.path()))
            .unwrap();
        file.set_len(at).unwrap();
        // Half of the time as after a power cut: the length is there, the data are zeroes.
        if round % 2 == 0 {
            file.set_len(at + 1 + places.below(5000)).unwrap();
        }
        // And the index may be ahead, behind or gone.
        let index = leaves::index_path(&log_path(dir.path()));
        fs::OpenOptions::new()
            .write(true)
            .open(index)
            .unwrap()
            .set_len(places.below(50 * 40))
            .unwrap();
        let whole = offsets.iter().filter(|offset| **offset <= at).count() - 1;
        let (ledger, opened) = Ledger::open(dir.path()).unwrap();
        assert_eq!(
            (ledger.size(), ledger.root()),
            (whole as u64, root_of(&hashes[..whole])),
            "cut at {at}"
        );
        assert_eq!(opened.unsealed, whole as u64 - 40);
        if let Some(cut) = opened.cut {
            assert_eq!(cut.offset, offsets[whole]);
        } else {
            assert_eq!(at, offsets[whole]);
        }
        // What comes after is written where the torn record was.
        assert_eq!(ledger.append(&entry(1)).unwrap(), whole as u64);
        let root = ledger.root();
        drop(ledger);
        let (ledger, opened) = Ledger::open(dir.path()).unwrap();
        assert_eq!((opened.cut, ledger.root()), (None, root));
        assert_eq!(
            Reader::open(dir.path()).unwrap().hashes().unwrap(),
            hashes[..40]
        );
    }
}

#[test]
fn damage_before_the_last_epoch_is_refused_with_file_and_offset() {
    let mut places = Places(0xD1B5_4A32_D192_ED03);
    let original = tempfile::tempdir().unwrap();
    filled(original.path());
    for _round in 0..60 {
        let dir = copied(original.path());
        let offsets = offsets(dir.path());
        let path = leaves_file(dir.path());
        let mut bytes = fs::read(&path).unwrap();
        let at = places.below(offsets[40]);
        bytes[usize::try_from(at).unwrap()] ^= 1 << places.below(8);
        fs::write(&path, bytes).unwrap();
        let frame = offsets
            .iter()
            .rfind(|offset| **offset <= at)
            .copied()
            .unwrap();
        match Ledger::open(dir.path()).unwrap_err() {
            LedgerError::Damaged {
                path: named,
                offset,
                ..
            } => assert_eq!((named, offset), (path, frame)),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_record_replaced_by_another_whole_one_is_refused_where_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let offsets = offsets(dir.path());
    let path = leaves_file(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    let (from, to) = (
        usize::try_from(offsets[7]).unwrap(),
        usize::try_from(offsets[8]).unwrap(),
    );
    let mut data = bytes[from + 12..to].to_vec();
    let last = data.len() - 1;
    data[last] ^= 1;
    bytes[from..to].copy_from_slice(&frame::frame(&data, &leaf_hash(&data)));
    fs::write(&path, bytes).unwrap();
    match Ledger::open(dir.path()).unwrap_err() {
        LedgerError::Damaged { offset, .. } => assert_eq!(offset, offsets[7]),
        other => panic!("{other}"),
    }
}

#[test]
fn a_log_shorter_than_what_was_sealed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let offsets = offsets(dir.path());
    fs::OpenOptions::new()
        .write(true)
        .open(leaves_file(dir.path()))
        .unwrap()
        .set_len(offsets[39])
        .unwrap();
    assert!(matches!(
        Ledger::open(dir.path()).unwrap_err(),
        LedgerError::Damaged { .. }
    ));
}

#[test]
fn an_epoch_file_is_cut_behind_the_checkpoint_and_refused_before_it() {
    let mut places = Places(0x94D0_49BB_1331_11EB);
    let original = tempfile::tempdir().unwrap();
    filled(original.path());
    for _round in 0..40 {
        let dir = copied(original.path());
        let path = SessionDir::new(&log_path(dir.path()), 1).epochs_path();
        let sealed = fs::read(&path).unwrap();
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        ledger.write_ahead(&epoch(&ledger, 4)).unwrap();
        drop(ledger);
        let whole = fs::read(&path).unwrap();
        let torn = sealed.len()
            + usize::try_from(places.below((whole.len() - sealed.len()) as u64)).unwrap();
        fs::write(&path, &whole[..torn]).unwrap();
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        assert!(
            ledger.pending().unwrap().is_none(),
            "half a statement was never extended"
        );
        assert_eq!(ledger.sealed().size, 40);
        drop(ledger);
        let mut damaged = sealed.clone();
        let at = usize::try_from(places.below(sealed.len() as u64)).unwrap();
        damaged[at] ^= 0x10;
        fs::write(&path, damaged).unwrap();
        match Ledger::open(dir.path()).unwrap_err() {
            LedgerError::Damaged { path: named, .. } => assert_eq!(named, path),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn an_epoch_sealed_just_before_a_crash_is_taken_up_without_its_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let checkpoint = Checkpoint::path(&log_path(dir.path()));
    let before = fs::read(&checkpoint).unwrap();
    let (ledger, _) = Ledger::open(dir.path()).unwrap();
    ledger.write_ahead(&epoch(&ledger, 4)).unwrap();
    assert!(ledger.pending().unwrap().is_some());
    ledger.seal_epoch(&quote(4)).unwrap();
    let sealed = ledger.sealed();
    drop(ledger);
    fs::write(&checkpoint, before).unwrap();
    let (ledger, opened) = Ledger::open(dir.path()).unwrap();
    assert_eq!((ledger.sealed(), opened.unsealed), (sealed, 0));
    assert_eq!(
        Reader::open(dir.path()).unwrap().epochs(1).unwrap().len(),
        5
    );
}

#[test]
fn a_second_agent_is_refused_and_a_lost_checkpoint_too() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let (ledger, _) = Ledger::open(dir.path()).unwrap();
    let message = Ledger::open(dir.path()).unwrap_err().to_string();
    assert!(message.contains("in use by another agent"), "{message}");
    drop(ledger);
    fs::remove_file(Checkpoint::path(&log_path(dir.path()))).unwrap();
    assert!(matches!(
        Ledger::open(dir.path()).unwrap_err(),
        LedgerError::Missing { .. }
    ));
}

#[test]
fn n48_an_entry_that_no_verifier_would_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(dir.path()).unwrap();
    let reason = "x".repeat(70_000);
    let big = Entry {
        kind: EntryKind,
        time_ms: 0,
        boot_ns: 0,
        body: Body::Lost { reason, count: 0 },
    };
    assert!(matches!(
        ledger.append(&big).unwrap_err(),
        LedgerError::TooBig { .. }
    ));
    assert_eq!(ledger.size(), 0);
}
