//! Who else saw the log: N34, N53–N58 where witnesses are concerned.

use crate::support::{Log, Maker, START, demand, flow, judge};
use merestone_evidence::{
    Bundle, ConsistencyProof, Digest, EpochStatement, SessionId, consistency_path, decode, sha256,
};
use merestone_tlog::{Algorithm, Checkpoint, Note, Sealed, Signer};
use merestone_verify::{CheckResult, Trust, Verdict};

const LOG: &str = "merestone/gpu-01/01020304";
const ID: &str = "log.witness";

fn log_key() -> Signer {
    Signer::from_seed(LOG, Algorithm::Ed25519, &[1; 32]).unwrap()
}

fn witness(number: u8) -> Signer {
    let name = format!("example.org/w{number}");
    Signer::from_seed(&name, Algorithm::Cosignature, &[100 + number; 32]).unwrap()
}

/// Trusts the log's key and two witnesses.
fn trust(maker: &Maker, more: &str) -> String {
    let (log, first, second) = (
        log_key().verifier(),
        witness(1).verifier(),
        witness(2).verifier(),
    );
    let table =
        format!("[log]\nkey = \"{log}\"\nwitnesses = [\"{first}\", \"{second}\"]\n{more}\n");
    format!("{}\n{table}", maker.trust())
}

/// The checkpoint that the log signs once its epoch `sequence` is sealed.
fn checkpoint(bundle: &Bundle, sequence: usize) -> Checkpoint {
    let sealed = &bundle.sessions[0].epochs[sequence];
    let statement: EpochStatement = decode(&sealed.statement).unwrap();
    Checkpoint {
        origin: LOG.into(),
        size: statement.size_after,
        root: statement.root,
        extensions: Sealed {
            session: statement.session,
            epoch: sha256(&sealed.statement),
        }
        .lines(),
    }
}

/// Signed by the log, and by witnesses at a time.
fn signed(checkpoint: &Checkpoint, witnesses: &[(u8, u64)]) -> Note {
    let mut note = Note::sign(checkpoint.text(), &log_key());
    for &(number, at_ms) in witnesses {
        note.add(witness(number).sign(note.text(), at_ms / 1000));
    }
    note
}

const END: u64 = START + 40_000;
/// The period of these bundles goes on for a while after their last epoch.
const TO: u64 = END + 80_000;

fn good() -> (Maker, Bundle) {
    let maker = Maker::new();
    let mut bundle = maker.bundle();
    bundle.to_ms = TO;
    (maker, bundle)
}

/// Four epochs that both witnesses saw.
fn seen() -> (Maker, Bundle) {
    let (maker, mut bundle) = good();
    let note = signed(&checkpoint(&bundle, 3), &[(1, END), (2, END + 1000)]);
    bundle.checkpoint = Some(note.bytes());
    (maker, bundle)
}

/// Without its last epochs, as a producer would cut them.
fn cut(bundle: &mut Bundle, epochs: usize) {
    for _ in 0..epochs {
        let last = bundle.sessions[0].epochs.pop().unwrap();
        let last: EpochStatement = decode(&last.statement).unwrap();
        let gone = usize::try_from(last.size_after - last.size_before).unwrap();
        let leaves = &mut bundle.span.as_mut().unwrap().leaves;
        leaves.truncate(leaves.len() - gone);
    }
}

fn result(verdict: &Verdict) -> CheckResult {
    let check = verdict.checks.iter().find(|check| check.id == ID);
    check.unwrap().result
}

#[test]
fn a_log_that_both_witnesses_saw_passes() {
    let (maker, bundle) = seen();
    let verdict = judge(&bundle, &trust(&maker, ""));
    demand(&verdict, 0, ID);
    assert_eq!(result(&verdict), CheckResult::Pass, "{:#?}", verdict.checks);
    let verdict = judge(&bundle, &maker.trust());
    demand(&verdict, 0, ID);
    assert_eq!(result(&verdict), CheckResult::NotChecked);
}

#[test]
fn without_a_checkpoint_or_a_quorum_there_is_no_pass() {
    let (maker, mut bundle) = seen();
    bundle.checkpoint = None;
    demand(&judge(&bundle, &trust(&maker, "")), 3, ID);
    let one = signed(&checkpoint(&bundle, 3), &[(1, END)]);
    bundle.checkpoint = Some(one.bytes());
    demand(&judge(&bundle, &trust(&maker, "")), 3, ID);
    demand(&judge(&bundle, &trust(&maker, "quorum = 1")), 0, ID);
    // Witnesses that nobody pinned do not count, however many.
    let strangers = signed(&checkpoint(&bundle, 3), &[(3, END), (4, END), (5, END)]);
    bundle.checkpoint = Some(strangers.bytes());
    demand(&judge(&bundle, &trust(&maker, "quorum = 1")), 3, ID);
}

