//! Files that an authority signs and a host only checks: boundaries, grants
//! and break-glass tokens, as `COSE_Sign1` (RFC 9052) with Ed25519.
//!
//! The protected header carries the algorithm, the kind of the file as its
//! content type, and the signer's key id, which is the SHA-256 of the public
//! key. Nothing else is accepted in it, and nothing at all in the unprotected
//! header. A boundary stays a file that people read: its signature lies beside
//! it (`boundary.toml.cose`) with a detached payload. The others carry theirs.
//!
//! It refuses to look into a payload before its signature holds, to take a key
//! because a message names it, to take one kind for another, and to take a
//! second encoding of a message it knows: one message has one digest, so that
//! a digest can be remembered as used.

mod error;
mod keys;
#[cfg(test)]
mod tests;

pub use error::SignedError;
pub use keys::{Signers, generate, key_id, public_key, signing_key};

use coset::iana::{Algorithm, EnumI64 as _};
use coset::{
    ContentType, CoseSign1, CoseSign1Builder, Header, HeaderBuilder,
    RegisteredLabelWithPrivate as Label, TaggedCborSerializable as _,
};
use ed25519_dalek::{Signature, Signer as _, SigningKey};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};

/// Largest message that is parsed. A detached payload is capped by who reads
/// it.
pub const LIMIT_BYTES: usize = 64 << 10;

/// What is added to a file's name for its detached signature.
pub const SUFFIX: &str = ".cose";

/// What a signed file is; a signature over one kind is none over another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A boundary; its payload is detached.
    Boundary,
    /// A grant.
    Grant,
    /// A break-glass token.
    BreakGlass,
    /// What a landmark measured.
    Landmark,
}

impl Kind {
    /// The content type in the protected header.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Boundary => "application/vnd.merestone.boundary+toml",
            Self::Grant => "application/vnd.merestone.grant+toml",
            Self::BreakGlass => "application/vnd.merestone.break-glass+toml",
            Self::Landmark => "application/vnd.merestone.landmark+cbor",
        }
    }

    /// Whether the payload lies in a file of its own.
    #[must_use]
    pub fn is_detached(self) -> bool {
        self == Self::Boundary
    }
}

/// A payload whose signature holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Signed {
    /// SHA-256 of the signer's public key.
    pub signer: [u8; 32],
    /// What was signed.
    pub payload: Vec<u8>,
    /// SHA-256 of the message; a message has one encoding.
    pub sha256: [u8; 32],
}

impl Signers {
    /// The payload of a message that one of these signed as `kind`. `detached`
    /// is the payload of a message that does not carry it.
    ///
    /// It does not vouch for what the payload says, nor that it is new.
    pub fn verify(
        &self,
        kind: Kind,
        message: &[u8],
        detached: Option<&[u8]>,
    ) -> Result<Signed, SignedError> {
        let parsed = parse(message)?;
        let signer = header(kind, &parsed)?;
        let payload = match (&parsed.payload, detached) {
            (Some(payload), None) => payload,
            (None, Some(payload)) => payload,
            (Some(_), Some(_)) => return Err(SignedError::NotDetached),
            (None, None) => return Err(SignedError::Detached),
        };
        let key = self.key(&signer).ok_or_else(|| SignedError::Unknown {
            got: hex::encode(signer),
        })?;
        let got = parsed.signature.len();
        let signature: [u8; 64] = parsed
            .signature
            .as_slice()
            .try_into()
            .or(Err(SignedError::Length { got }))?;
        let signature = Signature::from_bytes(&signature);
        // Strict: no small-order key, no second form of a signature.
        key.verify_strict(&signed_bytes(&parsed, payload), &signature)
            .or(Err(SignedError::Signature))?;
        Ok(Signed {
            signer,
            payload: payload.to_vec(),
            sha256: Sha256::digest(message).into(),
        })
    }
}

