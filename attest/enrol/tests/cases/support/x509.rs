//! X.509 certificates written by hand, so that each can be wrong in one place.

use p256::ecdsa::SigningKey;
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use sha2::{Digest as _, Sha256};

pub(crate) fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let mut out = vec![tag];
    if length < 0x80 {
        out.push(u8::try_from(length).unwrap());
    } else if length < 0x100 {
        out.extend([0x81, u8::try_from(length).unwrap()]);
    } else {
        out.push(0x82);
        out.extend(u16::try_from(length).unwrap().to_be_bytes());
    }
    out.extend(contents);
    out
}

pub(crate) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

pub(crate) fn oid(text: &str) -> Vec<u8> {
    let numbers: Vec<u64> = text
        .split('.')
        .map(|number| number.parse().unwrap())
        .collect();
    let mut out = vec![u8::try_from(numbers[0] * 40 + numbers[1]).unwrap()];
    for number in &numbers[2..] {
        let mut digits = vec![u8::try_from(number & 0x7f).unwrap()];
        let mut rest = number >> 7;
        while rest > 0 {
            digits.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
            rest >>= 7;
        }
        digits.reverse();
        out.extend(digits);
    }
    tlv(0x06, &out)
}

fn attribute(kind: &str, string: u8, value: &str) -> Vec<u8> {
    sequence(&[oid(kind), tlv(string, value.as_bytes())])
}

/// A name with one common name; an empty one where there is no text.
pub(crate) fn name(common: &str, string: u8) -> Vec<u8> {
    if common.is_empty() {
        return sequence(&[]);
    }
    sequence(&[tlv(0x31, &attribute("2.5.4.3", string, common))])
}

const TPM: [(&str, &str); 3] = [
    ("2.23.133.2.1", "id:54455354"),
    ("2.23.133.2.2", "SoftModel"),
    ("2.23.133.2.3", "id:00010002"),
];

/// The TPM's names, each in a relative name of its own.
pub(crate) fn san_apart() -> Vec<u8> {
    let names = TPM.map(|(kind, value)| tlv(0x31, &attribute(kind, 0x0c, value)));
    sequence(&[tlv(0xa4, &sequence(&names))])
}

/// The same in one relative name, unsorted as some vendors write it, after a name of another form.
pub(crate) fn san_together() -> Vec<u8> {
    let mut names = TPM.map(|(kind, value)| attribute(kind, 0x13, value));
    names.reverse();
    let uri = tlv(0x86, b"https://vendor.example/ek");
    sequence(&[uri, tlv(0xa4, &sequence(&[tlv(0x31, &names.concat())]))])
}

/// One that lacks the model.
pub(crate) fn san_short() -> Vec<u8> {
    let (kind, value) = TPM[0];
    let names = [tlv(0x31, &attribute(kind, 0x0c, value))];
    sequence(&[tlv(0xa4, &sequence(&names))])
}

/// One extension.
#[derive(Clone)]
pub(crate) struct Extension {
    pub(crate) oid: &'static str,
    pub(crate) critical: bool,
    pub(crate) value: Vec<u8>,
}

impl Extension {
    pub(crate) fn new(oid: &'static str, critical: bool, value: Vec<u8>) -> Self {
        Self {
            oid,
            critical,
            value,
        }
    }

    fn der(&self) -> Vec<u8> {
        let mut parts = vec![oid(self.oid)];
        if self.critical {
            parts.push(vec![0x01, 0x01, 0xff]);
        }
        parts.push(tlv(0x04, &self.value));
        sequence(&parts)
    }
}

pub(crate) const CONSTRAINTS: &str = "2.5.29.19";
pub(crate) const USAGE: &str = "2.5.29.15";
pub(crate) const EXTENDED: &str = "2.5.29.37";
pub(crate) const SAN: &str = "2.5.29.17";

pub(crate) fn basic(is_ca: bool, length: Option<u8>) -> Vec<u8> {
    let mut parts = Vec::new();
    if is_ca {
        parts.push(vec![0x01, 0x01, 0xff]);
    }
    parts.extend(length.map(|length| vec![0x02, 0x01, length]));
    sequence(&parts)
}

/// Bits of a key usage, the first on the left.
pub(crate) fn usage(bits: u8) -> Vec<u8> {
    let unused = u8::try_from(bits.trailing_zeros()).unwrap();
    vec![0x03, 0x02, unused, bits]
}

