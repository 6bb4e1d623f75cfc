use super::{asked, detail, entry, glass, process, telling, verdict_of};
use crate::support::{Log, Maker, START, demand, judge};
use merestone_evidence::{Body, Bundle, Digest, Mode, sha256};
use merestone_verify::CheckResult;

fn body(attempt: &str, refused: bool, hook: &str, repaired: Option<bool>) -> Body {
    Body::Tamper {
        attempt: attempt.into(),
        refused,
        hook: hook.into(),
        target: "link of cgroup/connect4".into(),
        process: refused.then(process),
        count: 1,
        repaired,
    }
}

pub(super) fn denied(attempt: &str) -> Body {
    body(attempt, true, "task_kill", None)
}

pub(super) fn found(repaired: bool) -> Body {
    body("detach", false, "watch", Some(repaired))
}

fn at_start(what: &str, kept: bool) -> Body {
    Body::Found {
        what: what.into(),
        kept,
        detail: "as it was found".into(),
    }
}

#[test]
fn an_attempt_that_was_denied_is_named_with_who_and_when_and_costs_nothing() {
    let maker = telling(vec![
        (1_000, denied("kill")),
        (12_000, denied("kill")),
        (13_000, denied("unpin")),
    ]);
    let verdict = verdict_of(&maker, "", 0, "tamper");
    let said = detail(&verdict, "tamper", CheckResult::Pass);
    assert!(said.contains("3 attempts denied"), "{said}");
    let tamper = verdict.tamper.unwrap();
    assert_eq!((tamper.denied, tamper.attempts.len()), (3, 2));
    let kill = &tamper.attempts[0];
    assert_eq!((kill.attempt.as_str(), kill.count), ("kill", 2));
    assert_eq!(kill.who.as_ref().unwrap().pid, 4711);
    assert_eq!(kill.first, "2025-10-09T08:53:21Z");
    assert_eq!(kill.last, "2025-10-09T08:53:32Z");
    assert_eq!(verdict.coverage.unwrap().attested_seconds, 40);
}

#[test]
fn a_change_that_was_found_fails_and_is_a_gap_from_the_seal_before_to_its_repair() {
    let maker = telling(vec![(13_000, found(true))]);
    let verdict = verdict_of(&maker, "", 2, "tamper");
    let coverage = verdict.coverage.unwrap();
    assert_eq!((coverage.attested_seconds, coverage.gaps.len()), (37, 1));
    assert_eq!(coverage.gaps[0].from, "2025-10-09T08:53:30Z");
    assert_eq!(coverage.gaps[0].seconds, 3);
    let not_kept = &verdict.tamper.unwrap().not_kept[0];
    assert!(not_kept.repaired && not_kept.seconds == 3);
}

#[test]
fn a_change_that_was_not_put_back_is_a_gap_to_the_end_of_the_session() {
    for repaired in [Some(false), None] {
        let maker = telling(vec![(13_000, body("unmount", false, "watch", repaired))]);
        let verdict = verdict_of(&maker, "", 2, "tamper");
        let coverage = verdict.coverage.unwrap();
        assert_eq!((coverage.attested_seconds, coverage.gaps.len()), (10, 1));
        assert_eq!(coverage.gaps[0].seconds, 30);
    }
}

#[test]
fn a_boundary_that_was_found_changed_is_not_shown_since_it_was_installed() {
    let wrong = || body("boundary", false, "watch", Some(true));
    let verdict = verdict_of(&telling(vec![(33_000, wrong())]), "", 2, "tamper");
    assert_eq!(verdict.coverage.unwrap().attested_seconds, 7);
    let installed = Body::Boundary {
        name: "eu".into(),
        sha256: sha256(b"boundary"),
        generation: 2,
        accepted: true,
        error: None,
        mode: Mode::Enforce,
        detail: None,
    };
    let maker = telling(vec![(15_000, installed), (33_000, wrong())]);
    let verdict = verdict_of(&maker, "", 2, "tamper");
    assert_eq!(verdict.coverage.unwrap().attested_seconds, 22);
}

#[test]
fn changes_that_the_policy_permits_are_not_called_checked_and_stay_gaps() {
    let maker = telling(vec![(13_000, found(true)), (16_000, found(true))]);
    let verdict = verdict_of(&maker, "permit = \"tamper\"", 0, "tamper");
    detail(&verdict, "tamper", CheckResult::NotChecked);
    assert_eq!(verdict.coverage.unwrap().attested_seconds, 34);
    asked(&maker, "permit = [\"tamper\"]\nmax_gap_s = 10", 0, "tamper");
    asked(&maker, "permit = \"break_glass\"", 2, "tamper");
    // Gaps that touch are one: three seconds and three, from two findings.
    let trust = maker.trust() + "[require]\npermit = \"tamper\"\nmax_gap_s = 5\n";
    let mut maker = maker;
    maker.epoch = Box::new(|sequence, epoch| {
        if sequence == 1 {
            epoch.closed_ms -= 5_000;
        }
    });
    demand(&judge(&maker.bundle(), &trust), 2, "policy.coverage");
}

