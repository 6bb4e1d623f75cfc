//! What the log tells of enforcement: one bundle that passes and one for each way to fail.

mod canary;
mod deputies;
mod glass;
mod grants;
mod robust;
mod tamper;

use crate::support::{Maker, START, demand, judge};
use merestone_evidence::{Body, Entry, EntryKind, Process, encode};
use merestone_verify::{CheckResult, Verdict};

/// An entry so many milliseconds after the start.
pub(crate) fn entry(after_ms: u64, body: Body) -> Entry {
    Entry {
        kind: EntryKind,
        time_ms: START + after_ms,
        boot_ns: after_ms * 1_000_000,
        body,
    }
}

/// A bundle whose log has these too, each in the epoch of its time.
pub(crate) fn telling(told: Vec<(u64, Body)>) -> Maker {
    let mut maker = Maker::new();
    let epochs = told
        .into_iter()
        .map(|(after_ms, body)| ((after_ms / 10_000).min(3), entry(after_ms, body)));
    maker.told = epochs.collect();
    maker
}

/// Judged with `[require]` lines.
#[track_caller]
pub(crate) fn verdict_of(maker: &Maker, require: &str, exit: u8, id: &str) -> Verdict {
    let trust = maker.trust() + "[require]\n" + require + "\n";
    let verdict = judge(&maker.bundle(), &trust);
    demand(&verdict, exit, id);
    verdict
}

/// The same, where only the exit code matters.
#[track_caller]
pub(crate) fn asked(maker: &Maker, require: &str, exit: u8, id: &str) {
    drop(verdict_of(maker, require, exit, id));
}

#[track_caller]
pub(crate) fn detail(verdict: &Verdict, id: &str, result: CheckResult) -> String {
    let mut checks = verdict.checks.iter();
    let check = checks.find(|check| check.id == id).unwrap();
    assert_eq!(check.result, result, "{check:?}");
    check.detail.clone()
}

pub(crate) fn process() -> Process {
    Process {
        pid: 4711,
        start_ticks: 99,
        exe: "/usr/bin/bpftool".into(),
        exe_sha256: None,
        comm: "bpftool".into(),
        cgroup: "/user.slice".into(),
        container_id: None,
        pod_uid: None,
    }
}

/// Everything at once that fails a policy.
pub(crate) fn everything() -> Maker {
    telling(vec![
        (1_000, tamper::found(true)),
        (2_000, glass::opened(b"token", 30_000)),
        (3_000, grants::accepted()),
        (4_000, grants::told("used", 9_999)),
        (
            5_000,
            deputies::reached("127.0.0.1:8080 of pid 7, cgroup 9", false),
        ),
        (6_000, canary::escaped("udp_send")),
    ])
}

#[test]
fn a_signature_that_fails_outweighs_everything_the_log_tells() {
    let maker = everything();
    for id in ["tamper", "break_glass", "grants", "canary"] {
        asked(&maker, "", 2, id);
    }
    asked(&maker, "deputies = \"none\"", 2, "deputies");
    let mut bundle = maker.bundle();
    bundle.sessions[0].quote.signature[10] ^= 1;
    let verdict = judge(&bundle, &maker.trust());
    demand(&verdict, 1, "quote.signature");
    assert!(verdict.tamper.is_none() && verdict.grants.is_none() && verdict.canary.is_none());
    // A leaf that was changed after the seal is no leaf to tell anything.
    let mut bundle = maker.bundle();
    bundle.span.as_mut().unwrap().leaves[0] = encode(&entry(1_000, tamper::denied("kill"))).into();
    let verdict = judge(&bundle, &maker.trust());
    demand(&verdict, 1, "log.leaves");
    assert!(verdict.tamper.is_none());
}

#[test]
fn a_log_that_tells_of_nothing_passes_and_says_so() {
    let verdict = verdict_of(&Maker::new(), "", 0, "tamper");
    for id in ["tamper", "break_glass", "grants", "deputies"] {
        detail(&verdict, id, CheckResult::Pass);
    }
    detail(&verdict, "canary", CheckResult::NotChecked);
}

#[test]
fn a_receipt_is_not_judged_by_what_it_does_not_show() {
    let maker = Maker::new();
    let receipt = encode(&maker.receipt(5));
    let purpose = merestone_verify::Purpose::Receipt;
    let verdict = crate::support::judge_bytes(&receipt, &maker.trust(), purpose);
    demand(&verdict, 0, "log.inclusion");
    for id in ["tamper", "break_glass", "grants", "deputies"] {
        let why = detail(&verdict, id, CheckResult::NotChecked);
        assert!(why.contains("receipt"), "{why}");
    }
}

#[test]
fn losses_that_only_the_entries_tell_of_count() {
    let lost = |count| Body::Lost {
        reason: "ring_full".into(),
        count,
    };
    let maker = telling(vec![(1_000, lost(2)), (12_000, lost(1))]);
    let verdict = verdict_of(&maker, "", 2, "policy.lost");
    assert_eq!(verdict.egress.unwrap().lost, 3);
    asked(&maker, "max_lost = 3", 0, "policy.lost");
    // Counted in both, they are the same losses.
    let mut maker = telling(vec![(1_000, lost(2))]);
    maker.epoch = Box::new(|_, epoch| epoch.lost[0].count = 5);
    let verdict = verdict_of(&maker, "max_lost = 5", 0, "policy.lost");
    assert_eq!(verdict.egress.unwrap().lost, 5);
}
