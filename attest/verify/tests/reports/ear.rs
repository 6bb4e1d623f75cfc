//! The attestation result: what it claims is never more than what was checked.

use crate::judged;
use crate::support::{Key, Maker, NOW};
use merestone_verify::{CHECKS, Verdict, ear};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(crate) fn result(verdict: &Verdict) -> Value {
    let context = ear::Context {
        issued_at_s: NOW / 1000,
        build: "merestone-verify test",
        policy: "ni:///sha-256;policy".into(),
        evidence: "ni:///sha-256;evidence".into(),
    };
    serde_json::to_value(ear::claims(verdict, &context)).unwrap()
}

fn vector(result: &Value, part: &str) -> Value {
    result["submods"][part]["ear_trustworthiness_vector"].clone()
}

#[test]
fn a_good_bundle_is_recognised_and_warned_of_where_something_is_open() {
    let maker = Maker::new();
    let got = result(&judged(&maker.bundle(), &maker.trust()));
    assert_eq!(got["eat_profile"], "tag:ietf.org,2026:rats/ear#04");
    assert_eq!(got["iat"], NOW / 1000);
    assert_eq!(got["ear_status"], "warning");
    assert_eq!(got["merestone_verdict"], "pass");
    assert_eq!(vector(&got, "tpm"), json!({"instance-identity": 2}));
    assert_eq!(vector(&got, "egress"), json!({"configuration": 36}));
    assert_eq!(vector(&got, "log"), json!({"sourced-data": 32}));
    // Nothing was checked of them, so nothing is claimed.
    for part in ["boot", "agent", "gpu", "location", "records"] {
        assert_eq!(vector(&got, part), Value::Null, "{part}");
        assert_eq!(got["submods"][part]["ear_status"], "none", "{part}");
    }
}

#[test]
fn the_operators_word_for_a_place_is_never_affirmed() {
    let maker = Maker::new();
    let asked = |place: &str| {
        let trust = maker.trust() + &format!("[require]\ncountry = \"{place}\"\n");
        result(&judged(&maker.bundle(), &trust))
    };
    assert_eq!(
        vector(&asked("DE"), "location"),
        json!({"sourced-data": 32})
    );
    let other = asked("FR");
    assert_eq!(vector(&other, "location"), json!({"sourced-data": 96}));
    assert_eq!(other["ear_status"], "contraindicated");
    assert_eq!(
        other["submods"]["location"]["ear_status"],
        "contraindicated"
    );
}

#[test]
fn an_untrusted_file_is_claimed_nothing_of_but_what_broke() {
    let maker = Maker::new();
    let mut bundle = maker.bundle();
    bundle.sessions[0].quote.signature[10] ^= 1;
    let got = result(&judged(&bundle, &maker.trust()));
    assert_eq!(got["ear_status"], "contraindicated");
    assert_eq!(vector(&got, "tpm"), json!({"instance-identity": 99}));
    for (part, appraisal) in got["submods"].as_object().unwrap() {
        assert!(part == "tpm" || appraisal["ear_status"] == "none", "{part}");
    }
}

#[test]
fn a_file_that_could_not_be_judged_to_the_end_has_no_tier() {
    let mut curve = Key::p256();
    curve.curve = 4;
    let maker = Maker::with(curve);
    let verdict = judged(&maker.bundle(), &maker.trust());
    assert_eq!(verdict.exit, 3);
    let got = result(&verdict);
    assert_eq!(got["ear_status"], "none");
    let parts = got["submods"].as_object().unwrap();
    assert!(
        parts.values().all(|part| part["ear_status"] == "none"),
        "{got:#}"
    );
}

/// A check that no rule names could fail without any part saying so. The frame is the whole file's.
#[test]
fn every_check_is_behind_some_claim() {
    let maker = Maker::new();
    let got = result(&judged(&maker.bundle(), &maker.trust()));
    let parts = got["submods"].as_object().unwrap().values();
    let named: BTreeSet<_> = parts
        .flat_map(|part| {
            part["ear_verifier_claims"]
                .as_object()
                .unwrap()
                .keys()
                .cloned()
        })
        .collect();
    for id in CHECKS {
        assert!(
            id.text() == "frame" || named.contains(id.text()),
            "{}",
            id.text()
        );
    }
}
