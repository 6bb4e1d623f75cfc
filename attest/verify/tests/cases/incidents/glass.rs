use super::{asked, detail, telling, verdict_of};
use crate::support::{START, demand, judge};
use merestone_evidence::{Body, Digest, sha256};
use merestone_verify::CheckResult;

fn glass(sha256: Digest, state: &str, until_after: u64) -> Body {
    Body::BreakGlass {
        sha256,
        state: state.into(),
        reason: "pins on a full disk".into(),
        until_ms: START + until_after,
        signer: (sha256 != Digest::ZERO).then(|| merestone_evidence::sha256(b"authority")),
        actions: vec!["pins".into(), "bpf".into()],
    }
}

pub(super) fn opened(token: &[u8], until_after: u64) -> Body {
    glass(sha256(token), "opened", until_after)
}

fn closed(token: &[u8]) -> Body {
    glass(sha256(token), "closed", 30_000)
}

const LEAVE: &str = "permit = [\"break_glass\"]";

#[test]
fn an_opening_fails_and_names_token_signer_reason_start_and_end() {
    let maker = telling(vec![
        (2_000, opened(b"token", 30_000)),
        (12_000, closed(b"token")),
    ]);
    let verdict = verdict_of(&maker, "", 2, "break_glass");
    let said = detail(&verdict, "break_glass", CheckResult::Fail);
    assert!(said.contains(&sha256(b"token").to_string()), "{said}");
    let glass = verdict.break_glass.unwrap();
    let one = &glass.openings[0];
    assert_eq!(one.token, Some(sha256(b"token").to_string()));
    assert_eq!(one.signer, Some(sha256(b"authority").to_string()));
    assert_eq!(one.reason, "pins on a full disk");
    assert_eq!(one.opened.as_deref(), Some("2025-10-09T08:53:22Z"));
    assert_eq!(one.closed.as_deref(), Some("2025-10-09T08:53:32Z"));
    assert_eq!(one.until, "2025-10-09T08:53:50Z");
    assert_eq!(glass.suspended_seconds, 10);
}

#[test]
fn an_opening_that_the_policy_permits_is_not_called_checked_and_suspends_claims() {
    let maker = telling(vec![(2_000, opened(b"token", 30_000))]);
    let verdict = verdict_of(&maker, LEAVE, 0, "break_glass");
    let said = detail(&verdict, "break_glass", CheckResult::NotChecked);
    assert!(said.contains("suspended for 28 s"), "{said}");
    asked(
        &maker,
        "permit = [\"tamper\", \"grants\"]",
        2,
        "break_glass",
    );
}

#[test]
fn an_opening_that_nobody_signed_needs_a_word_of_its_own() {
    let maker = telling(vec![(2_000, glass(Digest::ZERO, "opened", 30_000))]);
    let verdict = verdict_of(&maker, LEAVE, 2, "break_glass");
    let said = detail(&verdict, "break_glass", CheckResult::Fail);
    assert!(said.contains("signed by nobody"), "{said}");
    let verdict = verdict_of(
        &maker,
        "permit = \"break_glass_unsigned\"",
        0,
        "break_glass",
    );
    assert!(verdict.break_glass.unwrap().openings[0].token.is_none());
}

#[test]
fn a_token_that_opens_twice_always_fails() {
    let maker = telling(vec![
        (2_000, opened(b"token", 30_000)),
        (3_000, closed(b"token")),
        (4_000, opened(b"token", 30_000)),
    ]);
    asked(&maker, LEAVE, 2, "break_glass");
    let other = telling(vec![
        (2_000, opened(b"token", 30_000)),
        (3_000, closed(b"token")),
        (4_000, opened(b"other", 30_000)),
    ]);
    let verdict = verdict_of(&other, LEAVE, 0, "break_glass");
    assert_eq!(verdict.break_glass.unwrap().openings.len(), 2);
    // After its time, with no close between.
    let late = telling(vec![
        (2_000, opened(b"token", 5_000)),
        (6_000, opened(b"token", 9_000)),
    ]);
    asked(&late, LEAVE, 2, "break_glass");
}

#[test]
fn an_opening_that_a_start_finds_open_is_the_same_one() {
    let maker = telling(vec![
        (2_000, opened(b"token", 30_000)),
        (12_000, opened(b"token", 30_001)),
        (20_000, closed(b"token")),
    ]);
    let verdict = verdict_of(&maker, LEAVE, 0, "break_glass");
    let glass = verdict.break_glass.unwrap();
    assert_eq!((glass.openings.len(), glass.suspended_seconds), (1, 18));
}

#[test]
fn an_opening_that_replaces_another_ends_it() {
    let maker = telling(vec![
        (2_000, opened(b"token", 30_000)),
        (12_000, opened(b"other", 15_000)),
    ]);
    let verdict = verdict_of(&maker, LEAVE, 0, "break_glass");
    assert_eq!(verdict.break_glass.unwrap().suspended_seconds, 13);
}

#[test]
fn a_close_of_what_was_never_opened_always_fails_and_one_opened_before_the_span_is_an_opening() {
    asked(
        &telling(vec![(2_000, closed(b"token"))]),
        LEAVE,
        2,
        "break_glass",
    );
    let mut maker = telling(vec![(23_000, closed(b"token"))]);
    maker.span_from = 6;
    let mut bundle = maker.bundle();
    bundle.from_ms = START + 20_001;
    demand(&judge(&bundle, &maker.trust()), 2, "break_glass");
    let trust = maker.trust() + "[require]\n" + LEAVE + "\n";
    let verdict = judge(&bundle, &trust);
    demand(&verdict, 0, "break_glass");
    assert!(verdict.break_glass.unwrap().openings[0].opened.is_none());
}

#[test]
fn a_request_that_was_refused_is_counted_and_does_not_fail() {
    let maker = telling(vec![(2_000, glass(sha256(b"forged"), "refused", 0))]);
    let verdict = verdict_of(&maker, "", 0, "break_glass");
    detail(&verdict, "break_glass", CheckResult::Pass);
    assert_eq!(verdict.break_glass.unwrap().refused, 1);
}

#[test]
fn a_state_that_nobody_knows_always_fails() {
    let maker = telling(vec![(2_000, glass(sha256(b"token"), "ajar", 9_000))]);
    asked(&maker, LEAVE, 2, "break_glass");
}
