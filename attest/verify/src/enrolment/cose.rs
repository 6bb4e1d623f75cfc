//! `COSE_Sign1` (RFC 9052) with Ed25519: what an authority signs, and a session's key.
//!
//! The protected header carries the algorithm, the kind as its content type and the key id, which
//! is the SHA-256 of the public key; nothing else is accepted in it, and nothing at all in the
//! unprotected one (N36, N37). A message has one encoding (N38). No payload is looked at before
//! the signature over it holds.

use base64ct::{Base64, Encoding as _};
use coset::iana::Algorithm;
use coset::{
    ContentType, CoseSign1, Header, HeaderBuilder, RegisteredLabelWithPrivate as Label,
    TaggedCborSerializable as _,
};
use ed25519_dalek::pkcs8::DecodePublicKey as _;
use ed25519_dalek::{Signature, VerifyingKey};
use merestone_evidence::{Digest, RECEIPT_BYTES, sha256};

/// How a key is written in one line.
const INLINE: &str = "ed25519:";

/// What was signed; a signature over one kind is none over another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// An enrolment certificate.
    Enrolment,
    /// A list of revoked ones.
    Revocations,
    /// A receipt; by a session's key.
    Receipt,
}

impl Kind {
    /// The content type in the protected header.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Enrolment => "application/vnd.merestone.enrolment+cbor",
            Self::Revocations => "application/vnd.merestone.revocations+cbor",
            Self::Receipt => "application/vnd.merestone.receipt+cbor",
        }
    }

    /// Most bytes of a message.
    #[must_use]
    pub const fn limit(self) -> usize {
        match self {
            Self::Enrolment => (64 << 10) + 512,
            Self::Revocations => (1 << 20) + 512,
            Self::Receipt => RECEIPT_BYTES,
        }
    }
}

/// Why a signed file is refused; its payload was not looked at.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CoseError {
    /// Too large to be parsed.
    #[error("{got} bytes where at most {limit} are allowed")]
    Size {
        /// Its size.
        got: usize,
        /// The most.
        limit: usize,
    },
    /// Not a tagged `COSE_Sign1` with a payload, in its one encoding.
    #[error("not a signed file (COSE_Sign1): {detail}")]
    Form {
        /// What is wrong.
        detail: String,
    },
    /// Another header than ours.
    #[error("its protected header is not one of {want:?}: {detail}")]
    Header {
        /// What it was to be.
        want: &'static str,
        /// What is wrong.
        detail: &'static str,
    },
    /// Signed by nobody that is pinned.
    #[error("signed by key {got}, which is not one that is believed")]
    Unknown {
        /// The key id in it.
        got: Digest,
    },
    /// The signature does not hold.
    #[error("the signature of key {signer} does not hold")]
    Signature {
        /// The pinned key it names.
        signer: Digest,
    },
}

/// A payload whose signature holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Opened {
    /// SHA-256 of the signer's public key.
    pub signer: Digest,
    /// What was signed.
    pub payload: Vec<u8>,
    /// SHA-256 of the message; a message has one encoding.
    pub sha256: Digest,
}

/// A key's id: the SHA-256 of its 32 bytes.
#[must_use]
pub fn key_id(key: &VerifyingKey) -> Digest {
    sha256(key.as_bytes())
}

/// Reads `ed25519:BASE64` or the PEM of a public key. Keys of small order are refused: a
/// signature by one can hold for more than one message (N41).
pub fn public_key(text: &str) -> Result<VerifyingKey, String> {
    let key = if let Some(text) = text.strip_prefix(INLINE) {
        let bytes = Base64::decode_vec(text).map_err(|_base64| "not base64".to_owned())?;
        let bytes: [u8; 32] = bytes
            .try_into()
            .map_err(|bytes: Vec<u8>| format!("{} bytes where 32 are wanted", bytes.len()))?;
        VerifyingKey::from_bytes(&bytes).map_err(|error| error.to_string())?
    } else {
        VerifyingKey::from_public_key_pem(text)
            .map_err(|error| format!("not the PEM of an Ed25519 public key: {error}"))?
    };
    if key.is_weak() {
        return Err("a key of small order".to_owned());
    }
    Ok(key)
}