pub(crate) const DIGITAL_SIGNATURE: u8 = 0x80;
pub(crate) const KEY_AGREEMENT: u8 = 0x08;
pub(crate) const CERT_SIGN: u8 = 0x04;

/// What a certificate is to say.
#[derive(Clone)]
pub(crate) struct Spec {
    pub(crate) subject: Vec<u8>,
    pub(crate) key: SigningKey,
    pub(crate) extensions: Vec<Extension>,
    pub(crate) from: &'static str,
    pub(crate) until: &'static str,
    pub(crate) algorithm: &'static str,
    /// Written in the place of the issuer's own name.
    pub(crate) issuer: Option<Vec<u8>>,
}

/// A certificate with its key.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) der: Vec<u8>,
    pub(crate) key: SigningKey,
    subject: Vec<u8>,
}

impl Spec {
    fn new(subject: Vec<u8>, seed: u8, extensions: Vec<Extension>) -> Self {
        Self {
            subject,
            key: SigningKey::from_slice(&[seed; 32]).unwrap(),
            extensions,
            from: "20200101000000Z",
            until: "99991231235959Z",
            algorithm: "1.2.840.10045.4.3.2",
            issuer: None,
        }
    }

    pub(crate) fn authority(common: &str, seed: u8) -> Self {
        let extensions = vec![
            Extension::new(CONSTRAINTS, true, basic(true, None)),
            Extension::new(USAGE, true, usage(CERT_SIGN)),
        ];
        Self::new(name(common, 0x0c), seed, extensions)
    }

    /// An endorsement key's, as a careful vendor makes it.
    pub(crate) fn leaf(seed: u8) -> Self {
        let extensions = vec![
            Extension::new(CONSTRAINTS, true, basic(false, None)),
            Extension::new(USAGE, true, usage(KEY_AGREEMENT)),
            Extension::new(EXTENDED, false, sequence(&[oid("2.23.133.8.1")])),
            Extension::new(SAN, true, san_apart()),
        ];
        Self::new(name("", 0), seed, extensions)
    }

    pub(crate) fn with(mut self, oid: &'static str, critical: bool, value: Vec<u8>) -> Self {
        self = self.without(oid);
        self.extensions.push(Extension::new(oid, critical, value));
        self
    }

    pub(crate) fn without(mut self, oid: &'static str) -> Self {
        self.extensions.retain(|extension| extension.oid != oid);
        self
    }

    /// Signs it; by itself where there is no issuer.
    pub(crate) fn sign(&self, issuer: Option<&Made>) -> Made {
        let (issuer_name, issuer_key) = issuer.map_or((&self.subject, &self.key), |issuer| {
            (&issuer.subject, &issuer.key)
        });
        let algorithm = sequence(&[oid(self.algorithm)]);
        let time = |text: &str| tlv(0x18, text.as_bytes());
        let point = self.key.verifying_key().to_sec1_point(false);
        let key = sequence(&[
            sequence(&[oid("1.2.840.10045.2.1"), oid("1.2.840.10045.3.1.7")]),
            tlv(0x03, &[&[0], point.as_bytes()].concat()),
        ]);
        let extensions: Vec<_> = self.extensions.iter().map(Extension::der).collect();
        let mut parts = vec![
            tlv(0xa0, &[0x02, 0x01, 0x02]),
            // A negative number, as some vendors give.
            tlv(0x02, &[0x81, self.key.to_bytes()[0]]),
            algorithm.clone(),
            self.issuer.clone().unwrap_or_else(|| issuer_name.clone()),
            sequence(&[time(self.from), time(self.until)]),
            self.subject.clone(),
            key,
        ];
        if !extensions.is_empty() {
            parts.push(tlv(0xa3, &sequence(&extensions)));
        }
        let signed = sequence(&parts);
        let signature: p256::ecdsa::Signature =
            issuer_key.sign_prehash(&Sha256::digest(&signed)).unwrap();
        let bits = [&[0], signature.to_der().as_bytes()].concat();
        Made {
            der: sequence(&[signed, algorithm, tlv(0x03, &bits)]),
            key: self.key.clone(),
            subject: self.subject.clone(),
        }
    }
}
