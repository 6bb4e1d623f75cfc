//! Signed data (RFC 5652, PKCS #7) as clouds make it: one signer, RSA, SHA-256.
//!
//! Anything else is refused. What the signer did not sign (unsigned attributes, lists of revoked
//! certificates) is passed over and has no effect; certificates in it are candidates, no more.

use super::ber;
use crate::ek::der::{OID, SEQUENCE, SET, element, elements, only};
use crate::ek::{Certificate, rsa_sha256};
use base64ct::{Base64, Encoding as _};
use merestone_evidence::sha256;

const OCTETS: u8 = 0x04;
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const RSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03];
const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04];
/// Most certificates that are looked at.
const MOST_CERTIFICATES: usize = 8;

/// Signed data, taken apart; nothing about it is believed.
pub(super) struct Signed {
    pub(super) content: Option<Vec<u8>>,
    pub(super) certificates: Vec<Certificate>,
    content_type: Vec<u8>,
    /// The signed attributes as they are hashed.
    attributes: Option<Vec<u8>>,
    signature: Vec<u8>,
}

/// Base64 with line ends, in an armour or not.
pub(super) fn unarmoured(text: &[u8]) -> Option<Vec<u8>> {
    let text = core::str::from_utf8(text).ok()?;
    let lines = text.lines().map(str::trim);
    let body: String = lines.filter(|line| !line.starts_with("-----")).collect();
    if body.len() > ber::MOST_BYTES * 2 {
        return None;
    }
    Base64::decode_vec(&body).ok()
}

impl Signed {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let der = ber::der(bytes)?;
        let outer = elements(only(&der, SEQUENCE)?)?;
        let [kind, explicit] = outer.as_slice() else {
            return None;
        };
        if (kind.tag, kind.contents) != (OID, SIGNED_DATA) || explicit.tag != 0xa0 {
            return None;
        }
        let parts = elements(only(explicit.contents, SEQUENCE)?)?;
        let [_version, _algorithms, inner, between @ .., signers] = parts.as_slice() else {
            return None;
        };
        let inner = elements(only(inner.whole, SEQUENCE)?)?;
        let (content_type, content) = match inner.as_slice() {
            [kind] => (kind, None),
            [kind, content] if content.tag == 0xa0 => {
                (kind, Some(only(content.contents, OCTETS)?.to_vec()))
            }
            _ => return None,
        };
        if content_type.tag != OID || signers.tag != SET {
            return None;
        }
        let mut certificates = Vec::new();
        for part in between.iter().filter(|part| part.tag == 0xa0) {
            let all = elements(part.contents)?;
            let read = all.iter().take(MOST_CERTIFICATES);
            certificates.extend(read.filter_map(|one| Certificate::read(one.whole).ok()));
        }
        let (attributes, signature) = signer(only(signers.contents, SEQUENCE)?)?;
        Some(Self {
            content,
            certificates,
            content_type: content_type.contents.to_vec(),
            attributes,
            signature,
        })
    }

    /// Whether this certificate's key signed `content`.
    pub(super) fn is_over(&self, content: &[u8], signer: &Certificate) -> bool {
        let message = match &self.attributes {
            None => content,
            Some(attributes) => {
                let digest = sha256(content);
                let says = attribute(attributes, MESSAGE_DIGEST, OCTETS);
                let kind = attribute(attributes, CONTENT_TYPE, OID);
                if says != Some(&digest.0[..]) || kind != Some(self.content_type.as_slice()) {
                    return false;
                }
                attributes
            }
        };
        rsa_sha256(signer.key_info(), message, &self.signature).is_some()
    }
}

/// Signed attributes, as a set, and the signature.
fn signer(fields: &[u8]) -> Option<(Option<Vec<u8>>, Vec<u8>)> {
    let fields = elements(fields)?;
    let [_version, _who, digest, rest @ ..] = fields.as_slice() else {
        return None;
    };
    if algorithm(digest.whole)? != SHA256 {
        return None;
    }
    let (attributes, rest) = match rest {
        [first, rest @ ..] if first.tag == 0xa0 => {
            // 5.4: what is hashed has the tag of a set.
            let mut set = first.whole.to_vec();
            *set.first_mut()? = SET;
            (Some(set), rest)
        }
        rest => (None, rest),
    };
    let [kind, signature, ..] = rest else {
        return None;
    };
    let kind = algorithm(kind.whole)?;
    if (kind != RSA && kind != RSA_SHA256) || signature.tag != OCTETS {
        return None;
    }
    Some((attributes, signature.contents.to_vec()))
}

fn algorithm(whole: &[u8]) -> Option<&[u8]> {
    let (oid, _parameters) = element(only(whole, SEQUENCE)?)?;
    (oid.tag == OID).then_some(oid.contents)
}

/// The one value of an attribute that is there once.
fn attribute<'a>(set: &'a [u8], wanted: &[u8], tag: u8) -> Option<&'a [u8]> {
    let mut found = None;
    for one in elements(only(set, SET)?)? {
        let parts = elements(only(one.whole, SEQUENCE)?)?;
        let [kind, values] = parts.as_slice() else {
            return None;
        };
        if (kind.tag, kind.contents) == (OID, wanted) {
            if found.is_some() || values.tag != SET {
                return None;
            }
            found = Some(only(values.contents, tag)?);
        }
    }
    found
}
