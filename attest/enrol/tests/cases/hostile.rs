//! Files that somebody spoiled: never a panic, never a certificate that holds.

use crate::evidence::key::Key;
use crate::support::{ENROLLED, Vendor, answer_to, authority, counted, enrol, request};
use merestone_enrol::{Terms, accept, challenge, check_request};
use merestone_evidence::{Blob, encode};
use merestone_verify::ek::{Certificate, certificates};
use merestone_verify::enrolment::{Kind, open};

/// The same mutations in every run.
struct Mutations(u64);

impl Mutations {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).unwrap()
    }

    fn of(&mut self, good: &[u8]) -> Vec<u8> {
        let mut bad = good.to_vec();
        for _ in 0..=self.next(3) {
            let at = self.next(bad.len().max(1));
            let byte = u8::try_from(self.next(256)).unwrap();
            match self.next(6) {
                0 if bad.len() > 1 => {
                    bad.remove(at);
                }
                1 => bad.insert(at, byte),
                2 => bad.truncate(at),
                3 if !bad.is_empty() => bad[at] ^= 1 << (byte & 7),
                4 => bad.extend([byte; 3]),
                _ if !bad.is_empty() => bad[at] = byte,
                _ => {}
            }
        }
        bad
    }
}

#[test]
fn n17_twenty_thousand_spoiled_requests_cause_no_panic() {
    let vendor = Vendor::new();
    let policy = vendor.policy();
    let good = request(&vendor, &Key::p256());
    let bytes = encode(&good);
    let mut mutations = Mutations(0x9e37_79b9_7f4a_7c15);
    let mut accepted = 0;
    for round in 0..20_000 {
        // The frame's own checks would catch almost all; so half are spoiled inside a good frame.
        let bad = if round % 2 == 0 {
            mutations.of(&bytes)
        } else {
            let mut bad = good.clone();
            match mutations.next(5) {
                0 => bad.ek_certificates[0] = Blob::from(mutations.of(&vendor.leaf.der)),
                1 => bad.ek_certificates[1] = Blob::from(mutations.of(&vendor.between.der)),
                2 => bad.ek_public = mutations.of(&good.ek_public),
                3 => bad.ak_public = mutations.of(&good.ak_public),
                _ => bad.ak_name = mutations.of(&good.ak_name),
            }
            encode(&bad)
        };
        if let Ok(checked) = check_request(&bad, &policy, ENROLLED) {
            accepted += 1;
            // What is left is what nobody signed: times, site, names of the operator's choice.
            assert_eq!(checked.request.ak_name, good.ak_name);
            assert_eq!(
                checked.ek.certificate,
                merestone_evidence::sha256(&vendor.leaf.der)
            );
        }
    }
    assert!(accepted < 2_000, "{accepted} spoiled requests passed");
}

#[test]
fn n17_spoiled_certificates_of_keys_cause_no_panic_and_never_pass() {
    let vendor = Vendor::new();
    let mut mutations = Mutations(3);
    let anchors = vendor.anchors();
    for _ in 0..20_000 {
        let bad = mutations.of(&vendor.leaf.der);
        if bad == vendor.leaf.der {
            continue;
        }
        let offered = [bad.as_slice(), vendor.between.der.as_slice()];
        let outcome = anchors.trace(
            &offered,
            merestone_verify::ek::Rules::default(),
            ENROLLED / 1000,
        );
        assert!(outcome.is_err(), "{}", hex::encode(&bad));
        drop(Certificate::read(&bad).map(|one| (one.subject(), one.key().is_ok())));
        drop(certificates(&bad));
    }
}

#[test]
fn n04_n38_a_spoiled_enrolment_certificate_never_opens() {
    let vendor = Vendor::new();
    let key = authority(1);
    let request = request(&vendor, &Key::p256());
    let good = enrol(&vendor, &request, Terms::default(), &key, 5).unwrap();
    let good = good.certificate;
    let keys = [key.verifying_key()];
    assert!(open(Kind::Enrolment, &good, &keys).is_ok());
    assert!(open(Kind::Revocations, &good, &keys).is_err());
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(
                open(Kind::Enrolment, &bad, &keys).is_err(),
                "byte {at} bit {bit}"
            );
        }
        assert!(open(Kind::Enrolment, &good[..at], &keys).is_err());
    }
    let longer = [good.as_slice(), &[0]].concat();
    assert!(open(Kind::Enrolment, &longer, &keys).is_err());
}

#[test]
fn spoiled_answers_and_states_never_end_in_a_certificate() {
    let vendor = Vendor::new();
    let policy = vendor.policy();
    let bytes = encode(&request(&vendor, &Key::p256()));
    let made = challenge(&bytes, &policy, ENROLLED, &mut counted(5)).unwrap();
    let answer = encode(&answer_to(&made.challenge, &made.pending));
    let mut mutations = Mutations(17);
    let key = authority(1);
    for round in 0..2_000 {
        let (bad, pending) = if round % 2 == 0 {
            (mutations.of(&answer), made.pending.clone())
        } else {
            (answer.clone(), mutations.of(&made.pending))
        };
        let terms = Terms::default();
        let outcome = accept(&bad, &bytes, &pending, &policy, terms, &key, ENROLLED);
        if outcome.is_ok() {
            // The times in both files are nobody's secret and say nothing.
            assert_eq!(bad.len(), answer.len());
            assert_eq!(pending.len(), made.pending.len());
        }
    }
}
