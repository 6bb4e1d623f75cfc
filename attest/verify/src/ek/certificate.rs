//! One certificate, read; nothing about it is believed yet.
//!
//! Its outer structure is read by hand and its parts by `x509-cert`: a strict parser refuses whole
//! generations of chips for a set in their issuer's name that is not sorted.

use super::der::{Element, INTEGER, OCTET_STRING, SEQUENCE, elements, only};
use super::name::Name;
use super::signature::{self, EC_PUBLIC_KEY, MIN_RSA_BYTES, P256, P384, RSA_ENCRYPTION, RSA_OAEP};
use super::{EkError, EkKey};
use base64ct::{Base64, Encoding as _};
use merestone_evidence::{Digest, sha256};
use x509_cert::certificate::Raw;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::{BitString, ObjectIdentifier as Oid};
use x509_cert::ext::Extension;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::Validity;

const ALTERNATIVE_NAME: Oid = Oid::new_unwrap("2.5.29.17");
/// `tcg-dice-fwid`.
const DICE: Oid = Oid::new_unwrap("2.23.133.5.4.1");
const VERSION: u8 = 0xa0;
const ISSUER_ID: u8 = 0x81;
const SUBJECT_ID: u8 = 0x82;
const EXTENSIONS: u8 = 0xa3;

/// Largest certificate; the biggest of a vendor that was seen has 2 KiB.
const MAX_BYTES: usize = 16 << 10;
/// Most certificates of one file.
const MAX_IN_FILE: usize = 256;

/// One certificate, read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    der: Vec<u8>,
    signed: Vec<u8>,
    is_v3: bool,
    issuer: Name,
    subject: Name,
    validity: Validity<Raw>,
    key: SubjectPublicKeyInfoOwned,
    extensions: Vec<Extension>,
    algorithm: Oid,
    signature: BitString,
}

impl Certificate {
    /// Reads one certificate in DER; nothing may follow it.
    pub fn read(der: &[u8]) -> Result<Self, EkError> {
        let form = |detail: &str| EkError::Form {
            what: format!("{} bytes", der.len()),
            detail: detail.to_owned(),
        };
        if der.len() > MAX_BYTES {
            return Err(form("too long"));
        }
        let parts = only(der, SEQUENCE).and_then(elements);
        let parts = parts.ok_or_else(|| form("not one der sequence"))?;
        let [signed, algorithm, signature] = parts.as_slice() else {
            return Err(form("not three parts"));
        };
        let fields = only(signed.whole, SEQUENCE).and_then(elements);
        let mut fields = Fields(fields.ok_or_else(|| form("its signed part is malformed"))?);
        let version = fields.tagged(VERSION);
        // The number is the vendor's own: some are negative or longer than RFC 5280 allows.
        fields.next(INTEGER, "serial number")?;
        let inner = fields.next(SEQUENCE, "signature algorithm")?;
        if inner.whole != algorithm.whole {
            return Err(form("two signature algorithms"));
        }
        let issuer = fields.next(SEQUENCE, "issuer")?;
        let validity = fields.next(SEQUENCE, "validity")?;
        let subject = fields.next(SEQUENCE, "subject")?;
        let key = fields.next(SEQUENCE, "key")?;
        fields.tagged(ISSUER_ID);
        fields.tagged(SUBJECT_ID);
        let extensions = fields.tagged(EXTENSIONS);
        fields.end()?;
        let malformed = |error: x509_cert::der::Error| form(&error.to_string());
        let algorithm = AlgorithmIdentifierOwned::from_der(algorithm.whole).map_err(malformed)?;
        let extensions = match extensions {
            Some(element) => Vec::from_der(element.contents).map_err(malformed)?,
            None => Vec::new(),
        };
        let name = |element: Element<'_>| Name::read(&element).ok_or_else(|| form("a name"));
        Ok(Self {
            der: der.to_vec(),
            signed: signed.whole.to_vec(),
            is_v3: version.is_some_and(|version| version.contents == [INTEGER, 1, 2]),
            issuer: name(issuer)?,
            subject: name(subject)?,
            validity: Validity::from_der(validity.whole).map_err(malformed)?,
            key: SubjectPublicKeyInfoOwned::from_der(key.whole).map_err(malformed)?,
            extensions,
            algorithm: algorithm.oid,
            signature: BitString::from_der(signature.whole).map_err(malformed)?,
        })
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
        self.subject.shown()
    }

    /// Its issuer, for people.
    #[must_use]
    pub fn issuer(&self) -> String {
        self.issuer.shown()
    }

