//! x509-limbo's chains: what must not lead to a root does not, and each place where our profile
//! is another than that of the web's servers has its name and its reason.
//!
//! The chains are `tests/vectors/x509-limbo/limbo.json`, made by others.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test reads files and says what it found"
)]

use super::{Anchors, Certificate, EkError, certificates, signs_statements};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What a case without a time is asked at: 2026-01-01.
const AT_S: u64 = 1_767_225_600;
/// A path is found or given up within it, however it was made; in a test's build.
const SOON: Duration = Duration::from_secs(20);

/// Groups that ask another question than ours, by the beginning of their ids.
const LEFT_OUT: &[(&str, &str)] = &[
    (
        "crl::",
        "vendors' revocation lists are not looked at, which every verdict says",
    ),
    (
        "pathlen::max-chain-depth-",
        "the longest path is ours to name: six certificates",
    ),
    ("rfc5280::eku::ee-wrong-eku", "asks for a server's key"),
    ("webpki::cn::", "names of servers"),
    ("webpki::eku::", "usages of a server's key"),
    ("webpki::san::", "names of servers"),
];

/// What limbo wants refused and is accepted here.
const LAXER: &[(&str, &str)] = &[
    ("rfc5280::aki::leaf-missing-aki", KEY_ID),
    ("rfc5280::aki::intermediate-missing-aki", KEY_ID),
    ("rfc5280::aki::cross-signed-root-missing-aki", KEY_ID),
    ("rfc5280::ski::root-missing-ski", KEY_ID),
    ("rfc5280::ski::intermediate-missing-ski", KEY_ID),
    ("webpki::aki::", KEY_ID),
    (
        "rfc5280::san::noncritical-with-empty-subject",
        "critical or not, the TPM's name is read",
    ),
    ("rfc5280::san::underscore-dns", "names of servers"),
    ("rfc5280::san::ip-in-dns", "names of servers"),
    (
        "rfc5280::serial::",
        "vendors' chips have numbers that are negative, zero or too long",
    ),
    (
        "rfc5280::validity::expired-root",
        "a pin needs no validity: whoever pinned it can take it away",
    ),
    (
        "rfc5280::root-non-critical-basic-constraints",
        "critical or not, they are enforced",
    ),
    (
        "webpki::malformed-aia",
        "nothing is fetched, so nobody reads where from",
    ),
    ("webpki::forbidden-p192-leaf", LEAF_KEY),
    ("webpki::forbidden-dsa-leaf", LEAF_KEY),
    ("webpki::forbidden-weak-rsa-in-leaf", LEAF_KEY),
    (
        "webpki::forbidden-rsa-key-not-divisible-by-8-in-leaf",
        LEAF_KEY,
    ),
    (
        "webpki::forbidden-rsa-not-divisible-by-8-in-root",
        "a rule of the web's alone; 2048 bits are asked for",
    ),
];
const KEY_ID: &str =
    "an issuer is found by name and known by its signature; identifiers of keys only help to look";
const LEAF_KEY: &str =
    "the key at the end is judged by what it is used for: a TPM's or a GPU's is of one kind";

/// What limbo wants accepted and is refused here.
const STRICTER: &[(&str, &str)] = &[
    ("pathlen::validation-ignores-pathlen-in-leaf", LEAF_CA),
    ("rfc5280::ca-as-leaf", LEAF_CA),
    (
        "rfc5280::no-keyusage",
        "what signs statements has to be for signatures",
    ),
    ("rfc5280::nc::", RESTRICTED),
    ("webpki::nc::", RESTRICTED),
];
const LEAF_CA: &str = "neither a TPM's nor a GPU's key is an authority";
const RESTRICTED: &str = "name constraints are not enforced, so whatever has them is refused";

#[derive(Deserialize)]
struct Limbo {
    testcases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    trusted_certs: Vec<String>,
    untrusted_intermediates: Vec<String>,
    peer_certificate: String,
    validation_time: Option<String>,
    expected_result: String,
}

