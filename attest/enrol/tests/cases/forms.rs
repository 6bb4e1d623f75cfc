//! docs/formats/enrolment.cddl, held against every file of an enrolment by a CDDL tool that is not
//! ours: what hosts and authorities carry to each other, what they keep, and what is signed.
//!
//! The tool knows no tags, so the last rule of the schema, the signed file around the claims, is
//! left to others: pycose opens those (tests/foreign/tools.py).

use crate::evidence::key::Key;
use crate::geotag::{offering, tag, terms};
use crate::support::{ENROLLED, Vendor, answer_to, authority, counted, enrol, request};
use cddl_cat::validate_cbor_bytes;
use merestone_enrol::{Terms, challenge, revoke};
use merestone_evidence::{
    Digest, EnrolPending, NvIndex, Replaced, Revocation, Serial, Site, decode, encode,
};

const SCHEMA: &str = include_str!("../../../../docs/formats/enrolment.cddl");

fn schema() -> &'static str {
    let (untagged, tagged) = SCHEMA.split_once("signed-file =").unwrap();
    assert!(!tagged.contains("\n}"), "a rule after the last");
    untagged
}

fn holds(rule: &str, bytes: &[u8]) -> bool {
    validate_cbor_bytes(rule, schema(), bytes).is_ok()
}

/// The form holds, and of nothing near it: not of one key more, of another kind, or of half.
#[track_caller]
fn is_of(rule: &str, bytes: &[u8]) {
    validate_cbor_bytes(rule, schema(), bytes).unwrap();
    assert!((0xa1..0xb7).contains(&bytes[0]), "{rule} is a small map");
    let mut more = bytes.to_vec();
    more[0] += 1;
    more.extend([0x18, 0x63, 0x01]);
    assert!(!holds(rule, &more), "{rule} with an unknown key");
    let mut other = bytes.to_vec();
    let version = other.windows(3).position(|part| part == b"/v1").unwrap();
    other[version + 2] = b'2';
    assert!(!holds(rule, &other), "{rule} of another version");
    assert!(!holds(rule, &bytes[..bytes.len() / 2]), "half of {rule}");
    let others = [
        "enrol-request",
        "enrol-challenge",
        "enrol-pending",
        "enrol-answer",
        "enrolment",
        "revocations",
        "geotag",
    ];
    for other in others.into_iter().filter(|other| *other != rule) {
        assert!(!holds(other, bytes), "{rule} is no {other}");
    }
}

#[test]
fn every_file_of_an_enrolment_is_of_its_form_by_somebody_elses_tool() {
    let vendor = Vendor::new();
    let plain = request(&vendor, &Key::p256());
    let mut full = offering(|_, _| {});
    full.site = Some(Site {
        region: Some("eu-central".into()),
        country: Some("DE".into()),
        facility: None,
    });
    full.nv = vec![NvIndex {
        index: 0x0180_4d45,
        name: [&[0, 0x0b][..], &[7; 32]].concat(),
    }];
    is_of("geotag", &encode(&tag("DE")));
    for (request, mut terms) in [(plain, Terms::default()), (full, terms())] {
        is_of("enrol-request", &encode(&request));
        let made = challenge(
            &encode(&request),
            &vendor.policy(),
            ENROLLED,
            &mut counted(5),
        );
        let made = made.unwrap();
        is_of("enrol-challenge", &made.challenge);
        is_of("enrol-pending", &made.pending);
        is_of(
            "enrol-answer",
            &encode(&answer_to(&made.challenge, &made.pending)),
        );
        let key = authority(1);
        terms.replaces = Some(Replaced {
            serial: Serial([9; 16]),
            sha256: Digest([8; 32]),
        });
        let accepted = enrol(&vendor, &request, terms, &key, 5).unwrap();
        // The secret is gone from what is kept.
        let kept: EnrolPending = decode(&accepted.pending).unwrap();
        assert!(kept.secret.is_none());
        is_of("enrol-pending", &accepted.pending);
        is_of("enrolment", &encode(&accepted.claims));
    }
}

#[test]
fn a_list_of_revocations_is_of_its_form_empty_or_not() {
    let key = authority(1);
    let (empty, list) = revoke(None, Vec::new(), &key, ENROLLED).unwrap();
    is_of("revocations", &encode(&list));
    let one = Revocation {
        serial: Serial([9; 16]),
        from_ms: ENROLLED,
        reason: "stolen".into(),
    };
    let (_, list) = revoke(Some(&empty), vec![one], &key, ENROLLED + 1).unwrap();
    is_of("revocations", &encode(&list));
}
