//! Counters in the TPM and what they show of the end of the log: N30, N58.

use crate::support::{
    Log, Maker, START, Tpm, demand, judge,
    nv::{self, EPOCHS, Nv},
};
use merestone_evidence::{Bundle, Digest, NvCertified, SealedSession, sha256};
use merestone_verify::{CheckResult, Verdict};

const REQUIRED: &str = "\n[require]\ncounters = true\n";

/// Two sessions of one host, and what may happen between them.
struct Two {
    maker: Maker,
    nv: Nv,
    /// Between the sessions.
    between: fn(&mut Nv, &mut Tpm),
    /// The second session's first quotes say that the clock may be behind.
    is_unsafe: bool,
    ends: [bool; 2],
}

impl Two {
    fn new() -> Self {
        Self {
            maker: Maker::new(),
            nv: Nv::new(),
            between: |_, _| {},
            is_unsafe: false,
            ends: [true, true],
        }
    }

    fn bundle(&mut self) -> Bundle {
        let (mut log, mut tpm) = (Log::default(), self.maker.tpm.clone());
        let mut nv = self.nv.clone();
        let first = self.session(&mut nv, &mut tpm, &mut log, (None, START, 1));
        let last = first.epochs.last().map(|epoch| sha256(&epoch.statement));
        (self.between)(&mut nv, &mut tpm);
        if self.is_unsafe {
            self.maker.attest = Box::new(|_, attest| attest.safe = 0);
        }
        let second = self.session(&mut nv, &mut tpm, &mut log, (last, START + 50_000, 2));
        self.maker
            .pack(vec![first, second], &log, START, START + 90_000)
    }

    fn session(
        &mut self,
        nv: &mut Nv,
        tpm: &mut Tpm,
        log: &mut Log,
        (previous, start, id): (Option<Digest>, u64, u8),
    ) -> SealedSession {
        nv.declare(&mut self.maker);
        let mut session = self.maker.seal_session(tpm, log, previous, start, id);
        let is_ended = self.ends[usize::from(id - 1)];
        nv.certify(&self.maker.key, tpm, &mut session, is_ended);
        session
    }

    fn judge(&mut self, more: &str) -> Verdict {
        let bundle = self.bundle();
        judge(&bundle, &format!("{}{more}", self.maker.trust()))
    }
}

fn detail(verdict: &Verdict, id: &str) -> String {
    let found = verdict.checks.iter().filter(|check| check.id == id);
    found.map(|check| check.detail.clone()).collect()
}

fn result(verdict: &Verdict, id: &str) -> CheckResult {
    let found = verdict.checks.iter().find(|check| check.id == id);
    found.unwrap().result
}

#[test]
fn counted_sessions_that_were_ended_have_a_checked_end() {
    let verdict = Two::new().judge(REQUIRED);
    assert_eq!(verdict.exit, 0, "{:#?}", verdict.checks);
    for id in ["nv.certified", "log.tail"] {
        assert_eq!(
            result(&verdict, id),
            CheckResult::Pass,
            "{}",
            detail(&verdict, id)
        );
    }
}

#[test]
fn a_session_that_goes_on_has_a_checked_end_up_to_its_last_epoch() {
    let mut two = Two::new();
    two.ends = [false, false];
    let verdict = two.judge(REQUIRED);
    assert_eq!(verdict.exit, 0, "{:#?}", verdict.checks);
    let said = detail(&verdict, "log.tail");
    assert!(
        said.contains("still going on") && said.contains("1 sessions have no end"),
        "{said}"
    );
}

