//! What is carried by hand between a host and its authority: no request of another key passes,
//! no certificate is signed for an answer that the TPM did not give, and nothing opens but what
//! the authority signed.
//!
//! The first byte says what the others are: a request, changes to a sound one, an answer, what
//! the authority kept, a signed file, claims to be signed, a policy, or a public key.
#![no_main]

use ed25519_dalek::SigningKey;
use libfuzzer_sys::fuzz_target;
use merestone_enrol::{Policy, Terms, accept, challenge, check_request, revoke, sign};
use merestone_evidence::{
    EnrolAnswer, EnrolChallenge, EnrolPending, EnrolRequest, Enrolment, Revocations, decode,
    encode, sha256,
};
use merestone_fuzz::edited;
use merestone_verify::ek::{Anchors, Certificate, Rules};
use merestone_verify::enrolment::{Kind, open, public_key};
use std::sync::OnceLock;

const ROOT: &[u8] = include_bytes!("../seeds/certificate/root.der");
const LEAF: &[u8] = include_bytes!("../seeds/certificate/leaf.der");
const REQUEST: &[u8] = include_bytes!("../seeds/enrolment/request");
const ANSWER: &[u8] = include_bytes!("../seeds/enrolment/answer");
const PENDING: &[u8] = include_bytes!("../seeds/enrolment/pending");
const NOW_MS: u64 = 1_759_999_400_000;
const MOST_SIGNED: usize = 8 << 10;

/// A seed without the byte that says what it is.
fn of(seed: &'static [u8]) -> &'static [u8] {
    seed.get(1..).unwrap_or_default()
}

fn key() -> &'static SigningKey {
    static KEY: OnceLock<SigningKey> = OnceLock::new();
    KEY.get_or_init(|| SigningKey::from_bytes(&[1; 32]))
}

fn policy() -> &'static Policy {
    static POLICY: OnceLock<Policy> = OnceLock::new();
    POLICY.get_or_init(|| Policy {
        anchors: Anchors {
            roots: vec![Certificate::read(of(ROOT)).expect("a certificate")],
            intermediates: Vec::new(),
        },
        rules: Rules::default(),
        vendors: Vec::new(),
        max_challenge_age_s: 30 * 24 * 60 * 60,
        valid_days: 365,
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Some((what, rest)) = bytes.split_first() else {
        return;
    };
    match what % 8 {
        0 => request(rest),
        1 => request(&edited(of(REQUEST), rest)),
        2 => answered(rest, of(PENDING)),
        3 => answered(of(ANSWER), rest),
        4 => message(rest),
        5 => claims(rest),
        6 => authority(rest),
        _ => {
            if let Ok(text) = std::str::from_utf8(rest) {
                assert!(
                    public_key(text).is_ok_and(|key| !key.is_weak()) || public_key(text).is_err()
                );
            }
            if let Ok(challenge) = decode::<EnrolChallenge>(rest) {
                assert_eq!(encode(&challenge), rest);
            }
        }
    }
});

fn request(bytes: &[u8]) {
    if let Ok(request) = decode::<EnrolRequest>(bytes) {
        assert_eq!(encode(&request), bytes);
    }
    let Ok(checked) = check_request(bytes, policy(), NOW_MS) else {
        assert_ne!(bytes, of(REQUEST));
        return;
    };
    assert_eq!(checked.digest, sha256(bytes));
    assert_eq!(checked.ek.certificate, sha256(of(LEAF)));
    let mut count = 0_u8;
    let mut random = |bytes: &mut [u8]| {
        for byte in bytes {
            count = count.wrapping_mul(31).wrapping_add(7);
            *byte = count;
        }
    };
    let made = challenge(bytes, policy(), NOW_MS, &mut random).expect("it was checked");
    let read: EnrolChallenge = decode(&made.challenge).expect("our own");
    assert_eq!(read.ak_name, checked.request.ak_name);
    // A name that is not that of the key in the request is refused before.
    let name = [&[0, 0x0b][..], &sha256(&checked.request.ak_public).0].concat();
    assert_eq!(read.ak_name, name);
}

fn answered(answer: &[u8], pending: &[u8]) {
    if let Ok(read) = decode::<EnrolPending>(pending) {
        assert_eq!(encode(&read), pending);
    }
    if let Ok(read) = decode::<EnrolAnswer>(answer) {
        assert_eq!(encode(&read), answer);
    }
    let outcome = accept(
        answer,
        of(REQUEST),
        pending,
        policy(),
        Terms::default(),
        key(),
        NOW_MS,
    );
    let Ok(accepted) = outcome else {
        return;
    };
    let read: EnrolAnswer = decode(answer).expect("it was accepted");
    let sound: EnrolAnswer = decode(of(ANSWER)).expect("a seed");
    assert_eq!((read.challenge, read.proof), (sound.challenge, sound.proof));
    assert!(
        open(
            Kind::Enrolment,
            &accepted.certificate,
            &[key().verifying_key()]
        )
        .is_ok()
    );
    let after: EnrolPending = decode(&accepted.pending).expect("our own");
    assert!(after.secret.is_none());
}

fn message(bytes: &[u8]) {
    let keys = [key().verifying_key()];
    for kind in [
        Kind::Enrolment,
        Kind::Revocations,
        Kind::Landmark,
        Kind::Receipt,
    ] {
        if let Ok(opened) = open(kind, bytes, &keys) {
            let again = sign(kind, key(), &opened.payload).expect("it was small enough");
            assert_eq!(again, bytes);
        }
    }
    if let Ok((next, list)) = revoke(Some(bytes), Vec::new(), key(), NOW_MS) {
        assert!(open(Kind::Revocations, &next, &keys).is_ok());
        assert!(
            list.revoked
                .windows(2)
                .all(|pair| pair[0].serial < pair[1].serial)
        );
    }
}

/// What an authority may have signed by mistake.
fn claims(bytes: &[u8]) {
    if let Ok(claims) = decode::<Enrolment>(bytes) {
        assert_eq!(encode(&claims), bytes);
    }
    if let Ok(list) = decode::<Revocations>(bytes) {
        assert_eq!(encode(&list), bytes);
    }
    if bytes.len() <= MOST_SIGNED
        && let Ok(signed) = sign(Kind::Revocations, key(), bytes)
    {
        drop(revoke(Some(&signed), Vec::new(), key(), NOW_MS));
    }
}

fn authority(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let files = |name: &str| match name {
        "root.der" => Ok(of(ROOT).to_vec()),
        _ => Err("no such file".to_owned()),
    };
    match Policy::parse(text, "authority.toml", &files) {
        Ok(policy) => assert!(!policy.anchors.roots.is_empty() && policy.valid_days > 0),
        Err(error) => assert!(error.line >= 1 && error.line <= text.matches('\n').count() + 1),
    }
}
