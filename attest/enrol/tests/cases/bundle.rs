//! Bundles that an authority vouches for, judged.

use crate::evidence::key::Key;
use crate::evidence::{Maker, NODE, START, demand, judge, trust_for};
use crate::support::{DAY, ENROLLED, Vendor, authority, enrol, request};
use base64ct::{Base64, Encoding as _};
use coset::{CborSerializable as _, CoseSign1, TaggedCborSerializable as _};
use ed25519_dalek::SigningKey;
use merestone_enrol::{Accepted, Terms, revoke, sign};
use merestone_evidence::{Blob, Bundle, Replaced, Revocation, Serial, Site, encode, sha256};
use merestone_verify::enrolment::Kind;
use merestone_verify::{CheckResult, Trust, Verdict};

fn inline(key: &SigningKey) -> String {
    format!(
        "ed25519:{}",
        Base64::encode_string(key.verifying_key().as_bytes())
    )
}

/// A policy that pins an authority and no key.
fn trust(key: &SigningKey, more: &str) -> String {
    format!(
        "version = 1\n\n[authority]\nkeys = [\"{}\"]\n{more}",
        inline(key)
    )
}

fn pem(der: &[u8]) -> String {
    format!(
        "\"\"\"-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n\"\"\"",
        Base64::encode_string(der)
    )
}

fn roots(vendor: &Vendor) -> String {
    format!("ek_roots = [{}]\n", pem(&vendor.root.der))
}

fn enrolled(terms: Terms, key: &SigningKey, seed: u8) -> Accepted {
    let vendor = Vendor::new();
    enrol(&vendor, &request(&vendor, &Key::p256()), terms, key, seed).unwrap()
}

fn with(certificates: &[&[u8]]) -> Bundle {
    let mut bundle = Maker::new().bundle();
    let all = certificates.iter().map(|one| Blob::from(one.to_vec()));
    bundle.enrolments = Some(all.collect());
    bundle
}

fn detail<'v>(verdict: &'v Verdict, id: &str) -> &'v str {
    let check = verdict.checks.iter().find(|check| check.id == id);
    &check.unwrap().detail
}

fn passes(verdict: &Verdict, id: &str) -> bool {
    let mut checks = verdict.checks.iter();
    checks.any(|check| check.id == id && check.result == CheckResult::Pass)
}

#[test]
fn a_bundle_that_a_pinned_authority_vouches_for_needs_no_pinned_key() {
    let key = authority(1);
    let certificate = enrolled(Terms::default(), &key, 5).certificate;
    let verdict = judge(&with(&[&certificate]), &trust(&key, ""));
    demand(&verdict, 0, "enrolment");
    assert!(passes(&verdict, "enrolment.validity"));
    assert!(detail(&verdict, "enrolment").contains("TPM TEST SoftModel"));
    assert!(detail(&verdict, "ek.chain").contains("the authority's word"));
    assert!(detail(&verdict, "trust.node").contains("vouches"));
    let verdict = judge(&with(&[&certificate]), &trust(&key, &roots(&Vendor::new())));
    demand(&verdict, 0, "ek.chain");
    assert!(passes(&verdict, "ek.chain"));
    assert!(detail(&verdict, "ek.chain").contains("CN=Vendor Root"));
}

#[test]
fn n34_a_certificate_counts_only_if_its_authority_is_pinned() {
    let certificate = enrolled(Terms::default(), &authority(1), 5).certificate;
    let verdict = judge(&with(&[&certificate]), &trust(&authority(2), ""));
    demand(&verdict, 1, "enrolment");
    // Nor does it make up for a key that nobody pins.
    let other = trust_for(&Key::p256()).replace(NODE, "another");
    let verdict = judge(&with(&[&certificate]), &other);
    demand(&verdict, 1, "trust.node");
}

#[test]
fn n25_a_bundle_without_a_certificate_is_indeterminate() {
    let key = authority(1);
    let verdict = judge(&Maker::new().bundle(), &trust(&key, ""));
    demand(&verdict, 3, "enrolment");
    // A pinned key needs none, unless it is asked for.
    let pinned = |more: &str| {
        let node = trust_for(&Key::p256()).replace("version = 1\n", "");
        trust(&key, more) + &node
    };
    let verdict = judge(&Maker::new().bundle(), &pinned(""));
    assert_eq!(verdict.exit, 0);
    assert!(detail(&verdict, "enrolment").contains("pins the key itself"));
    let verdict = judge(&Maker::new().bundle(), &pinned("required = true\n"));
    demand(&verdict, 3, "enrolment");
    let verdict = judge(&with(&[]), &trust(&key, ""));
    demand(&verdict, 1, "enrolment");
}

