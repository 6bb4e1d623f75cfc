//! One certificate, read; nothing about it is believed yet.

use super::der::{SEQUENCE, element, only};
use super::signature::{self, EC_PUBLIC_KEY, P256, RSA_ENCRYPTION, RSA_OAEP};
use super::{EkError, EkKey};
use base64ct::{Base64, Encoding as _};
use merestone_evidence::{Digest, sha256};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier as Oid;
use x509_cert::ext::Extension;
use x509_cert::name::Name;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

/// Largest certificate; the biggest of a vendor that was seen has 2 KiB.
const MAX_BYTES: usize = 16 << 10;
/// Most certificates of one file.
const MAX_IN_FILE: usize = 256;
/// Longest name that is shown.
const MAX_SHOWN: usize = 200;

/// One certificate, read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    der: Vec<u8>,
    inner: CertificateInner<Raw>,
}

impl Certificate {
    /// Reads one certificate in DER; nothing may follow it.
    pub fn read(der: &[u8]) -> Result<Self, EkError> {
        let form = |detail: String| EkError::Form {
            what: format!("{} bytes", der.len()),
            detail,
        };
        if der.len() > MAX_BYTES {
            return Err(form(format!("more than {MAX_BYTES} bytes")));
        }
        let inner =
            CertificateInner::<Raw>::from_der(der).map_err(|error| form(error.to_string()))?;
        let certificate = Self {
            der: der.to_vec(),
            inner,
        };
        if certificate.inner.signature_algorithm()
            != certificate.inner.tbs_certificate().signature()
        {
            return Err(form("two signature algorithms".to_owned()));
        }
        if certificate.signed_part().is_empty() {
            return Err(form("no signed part".to_owned()));
        }
        Ok(certificate)
    }

    /// Its bytes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its digest.
    #[must_use]
    pub fn sha256(&self) -> Digest {
        sha256(&self.der)
    }

    /// Its subject, for people.
    #[must_use]
    pub fn subject(&self) -> String {
        shown(self.inner.tbs_certificate().subject())
    }

    /// Its issuer, for people.
    #[must_use]
    pub fn issuer(&self) -> String {
        shown(self.inner.tbs_certificate().issuer())
    }

    /// Whether `self` names `other` as its issuer.
    pub(super) fn names_as_issuer(&self, other: &Self) -> bool {
        let wanted = self.inner.tbs_certificate().issuer();
        is_same(wanted, other.inner.tbs_certificate().subject())
    }

    pub(super) fn is_v3(&self) -> bool {
        self.inner.tbs_certificate().version() == x509_cert::Version::V3
    }

    /// First and last second of its validity.
    pub(super) fn validity(&self) -> (u64, u64) {
        let validity = self.inner.tbs_certificate().validity();
        (
            validity.not_before.to_unix_duration().as_secs(),
            validity.not_after.to_unix_duration().as_secs(),
        )
    }

    pub(super) fn extensions(&self) -> &[Extension] {
        let extensions = self.inner.tbs_certificate().extensions();
        extensions.map_or(&[], |all| all.as_slice())
    }

    pub(super) fn algorithm(&self) -> Oid {
        self.inner.signature_algorithm().oid
    }

    pub(super) fn signature(&self) -> Option<&[u8]> {
        self.inner.signature().as_bytes()
    }

    pub(super) fn key_info(&self) -> &SubjectPublicKeyInfoOwned {
        self.inner.tbs_certificate().subject_public_key_info()
    }

    /// The bytes that were signed, as they stand in the file: encoding them anew would pass
    /// over what a lenient vendor wrote.
    pub(super) fn signed_part(&self) -> &[u8] {
        let first = only(&self.der, SEQUENCE).and_then(element);
        first.map_or(&[], |(first, _)| first.whole)
    }

    /// The key that it certifies, if a TPM can decrypt with it.
    pub fn key(&self) -> Result<EkKey, EkError> {
        let info = self.key_info();
        let unknown = |what, got: String| EkError::Unknown {
            subject: self.subject(),
            what,
            got,
        };
        let malformed = || EkError::Form {
            what: self.subject(),
            detail: "its key is malformed".to_owned(),
        };
        match info.algorithm.oid {
            RSA_ENCRYPTION | RSA_OAEP => {
                let (modulus, exponent) = signature::rsa_numbers(info).ok_or_else(malformed)?;
                Ok(EkKey::Rsa { modulus, exponent })
            }
            EC_PUBLIC_KEY => {
                let curve = signature::curve(info).ok_or_else(malformed)?;
                if curve != P256 {
                    return Err(unknown("curve", curve.to_string()));
                }
                let point = info.subject_public_key.as_bytes().unwrap_or_default();
                let key = p256::PublicKey::from_sec1_bytes(point).map_err(|_off| malformed())?;
                let key = p256::ecdsa::VerifyingKey::from(key).to_sec1_point(false);
                let coordinate = |at: core::ops::Range<usize>| {
                    let bytes = key.as_bytes().get(at)?;
                    <[u8; 32]>::try_from(bytes).ok()
                };
                let (x, y) = coordinate(1..33)
                    .zip(coordinate(33..65))
                    .ok_or_else(malformed)?;
                Ok(EkKey::P256 { x, y })
            }
            other => Err(unknown("key algorithm", other.to_string())),
        }
    }
}

/// The certificates in a file: one in DER, or any number in PEM.
pub fn certificates(bytes: &[u8]) -> Result<Vec<Certificate>, EkError> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let text = core::str::from_utf8(bytes).ok();
    let Some(text) = text.filter(|text| text.contains(BEGIN)) else {
        return Certificate::read(bytes).map(|one| vec![one]);
    };
    let mut found = Vec::new();
    for (at, block) in text.split(BEGIN).skip(1).enumerate() {
        let form = |detail: &str| EkError::Form {
            what: format!("certificate {} of the file", at + 1),
            detail: detail.to_owned(),
        };
        if at >= MAX_IN_FILE {
            return Err(EkError::TooMany {
                what: "certificates in a file",
                got: at + 1,
                limit: MAX_IN_FILE,
            });
        }
        let (body, _) = block.split_once(END).ok_or_else(|| form("it has no end"))?;
        let body: String = body.split_whitespace().collect();
        if body.len() > MAX_BYTES * 2 {
            return Err(form("too long"));
        }
        let der = Base64::decode_vec(&body).map_err(|_base64| form("not base64"))?;
        found.push(Certificate::read(&der)?);
    }
    Ok(found)
}

/// Names are the same when every attribute is, whatever string type it is written in: vendors
/// write an issuer's name in another type than the issuer did.
fn is_same(one: &Name, other: &Name) -> bool {
    let attributes = |name: &Name| {
        let all = name.iter_rdn().map(|relative| {
            let all = relative
                .iter()
                .map(|attribute| (attribute.oid, attribute.value.value().to_ascii_lowercase()));
            let mut all: Vec<_> = all.collect();
            all.sort();
            all
        });
        all.collect::<Vec<_>>()
    };
    one == other || attributes(one) == attributes(other)
}

fn shown(name: &Name) -> String {
    if name.is_empty() {
        return "(a certificate with an empty subject)".to_owned();
    }
    let text = name.to_string();
    let mut text: String = text
        .chars()
        .map(|character| {
            if character.is_control() {
                '?'
            } else {
                character
            }
        })
        .take(MAX_SHOWN)
        .collect();
    if text.is_empty() {
        text.push_str("(a name without text)");
    }
    text
}