/// Signs a payload.
pub fn sign(kind: Kind, key: &SigningKey, payload: &[u8]) -> Result<Vec<u8>, SignedError> {
    let protected = HeaderBuilder::new()
        .algorithm(Algorithm::EdDSA)
        .content_type(kind.content_type().to_owned())
        .key_id(key_id(&key.verifying_key()).to_vec())
        .build();
    let builder = CoseSign1Builder::new().protected(protected);
    let make = |bytes: &[u8]| key.sign(bytes).to_vec();
    let message = if kind.is_detached() {
        builder.create_detached_signature(payload, &[], make)
    } else {
        builder
            .payload(payload.to_vec())
            .create_signature(&[], make)
    };
    let message = message
        .build()
        .to_tagged_vec()
        .map_err(|error| SignedError::Encode {
            detail: error.to_string(),
        })?;
    if message.len() > LIMIT_BYTES {
        return Err(SignedError::Size {
            got: message.len(),
            limit: LIMIT_BYTES,
        });
    }
    Ok(message)
}

/// What a message carries, without a check of anything: for looking at one's own.
pub fn payload(message: &[u8]) -> Result<Vec<u8>, SignedError> {
    parse(message)?.payload.ok_or(SignedError::Detached)
}

/// Where the detached signature of a file lies.
#[must_use]
pub fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(SUFFIX);
    PathBuf::from(name)
}

/// The message, in its one form.
fn parse(message: &[u8]) -> Result<CoseSign1, SignedError> {
    if message.len() > LIMIT_BYTES {
        return Err(SignedError::Size {
            got: message.len(),
            limit: LIMIT_BYTES,
        });
    }
    let refused = |error: coset::CoseError| SignedError::Parse {
        detail: error.to_string(),
    };
    let parsed = CoseSign1::from_tagged_slice(message).map_err(refused)?;
    // The protected header is kept in the bytes it came in, so both the whole
    // and the header are encoded anew.
    let mut anew = parsed.clone();
    anew.protected.original_data = None;
    if anew.to_tagged_vec().map_err(refused)? != message {
        return Err(SignedError::Encoding);
    }
    Ok(parsed)
}

/// The signer that the protected header names, if that header is ours.
fn header(kind: Kind, message: &CoseSign1) -> Result<[u8; 32], SignedError> {
    if !message.unprotected.is_empty() {
        return Err(SignedError::Unprotected);
    }
    let Header {
        alg,
        crit,
        content_type,
        key_id,
        iv,
        partial_iv,
        counter_signatures,
        rest,
    } = &message.protected.header;
    match alg {
        Some(Label::Assigned(Algorithm::EdDSA)) => {}
        Some(Label::Assigned(other)) => {
            return Err(SignedError::Algorithm {
                got: other.to_i64().to_string(),
            });
        }
        other => {
            return Err(SignedError::Algorithm {
                got: other.as_ref().map_or("none", |_| "private").to_owned(),
            });
        }
    }
    let got = match content_type {
        Some(ContentType::Text(text)) => text.as_str(),
        _ => "none",
    };
    let expected = kind.content_type();
    if got != expected {
        return Err(SignedError::Kind {
            got: got.chars().filter(|c| !c.is_control()).take(80).collect(),
            expected,
        });
    }
    let more = !crit.is_empty()
        || !iv.is_empty()
        || !partial_iv.is_empty()
        || !counter_signatures.is_empty()
        || !rest.is_empty();
    if more {
        return Err(SignedError::Header);
    }
    key_id
        .as_slice()
        .try_into()
        .or(Err(SignedError::KeyId { got: key_id.len() }))
}

/// The `Sig_structure` of RFC 9052, section 4.4.
fn signed_bytes(message: &CoseSign1, payload: &[u8]) -> Vec<u8> {
    // A payload of its own has no other place in the library than the
    // message's.
    if message.payload.is_some() {
        message.tbs_data(&[])
    } else {
        message.tbs_detached_data(payload, &[])
    }
}