impl Case {
    fn at_s(&self) -> u64 {
        self.validation_time.as_deref().map_or(AT_S, |text| {
            let at = OffsetDateTime::parse(text, &Rfc3339).unwrap();
            u64::try_from(at.unix_timestamp()).unwrap()
        })
    }

    fn is_good(&self) -> bool {
        self.expected_result == "SUCCESS"
    }

    /// What nobody can read is no certificate of a root or an issuer; the end has to be one.
    fn judge(&self) -> Result<(), EkError> {
        let readable = |all: &[String]| -> Vec<Certificate> {
            all.iter()
                .filter_map(|pem| certificates(pem.as_bytes()).ok())
                .flatten()
                .collect()
        };
        let anchors = Anchors {
            roots: readable(&self.trusted_certs),
            intermediates: Vec::new(),
        };
        let between = readable(&self.untrusted_intermediates);
        let leaf = certificates(self.peer_certificate.as_bytes())?;
        let [leaf] = leaf.as_slice() else {
            return Err(EkError::TooMany {
                what: "ends of a path",
                got: leaf.len(),
                limit: 1,
            });
        };
        let signer = anchors.trace_signer(leaf, &between.iter().collect::<Vec<_>>(), self.at_s());
        let statements = signs_statements(leaf)
            .and_then(|()| anchors.path(leaf, &between, self.at_s()).map(|_| ()));
        // Neither may accept what is to be refused.
        if self.is_good() {
            statements
        } else {
            signer.or(statements)
        }
    }
}

fn limbo() -> Limbo {
    let file = "../../tests/vectors/x509-limbo/limbo.json";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn listed(list: &[(&'static str, &str)], id: &str) -> Option<&'static str> {
    list.iter()
        .map(|(start, _)| *start)
        .find(|start| id == *start || start.ends_with([':', '-']) && id.starts_with(start))
}

#[test]
fn a_key_that_no_tpm_has_or_that_is_too_short_is_no_endorsement_key() {
    let limbo = limbo();
    let weak = ["p192-leaf", "dsa-leaf", "weak-rsa-in-leaf"];
    let named = |case: &&Case| weak.iter().any(|end| case.id.ends_with(end));
    for case in limbo.testcases.iter().filter(named) {
        let leaf = certificates(case.peer_certificate.as_bytes());
        let key = leaf.and_then(|leaf| leaf[0].key());
        assert!(key.is_err(), "{}: {key:?}", case.id);
    }
}

#[test]
fn chains_are_judged_as_x509_limbo_says_or_for_a_reason_that_is_listed() {
    let limbo = limbo();
    let mut wrong = Vec::new();
    let (mut agreed, mut left_out, mut used) = (0, 0, BTreeSet::new());
    for case in &limbo.testcases {
        if let Some(group) = listed(LEFT_OUT, &case.id) {
            used.insert(group);
            left_out += 1;
            continue;
        }
        let wants = case.is_good();
        let begun = Instant::now();
        let outcome = case.judge();
        assert!(begun.elapsed() < SOON, "{}: too slow", case.id);
        let list = if wants { STRICTER } else { LAXER };
        match (listed(list, &case.id), outcome.is_ok() == wants) {
            (Some(own), true) if own == case.id => wrong.push(format!("{own}: listed, and agrees")),
            (_, true) => agreed += 1,
            (Some(own), false) => {
                used.insert(own);
            }
            (None, false) => wrong.push(format!(
                "{} wants {}: {outcome:?}",
                case.id, case.expected_result
            )),
        }
    }
    let lists = [LEFT_OUT, LAXER, STRICTER].concat();
    let unmet = lists.iter().filter(|(start, _)| !used.contains(start));
    let unmet: Vec<_> = unmet.map(|(start, _)| *start).collect();
    println!("listed, and not among these cases: {unmet:?}");
    println!(
        "{} cases: {agreed} as limbo says, {} otherwise for a listed reason, {left_out} of other questions",
        limbo.testcases.len(),
        limbo.testcases.len() - agreed - left_out - wrong.len(),
    );
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
