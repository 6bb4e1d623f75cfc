use super::{asked, detail, telling, verdict_of};
use crate::support::{Maker, START, demand, judge};
use merestone_evidence::{Body, Canary, EpochStatement};
use merestone_verify::CheckResult;

const WANT: &str = "canary = true";

pub(super) fn escaped(vector: &str) -> Body {
    Body::Canary {
        run: "drill".into(),
        vector: vector.into(),
        result: "escaped".into(),
        detail: "an answer came".into(),
    }
}

/// Two tries an epoch, all held.
fn at_work(sequence: u64, epoch: &EpochStatement) -> Canary {
    let runs = 2 * (sequence + 1);
    Canary {
        runs,
        held: runs,
        escaped: 0,
        not_applicable: 0,
        last_ms: Some(epoch.closed_ms - 1_000),
        escaped_vectors: Vec::new(),
        errors: 0,
        guarded: true,
    }
}

/// A bundle with a canary at work, changed in one thing in the epoch of a number.
fn with(number: u64, change: impl Fn(&mut Canary) + 'static) -> Maker {
    let mut maker = Maker::new();
    maker.epoch = Box::new(move |sequence, epoch| {
        let mut canary = at_work(sequence, epoch);
        if sequence >= number {
            change(&mut canary);
        }
        epoch.canary = Some(canary);
    });
    maker
}

fn good() -> Maker {
    with(9, |_| {})
}

#[test]
fn a_canary_that_always_held_passes() {
    for require in ["", WANT] {
        let verdict = verdict_of(&good(), require, 0, "canary");
        detail(&verdict, "canary", CheckResult::Pass);
        let canary = verdict.canary.unwrap();
        assert_eq!((canary.runs, canary.held, canary.epochs), (8, 8, 4));
        assert_eq!(canary.last.as_deref(), Some("2025-10-09T08:53:59Z"));
    }
}

#[test]
fn an_absent_canary_is_not_checked_and_indeterminate_where_it_is_required() {
    let verdict = verdict_of(&Maker::new(), "", 0, "canary");
    let said = detail(&verdict, "canary", CheckResult::NotChecked);
    assert!(said.contains("switched off"), "{said}");
    asked(&Maker::new(), WANT, 3, "canary");
    let mut maker = Maker::new();
    maker.epoch = Box::new(|sequence, epoch| {
        if sequence < 3 {
            epoch.canary = Some(at_work(sequence, epoch));
        }
    });
    // One that vanishes in the middle took its counts with it.
    asked(&maker, "", 1, "log.sizes");
    maker.epoch = Box::new(|sequence, epoch| {
        if sequence > 0 {
            epoch.canary = Some(at_work(sequence, epoch));
        }
    });
    asked(&maker, WANT, 3, "canary");
    asked(&maker, "", 0, "canary");
}

#[test]
fn an_escape_fails_whether_an_epoch_or_an_entry_tells_of_it() {
    let maker = with(2, |canary| {
        canary.held -= 1;
        canary.escaped = 1;
        canary.escaped_vectors = vec!["udp_send".into()];
    });
    for require in ["", WANT] {
        let verdict = verdict_of(&maker, require, 2, "canary");
        let lines = verdict.checks.iter().filter(|check| check.id == "canary");
        assert_eq!(lines.count(), 1, "an escape is told once");
        assert!(verdict.canary.unwrap().escaped_vectors.contains("udp_send"));
    }
    // No word of `permit` helps.
    let all = "permit = [\"tamper\", \"break_glass\", \"break_glass_unsigned\", \"grants\"]";
    asked(&maker, all, 2, "canary");
    let mut told = good();
    told.told = telling(vec![(5_000, escaped("raw_socket"))]).told;
    asked(&told, WANT, 2, "canary");
    asked(
        &telling(vec![(5_000, escaped("raw_socket"))]),
        "",
        2,
        "canary",
    );
    // An escape that is counted and has no name.
    let nameless = with(2, |canary| {
        canary.held -= 1;
        canary.escaped = 1;
    });
    asked(&nameless, "", 2, "canary");
}

