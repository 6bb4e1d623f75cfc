//! The log against power cuts at every step, kills, and a disk that is full.
//!
//! *Acknowledged* is a leaf that `sync` covered, a statement that `write_ahead` took, and an
//! epoch that was sealed. Whatever a cut leaves, the log opens, has all of these, has nothing
//! that was not appended, and what it shows to others is one log that only grows.

use super::{
    power::{Op, Recording, image},
    published::{NODE, look, told},
    tests::{Places, entry, epoch, epoch_of, quote},
    *,
};
use merestone_evidence::{empty_root, leaf_hash, root_of, sha256};
use std::cell::RefCell;

/// What is owed after so many operations.
#[derive(Clone, Debug, Default)]
struct Owed {
    ops: usize,
    leaves: u64,
    sealed: u64,
    /// Digest of a statement that waits for its quote.
    pending: Option<Digest>,
    published: u64,
    key: Option<String>,
    sessions: usize,
}

/// A log that is written while everything is recorded.
struct Run {
    dir: tempfile::TempDir,
    recording: Recording,
    ledger: Option<Ledger>,
    /// Leaf hashes of everything that was appended.
    truth: RefCell<Vec<Digest>>,
    owed: Vec<Owed>,
    sequence: u64,
}

/// Memory where there is some: the syncs are recorded, not waited for.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

impl Run {
    fn begin() -> Self {
        Self {
            dir: scratch(),
            recording: Recording::begin(),
            ledger: None,
            truth: RefCell::default(),
            owed: vec![Owed::default()],
            sequence: 0,
        }
    }

    fn ledger(&self) -> &Ledger {
        self.ledger.as_ref().unwrap()
    }

    fn owe(&mut self, with: impl FnOnce(&mut Owed)) {
        let mut owed = self.owed.last().unwrap().clone();
        owed.ops = self.recording.length();
        with(&mut owed);
        self.owed.push(owed);
    }

    /// The process is killed, where there was one, and started again.
    fn start(&mut self) {
        self.ledger = None;
        let (ledger, _) = Ledger::open(self.dir.path()).unwrap();
        ledger.begin_session(b"session", b"key").unwrap();
        ledger.seal_session(&quote(0), Some(b"boot"), None).unwrap();
        self.owe(|owed| {
            owed.sessions += 1;
            owed.pending = None;
        });
        ledger
            .publish_as(NODE, |made| {
                let entry = told(made);
                self.truth.borrow_mut().push(leaf_hash(&encode(&entry)));
                entry
            })
            .unwrap();
        let (key, leaves) = (ledger.log_key(), ledger.sync().unwrap().0);
        self.ledger = Some(ledger);
        self.owe(|owed| (owed.key, owed.leaves) = (key, leaves));
    }

    fn append(&mut self, count: u64) {
        for _ in 0..count {
            let number = self.truth.borrow().len() as u64;
            self.ledger().append(&entry(number)).unwrap();
            let hash = leaf_hash(&encode(&entry(number)));
            self.truth.borrow_mut().push(hash);
        }
    }

    fn write_ahead(&mut self) {
        let statement = epoch(self.ledger(), self.sequence);
        let size = self.ledger().size();
        self.owe(|owed| owed.leaves = size);
        self.sequence += 1;
        self.ledger().write_ahead(&statement).unwrap();
        self.owe(|owed| owed.pending = Some(sha256(&statement)));
    }

    fn seal(&mut self) {
        self.write_ahead();
        self.ledger().seal_epoch(&quote(1)).unwrap();
        let sealed = self.ledger().sealed().size;
        self.owe(|owed| {
            (owed.sealed, owed.published, owed.pending) = (sealed, sealed, None);
        });
    }
}

/// Two sessions with a kill between them, tiles that become full, an epoch that is abandoned.
fn written() -> Run {
    let mut run = Run::begin();
    run.start();
    run.append(5);
    run.seal();
    run.ledger().count_epoch(&[]).unwrap();
    run.append(260);
    run.seal();
    run.seal();
    run.append(3);
    run.start();
    run.append(2);
    run.write_ahead();
    run.owe(|owed| owed.pending = None);
    run.ledger().abandon_epoch("a test").unwrap();
    run.append(250);
    run.seal();
    run.append(1);
    run
}