#[test]
fn n24_a_certificate_of_another_node_is_refused() {
    let (vendor, key) = (Vendor::new(), authority(1));
    let mut other = request(&vendor, &Key::p256());
    other.node = "another".into();
    let certificate = enrol(&vendor, &other, Terms::default(), &key, 5).unwrap();
    let verdict = judge(&with(&[&certificate.certificate]), &trust(&key, ""));
    demand(&verdict, 1, "enrolment");
    assert!(detail(&verdict, "enrolment").contains("is of node"));
}

#[test]
fn n22_a_certificate_of_another_key_is_refused() {
    let (vendor, key) = (Vendor::new(), authority(1));
    let other = request(&vendor, &Key::p256_from(8));
    let certificate = enrol(&vendor, &other, Terms::default(), &key, 5).unwrap();
    let verdict = judge(&with(&[&certificate.certificate]), &trust(&key, ""));
    demand(&verdict, 1, "enrolment");
    // One whose Name is another key's, signed all the same.
    let mut claims = enrolled(Terms::default(), &key, 5).claims;
    claims.ak_name = Key::p256_from(8).name();
    let forged = sign(Kind::Enrolment, &key, &encode(&claims)).unwrap();
    let verdict = judge(&with(&[&forged]), &trust(&key, ""));
    demand(&verdict, 1, "enrolment");
    assert!(detail(&verdict, "enrolment").contains("name"));
}

#[test]
fn n10_one_bad_certificate_among_good_ones_spoils_the_file() {
    let key = authority(1);
    let good = enrolled(Terms::default(), &key, 5).certificate;
    let other = enrolled(Terms::default(), &authority(2), 6).certificate;
    let verdict = judge(&with(&[&good, &other]), &trust(&key, ""));
    demand(&verdict, 1, "enrolment");
    let verdict = judge(&with(&[&good, &good]), &trust(&key, ""));
    demand(&verdict, 1, "enrolment");
}

#[test]
fn n04_a_certificate_with_another_payload_is_refused() {
    let key = authority(1);
    let good = enrolled(Terms::default(), &key, 5);
    let mut parsed = CoseSign1::from_tagged_slice(&good.certificate).unwrap();
    let mut claims = good.claims;
    claims.until_ms += 1;
    parsed.payload = Some(encode(&claims));
    let forged = parsed.to_tagged_vec().unwrap();
    let verdict = judge(&with(&[&forged]), &trust(&key, ""));
    demand(&verdict, 1, "enrolment");
    assert!(detail(&verdict, "enrolment").contains("does not hold"));
}

#[test]
fn n36_n37_a_header_that_nobody_signed_or_another_algorithm_is_refused() {
    let key = authority(1);
    let good = enrolled(Terms::default(), &key, 5).certificate;
    let parsed = CoseSign1::from_tagged_slice(&good).unwrap();
    let mut open = parsed.clone();
    open.unprotected.key_id = vec![1];
    let mut none = parsed.clone();
    none.protected.original_data = None;
    none.protected.header.alg = None;
    let mut es256 = parsed.clone();
    es256.protected.original_data = None;
    es256.protected.header.alg = Some(coset::RegisteredLabelWithPrivate::Assigned(
        coset::iana::Algorithm::ES256,
    ));
    let mut critical = parsed.clone();
    critical.protected.original_data = None;
    critical.protected.header.crit = vec![coset::RegisteredLabelWithPrivate::Assigned(
        coset::iana::HeaderParameter::Alg,
    )];
    for bad in [open, none, es256, critical] {
        let verdict = judge(&with(&[&bad.to_tagged_vec().unwrap()]), &trust(&key, ""));
        demand(&verdict, 1, "enrolment");
    }
    let untagged = parsed.to_vec().unwrap();
    let verdict = judge(&with(&[&untagged]), &trust(&key, ""));
    demand(&verdict, 1, "enrolment");
}

/// The order of Ed25519's group, little-endian (RFC 8032, 5.1).
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