#[test]
fn numbers_that_contradict_each_other_fail() {
    let wrong: [fn(&mut Canary); 6] = [
        |canary| canary.held += 1,
        |canary| canary.errors = u64::MAX,
        |canary| canary.escaped_vectors = vec!["udp_send".into()],
        |canary| canary.last_ms = Some(START + 200_000),
        |canary| canary.last_ms = None,
        |canary| (canary.runs, canary.held) = (0, 0),
    ];
    for (number, change) in wrong.into_iter().enumerate() {
        let mut maker = with(3, change);
        // Only the last epoch: a count of zero would go back.
        if number == 5 {
            maker.epochs = 1;
            maker.epoch = Box::new(move |sequence, epoch| {
                let mut canary = at_work(sequence, epoch);
                change(&mut canary);
                epoch.canary = Some(canary);
            });
        }
        asked(&maker, "", 2, "canary");
    }
    let forgets = with(0, |canary| {
        canary.escaped = 1;
        canary.held -= 1;
        if canary.runs == 2 {
            canary.escaped_vectors = vec!["udp_send".into()];
        }
    });
    let verdict = verdict_of(&forgets, "", 2, "canary");
    let mut checks = verdict.checks.iter();
    assert!(checks.any(|check| check.detail.contains("forget")));
}

#[test]
fn counts_that_go_back_within_a_session_are_refused() {
    let back: [fn(&mut Canary); 5] = [
        |canary| (canary.runs, canary.held) = (1, 1),
        |canary| (canary.held, canary.errors) = (1, canary.runs - 1),
        |canary| (canary.held, canary.not_applicable) = (0, canary.runs),
        |canary| canary.held -= 7,
        |canary| canary.runs = 0,
    ];
    for change in back {
        asked(&with(3, change), "", 1, "log.sizes");
    }
    let escapes_back = {
        let mut maker = Maker::new();
        maker.epoch = Box::new(|sequence, epoch| {
            let mut canary = at_work(sequence, epoch);
            if sequence == 1 {
                (canary.held, canary.escaped) = (3, 1);
            }
            epoch.canary = Some(canary);
        });
        maker
    };
    asked(&escapes_back, "", 1, "log.sizes");
}

#[test]
fn a_canary_that_sleeps_fails_where_it_is_required_and_is_not_called_checked_elsewhere() {
    // The TPM's clock and the wall go on alike: the epochs are far apart, not the clocks.
    let asleep = |last_before: u64| {
        let mut maker = Maker::new();
        maker.epochs = 1;
        maker.between = Box::new(|_, tpm| tpm.clock += 390_000);
        maker.epoch = Box::new(move |sequence, epoch| {
            epoch.closed_ms = epoch.opened_ms + 400_000;
            let mut canary = at_work(sequence, epoch);
            canary.last_ms = Some(epoch.closed_ms - last_before);
            epoch.canary = Some(canary);
        });
        maker
    };
    let slow = "max_gap_s = 1000\n";
    asked(&asleep(300_000), &format!("{slow}{WANT}"), 0, "canary");
    asked(&asleep(300_001), &format!("{slow}{WANT}"), 2, "canary");
    let verdict = verdict_of(&asleep(300_001), slow, 0, "canary");
    detail(&verdict, "canary", CheckResult::NotChecked);
}

#[test]
fn a_canary_that_was_not_guarded_fails_where_it_is_required() {
    let loose = || with(2, |canary| canary.guarded = false);
    asked(&loose(), WANT, 2, "canary");
    let verdict = verdict_of(&loose(), "", 0, "canary");
    detail(&verdict, "canary", CheckResult::NotChecked);
}

#[test]
fn a_canary_of_which_nothing_was_held_shows_nothing() {
    let idle = || {
        with(0, |canary| {
            canary.not_applicable = canary.runs;
            canary.held = 0;
        })
    };
    asked(&idle(), WANT, 3, "canary");
    let verdict = verdict_of(&idle(), "", 0, "canary");
    detail(&verdict, "canary", CheckResult::NotChecked);
    let mut young = Maker::new();
    young.epoch = Box::new(|_, epoch| epoch.canary = Some(Canary::default()));
    asked(&young, WANT, 3, "canary");
    demand(&judge(&young.bundle(), &young.trust()), 0, "canary");
}