/// Opens what a cut left, and holds it against what is owed.
fn hold(state_dir: &Path, truth: &[Digest], owed: &Owed) -> Result<(), String> {
    let said = |error: LedgerError| error.to_string();
    let demand = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
    let tree = |size: u64| root_of(&truth[..usize::try_from(size).unwrap()]);
    let known = (owed.published, tree(owed.published));
    if owed.published > 0 {
        demand(look(state_dir, known)?.is_some(), "the checkpoint is gone")?;
    }
    // What lies there before anybody mends it is one log already.
    look(state_dir, (0, empty_root()))?;
    let (ledger, opened) = Ledger::open(state_dir).map_err(said)?;
    let (size, sealed) = (ledger.size(), ledger.sealed());
    demand(size >= owed.leaves, "leaves are lost")?;
    demand(size <= truth.len() as u64, "leaves that nobody wrote")?;
    demand(ledger.root() == tree(size), "other leaves")?;
    demand(sealed.size >= owed.sealed, "an epoch is lost")?;
    demand(sealed.root == tree(sealed.size), "another tree is sealed")?;
    demand(
        opened.unsealed == size - sealed.size,
        "the count of unsealed leaves",
    )?;
    if let Some(digest) = owed.pending {
        let pending = ledger.pending().map_err(said)?;
        // Its quote may have got there as well.
        let is_there = pending.is_some_and(|pending| sha256(&pending.statement) == digest)
            || sealed.last == Some(digest);
        demand(is_there, "a pending epoch is lost")?;
    }
    let sessions = Reader::open(state_dir).and_then(|reader| reader.sessions());
    demand(
        sessions.map_err(said)?.len() >= owed.sessions,
        "a session is lost",
    )?;
    // And it goes on from there.
    if ledger.pending().map_err(said)?.is_some() {
        ledger.abandon_epoch("after a cut").map_err(said)?;
    }
    ledger.begin_session(b"after", b"key").map_err(said)?;
    ledger.seal_session(&quote(0), None, None).map_err(said)?;
    ledger.publish_as(NODE, told).map_err(said)?;
    if owed.key.is_some() {
        demand(ledger.log_key() == owed.key, "the log's key is lost")?;
    }
    ledger.append(&entry(1)).map_err(said)?;
    ledger.write_ahead(&epoch(&ledger, 0)).map_err(said)?;
    ledger.seal_epoch(&quote(2)).map_err(said)?;
    let now = (ledger.sealed().size, ledger.sealed().root);
    drop(ledger);
    let shown = look(state_dir, known)?.map(|(shown, _)| (shown.size, shown.root));
    demand(shown == Some(now), "what is sealed is not published")
}

fn is_a_leaf(op: &Op) -> bool {
    matches!(op, Op::Append { path, .. } if path.ends_with("leaves") || path.ends_with("index"))
}

#[test]
fn a_power_cut_after_any_step_loses_nothing_that_was_acknowledged() {
    let run = written();
    let (root, owed) = (run.dir.path().to_owned(), run.owed);
    let truth = run.truth.into_inner();
    drop(run.ledger);
    let ops = run.recording.end();
    // More with MERESTONE_CUTS; the places are the same every run.
    let rounds = std::env::var("MERESTONE_CUTS").ok();
    let rounds: u64 = rounds.and_then(|text| text.parse().ok()).unwrap_or(2);
    let mut places = Places(0x00C0_FFEE);
    let mut cuts = 0;
    for at in 0..=ops.len() {
        // Hundreds of appends are alike: some of them will do.
        let alike = ops.get(at).is_some_and(is_a_leaf) && places.below(12) != 0;
        for _ in 0..if alike { 0 } else { rounds } {
            let seed = places.below(u64::MAX) | 1;
            let dir = scratch();
            image(&ops[..at], &root, dir.path(), &mut Places(seed));
            let owed = owed.iter().rev().find(|owed| owed.ops <= at).unwrap();
            if let Err(why) = hold(dir.path(), &truth, owed) {
                let kept = dir.keep();
                panic!(
                    "cut before {:?} (operation {at}, seed {seed}): {why}; {owed:?}; it is in {}",
                    ops.get(at),
                    kept.display()
                );
            }
            cuts += 1;
        }
    }
    assert!(cuts > 300, "{cuts} cuts of {} operations", ops.len());
}

#[test]
fn the_model_of_the_disk_finds_a_file_that_was_not_synced() {
    // Without this the test above could pass for a model that loses nothing.
    let run = written();
    let root = run.dir.path().to_owned();
    let truth = run.truth.into_inner();
    let owed = run.owed.last().unwrap().clone();
    drop(run.ledger);
    let ops = run.recording.end();
    let without = |forget: fn(&Op) -> bool| {
        let ops: Vec<Op> = ops.iter().filter(|op| !forget(op)).cloned().collect();
        (1..60_u64).any(|seed| {
            let dir = scratch();
            image(&ops, &root, dir.path(), &mut Places(seed));
            hold(dir.path(), &truth, &owed).is_err()
        })
    };
    assert!(!without(|_| false), "with every sync it holds");
    assert!(without(|op| matches!(op, Op::SyncDirectory { .. })));
    assert!(without(
        |op| matches!(op, Op::Sync { path } if path.ends_with("leaves"))
    ));
    assert!(without(
        |op| matches!(op, Op::Sync { path } if path.ends_with("epochs"))
    ));
    assert!(without(
        |op| matches!(op, Op::Sync { path } if path.ends_with("tiles/.new"))
    ));
}