#[test]
fn without_counters_the_end_is_not_checked_and_a_policy_that_asks_is_not_met() {
    let maker = Maker::new();
    let verdict = judge(&maker.bundle(), &maker.trust());
    assert_eq!(verdict.exit, 0);
    assert_eq!(result(&verdict, "log.tail"), CheckResult::NotChecked);
    let verdict = judge(&maker.bundle(), &(maker.trust() + REQUIRED));
    demand(&verdict, 3, "log.tail");
    // A TPM that refuses is said to have refused.
    let mut maker = Maker::new();
    maker.session = Box::new(|statement| {
        let mut declared = Nv::new().declared();
        (declared.epochs, declared.sessions) = (None, None);
        declared.absent = Some("its memory is full".into());
        statement.counters = Some(declared);
    });
    let verdict = judge(&maker.bundle(), &(maker.trust() + REQUIRED));
    demand(&verdict, 3, "log.tail");
    assert!(detail(&verdict, "log.tail").contains("its memory is full"));
}

#[test]
fn n58_epochs_that_an_older_disk_forgot_are_missed_by_the_counter() {
    let mut two = Two::new();
    // The chain of statements is whole; only the TPM remembers.
    two.between = |nv, _| nv.epochs += 2;
    let verdict = two.judge("");
    demand(&verdict, 2, "log.tail");
    assert!(detail(&verdict, "log.tail").contains("2 of them not shown"));
}

#[test]
fn n58_a_session_that_was_left_out_is_missed_by_the_counter() {
    let mut two = Two::new();
    two.between = |nv, _| nv.sessions += 2;
    demand(&two.judge(""), 2, "log.tail");
    // Also one that never ended, and one of which the end is kept back.
    for (ends, more) in [([true, true], 1), ([false, true], 1)] {
        let mut two = Two::new();
        two.ends = ends;
        two.between = if more == 1 {
            |nv, _| nv.sessions += 1
        } else {
            |_, _| {}
        };
        demand(&two.judge(""), 2, "log.tail");
    }
}

#[test]
fn n58_an_end_cut_off_a_session_that_was_ended_is_refused() {
    let mut two = Two::new();
    two.ends = [true, true];
    let bundle = two.bundle();
    let cut = |keep_end: bool| {
        let mut cut = bundle.clone();
        let last = cut.sessions.last_mut().unwrap();
        last.epochs.pop();
        if !keep_end {
            last.nv_end = None;
        }
        let size = cut.span.as_ref().unwrap().leaves.len() - 3;
        cut.span.as_mut().unwrap().leaves.truncate(size);
        cut
    };
    // The end is certified for the statement that was cut off.
    let verdict = judge(&cut(true), &two.maker.trust());
    demand(&verdict, 1, "nv.certified");
    // Without it, the end reaches as far as the last epoch shown, and no further.
    let mut later = cut(false);
    later.to_ms = START + 300_000;
    let verdict = judge(&later, &(two.maker.trust() + REQUIRED));
    let tail = result(&verdict, "log.tail");
    assert_eq!(tail, CheckResult::NotChecked, "{:#?}", verdict.checks);
    assert_ne!(verdict.exit, 0);
}

#[test]
fn n30a_an_end_that_certifies_nothing_is_no_end() {
    let mut two = Two::new();
    let mut bundle = two.bundle();
    bundle.to_ms += 1;
    bundle.sessions[1].nv_end = Some(Vec::new());
    let verdict = judge(&bundle, &(two.maker.trust() + REQUIRED));
    demand(&verdict, 3, "log.tail");
}

