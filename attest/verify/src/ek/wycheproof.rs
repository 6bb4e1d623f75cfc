//! Project Wycheproof's signatures: what must hold holds, what must not does not, for every
//! kind of signature that is judged here; each divergence has its name.

use super::signature::signed;
use crate::tpm::{KeyMaterial, Signature};
use ::wycheproof::{TestResult, ecdsa, eddsa, rsa_pkcs1_verify as pkcs1};
use ed25519_dalek::VerifyingKey;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier as Oid;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

const SHA256_RSA: &str = "1.2.840.113549.1.1.11";
const SHA384_RSA: &str = "1.2.840.113549.1.1.12";
const SHA512_RSA: &str = "1.2.840.113549.1.1.13";
const SHA256_ECDSA: &str = "1.2.840.10045.4.3.2";
const SHA384_ECDSA: &str = "1.2.840.10045.4.3.3";
const SHA512_ECDSA: &str = "1.2.840.10045.4.3.4";

/// What came of a set.
#[derive(Debug, Default, Eq, PartialEq)]
struct Sum {
    held: usize,
    refused: usize,
    /// Valid for Wycheproof, of a form that is refused here on purpose.
    stricter: Vec<String>,
}

impl Sum {
    fn see(&mut self, result: TestResult, holds: bool, what: &str) {
        match (result, holds) {
            (TestResult::Invalid, true) => panic!("{what}: must not hold, and holds"),
            (TestResult::Invalid, false) => self.refused += 1,
            (TestResult::Valid | TestResult::Acceptable, true) => self.held += 1,
            (TestResult::Valid | TestResult::Acceptable, false) => {
                self.stricter.push(what.to_owned());
            }
        }
    }
}

fn key(der: &[u8]) -> SubjectPublicKeyInfoOwned {
    SubjectPublicKeyInfoOwned::from_der(der).unwrap()
}

#[test]
fn ecdsa_on_certificates_is_judged_as_wycheproof_says() {
    use ecdsa::TestName as Name;
    for (name, algorithm) in [
        (Name::EcdsaSecp256r1Sha256, SHA256_ECDSA),
        (Name::EcdsaSecp256r1Sha512, SHA512_ECDSA),
        (Name::EcdsaSecp384r1Sha256, SHA256_ECDSA),
        (Name::EcdsaSecp384r1Sha384, SHA384_ECDSA),
        (Name::EcdsaSecp384r1Sha512, SHA512_ECDSA),
        (Name::EcdsaSecp521r1Sha512, SHA512_ECDSA),
    ] {
        let algorithm = Oid::new_unwrap(algorithm);
        let mut sum = Sum::default();
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            let key = key(&group.der);
            for test in group.tests {
                let holds = signed(algorithm, &key, &test.msg, &test.sig).is_ok();
                let what = format!("{name:?} {}: {}", test.tc_id, test.comment);
                sum.see(test.result, holds, &what);
            }
        }
        assert_eq!(sum.stricter, Vec::<String>::new());
        assert!(sum.held > 100 && sum.refused > 100, "{name:?}: {sum:?}");
    }
}

#[test]
fn rsa_on_certificates_is_judged_as_wycheproof_says() {
    use pkcs1::TestName as Name;
    for (name, algorithm) in [
        (Name::Rsa2048Sha256, SHA256_RSA),
        (Name::Rsa2048Sha384, SHA384_RSA),
        (Name::Rsa2048Sha512, SHA512_RSA),
        (Name::Rsa3072Sha256, SHA256_RSA),
        (Name::Rsa3072Sha384, SHA384_RSA),
        (Name::Rsa3072Sha512, SHA512_RSA),
        (Name::Rsa4096Sha256, SHA256_RSA),
        (Name::Rsa4096Sha384, SHA384_RSA),
        (Name::Rsa4096Sha512, SHA512_RSA),
    ] {
        let algorithm = Oid::new_unwrap(algorithm);
        let mut sum = Sum::default();
        for group in pkcs1::TestSet::load(name).unwrap().test_groups {
            let key = key(&group.der);
            for test in group.tests {
                let holds = signed(algorithm, &key, &test.msg, &test.sig).is_ok();
                let what = format!("{name:?} {}: {:?}", test.tc_id, test.flags);
                sum.see(test.result, holds, &what);
            }
        }
        // RFC 8017 A.2.4: the parameters of the hash are NULL; a signature without them is of
        // another encoding and is accepted by nobody here.
        sum.stricter.retain(|what| !what.contains("MissingNull"));
        assert_eq!(sum.stricter, Vec::<String>::new());
        assert!(sum.held > 5 && sum.refused > 100, "{name:?}: {sum:?}");
    }
}