/// Appends and seals until `ends`; what was refused for want of space does not count.
fn fill(ledger: &Ledger, truth: &mut Vec<Digest>, ends: impl Fn() -> bool) -> u64 {
    let mut refused = 0;
    while !ends() {
        let number = truth.len() as u64;
        match ledger.append(&entry(number)) {
            Ok(index) => {
                assert_eq!(index, number);
                truth.push(leaf_hash(&encode(&entry(number))));
            }
            Err(_) => refused += 1,
        }
        if number.is_multiple_of(7) {
            refused += u64::from(try_seal(ledger).is_err());
        }
    }
    refused
}

fn try_seal(ledger: &Ledger) -> Result<(), LedgerError> {
    if ledger.pending()?.is_none() {
        ledger.write_ahead(&epoch_of(ledger, 0, ledger.sync()?))?;
    }
    ledger.seal_epoch(&quote(1))
}

#[test]
fn a_disk_that_is_full_at_any_step_refuses_and_goes_on_when_there_is_space() {
    let (mut places, mut refused) = (Places(7), 0);
    for _ in 0..60 {
        let dir = scratch();
        let recording = Recording::begin();
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        ledger.begin_session(b"session", b"key").unwrap();
        ledger.seal_session(&quote(0), None, None).unwrap();
        let mut truth = Vec::new();
        ledger
            .publish_as(NODE, |made| {
                let entry = told(made);
                truth.push(leaf_hash(&encode(&entry)));
                entry
            })
            .unwrap();
        let from = recording.length() + usize::try_from(places.below(400)).unwrap();
        let to = from + 1 + usize::try_from(places.below(60)).unwrap();
        recording.full(from, to);
        refused += fill(&ledger, &mut truth, || recording.length() > to + 40);
        try_seal(&ledger).unwrap();
        assert_eq!(ledger.root(), root_of(&truth));
        assert_eq!(ledger.sealed().size, truth.len() as u64);
        drop((ledger, recording));
        let owed = Owed {
            leaves: truth.len() as u64,
            sealed: truth.len() as u64,
            published: truth.len() as u64,
            ..Owed::default()
        };
        hold(dir.path(), &truth, &owed).unwrap();
    }
    // What a publication lacks is no refusal: the next one makes up for it.
    assert!(refused > 60, "{refused}");
}

const KILLED: &str = "MERESTONE_KILLED_LEDGER";

#[test]
#[ignore = "the process that the next test kills"]
fn a_process_that_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(KILLED).map(PathBuf::from) else {
        return;
    };
    let (ledger, _) = Ledger::open(&dir).unwrap();
    if ledger.pending().unwrap().is_some() {
        ledger.abandon_epoch("after a kill").unwrap();
    }
    ledger.begin_session(b"session", b"key").unwrap();
    ledger.seal_session(&quote(0), None, None).unwrap();
    ledger.publish_as(NODE, told).unwrap();
    loop {
        for _ in 0..40 {
            println!("leaf {}", ledger.append(&entry(ledger.size())).unwrap());
        }
        ledger.write_ahead(&epoch(&ledger, 0)).unwrap();
        ledger.seal_epoch(&quote(1)).unwrap();
        println!("sealed {}", ledger.sealed().size);
    }
}

#[test]
fn a_process_killed_at_any_moment_loses_no_entry_and_no_epoch() {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};
    let dir = scratch();
    let (mut places, mut known) = (Places(11), (0, empty_root()));
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture"])
            .arg("ledger::cuts::a_process_that_writes_until_it_is_killed")
            .env(KILLED, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let until = 1 + places.below(600);
        let (mut leaves, mut sealed, mut told) = (0, 0, 0);
        for line in out.lines().map(Result::unwrap) {
            let number = |word| {
                let number = line.strip_prefix(word)?;
                number.parse::<u64>().ok()
            };
            leaves = number("leaf ").map_or(leaves, |index| index + 1);
            sealed = number("sealed ").unwrap_or(sealed);
            told += u64::from(number("leaf ").is_some());
            if told == until {
                // What is in the pipe is read on: all of it was acknowledged.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(told >= until, "round {round}: it ended by itself");
        look(dir.path(), known).unwrap();
        let (ledger, opened) = Ledger::open(dir.path()).unwrap();
        assert!(
            ledger.size() >= leaves && ledger.sealed().size >= sealed,
            "round {round}"
        );
        assert_eq!(opened.unsealed, ledger.size() - ledger.sealed().size);
        known = (ledger.sealed().size, ledger.sealed().root);
        drop(ledger);
    }
    assert!(known.0 > 500, "{known:?}");
}