#[test]
fn n58_epochs_cut_off_the_end_show_where_a_witness_saw_them() {
    for epochs in 1..=3 {
        let (maker, mut bundle) = seen();
        cut(&mut bundle, epochs);
        demand(&judge(&bundle, &trust(&maker, "")), 2, ID);
        // The producer leaves the checkpoint out: the verifier has it from the witness.
        let note = String::from_utf8(bundle.checkpoint.take().unwrap()).unwrap();
        demand(&judge(&bundle, &trust(&maker, "")), 3, ID);
        let own = format!("checkpoints = ['''\n{note}''']");
        demand(&judge(&bundle, &trust(&maker, &own)), 2, ID);
        // Or puts an older one in its place.
        let older = signed(&checkpoint(&bundle, 0), &[(1, END), (2, END)]);
        bundle.checkpoint = Some(older.bytes());
        demand(&judge(&bundle, &trust(&maker, &own)), 2, ID);
    }
}

#[test]
fn n58_an_epoch_without_entries_that_was_cut_off_shows_too() {
    let mut maker = Maker::new();
    maker.leaves_each = 0;
    maker.told = vec![(0, flow(START, 1))];
    let mut bundle = maker.bundle();
    bundle.to_ms = TO;
    let note = signed(&checkpoint(&bundle, 3), &[(1, END), (2, END)]);
    bundle.checkpoint = Some(note.bytes());
    demand(&judge(&bundle, &trust(&maker, "")), 0, ID);
    cut(&mut bundle, 1);
    demand(&judge(&bundle, &trust(&maker, "")), 2, ID);
}

#[test]
fn n51_a_checkpoint_of_another_tree_of_the_same_size_is_a_split_view() {
    let (maker, mut bundle) = seen();
    for sequence in 0..4 {
        let mut other = checkpoint(&bundle, sequence);
        other.root.0[0] ^= 1;
        let note = signed(&other, &[(1, END), (2, END)]);
        bundle.checkpoint = Some(note.bytes());
        demand(&judge(&bundle, &trust(&maker, "")), 1, ID);
        // Also where nobody's key is pinned: no log has two trees of one size.
        demand(&judge(&bundle, &maker.trust()), 1, ID);
        let own = format!(
            "checkpoints = ['''\n{}''']",
            String::from_utf8(note.bytes()).unwrap()
        );
        bundle.checkpoint = Some(signed(&checkpoint(&bundle, 3), &[(1, END), (2, END)]).bytes());
        demand(&judge(&bundle, &trust(&maker, &own)), 1, ID);
    }
}

#[test]
fn n34_a_checkpoint_that_the_pinned_key_did_not_sign_is_refused() {
    let (maker, mut bundle) = seen();
    let good = checkpoint(&bundle, 3);
    let stranger = Signer::from_seed(LOG, Algorithm::Ed25519, &[9; 32]).unwrap();
    let mut note = Note::sign(good.text(), &stranger);
    note.add(witness(1).sign(note.text(), END / 1000));
    note.add(witness(2).sign(note.text(), END / 1000));
    bundle.checkpoint = Some(note.bytes());
    demand(&judge(&bundle, &trust(&maker, "")), 1, ID);
    let elsewhere = Checkpoint {
        origin: "merestone/gpu-02/01020304".into(),
        ..good
    };
    bundle.checkpoint = Some(signed(&elsewhere, &[(1, END), (2, END)]).bytes());
    demand(&judge(&bundle, &trust(&maker, "")), 1, ID);
}

#[test]
fn every_byte_of_a_signed_checkpoint_matters() {
    let (maker, mut bundle) = seen();
    let trust = trust(&maker, "");
    let good = bundle.checkpoint.clone().unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        bundle.checkpoint = Some(bad);
        let verdict = judge(&bundle, &trust);
        // A line of a key whose name or id is another's is passed over: then a quorum is missing.
        assert!(matches!(verdict.exit, 1 | 3), "byte {at}: {verdict:#?}");
    }
    for length in (0..good.len()).step_by(7) {
        bundle.checkpoint = Some(good[..length].to_vec());
        assert_ne!(judge(&bundle, &trust).exit, 0, "{length} bytes");
    }
}

#[test]
fn a_text_that_is_no_checkpoint_is_refused_whoever_is_trusted() {
    let (maker, mut bundle) = seen();
    for text in ["nothing\n", "o\n0012\nAAAA\n"] {
        bundle.checkpoint = Some(Note::sign(text.into(), &log_key()).bytes());
        demand(&judge(&bundle, &maker.trust()), 1, ID);
    }
    bundle.checkpoint = Some(Vec::new());
    demand(&judge(&bundle, &maker.trust()), 1, ID);
}