#[test]
fn many_changes_are_counted_and_not_all_named() {
    let many = (0..20)
        .map(|number| (1_000 + number, found(true)))
        .collect();
    let verdict = verdict_of(&telling(many), "", 2, "tamper");
    let lines: Vec<_> = verdict
        .checks
        .iter()
        .filter(|check| check.id == "tamper")
        .collect();
    assert_eq!(lines.len(), 9);
    assert!(lines[8].detail.contains("12 more"), "{:?}", lines[8]);
    assert_eq!(verdict.tamper.unwrap().not_kept.len(), 20);
}

#[test]
fn what_a_start_finds_not_kept_fails_whatever_it_is() {
    for what in [
        "links",
        "maps",
        "pins",
        "boundary",
        "record",
        "tamper",
        "something new",
    ] {
        asked(
            &telling(vec![(500, at_start(what, false))]),
            "",
            2,
            "tamper",
        );
        asked(&telling(vec![(500, at_start(what, true))]), "", 0, "tamper");
    }
    for what in ["boot", "agent_gap", "agent_end"] {
        asked(
            &telling(vec![(500, at_start(what, false))]),
            "",
            0,
            "tamper",
        );
    }
}

/// Two sessions; the second, after a reset or not, tells something at its start.
fn restarted(told: Body, resets: u32) -> (Maker, Bundle) {
    let mut maker = Maker::new();
    let (mut tpm, mut log) = (maker.tpm.clone(), Log::default());
    let first = maker.seal_session(&mut tpm, &mut log, None, START, 1);
    let last = sha256(&first.epochs.last().unwrap().statement);
    if resets > 0 {
        tpm.resets += resets;
        tpm.pcrs.insert(15, Digest::ZERO);
    }
    maker.told = vec![(0, entry(60_500, told))];
    let second = maker.seal_session(&mut tpm, &mut log, Some(last), START + 60_000, 2);
    let bundle = maker.pack(vec![first, second], &log, START, START + 100_000);
    (maker, bundle)
}

#[test]
fn what_a_start_finds_is_not_shown_since_the_session_before() {
    let (maker, bundle) = restarted(at_start("links", false), 0);
    let verdict = judge(&bundle, &maker.trust());
    demand(&verdict, 2, "tamper");
    let not_kept = &verdict.tamper.unwrap().not_kept[0];
    assert_eq!(not_kept.from, "2025-10-09T08:54:00Z");
    assert_eq!(
        (not_kept.to.as_str(), not_kept.seconds),
        ("2025-10-09T08:54:20.5Z", 21)
    );
    let coverage = verdict.coverage.unwrap();
    assert_eq!((coverage.attested_seconds, coverage.gaps.len()), (79, 2));
}

#[test]
fn a_host_that_was_started_anew_without_its_tpm_fails() {
    let (maker, bundle) = restarted(at_start("boot", false), 1);
    demand(&judge(&bundle, &maker.trust()), 0, "tamper");
    let (maker, bundle) = restarted(at_start("boot", false), 0);
    demand(&judge(&bundle, &maker.trust()), 2, "tamper");
    let trust = maker.trust() + "[require]\npermit = [\"tamper\", \"break_glass\"]\n";
    demand(&judge(&bundle, &trust), 2, "tamper");
}

#[test]
fn an_attempt_let_through_fails_where_no_opening_is_shown() {
    let through = || body("unpin", false, "inode_unlink", None);
    let alone = telling(vec![(13_000, through())]);
    asked(&alone, "", 2, "tamper");
    let all = "permit = [\"tamper\", \"break_glass\"]";
    asked(&alone, all, 2, "tamper");
    let open = telling(vec![
        (2_000, glass::opened(b"token", 30_000)),
        (13_000, through()),
    ]);
    let verdict = verdict_of(&open, "permit = \"break_glass\"", 0, "tamper");
    assert_eq!(verdict.tamper.unwrap().let_through, 1);
    // Past its end, by more than a clock may be off.
    let late = telling(vec![
        (2_000, glass::opened(b"token", 4_000)),
        (13_000, through()),
    ]);
    let leave = "permit = \"break_glass\"\nmax_clock_step_s = ";
    asked(&late, &format!("{leave}5"), 2, "tamper");
    asked(&late, &format!("{leave}10"), 0, "tamper");
}

#[test]
fn an_attempt_let_through_is_indeterminate_where_the_log_is_not_shown_from_its_start() {
    let mut maker = telling(vec![(23_000, body("unpin", false, "inode_unlink", None))]);
    maker.span_from = 6;
    let mut bundle = maker.bundle();
    bundle.from_ms = START + 20_001;
    demand(&judge(&bundle, &maker.trust()), 3, "tamper");
}