/// The protected header of a message.
#[must_use]
pub fn protected_header(kind: Kind, key: &VerifyingKey) -> Header {
    HeaderBuilder::new()
        .algorithm(Algorithm::EdDSA)
        .content_type(kind.content_type().to_owned())
        .key_id(key_id(key).0.to_vec())
        .build()
}

/// The payload of a message that one of `keys` signed as `kind`.
///
/// It does not vouch for what the payload says.
pub fn open(kind: Kind, message: &[u8], keys: &[VerifyingKey]) -> Result<Opened, CoseError> {
    open_with(kind, message, |signer| {
        keys.iter().find(|key| key_id(key) == *signer)
    })
}

/// The same, where `known` gives the key of an id.
pub(crate) fn open_with<'k>(
    kind: Kind,
    message: &[u8],
    known: impl FnOnce(&Digest) -> Option<&'k VerifyingKey>,
) -> Result<Opened, CoseError> {
    let parsed = parse(kind, message)?;
    let signer = header(kind, &parsed)?;
    let key = known(&signer).ok_or(CoseError::Unknown { got: signer })?;
    let mismatch = || CoseError::Signature { signer };
    let signature = parsed.signature.as_slice().try_into();
    let signature: [u8; 64] = signature.map_err(|_length: core::array::TryFromSliceError| {
        // Not an Ed25519 signature at all.
        mismatch()
    })?;
    key.verify_strict(&parsed.tbs_data(&[]), &Signature::from_bytes(&signature))
        .map_err(|_opaque| mismatch())?;
    Ok(Opened {
        signer,
        payload: parsed.payload.unwrap_or_default(),
        sha256: sha256(message),
    })
}

/// The message, in its one form.
fn parse(kind: Kind, message: &[u8]) -> Result<CoseSign1, CoseError> {
    let limit = kind.limit();
    if message.len() > limit {
        let got = message.len();
        return Err(CoseError::Size { got, limit });
    }
    let form = |detail: String| CoseError::Form { detail };
    let refused = |error: coset::CoseError| form(error.to_string());
    let parsed = CoseSign1::from_tagged_slice(message).map_err(refused)?;
    // The header is kept in the bytes it came in, so whole and header are encoded anew.
    let mut anew = parsed.clone();
    anew.protected.original_data = None;
    if anew.to_tagged_vec().map_err(refused)? != message {
        return Err(form("another encoding of the same".to_owned()));
    }
    if parsed.payload.is_none() {
        return Err(form("it carries no payload".to_owned()));
    }
    Ok(parsed)
}

/// The signer that the protected header names, if that header is ours.
fn header(kind: Kind, message: &CoseSign1) -> Result<Digest, CoseError> {
    let want = kind.content_type();
    let refused = |detail| CoseError::Header { want, detail };
    if !message.unprotected.is_empty() {
        return Err(refused("the unprotected header says something"));
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
    if *alg != Some(Label::Assigned(Algorithm::EdDSA)) {
        return Err(refused("the algorithm is not EdDSA (-8)"));
    }
    if *content_type != Some(ContentType::Text(want.to_owned())) {
        return Err(refused("another content type"));
    }
    let more = !crit.is_empty()
        || !iv.is_empty()
        || !partial_iv.is_empty()
        || !counter_signatures.is_empty()
        || !rest.is_empty();
    if more {
        return Err(refused(
            "it holds more than algorithm, content type and key id",
        ));
    }
    let id = key_id.as_slice().try_into();
    let id = id.map_err(|_length: core::array::TryFromSliceError| refused("no key id"))?;
    Ok(Digest(id))
}