    /// Checks that `issuer`'s key made the signature on it; whether that issuer may issue, and
    /// whether anybody believes it, is another question.
    pub fn signed_by(&self, issuer: &Self) -> Result<(), EkError> {
        if !self.names_as_issuer(issuer) {
            return Err(EkError::NoIssuer {
                subject: self.subject(),
                issuer: self.issuer(),
            });
        }
        signature::check(self, issuer)
    }

    /// Whether `self` names `other` as its issuer.
    pub(super) fn names_as_issuer(&self, other: &Self) -> bool {
        self.issuer == other.subject
    }

    /// Whether its subject is empty, as that of an issuer must not be (RFC 5280, 4.1.2.6).
    pub(super) fn is_nameless(&self) -> bool {
        self.subject.is_empty()
    }

    pub(super) const fn is_v3(&self) -> bool {
        self.is_v3
    }

    /// First and last second of its validity.
    pub(crate) fn validity(&self) -> (u64, u64) {
        (
            self.validity.not_before.to_unix_duration().as_secs(),
            self.validity.not_after.to_unix_duration().as_secs(),
        )
    }

    /// The DNS names among its alternative names.
    pub(crate) fn dns_names(&self) -> Vec<String> {
        /// `dNSName [2]` of a `GeneralName`.
        const DNS: u8 = 0x82;
        let is_alternative = |extension: &&Extension| extension.extn_id == ALTERNATIVE_NAME;
        let extension = self.extensions.iter().find(is_alternative);
        let names = extension
            .and_then(|extension| only(extension.extn_value.as_bytes(), SEQUENCE))
            .and_then(elements);
        let names = names.unwrap_or_default().into_iter();
        names
            .filter(|name| name.tag == DNS)
            .filter_map(|name| core::str::from_utf8(name.contents).ok())
            .map(str::to_owned)
            .collect()
    }

    pub(super) fn extensions(&self) -> &[Extension] {
        &self.extensions
    }

    pub(super) const fn algorithm(&self) -> Oid {
        self.algorithm
    }

    pub(super) fn signature(&self) -> Option<&[u8]> {
        self.signature.as_bytes()
    }

    pub(crate) const fn key_info(&self) -> &SubjectPublicKeyInfoOwned {
        &self.key
    }

    /// The bytes that were signed, as they stand in the file.
    pub(super) fn signed_part(&self) -> &[u8] {
        &self.signed
    }

    /// The point that is the key, on P-384 (SEC 1).
    pub fn p384_point(&self) -> Result<&[u8], EkError> {
        let info = self.key_info();
        let unknown = |what, got: Oid| EkError::Unknown {
            subject: self.subject(),
            what,
            got: got.to_string(),
        };
        if info.algorithm.oid != EC_PUBLIC_KEY {
            return Err(unknown("key algorithm", info.algorithm.oid));
        }
        match signature::curve(info) {
            Some(P384) => Ok(info.subject_public_key.as_bytes().unwrap_or_default()),
            other => Err(unknown("curve", other.unwrap_or(EC_PUBLIC_KEY))),
        }
    }

    /// The digest of the firmware that holds the key, where it is certified: the `fwid` of a
    /// `CompositeDeviceID` (TCG DICE Layering Architecture, 5.1), which is its last part.
    #[must_use]
    pub fn firmware_id(&self) -> Option<Vec<u8>> {
        let extension = self.extensions.iter().find(|one| one.extn_id == DICE)?;
        let parts = elements(only(extension.extn_value.as_bytes(), SEQUENCE)?)?;
        let fwid = parts.last().filter(|part| part.tag == SEQUENCE)?;
        let parts = elements(fwid.contents)?;
        let digest = parts.last().filter(|part| part.tag == OCTET_STRING)?;
        Some(digest.contents.to_vec())
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
                if modulus.len() < MIN_RSA_BYTES {
                    return Err(EkError::Profile {
                        subject: self.subject(),
                        why: "its rsa key has fewer than 2048 bits".to_owned(),
                    });
                }
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

/// The fields of a certificate's signed part, in their order.
struct Fields<'b>(Vec<Element<'b>>);

impl<'b> Fields<'b> {
    fn next(&mut self, tag: u8, what: &'static str) -> Result<Element<'b>, EkError> {
        self.take(tag).ok_or_else(|| EkError::Form {
            what: what.to_owned(),
            detail: "it is not where it should be".to_owned(),
        })
    }

    /// An optional field.
    fn tagged(&mut self, tag: u8) -> Option<Element<'b>> {
        self.take(tag)
    }

    fn take(&mut self, tag: u8) -> Option<Element<'b>> {
        let is_next = self.0.first().is_some_and(|first| first.tag == tag);
        is_next.then(|| self.0.remove(0))
    }

    fn end(self) -> Result<(), EkError> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(EkError::Form {
            what: "its signed part".to_owned(),
            detail: format!("{} fields too many", self.0.len()),
        })
    }
}
