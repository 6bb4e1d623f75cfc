use super::{asked, detail, telling, verdict_of};
use crate::support::{Maker, START, demand, judge};
use merestone_evidence::{Body, GrantTerms, sha256};
use merestone_verify::CheckResult;

const LEAVE: &str = "permit = \"grants\"";

fn terms() -> GrantTerms {
    GrantTerms {
        signer: sha256(b"authority"),
        group: "/system.slice/vllm.service".into(),
        to: "203.0.113.7/32".into(),
        ports: vec![(443, 443)],
        protocols: vec![6],
        limit_bytes: 1_000,
        from_ms: START,
        until_ms: START + 30_000,
        reason: "weights of release 7".into(),
    }
}

fn grant(state: &str, bytes: u64, terms: Option<GrantTerms>) -> Body {
    Body::Grant {
        name: "export-7".into(),
        sha256: sha256(b"grant"),
        state: state.into(),
        bytes,
        detail: String::new(),
        terms,
    }
}

pub(super) fn told(state: &str, bytes: u64) -> Body {
    grant(state, bytes, Some(terms()))
}

pub(super) fn accepted() -> Body {
    told("accepted", 0)
}

fn good() -> Vec<(u64, Body)> {
    vec![
        (1_000, accepted()),
        (12_000, told("used", 400)),
        (22_000, told("spent", 1_000)),
        (31_000, told("expired", 1_000)),
    ]
}

/// The good course with one entry more at its end, or in place of what comes after `keep`.
fn with(keep: usize, after_ms: u64, body: Body) -> Maker {
    let mut told = good();
    told.truncate(keep);
    told.push((after_ms, body));
    telling(told)
}

#[test]
fn a_grant_fails_unless_the_policy_permits_it() {
    let maker = telling(good());
    let verdict = verdict_of(&maker, "", 2, "grants");
    assert_eq!(verdict.egress.unwrap().granted_bytes, 1_000);
    let verdict = verdict_of(&maker, LEAVE, 0, "grants");
    detail(&verdict, "grants", CheckResult::Pass);
    let grants = verdict.grants.unwrap();
    let one = &grants.used[0];
    assert_eq!((one.name.as_str(), one.bytes), ("export-7", 1_000));
    assert_eq!(one.signer, Some(sha256(b"authority").to_string()));
    assert_eq!(one.to.as_deref(), Some("203.0.113.7/32"));
    assert_eq!(
        (one.limit_bytes, one.state.as_str()),
        (Some(1_000), "expired")
    );
    assert_eq!(one.accepted.as_deref(), Some("2025-10-09T08:53:21Z"));
    // Even one that nothing was sent under: the boundary was wider than its digest says.
    asked(&telling(vec![(1_000, accepted())]), "", 2, "grants");
}

#[test]
fn a_policy_may_name_destinations_and_a_number_of_bytes() {
    let maker = telling(good());
    for require in [
        "grant_to = \"203.0.113.0/24\"",
        "grant_to = [\"2001:db8::/32\", \"203.0.113.7\"]",
        "max_grant_bytes = 1000",
        "grant_to = \"203.0.113.0/24\"\nmax_grant_bytes = 1000",
    ] {
        asked(&maker, require, 0, "grants");
    }
    for require in [
        "grant_to = \"203.0.113.8/32\"",
        "grant_to = []",
        "max_grant_bytes = 999",
        "permit = \"grants\"\ngrant_to = \"2001:db8::/32\"",
        "permit = \"grants\"\nmax_grant_bytes = 0",
    ] {
        asked(&maker, require, 2, "grants");
    }
    let mut wide = terms();
    wide.to = "203.0.112.0/20".into();
    let wide = telling(vec![(1_000, grant("accepted", 0, Some(wide)))]);
    asked(&wide, "grant_to = \"203.0.113.0/24\"", 2, "grants");
    let mut nowhere = terms();
    nowhere.to = "anywhere".into();
    let nowhere = telling(vec![(1_000, grant("accepted", 0, Some(nowhere)))]);
    asked(&nowhere, "grant_to = \"0.0.0.0/0\"", 2, "grants");
}

