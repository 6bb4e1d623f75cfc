//! The control: what the negative cases change is accepted when nothing is changed.

use crate::support::{EventLogMaker, ImaMaker, Key, Log, Maker, START, demand, judge, judge_bytes};
use merestone_evidence::encode;
use merestone_verify::Purpose;

#[test]
fn a_good_bundle_of_a_p256_key_passes() {
    let maker = Maker::new();
    let verdict = judge(&maker.bundle(), &maker.trust());
    demand(&verdict, 0, "frame");
    let coverage = verdict.coverage.unwrap();
    assert_eq!((coverage.attested_seconds, coverage.gaps.len()), (40, 0));
    assert_eq!(verdict.egress.unwrap().denied, 24);
    let skipped: Vec<_> = verdict
        .not_checked
        .iter()
        .map(|skipped| skipped.id)
        .collect();
    for id in [
        "ek.chain",
        "enrolment",
        "boot.log",
        "boot.ima",
        "log.tail",
        "gpu.attestation",
    ] {
        assert!(skipped.contains(&id), "{id} in {skipped:?}");
    }
}

#[test]
fn a_good_bundle_of_an_rsa_key_passes() {
    let maker = Maker::with(Key::rsa());
    demand(
        &judge(&maker.bundle(), &maker.trust()),
        0,
        "quote.signature",
    );
}

#[test]
fn a_good_receipt_passes_and_shows_its_entry() {
    let maker = Maker::new();
    let receipt = maker.receipt(5);
    let verdict = judge_bytes(&encode(&receipt), &maker.trust(), Purpose::Receipt);
    demand(&verdict, 0, "log.inclusion");
    assert_eq!(verdict.entries[0].index, 5);
    assert_eq!(verdict.entries[0].kind, "flow");
}

#[test]
fn a_span_that_begins_later_passes_with_consistency_proofs() {
    let mut maker = Maker::new();
    maker.span_from = 6;
    let mut bundle = maker.bundle();
    bundle.from_ms = START + 20_001;
    let verdict = judge(&bundle, &maker.trust());
    demand(&verdict, 0, "log.consistency");
    assert_eq!(bundle.consistency.len(), 1);
}

#[test]
fn two_sessions_over_a_reboot_pass() {
    let maker = Maker::new();
    let (mut tpm, mut log) = (maker.tpm.clone(), Log::default());
    let first = maker.seal_session(&mut tpm, &mut log, None, START, 1);
    let last = merestone_evidence::sha256(&first.epochs.last().unwrap().statement);
    tpm.resets += 1;
    tpm.pcrs.insert(15, merestone_evidence::Digest::ZERO);
    let second = maker.seal_session(&mut tpm, &mut log, Some(last), START + 60_000, 2);
    let bundle = maker.pack(vec![first, second], &log, START, START + 100_000);
    let verdict = judge(&bundle, &maker.trust());
    demand(&verdict, 0, "chain.order");
    let gaps = verdict.coverage.unwrap().gaps;
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0].seconds, 20);
}

#[test]
fn a_boot_log_and_an_ima_list_that_replay_pass() {
    let (maker, trust) = measured();
    let verdict = judge(&maker.bundle(), &trust);
    demand(&verdict, 0, "boot.log");
    let passed = |id| {
        let check = verdict.checks.iter().find(|check| check.id == id).unwrap();
        check.result == merestone_verify::CheckResult::Pass
    };
    assert!(passed("boot.log") && passed("boot.ima"));
}

/// A boot with logs, and a policy that demands them.
pub(crate) fn measured() -> (Maker, String) {
    let mut maker = Maker::new();
    let log = EventLogMaker::good();
    for register in 0..8 {
        let value = log.value(register, merestone_evidence::Digest::ZERO);
        maker.tpm.pcrs.insert(register, value);
    }
    let mut ima = ImaMaker::default();
    ima.entry("boot_aggregate");
    ima.violation("/usr/bin/true");
    ima.entry("/usr/bin/merestone");
    maker.tpm.pcrs.insert(10, ima.value);
    maker.boot_log = Some(log.bytes());
    maker.ima_log = Some(ima.bytes);
    let trust = maker.trust() + "[require]\nboot_log = true\nima = true\n";
    (maker, trust)
}
