//! Request, challenge, answer: what an authority signs and what it does not.

use crate::evidence::key::{ATTRIBUTES, Key};
use crate::support::{DAY, ENROLLED, Vendor, answer_to, authority, counted, enrol, request};
use merestone_enrol::{EnrolError, Policy, Terms, accept, challenge, check_request};
use merestone_evidence::{Blob, Digest, EnrolRequest, Enrolment, NvIndex, Serial, decode, encode};
use merestone_verify::Grade;
use merestone_verify::enrolment::{Kind, open};

#[track_caller]
fn refused(request: &EnrolRequest, grade: Grade, words: &str) {
    let policy = Vendor::new().policy();
    let error = check_request(&encode(request), &policy, ENROLLED).unwrap_err();
    assert_eq!(error.grade(), grade, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn an_honest_host_is_enrolled_with_either_kind_of_key() {
    let vendor = Vendor::new();
    for ak in [Key::p256(), Key::rsa()] {
        let request = request(&vendor, &ak);
        let key = authority(1);
        let accepted = enrol(&vendor, &request, Terms::default(), &key, 5).unwrap();
        let opened = open(
            Kind::Enrolment,
            &accepted.certificate,
            &[key.verifying_key()],
        )
        .unwrap();
        let claims: Enrolment = decode(&opened.payload).unwrap();
        assert_eq!(claims, accepted.claims);
        assert_eq!(claims.ak_name, ak.name());
        assert_eq!(claims.ek.manufacturer.as_deref(), Some("TEST"));
        assert_eq!(claims.until_ms - claims.from_ms, 365 * DAY);
        assert_eq!(claims.ek_chain.unwrap().len(), 2);
    }
}

#[test]
fn n21_an_attestation_key_that_could_sign_anything_is_refused() {
    let vendor = Vendor::new();
    for (bit, name) in [
        (1, "fixedTPM"),
        (4, "fixedParent"),
        (5, "sensitiveDataOrigin"),
        (16, "restricted"),
        (17, "decrypt"),
        (18, "sign"),
    ] {
        let mut ak = Key::p256();
        ak.attributes = ATTRIBUTES ^ (1 << bit);
        refused(&request(&vendor, &ak), Grade::Untrusted, name);
    }
}

#[test]
fn n05_an_attestation_key_of_an_unknown_kind_is_indeterminate() {
    let vendor = Vendor::new();
    let mut ak = Key::p256();
    ak.curve = 0x0004;
    refused(&request(&vendor, &ak), Grade::Indeterminate, "curve");
    // A point off the curve: no signature could ever be checked.
    let mut off = request(&vendor, &Key::p256());
    let last = off.ak_public.len() - 1;
    off.ak_public[last] ^= 1;
    off.ak_name = [
        &[0, 0x0b],
        merestone_evidence::sha256(&off.ak_public).0.as_slice(),
    ]
    .concat();
    refused(&off, Grade::Indeterminate, "no point");
}

#[test]
fn n22_a_name_that_is_not_the_keys_is_refused() {
    let vendor = Vendor::new();
    let mut request = request(&vendor, &Key::p256());
    request.ak_name = Key::p256_from(8).name();
    refused(&request, Grade::Untrusted, "name");
}

#[test]
fn n23_an_endorsement_key_other_than_the_certified_one_is_refused() {
    let vendor = Vendor::new();
    let mut request = request(&vendor, &Key::p256());
    let other = p256::ecdsa::SigningKey::from_slice(&[99; 32]).unwrap();
    request.ek_public = crate::support::ek_public(&other);
    refused(&request, Grade::Untrusted, "is not of the endorsement key");
}

#[test]
fn an_endorsement_key_that_signs_or_is_of_another_template_is_refused() {
    let vendor = Vendor::new();
    let good = request(&vendor, &Key::p256());
    let with = |at: usize, value: u8| {
        let mut changed = good.clone();
        changed.ek_public[at] = value;
        changed
    };
    // Attributes are the four bytes from 4 on: sign is bit 18, restricted bit 16.
    refused(&with(5, 0x07), Grade::Untrusted, "attributes");
    refused(&with(5, 0x02), Grade::Untrusted, "attributes");
    refused(&with(3, 0x04), Grade::Indeterminate, "name algorithm");
    let mut longer = good.clone();
    longer.ek_public.push(0);
    refused(&longer, Grade::Untrusted, "after the end");
}

#[test]
fn n27a_a_request_that_no_pinned_vendor_certified_is_refused() {
    let vendor = Vendor::new();
    let mut alone = request(&vendor, &Key::p256());
    alone.ek_certificates.truncate(1);
    refused(&alone, Grade::Untrusted, "no pinned root");
    let mut none = request(&vendor, &Key::p256());
    none.ek_certificates.clear();
    refused(&none, Grade::Untrusted, "there is none");
    let mut many = request(&vendor, &Key::p256());
    let extra = Blob::from(vec![0; 3]);
    many.ek_certificates.resize(600, extra);
    refused(&many, Grade::Untrusted, "where at most");
}

#[test]
fn an_id_that_no_host_can_have_is_refused() {
    let vendor = Vendor::new();
    for node in ["", "a b", "a\u{202e}b", "../x", &"x".repeat(65)] {
        let mut request = request(&vendor, &Key::p256());
        request.node = node.into();
        refused(&request, Grade::Untrusted, "node id");
    }
}

#[test]
fn a_vendor_that_the_authority_does_not_want_fails_its_policy() {
    let vendor = Vendor::new();
    let request = encode(&request(&vendor, &Key::p256()));
    let mut policy = vendor.policy();
    policy.vendors = vec!["INTC".into()];
    let error = check_request(&request, &policy, ENROLLED).unwrap_err();
    assert_eq!(error.grade(), Grade::Failed, "{error}");
    policy.vendors.push("TEST".into());
    assert!(check_request(&request, &policy, ENROLLED).is_ok());
}

/// A challenge, and what came of it.
struct Desk {
    policy: Policy,
    request: Vec<u8>,
    challenge: Vec<u8>,
    pending: Vec<u8>,
}

impl Desk {
    fn new() -> Self {
        let vendor = Vendor::new();
        let request = encode(&request(&vendor, &Key::p256()));
        let policy = vendor.policy();
        let made = challenge(&request, &policy, ENROLLED, &mut counted(5)).unwrap();
        Self {
            policy,
            request,
            challenge: made.challenge,
            pending: made.pending,
        }
    }

    fn answer(&self) -> Vec<u8> {
        encode(&answer_to(&self.challenge, &self.pending))
    }

    fn accept(&self, answer: &[u8], pending: &[u8], now: u64) -> Result<Vec<u8>, EnrolError> {
        let terms = Terms::default();
        let key = authority(1);
        accept(
            answer,
            &self.request,
            pending,
            &self.policy,
            terms,
            &key,
            now,
        )
        .map(|accepted| accepted.pending)
    }
}

#[test]
fn n26_a_secret_counts_once() {
    let desk = Desk::new();
    let used = desk
        .accept(&desk.answer(), &desk.pending, ENROLLED)
        .unwrap();
    let again = desk.accept(&desk.answer(), &used, ENROLLED).unwrap_err();
    assert!(matches!(again, EnrolError::Used { .. }), "{again}");
    let text = format!(
        "{:?}",
        decode::<merestone_evidence::EnrolPending>(&desk.pending)
    );
    assert!(
        !text.contains("secret"),
        "a secret must not be printed: {text}"
    );
}

#[test]
fn n26_an_answer_without_the_secret_or_to_another_challenge_is_refused() {
    let desk = Desk::new();
    let good = answer_to(&desk.challenge, &desk.pending);
    let mut wrong = good.clone();
    wrong.proof = Digest([7; 32]);
    let error = desk.accept(&encode(&wrong), &desk.pending, ENROLLED);
    assert!(matches!(error, Err(EnrolError::Secret)));
    let mut wrong = good.clone();
    wrong.challenge = Digest([7; 32]);
    let error = desk.accept(&encode(&wrong), &desk.pending, ENROLLED);
    assert!(matches!(
        error,
        Err(EnrolError::Other { what: "challenge" })
    ));
    let mut wrong = good;
    wrong.serial = Serial([7; 16]);
    let error = desk.accept(&encode(&wrong), &desk.pending, ENROLLED);
    assert!(matches!(error, Err(EnrolError::Other { what: "number" })));
}

#[test]
fn n26_an_answer_cannot_be_turned_to_another_request() {
    let desk = Desk::new();
    let vendor = Vendor::new();
    let mut other = request(&vendor, &Key::p256());
    other.node = "another".into();
    let terms = Terms::default();
    let error = accept(
        &desk.answer(),
        &encode(&other),
        &desk.pending,
        &desk.policy,
        terms,
        &authority(1),
        ENROLLED,
    );
    assert!(matches!(error, Err(EnrolError::Other { what: "request" })));
}

#[test]
fn n07_no_two_challenges_share_secret_or_number() {
    let vendor = Vendor::new();
    let request = encode(&request(&vendor, &Key::p256()));
    let mut random = counted(1);
    let make = |random: &mut dyn FnMut(&mut [u8])| {
        let made = challenge(&request, &vendor.policy(), ENROLLED, random).unwrap();
        decode::<merestone_evidence::EnrolPending>(&made.pending).unwrap()
    };
    let (one, two) = (make(&mut random), make(&mut random));
    assert_ne!(one.secret, two.secret);
    assert_ne!(one.serial, two.serial);
    assert_ne!(one.challenge, two.challenge);
}

#[test]
fn a_challenge_that_waited_too_long_fails_the_policy() {
    let desk = Desk::new();
    let late = ENROLLED + 31 * DAY;
    let error = desk
        .accept(&desk.answer(), &desk.pending, late)
        .unwrap_err();
    assert_eq!(error.grade(), Grade::Failed, "{error}");
    assert!(
        desk.accept(&desk.answer(), &desk.pending, ENROLLED + 29 * DAY)
            .is_ok()
    );
}

#[test]
fn only_nv_indices_that_the_authority_names_are_vouched_for() {
    let vendor = Vendor::new();
    let mut request = request(&vendor, &Key::p256());
    let index = NvIndex {
        index: 0x0150_0001,
        name: vec![0, 0x0b, 1],
    };
    request.nv = vec![index.clone()];
    let with = |nv| Terms {
        nv,
        ..Terms::default()
    };
    let none = enrol(&vendor, &request, with(vec![]), &authority(1), 5).unwrap();
    assert!(none.claims.nv.is_empty());
    let one = enrol(&vendor, &request, with(vec![index.index]), &authority(1), 5).unwrap();
    assert_eq!(one.claims.nv, [index]);
    let other = enrol(&vendor, &request, with(vec![7]), &authority(1), 5);
    assert!(matches!(other, Err(EnrolError::NoIndex { index: 7 })));
}

#[test]
fn an_authority_policy_with_a_fault_is_refused_with_its_line() {
    let files = |name: &str| Err(format!("no {name}"));
    for (text, line, words) in [
        ("version = 2\n[ek]\nroots = []\n", 1, "version"),
        ("version = 1\n[ek]\nroots = []\n", 3, "at least one root"),
        (
            "version = 1\n[ek]\nroots = [\n\"gone.pem\"]\n",
            4,
            "no gone.pem",
        ),
        ("version = 1\n[ek]\nroots = []\nrot = 1\n", 4, "rot"),
    ] {
        let error = Policy::parse(text, "a.toml", &files).unwrap_err();
        assert_eq!(error.line, line, "{error}");
        assert!(error.detail.contains(words), "{error}");
    }
}