#[test]
fn rsa_in_a_tpms_form_is_judged_as_wycheproof_says() {
    let mut sum = Sum::default();
    let set = pkcs1::TestSet::load(pkcs1::TestName::Rsa2048Sha256).unwrap();
    for group in set.test_groups {
        let (modulus, exponent) = super::signature::rsa_numbers(&key(&group.der)).unwrap();
        let key = KeyMaterial::Rsa2048 { modulus, exponent };
        for test in group.tests {
            let form = tpm(&[0x00, 0x14, 0x00, 0x0b], &[&test.sig]);
            let holds = Signature::parse(&form).and_then(|read| read.check(&key, &test.msg));
            let what = format!("{}: {:?}", test.tc_id, test.flags);
            sum.see(test.result, holds.is_ok(), &what);
        }
    }
    sum.stricter.retain(|what| !what.contains("MissingNull"));
    assert_eq!(sum.stricter, Vec::<String>::new());
    assert!(sum.held > 5 && sum.refused > 100, "{sum:?}");
}

#[test]
fn ecdsa_in_a_tpms_form_is_judged_as_wycheproof_says() {
    let mut sum = Sum::default();
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    for group in set.test_groups {
        let info = key(&group.der);
        let point = info.subject_public_key.as_bytes().unwrap();
        let (x, y) = point[1..].split_at(32);
        let key = KeyMaterial::P256 {
            x: x.try_into().unwrap(),
            y: y.try_into().unwrap(),
        };
        for test in group.tests {
            // Two numbers of any length; IEEE P1363 has one string, cut in the middle. A TPM's
            // numbers may be shorter than the curve's, so one that lost its zeros is the same.
            let (r, s) = test.sig.split_at(test.sig.len() / 2);
            let form = tpm(&[0x00, 0x18, 0x00, 0x0b], &[r, s]);
            let holds = Signature::parse(&form).and_then(|read| read.check(&key, &test.msg));
            let what = format!("{}: {} {:?}", test.tc_id, test.comment, test.flags);
            let same_numbers = what.contains("SignatureSize") && holds.is_ok();
            if !same_numbers {
                sum.see(test.result, holds.is_ok(), &what);
            }
        }
    }
    assert_eq!(sum.stricter, Vec::<String>::new());
    assert!(sum.held > 100 && sum.refused > 50, "{sum:?}");
}

/// A `TPMT_SIGNATURE`.
fn tpm(head: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut out = head.to_vec();
    for part in parts {
        out.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
        out.extend(*part);
    }
    out
}

#[test]
fn ed25519_is_judged_as_wycheproof_says() {
    let mut sum = Sum::default();
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    for group in set.test_groups {
        let info = key(&group.der);
        let point = info.subject_public_key.as_bytes().unwrap();
        let key = VerifyingKey::from_bytes(point.try_into().unwrap());
        for test in group.tests {
            let signature = ed25519_dalek::Signature::from_slice(&test.sig);
            let holds = key.as_ref().is_ok_and(|key| {
                signature.is_ok_and(|signature| key.verify_strict(&test.msg, &signature).is_ok())
            });
            let what = format!("{}: {} {:?}", test.tc_id, test.comment, test.flags);
            sum.see(test.result, holds, &what);
        }
    }
    assert_eq!(sum.stricter, Vec::<String>::new());
    assert!(sum.held > 50 && sum.refused > 50, "{sum:?}");
}
