//! What `bundle` and `receipt` write beside their answer: the page, and the result as an EAR.
//!
//! Both restate the verdict; neither can change it. A key is read before anything is judged, so
//! that a fault in it is a fault of the call.

use crate::args::{Period, Reports};
use crate::fault::Fault;
use crate::{Judged, MAX_TRUST, read};
use base64ct::{Base64UrlUnpadded, Encoding as _};
use ed25519_dalek::Signer as _;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use merestone_evidence::Digest;
use merestone_verify::{ear, html};
use std::path::Path;

/// The program and its version, as reports name it.
const PROGRAM: &str = concat!("merestone-verify ", env!("CARGO_PKG_VERSION"));

/// A key that signs attestation results.
pub(crate) enum Key {
    Ed25519(Box<ed25519_dalek::SigningKey>),
    P256(Box<p256::ecdsa::SigningKey>),
}

impl Key {
    fn parse(pem: &str) -> Option<Self> {
        if let Ok(key) = ed25519_dalek::SigningKey::from_pkcs8_pem(pem) {
            return Some(Self::Ed25519(Box::new(key)));
        }
        let key = p256::ecdsa::SigningKey::from_pkcs8_pem(pem).ok()?;
        Some(Self::P256(Box::new(key)))
    }

    /// RFC 7518 3.4 and RFC 8037 3.1: the signature's own bytes, never DER.
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }
        }
    }

    const fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "EdDSA",
            Self::P256(_) => "ES256",
        }
    }
}

impl Reports {
    pub(crate) fn key(&self) -> Result<Option<Key>, Fault> {
        let Some(path) = &self.ear_key else {
            return Ok(None);
        };
        let pem = String::from_utf8(read(path, MAX_TRUST)?).ok();
        let key = pem.as_deref().and_then(Key::parse);
        key.map(Some).ok_or_else(|| Fault::Key {
            file: path.display().to_string(),
        })
    }

    pub(crate) fn write(
        &self,
        judged: &Judged,
        key: Option<&Key>,
        period: Period,
        at_ms: u64,
    ) -> Result<(), Fault> {
        if let Some(path) = &self.html {
            let page = html::Page {
                purpose: judged.purpose,
                file: &judged.file,
                bytes: usize::try_from(judged.bytes).unwrap_or(usize::MAX),
                sha256: judged.sha256.to_string(),
                trust_sha256: judged.trust_sha256.to_string(),
                at_ms,
                program: PROGRAM,
                from_ms: period.from,
                to_ms: period.to,
            };
            save(path, html::page(&judged.verdict, &page).as_bytes())?;
        }
        if let Some(path) = &self.ear {
            let context = ear::Context {
                issued_at_s: at_ms / 1000,
                build: PROGRAM,
                policy: named(&judged.trust_sha256),
                evidence: named(&judged.sha256),
            };
            save(path, &result(&ear::claims(&judged.verdict, &context), key))?;
        }
        Ok(())
    }
}

/// RFC 6920: a name that is the digest.
fn named(digest: &Digest) -> String {
    format!(
        "ni:///sha-256;{}",
        Base64UrlUnpadded::encode_string(&digest.0)
    )
}

/// The claims alone, or a JWT in compact form.
fn result(claims: &ear::Ear, key: Option<&Key>) -> Vec<u8> {
    // Every part is a plain value: nothing in it can fail to serialise.
    let Some(key) = key else {
        let mut text = serde_json::to_vec_pretty(claims).unwrap_or_default();
        text.push(b'\n');
        return text;
    };
    let header = format!(r#"{{"alg":"{}","typ":"JWT"}}"#, key.algorithm());
    let claims = serde_json::to_vec(claims).unwrap_or_default();
    let header = Base64UrlUnpadded::encode_string(header.as_bytes());
    let signed = format!("{header}.{}", Base64UrlUnpadded::encode_string(&claims));
    let signature = Base64UrlUnpadded::encode_string(&key.sign(signed.as_bytes()));
    format!("{signed}.{signature}\n").into_bytes()
}

fn save(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    std::fs::write(path, bytes).map_err(|error| Fault::write(path, &error))
}
