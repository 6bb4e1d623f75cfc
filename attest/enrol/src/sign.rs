//! What an authority signs, as `COSE_Sign1`.

use coset::{CoseSign1, CoseSign1Builder, TaggedCborSerializable as _};
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use ed25519_dalek::{Signer as _, SigningKey};
use merestone_verify::enrolment::{Kind, protected_header};

/// Why nothing was signed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SignError {
    /// More than a verifier reads.
    #[error("the signed file would have {got} bytes, at most {limit} are read")]
    Size {
        /// Its size.
        got: usize,
        /// The most.
        limit: usize,
    },
    /// The message could not be written.
    #[error("cannot write the signed file: {detail}")]
    Encode {
        /// Why.
        detail: String,
    },
    /// Not a signed file.
    #[error("not a signed file (COSE_Sign1): {detail}")]
    Form {
        /// Why.
        detail: String,
    },
    /// The key could not be read.
    #[error("not the PEM of an Ed25519 private key: {detail}")]
    Key {
        /// Why.
        detail: String,
    },
}

/// Signs a payload.
pub fn sign(kind: Kind, key: &SigningKey, payload: &[u8]) -> Result<Vec<u8>, SignError> {
    let message = CoseSign1Builder::new()
        .protected(protected_header(kind, &key.verifying_key()))
        .payload(payload.to_vec())
        .create_signature(&[], |bytes| key.sign(bytes).to_vec())
        .build()
        .to_tagged_vec()
        .map_err(|error| SignError::Encode {
            detail: error.to_string(),
        })?;
    let (got, limit) = (message.len(), kind.limit());
    if got > limit {
        return Err(SignError::Size { got, limit });
    }
    Ok(message)
}

/// What a signed file says, without a check of anything: for looking at.
pub fn payload(message: &[u8]) -> Result<Vec<u8>, SignError> {
    let form = |detail: String| SignError::Form { detail };
    let parsed = CoseSign1::from_tagged_slice(message).map_err(|error| form(error.to_string()))?;
    parsed
        .payload
        .ok_or_else(|| form("it carries no payload".to_owned()))
}

/// An authority's private key, from its PEM (PKCS #8).
pub fn signing_key(pem: &str) -> Result<SigningKey, SignError> {
    SigningKey::from_pkcs8_pem(pem).map_err(|error| SignError::Key {
        detail: error.to_string(),
    })
}