#[test]
fn n41_a_second_form_of_a_signature_and_keys_of_small_order_are_refused() {
    let key = authority(1);
    let good = enrolled(Terms::default(), &key, 5).certificate;
    // S + L is another number and the same scalar: it satisfies the equation.
    let mut other = CoseSign1::from_tagged_slice(&good).unwrap();
    let mut carry = 0_u16;
    for (byte, more) in other.signature[32..].iter_mut().zip(ORDER) {
        carry += u16::from(*byte) + u16::from(more);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    assert_eq!(carry, 0);
    let verdict = judge(&with(&[&other.to_tagged_vec().unwrap()]), &trust(&key, ""));
    demand(&verdict, 1, "enrolment");
    // The identity, and the point of order two.
    let mut two = [0xff; 32];
    (two[0], two[31]) = (0xec, 0x7f);
    let mut one = [0; 32];
    one[0] = 1;
    for weak in [one, two] {
        let text = format!("ed25519:{}", Base64::encode_string(&weak));
        let policy = format!("version = 1\n\n[authority]\nkeys = [\"{text}\"]\n");
        let error = Trust::parse(&policy, "trust.toml").unwrap_err();
        assert_eq!(error.line, 4);
        assert!(error.detail.contains("small order"), "{error}");
    }
}

#[test]
fn n75_a_list_or_another_kind_of_object_is_no_certificate() {
    let key = authority(1);
    let (list, _) = revoke(None, Vec::new(), &key, ENROLLED).unwrap();
    let verdict = judge(&with(&[&list]), &trust(&key, ""));
    demand(&verdict, 1, "enrolment");
    let other = sign(Kind::Enrolment, &key, &encode(&Maker::new().bundle())).unwrap();
    let verdict = judge(&with(&[&other]), &trust(&key, ""));
    demand(&verdict, 1, "enrolment");
}

#[test]
fn n43_evidence_outside_the_validity_fails_the_policy() {
    let key = authority(1);
    let spell = |from_ms, until_ms| Terms {
        from_ms: Some(from_ms),
        until_ms: Some(until_ms),
        ..Terms::default()
    };
    for (from, until) in [
        (START - 2 * DAY, START - DAY),
        (START + DAY, START + 2 * DAY),
        // It ends while the session runs.
        (START - DAY, START + 1),
    ] {
        let certificate = enrolled(spell(from, until), &key, 5).certificate;
        let verdict = judge(&with(&[&certificate]), &trust(&key, ""));
        demand(&verdict, 2, "enrolment.validity");
    }
}

#[test]
fn a_renewed_certificate_takes_over_from_the_one_that_it_names() {
    let key = authority(1);
    let first = enrolled(
        Terms {
            until_ms: Some(START + 5_000),
            ..Terms::default()
        },
        &key,
        5,
    );
    let renewed = |sha256, from_ms| {
        let terms = Terms {
            from_ms: Some(from_ms),
            replaces: Some(Replaced {
                serial: first.claims.serial,
                sha256,
            }),
            ..Terms::default()
        };
        enrolled(terms, &key, 6).certificate
    };
    let digest = sha256(&first.certificate);
    let second = renewed(digest, START + 1);
    let verdict = judge(&with(&[&first.certificate, &second]), &trust(&key, ""));
    demand(&verdict, 0, "enrolment.validity");
    // Alone it does not reach back.
    let verdict = judge(&with(&[&second]), &trust(&key, ""));
    demand(&verdict, 2, "enrolment.validity");
    let other = renewed(sha256(b"another"), START + 1);
    let verdict = judge(&with(&[&first.certificate, &other]), &trust(&key, ""));
    demand(&verdict, 1, "enrolment");
}

fn list(serial: Serial, from_ms: u64, key: &SigningKey) -> String {
    let entry = Revocation {
        serial,
        from_ms,
        reason: "sold".into(),
    };
    let (message, _) = revoke(None, vec![entry], key, START).unwrap();
    format!(
        "revocations = [\"base64:{}\"]\n",
        Base64::encode_string(&message)
    )
}

#[test]
fn n26_what_was_sealed_under_a_revoked_certificate_is_untrusted() {
    let key = authority(1);
    let accepted = enrolled(Terms::default(), &key, 5);
    let (certificate, serial) = (accepted.certificate, accepted.claims.serial);
    for from in [0, START, START + 1] {
        let policy = trust(&key, &list(serial, from, &key));
        let verdict = judge(&with(&[&certificate]), &policy);
        demand(&verdict, 1, "enrolment.revocation");
        assert!(detail(&verdict, "enrolment.revocation").contains("sold"));
    }
    let policy = trust(&key, &list(serial, START + DAY, &key));
    demand(
        &judge(&with(&[&certificate]), &policy),
        0,
        "enrolment.revocation",
    );
    let policy = trust(&key, &list(Serial([9; 16]), 0, &key));
    demand(
        &judge(&with(&[&certificate]), &policy),
        0,
        "enrolment.revocation",
    );
}

#[test]
fn n19_a_list_that_the_policy_asks_for_and_that_is_absent_or_old_is_indeterminate() {
    let key = authority(1);
    let certificate = enrolled(Terms::default(), &key, 5).certificate;
    let age = |seconds: u64| format!("max_revocation_age_s = {seconds}\n");
    let verdict = judge(&with(&[&certificate]), &trust(&key, &age(60)));
    demand(&verdict, 3, "enrolment.revocation");
    let list = list(Serial([9; 16]), 0, &key);
    let verdict = judge(
        &with(&[&certificate]),
        &trust(&key, &(list.clone() + &age(60))),
    );
    demand(&verdict, 3, "enrolment.revocation");
    let verdict = judge(&with(&[&certificate]), &trust(&key, &(list + &age(86_400))));
    demand(&verdict, 0, "enrolment.revocation");
}

#[test]
fn only_the_authority_that_issued_a_certificate_revokes_it() {
    let (one, two) = (authority(1), authority(2));
    let accepted = enrolled(Terms::default(), &one, 5);
    let both = format!(
        "version = 1\n[authority]\nkeys = [\"{}\", \"{}\"]\n{}",
        inline(&one),
        inline(&two),
        list(accepted.claims.serial, 0, &two)
    );
    let verdict = judge(&with(&[&accepted.certificate]), &both);
    assert_eq!(
        verdict.exit,
        0,
        "{}",
        detail(&verdict, "enrolment.revocation")
    );
}

#[test]
fn n49_another_place_than_the_agents_fails_the_policy() {
    let key = authority(1);
    let at = |country: &str| {
        let terms = Terms {
            site: Some(Site {
                country: Some(country.into()),
                region: None,
                facility: Some("FRA-2".into()),
            }),
            ..Terms::default()
        };
        enrolled(terms, &key, 5).certificate
    };
    demand(
        &judge(&with(&[&at("DE")]), &trust(&key, "")),
        0,
        "enrolment.site",
    );
    for other in ["FR", "de", "DEU"] {
        let verdict = judge(&with(&[&at(other)]), &trust(&key, ""));
        demand(&verdict, 2, "enrolment.site");
    }
}

#[test]
fn n27a_an_endorsement_certificate_of_another_vendor_is_refused_by_the_verifier_too() {
    let (vendor, key) = (Vendor::new(), authority(1));
    let certificate = enrolled(Terms::default(), &key, 5).certificate;
    let other = crate::support::x509::Spec::authority("Another Root", 40).sign(None);
    let policy = trust(&key, &format!("ek_roots = [{}]\n", pem(&other.der)));
    demand(&judge(&with(&[&certificate]), &policy), 1, "ek.chain");
    // Of the right vendor, and not the one that the certificate names.
    let mut claims = enrolled(Terms::default(), &key, 5).claims;
    claims.ek.certificate = sha256(b"another");
    let forged = sign(Kind::Enrolment, &key, &encode(&claims)).unwrap();
    let policy = trust(&key, &roots(&vendor));
    demand(&judge(&with(&[&forged]), &policy), 1, "ek.chain");
    let bare = enrolled(
        Terms {
            without_ek_chain: true,
            ..Terms::default()
        },
        &key,
        5,
    );
    demand(&judge(&with(&[&bare.certificate]), &policy), 3, "ek.chain");
}

#[test]
fn n74_a_fault_in_the_authority_table_is_an_error_with_its_line() {
    let key = authority(1);
    let small = format!("ed25519:{}", Base64::encode_string(&[0; 32]));
    for (text, line) in [
        ("version = 1\n[authority]\nkeys = []\n".to_owned(), 3),
        (
            "version = 1\n[authority]\nkeys = [\"ed25519:AAAA\"]\n".to_owned(),
            3,
        ),
        (
            format!("version = 1\n[authority]\nkeys = [\"{small}\"]\n"),
            3,
        ),
        (trust(&key, "unknown = 1\n"), 5),
        (trust(&key, "ek_roots = [\"gone.pem\"]\n"), 5),
        (trust(&key, "revocations = [\"base64:AAAA\"]\n"), 5),
        (trust(&key, &list(Serial([1; 16]), 0, &authority(2))), 5),
    ] {
        let error = Trust::parse(&text, "trust.toml").unwrap_err();
        assert_eq!(error.line, line, "{error}\n{text}");
    }
}