#[test]
fn a_loss_of_power_is_named_with_how_many_epochs_may_be_missing() {
    let crash = |ahead: fn(&mut Nv, &mut Tpm), is_unsafe| {
        let mut two = Two::new();
        two.ends = [false, true];
        two.between = ahead;
        two.is_unsafe = is_unsafe;
        two
    };
    let ahead: fn(&mut Nv, &mut Tpm) = |nv, tpm| {
        nv.epochs |= 0xff;
        tpm.resets += 1;
    };
    let verdict = crash(ahead, true).judge(REQUIRED);
    assert_eq!(verdict.exit, 0, "{:#?}", verdict.checks);
    assert_eq!(result(&verdict, "log.tail"), CheckResult::NotChecked);
    let said = detail(&verdict, "log.tail");
    assert!(
        said.contains("lost power before session 1: up to 211 epochs"),
        "{said}"
    );
    // Within what the policy allows, or not.
    demand(
        &crash(ahead, true).judge("\n[require]\nmax_crash_epochs = 210\n"),
        2,
        "log.tail",
    );
    // Where the clock is safe again the counter's place is the sign; any other place is none.
    let verdict = crash(ahead, false).judge(REQUIRED);
    assert_eq!(result(&verdict, "log.tail"), CheckResult::NotChecked);
    let elsewhere: fn(&mut Nv, &mut Tpm) = |nv, tpm| {
        nv.epochs += 100;
        tpm.resets += 1;
    };
    demand(&crash(elsewhere, false).judge(""), 2, "log.tail");
    // Not without a reset, not by more than 255.
    demand(
        &crash(|nv, _| nv.epochs |= 0xff, true).judge(""),
        2,
        "log.tail",
    );
    let far: fn(&mut Nv, &mut Tpm) = |nv, tpm| {
        nv.epochs += 256;
        tpm.resets += 1;
    };
    demand(&crash(far, true).judge(""), 2, "log.tail");
    // A plain counter does not move by itself.
    let mut plain = crash(ahead, true);
    plain.nv.attributes = [nv::PLAIN, nv::PLAIN];
    demand(&plain.judge(""), 2, "log.tail");
    // And a crash that lost nothing is named and passes.
    let verdict = crash(|_, tpm| tpm.resets += 1, true).judge(REQUIRED);
    assert_eq!(result(&verdict, "log.tail"), CheckResult::Pass);
    assert!(detail(&verdict, "log.tail").contains("lost power before session 1"));
}

#[test]
fn n30d_a_counter_that_went_back_is_refused() {
    let mut two = Two::new();
    two.between = |nv, _| nv.epochs -= 1;
    demand(&two.judge(""), 1, "log.tail");
    let mut two = Two::new();
    two.between = |nv, _| nv.sessions -= 1;
    demand(&two.judge(""), 1, "log.tail");
}

#[test]
fn n30c_a_counter_made_anew_is_ahead_without_a_reason() {
    let mut two = Two::new();
    // Undefined, defined, counted once: above every value before.
    two.between = |nv, _| {
        nv.epochs += 1;
        nv.sessions += 2;
    };
    demand(&two.judge(""), 2, "log.tail");
}

#[test]
fn n30d_a_stranger_who_counts_inside_a_session_is_seen() {
    let mut two = Two::new();
    let mut bundle = two.bundle();
    let (key, tpm) = (two.maker.key.clone(), two.maker.tpm.clone());
    let session = &mut bundle.sessions[1];
    let epoch = session.epochs.last_mut().unwrap();
    let [public, _] = two.nv.publics();
    let mut ahead = nv::attest(
        &key,
        &tpm,
        &public,
        sha256(&epoch.statement),
        40 + 4 + 4 + 1,
    );
    ahead.clock += 1_000_000;
    epoch.nv = Some(vec![ahead.signed(&key)]);
    demand(&judge(&bundle, &two.maker.trust()), 2, "log.tail");
}

#[test]
fn n30a_a_value_that_nobody_signed_counts_for_nothing() {
    let mut two = Two::new();
    let trust = two.maker.trust();
    let good = two.bundle();
    // Stripped of what is signed, the statements' own numbers are no evidence.
    let mut stripped = good.clone();
    stripped.sessions[0].nv_start = None;
    demand(&judge(&stripped, &trust), 2, "log.tail");
    // Signed by another key, or changed after.
    let mut forged = good.clone();
    let other = crate::support::Key::p256_from(9);
    let certified = forged.sessions[0].nv_start.as_mut().unwrap();
    certified[0].signature = other.sign(&certified[0].attest);
    demand(&judge(&forged, &trust), 1, "nv.certified");
    let mut changed = good.clone();
    let epoch = &mut changed.sessions[0].epochs[1];
    let attest = &mut epoch.nv.as_mut().unwrap()[0].attest;
    let last = attest.len() - 1;
    attest[last] ^= 1;
    demand(&judge(&changed, &trust), 1, "nv.certified");
    // A good one in another's place.
    let mut moved = good;
    moved.sessions[0].epochs[1].nv = moved.sessions[0].epochs[2].nv.clone();
    demand(&judge(&moved, &trust), 1, "nv.certified");
}