#[test]
fn n56_extension_lines_count_only_against_a_checkpoint() {
    let (maker, mut bundle) = seen();
    let good = checkpoint(&bundle, 2);
    let names = |sealed: Sealed| Checkpoint {
        extensions: sealed.lines(),
        ..good.clone()
    };
    let other = checkpoint(&bundle, 1).sealed().unwrap();
    let unknown = Sealed {
        epoch: Digest([5; 32]),
        ..other
    };
    for wrong in [other, unknown] {
        bundle.checkpoint = Some(signed(&names(wrong), &[(1, END), (2, END)]).bytes());
        demand(&judge(&bundle, &trust(&maker, "")), 1, ID);
    }
    // Of a session that is not shown, or of none, they say nothing.
    let elsewhere = Sealed {
        session: SessionId([9; 16]),
        ..unknown
    };
    for lines in [elsewhere.lines(), vec![], vec!["free text".into()]] {
        let one = Checkpoint {
            extensions: lines,
            ..good.clone()
        };
        bundle.checkpoint = Some(signed(&one, &[(1, END), (2, END)]).bytes());
        demand(&judge(&bundle, &trust(&maker, "")), 0, ID);
    }
}

#[test]
fn what_no_witness_saw_at_the_end_is_bounded() {
    let (maker, mut bundle) = seen();
    let early = checkpoint(&bundle, 1);
    bundle.checkpoint = Some(signed(&early, &[(1, START), (2, START)]).bytes());
    demand(&judge(&bundle, &trust(&maker, "")), 0, ID);
    demand(
        &judge(&bundle, &trust(&maker, "max_unwitnessed_s = 20")),
        0,
        ID,
    );
    demand(
        &judge(&bundle, &trust(&maker, "max_unwitnessed_s = 19")),
        3,
        ID,
    );
}

#[test]
fn a_checkpoint_from_after_the_period_needs_its_proof() {
    let maker = Maker::new();
    let (mut tpm, mut log) = (maker.tpm.clone(), Log::default());
    let session = maker.seal_session(&mut tpm, &mut log, None, START, 1);
    let mut bundle = maker.pack(vec![session], &log, START, END);
    let later = checkpoint(&bundle, 3);
    cut(&mut bundle, 2);
    // The report is for the first twenty seconds; the witness came after.
    bundle.to_ms = START + 20_000;
    let note = signed(&later, &[(1, END + 90_000), (2, END + 90_000)]);
    bundle.checkpoint = Some(note.bytes());
    let trust = trust(&maker, "");
    demand(&judge(&bundle, &trust), 3, ID);
    let from_size = log.sealed[1].1;
    let proof = ConsistencyProof {
        from_size,
        to_size: log.size(),
        path: consistency_path(&log.hashes, from_size, log.size()).unwrap(),
    };
    bundle.consistency = vec![proof.clone()];
    demand(&judge(&bundle, &trust), 0, ID);
    bundle.consistency[0].path[0].0[0] ^= 1;
    demand(&judge(&bundle, &trust), 1, ID);
    let stray = ConsistencyProof {
        to_size: 11,
        ..proof.clone()
    };
    bundle.consistency = vec![proof.clone(), stray];
    demand(&judge(&bundle, &trust), 1, ID);
    bundle.consistency = vec![proof];
    bundle.checkpoint = None;
    demand(&judge(&bundle, &trust), 1, "log.consistency");
}

#[test]
fn n55_one_witness_under_two_names_is_a_fault_of_the_policy() {
    let maker = Maker::new();
    let key = log_key().verifier();
    let again = Signer::from_seed("example.org/w9", Algorithm::Cosignature, &[101; 32]).unwrap();
    let own = Signer::from_seed("example.org/log", Algorithm::Cosignature, &[1; 32]).unwrap();
    let (first, second) = (witness(1).verifier(), again.verifier());
    let wrong = [
        format!("[log]\nkey = \"{key}\"\nwitnesses = [\"{first}\", \"{second}\"]"),
        format!(
            "[log]\nkey = \"{key}\"\nwitnesses = [\"{}\"]",
            own.verifier()
        ),
        format!("[log]\nkey = \"{key}\"\nwitnesses = [\"{key}\"]"),
        format!("[log]\nkey = \"{first}\""),
        "[log]\nkey = []".to_string(),
        format!("[log]\nwitnesses = [\"{first}\"]"),
        format!("[log]\nkey = \"{key}\"\nwitnesses = [\"{first}\"]\nquorum = 0"),
        format!("[log]\nkey = \"{key}\"\nwitnesses = [\"{first}\"]\nquorum = 2"),
        format!("[log]\nkey = \"{key}\"\nquorum = 1"),
        format!("[log]\nkey = \"{key}\"\nwitness = [\"{first}\"]"),
        format!("[log]\nkey = \"{key}\"\ncheckpoints = ['''\nfree text\n''']"),
    ];
    for table in wrong {
        let text = format!("{}\n{table}\n", maker.trust());
        assert!(Trust::parse(&text, "trust.toml").is_err(), "{table}");
    }
    let stranger = Note::sign(
        checkpoint(&maker.bundle(), 3).text(),
        &Signer::from_seed(LOG, Algorithm::Ed25519, &[9; 32]).unwrap(),
    );
    let text = trust(
        &maker,
        &format!(
            "checkpoints = ['''\n{}''']",
            String::from_utf8(stranger.bytes()).unwrap()
        ),
    );
    assert!(Trust::parse(&text, "trust.toml").is_err());
}