#[test]
fn a_grant_used_beyond_its_budget_always_fails() {
    asked(&with(2, 22_000, told("used", 1_000)), LEAVE, 0, "grants");
    asked(&with(2, 22_000, told("used", 1_001)), LEAVE, 2, "grants");
    asked(
        &with(2, 22_000, told("expired", u64::MAX)),
        LEAVE,
        2,
        "grants",
    );
}

#[test]
fn a_grant_used_outside_its_time_always_fails() {
    let strict = format!("{LEAVE}\nmax_clock_step_s = 1");
    asked(&with(2, 30_900, told("used", 500)), &strict, 0, "grants");
    asked(&with(2, 31_100, told("used", 500)), &strict, 2, "grants");
    // What was used until then is told at the end, which may be late.
    asked(&with(2, 39_000, told("expired", 500)), &strict, 0, "grants");
    let mut later = terms();
    later.from_ms = START + 15_000;
    let early = |after_ms| {
        telling(vec![
            (1_000, grant("accepted", 0, Some(later.clone()))),
            (after_ms, grant("used", 10, Some(later.clone()))),
        ])
    };
    asked(&early(12_000), &strict, 2, "grants");
    asked(&early(15_000), &strict, 0, "grants");
}

#[test]
fn a_grant_used_after_its_end_or_counted_back_always_fails() {
    asked(&with(4, 32_000, told("used", 1_000)), LEAVE, 0, "grants");
    asked(&with(2, 22_000, told("used", 399)), LEAVE, 2, "grants");
    let mut told_after = good();
    told_after.truncate(2);
    told_after.push((20_000, told("revoked", 400)));
    told_after.push((21_000, told("used", 401)));
    asked(&telling(told_after), LEAVE, 2, "grants");
}

#[test]
fn a_use_that_nobody_accepted_always_fails() {
    for state in ["used", "spent", "expired", "revoked"] {
        asked(&telling(vec![(1_000, told(state, 10))]), LEAVE, 2, "grants");
    }
    asked(&with(0, 1_000, told("lent", 10)), LEAVE, 2, "grants");
}

#[test]
fn a_grant_accepted_twice_or_with_other_terms_always_fails() {
    asked(&with(1, 2_000, accepted()), LEAVE, 2, "grants");
    let mut wider = terms();
    wider.limit_bytes = 2_000;
    asked(
        &with(1, 12_000, grant("used", 400, Some(wider))),
        LEAVE,
        2,
        "grants",
    );
}

#[test]
fn a_grant_whose_terms_are_not_told_is_indeterminate() {
    let silent = || telling(vec![(1_000, grant("accepted", 0, None))]);
    asked(&silent(), LEAVE, 3, "grants");
    asked(&silent(), "", 2, "grants");
    // Told once is enough.
    asked(
        &with(1, 12_000, grant("used", 400, None)),
        LEAVE,
        0,
        "grants",
    );
}

#[test]
fn a_grant_accepted_before_the_first_leaf_shown_is_judged_by_its_terms() {
    let judged = |body: Body| {
        let mut maker = telling(vec![(23_000, body)]);
        maker.span_from = 6;
        let mut bundle = maker.bundle();
        bundle.from_ms = START + 20_001;
        judge(&bundle, &(maker.trust() + "[require]\n" + LEAVE + "\n"))
    };
    let verdict = judged(told("used", 400));
    demand(&verdict, 0, "grants");
    assert!(verdict.grants.unwrap().used[0].accepted.is_none());
    demand(&judged(told("used", 1_001)), 2, "grants");
    demand(&judged(grant("used", 400, None)), 3, "grants");
}

#[test]
fn a_grant_that_was_refused_is_counted_and_does_not_fail() {
    let verdict = verdict_of(
        &telling(vec![(1_000, grant("refused", 0, None))]),
        "",
        0,
        "grants",
    );
    detail(&verdict, "grants", CheckResult::Pass);
    assert_eq!(verdict.grants.unwrap().refused, 1);
}