/// One certification of the first epoch, changed before it is signed.
fn with(change: impl Fn(&mut nv::NvAttest)) -> Verdict {
    let mut two = Two::new();
    let mut bundle = two.bundle();
    let (key, mut tpm) = (two.maker.key.clone(), two.maker.tpm.clone());
    tpm.clock += 1_000_000;
    let epoch = &mut bundle.sessions[0].epochs[0];
    let [public, _] = two.nv.publics();
    let mut attest = nv::attest(&key, &tpm, &public, sha256(&epoch.statement), 41);
    change(&mut attest);
    epoch.nv = Some(vec![attest.signed(&key)]);
    judge(&bundle, &two.maker.trust())
}

#[test]
fn n30b_a_certification_of_another_form_or_index_is_refused() {
    assert_eq!(with(|_| {}).exit, 0);
    let changes: [fn(&mut nv::NvAttest); 12] = [
        |attest| attest.magic = 0,
        |attest| attest.kind = 0x8018,
        |attest| attest.kind = 0x801c,
        |attest| attest.extra.truncate(31),
        |attest| attest.extra[0] ^= 1,
        |attest| attest.extra.clear(),
        |attest| attest.after = vec![0],
        |attest| attest.offset = 1,
        |attest| attest.contents.truncate(7),
        |attest| attest.name[3] ^= 1,
        |attest| attest.resets -= 1,
        |attest| attest.clock = 0,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let verdict = with(change);
        assert_eq!(verdict.exit, 1, "change {number}: {:#?}", verdict.checks);
        demand(&verdict, 1, "nv.certified");
    }
}

#[test]
fn n30b_an_index_that_others_can_write_is_no_counter() {
    // ppwrite, ownerwrite, policywrite, clear_stclear; no authwrite; not a counter; never written.
    let bad = [1, 1 << 1, 1 << 3, 1 << 27]
        .map(|bit| nv::PLAIN | bit)
        .into_iter()
        .chain([
            nv::PLAIN & !(1 << 2),
            nv::PLAIN & !(1 << 4),
            nv::PLAIN & !(1 << 29),
        ]);
    for attributes in bad {
        for place in 0..2 {
            let mut two = Two::new();
            two.nv.attributes[place] = attributes;
            demand(&two.judge(""), 1, "nv.certified");
        }
    }
    // A counter of sessions in working memory could lose its last steps.
    let mut two = Two::new();
    two.nv.attributes[1] |= nv::ORDERLY;
    demand(&two.judge(""), 1, "nv.certified");
}

#[test]
fn n30b_the_same_index_twice_is_refused() {
    let mut two = Two::new();
    let mut bundle = two.bundle();
    let certified = bundle.sessions[0].nv_start.as_mut().unwrap();
    certified.push(certified[0].clone());
    demand(&judge(&bundle, &two.maker.trust()), 1, "nv.certified");
}

#[test]
fn certifications_of_a_session_that_declares_no_index_are_refused() {
    let maker = Maker::new();
    let mut bundle = maker.bundle();
    let public = nv::public(EPOCHS, nv::PLAIN, 8);
    let digest = sha256(&bundle.sessions[0].statement);
    let mut attest = nv::attest(&maker.key, &maker.tpm, &public, digest, 1);
    attest.clock += 1_000_000;
    bundle.sessions[0].nv_start = Some(vec![attest.signed(&maker.key)]);
    demand(&judge(&bundle, &maker.trust()), 1, "nv.certified");
    bundle.sessions[0].nv_start = Some(vec![NvCertified {
        attest: Vec::new(),
        signature: Vec::new(),
    }]);
    demand(&judge(&bundle, &maker.trust()), 1, "nv.certified");
}
