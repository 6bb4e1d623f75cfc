//! The verdict as an EAT Attestation Result (draft-ietf-rats-ear-04) with AR4SI claims.
//!
//! `docs/formats/ear.md` has the mapping in words. It only restates the verdict for programs that
//! know EAR and nothing of Merestone; where the words of AR4SI claim more than was checked, the
//! claim is left out. Signing and files are the caller's.

use crate::verdict::{CheckResult, Outcome, Verdict};
use serde::Serialize;
use std::collections::BTreeMap;

/// The draft whose names these are.
const PROFILE: &str = "tag:ietf.org,2026:rats/ear#04";
/// AR4SI values used here (draft-ietf-rats-ar4si, 2.3.4).
const CRYPTO_FAILED: i8 = 99;

/// A tier of AR4SI.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Nothing is said.
    None,
    /// Trustworthy as far as the claim goes.
    Affirming,
    /// Known or possible weaknesses.
    Warning,
    /// Not to be trusted.
    Contraindicated,
}

impl Tier {
    const fn of(value: i8) -> Self {
        match value {
            2..=31 => Self::Affirming,
            32..=95 => Self::Warning,
            96..=127 => Self::Contraindicated,
            _ => Self::None,
        }
    }
}

/// What the result says of the call, beside the verdict.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// The time of the verdict, in seconds.
    pub issued_at_s: u64,
    /// The program that judged, with its version.
    pub build: &'a str,
    /// A URI that names the trust policy by its digest.
    pub policy: String,
    /// A URI that names the file by its digest.
    pub evidence: String,
}

/// The claims of an attestation result.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Ear {
    #[serde(rename = "eat_profile")]
    profile: &'static str,
    iat: u64,
    #[serde(rename = "ear_verifier_id")]
    verifier: VerifierId,
    #[serde(rename = "ear_status")]
    status: Tier,
    submods: BTreeMap<&'static str, Appraisal>,
    /// The verdict in this program's own words.
    #[serde(rename = "merestone_verdict")]
    verdict: &'static str,
    /// Names the file that was judged.
    #[serde(rename = "merestone_evidence")]
    evidence: String,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
struct VerifierId {
    developer: &'static str,
    build: String,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
struct Appraisal {
    #[serde(rename = "ear_status")]
    status: Tier,
    #[serde(
        rename = "ear_trustworthiness_vector",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    vector: BTreeMap<&'static str, i8>,
    #[serde(rename = "ear_appraisal_policy_ids")]
    policies: [String; 1],
    /// Each check behind it, by id.
    #[serde(rename = "ear_verifier_claims")]
    checks: BTreeMap<&'static str, CheckResult>,
}

/// One AR4SI claim: the checks behind it, and its value where all hold, where one fails, and where
/// one was not made. 0 is "no claim".
struct Rule {
    submod: &'static str,
    claim: &'static str,
    checks: &'static [&'static str],
    holds: i8,
    fails: i8,
    open: i8,
}

/// `docs/formats/ear.md` argues for each line.
const RULES: [Rule; 11] = [
    Rule {
        submod: "tpm",
        claim: "instance-identity",
        checks: &[
            "trust.node",
            "ak.name",
            "ak.attributes",
            "quote.signature",
            "quote.form",
            "ak.hierarchy",
            "quote.binding",
            "quote.selection",
            "quote.pcrs",
            "statements",
        ],
        holds: 2,
        fails: 97,
        open: 0,
    },
    Rule {
        submod: "tpm",
        claim: "hardware",
        checks: &[
            "policy.tpm",
            "ek.chain",
            "enrolment",
            "enrolment.validity",
            "enrolment.revocation",
        ],
        holds: 2,
        fails: 97,
        open: 0,
    },
    Rule {
        submod: "boot",
        claim: "executables",
        checks: &["boot.log", "boot.ima", "policy.pcrs"],
        holds: 3,
        fails: 33,
        open: 0,
    },
    Rule {
        submod: "agent",
        claim: "executables",
        checks: &["policy.agent", "policy.object"],
        holds: 3,
        fails: 33,
        open: 0,
    },
    Rule {
        submod: "egress",
        claim: "configuration",
        checks: &[
            "policy.boundary",
            "policy.mode",
            "policy.tiers",
            "policy.uncovered",
            "policy.egress",
            "policy.lost",
            "tamper",
            "break_glass",
            "grants",
            "deputies",
            "canary",
        ],
        holds: 2,
        fails: 96,
        open: 36,
    },
    Rule {
        submod: "log",
        claim: "sourced-data",
        checks: &[
            "clock.counters",
            "clock.safe",
            "clock.wall",
            "chain.register",
            "chain.order",
            "chain.replay",
            "log.sizes",
            "log.leaves",
            "log.consistency",
            "log.inclusion",
            "log.entries",
            "nv.certified",
            "log.tail",
            "log.witness",
            "policy.period",
            "policy.coverage",
            "policy.dark",
            "policy.age",
        ],
        holds: 2,
        fails: 96,
        open: 32,
    },
    Rule {
        submod: "location",
        claim: "sourced-data",
        checks: &["location"],
        holds: 32,
        fails: 96,
        open: 0,
    },
    Rule {
        submod: "location",
        claim: "sourced-data",
        checks: &["enrolment.site"],
        holds: 32,
        fails: 96,
        open: 0,
    },
    Rule {
        submod: "gpu",
        claim: "hardware",
        checks: &["gpu.attestation", "gpu.measurements", "policy.gpu"],
        holds: 2,
        fails: 97,
        open: 0,
    },
    Rule {
        submod: "gpu",
        claim: "instance-identity",
        checks: &["gpu.binding"],
        holds: 2,
        fails: 97,
        open: 0,
    },
    Rule {
        submod: "records",
        claim: "sourced-data",
        checks: &["receipts"],
        holds: 2,
        fails: 96,
        open: 0,
    },
];

/// The claims for a verdict.
#[must_use]
pub fn claims(verdict: &Verdict, context: &Context<'_>) -> Ear {
    let mut submods: BTreeMap<&'static str, Appraisal> = BTreeMap::new();
    for rule in &RULES {
        let appraisal = submods.entry(rule.submod).or_insert_with(|| Appraisal {
            status: Tier::None,
            vector: BTreeMap::new(),
            policies: [context.policy.clone()],
            checks: BTreeMap::new(),
        });
        for id in rule.checks {
            appraisal.checks.insert(id, worst(id, verdict));
        }
        let value = value(rule, verdict);
        if value != 0 {
            // Two rules for one claim: the worse counts.
            let claim = appraisal.vector.entry(rule.claim).or_insert(value);
            *claim = value.max(*claim);
        }
        appraisal.status = appraisal.status.max(Tier::of(value));
    }
    let worst_part = submods.values().map(|part| part.status).max();
    Ear {
        profile: PROFILE,
        iat: context.issued_at_s,
        verifier: VerifierId {
            developer: "Merestone",
            build: context.build.to_owned(),
        },
        status: status(verdict.verdict, worst_part.unwrap_or(Tier::None)),
        submods,
        verdict: verdict.verdict.text(),
        evidence: context.evidence.clone(),
    }
}

/// A result is never better than the verdict, and never better than its worst part.
fn status(verdict: Outcome, worst_part: Tier) -> Tier {
    match verdict {
        Outcome::Untrusted | Outcome::Failed => Tier::Contraindicated,
        Outcome::Indeterminate => Tier::None,
        Outcome::Pass => worst_part.max(Tier::Affirming),
    }
}

fn value(rule: &Rule, verdict: &Verdict) -> i8 {
    let results = || rule.checks.iter().map(|id| worst(id, verdict));
    let failed = results().any(|result| result == CheckResult::Fail);
    // Of an untrusted file nothing is claimed but what broke.
    if verdict.verdict == Outcome::Untrusted {
        return if failed { CRYPTO_FAILED } else { 0 };
    }
    // What the stages before did not reach is not a weakness that was seen.
    if verdict.account.is_none() {
        return if failed { rule.fails } else { 0 };
    }
    if failed {
        rule.fails
    } else if results().all(|result| result == CheckResult::Pass) {
        rule.holds
    } else {
        rule.open
    }
}

/// An id can stand in the list more than once.
fn worst(id: &str, verdict: &Verdict) -> CheckResult {
    let mut results = verdict
        .checks
        .iter()
        .filter(|check| check.id == id)
        .map(|check| check.result)
        .peekable();
    if results.peek().is_none() {
        return CheckResult::NotChecked;
    }
    let mut worst = CheckResult::Pass;
    for result in results {
        worst = match (worst, result) {
            (CheckResult::Fail, _) | (_, CheckResult::Fail) => CheckResult::Fail,
            (CheckResult::NotChecked, _) | (_, CheckResult::NotChecked) => CheckResult::NotChecked,
            (CheckResult::Pass, CheckResult::Pass) => CheckResult::Pass,
        };
    }
    worst
}
