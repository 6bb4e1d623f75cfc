//! `TPMT_SIGNATURE`, and its check against a key.

use super::public::padded;
use super::{ALG_ECDSA, ALG_RSASSA, ALG_SHA256, KeyMaterial};
use crate::wire::{Reader, WireError};
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use rsa::traits::SignatureScheme as _;
use sha2::{Digest as _, Sha256};

const MAX_SCALAR: usize = 32;
const MAX_RSA: usize = 256;

/// Why a signature doesn't hold.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SignatureError {
    /// Made by another kind of key.
    #[error("the signature is {got}, the key is {want}")]
    Scheme {
        /// Scheme of the signature.
        got: String,
        /// Scheme of the key.
        want: &'static str,
    },
    /// A hash that is not SHA-256.
    #[error("the signature uses hash {got:#06x}, not sha-256")]
    Hash {
        /// The hash's number.
        got: u16,
    },
    /// The key is no key: a point off the curve, an even modulus.
    #[error("the attestation key is not a valid key")]
    Key,
    /// It was not made by this key over these bytes.
    #[error("the signature was not made by the attestation key over these bytes")]
    Mismatch,
    /// Not the form of a signature.
    #[error("TPMT_SIGNATURE: {0}")]
    Form(#[from] WireError),
}

/// A signature, read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Signature {
    /// ECDSA over SHA-256.
    Ecdsa {
        /// First number.
        r: [u8; 32],
        /// Second number.
        s: [u8; 32],
    },
    /// RSASSA-PKCS1-v1_5 over SHA-256.
    Rsassa {
        /// The signature.
        bytes: Vec<u8>,
    },
}

impl Signature {
    /// Reads a whole `TPMT_SIGNATURE`; nothing may follow it.
    pub fn parse(bytes: &[u8]) -> Result<Self, SignatureError> {
        let mut reader = Reader::new(bytes);
        let scheme = reader.u16()?;
        if !matches!(scheme, ALG_ECDSA | ALG_RSASSA) {
            return Err(SignatureError::Scheme {
                got: format!("scheme {scheme:#06x}"),
                want: "ecdsa or rsassa",
            });
        }
        let hash = reader.u16()?;
        if hash != ALG_SHA256 {
            return Err(SignatureError::Hash { got: hash });
        }
        let signature = if scheme == ALG_ECDSA {
            let r = padded(reader.sized("r length", MAX_SCALAR)?);
            let s = padded(reader.sized("s length", MAX_SCALAR)?);
            Self::Ecdsa { r, s }
        } else {
            let bytes = reader.sized("signature length", MAX_RSA)?.to_vec();
            Self::Rsassa { bytes }
        };
        reader.end()?;
        Ok(signature)
    }

    /// Checks the signature over the SHA-256 of `message`.
    pub fn check(&self, key: &KeyMaterial, message: &[u8]) -> Result<(), SignatureError> {
        let digest = Sha256::digest(message);
        match (self, key) {
            (Self::Ecdsa { r, s }, KeyMaterial::P256 { x, y }) => ecdsa(r, s, x, y, &digest),
            (Self::Rsassa { bytes }, KeyMaterial::Rsa2048 { modulus, exponent }) => {
                rsassa(bytes, modulus, *exponent, &digest)
            }
            (Self::Ecdsa { .. }, KeyMaterial::Rsa2048 { .. }) => Err(SignatureError::Scheme {
                got: "ecdsa".into(),
                want: "rsassa",
            }),
            (Self::Rsassa { .. }, KeyMaterial::P256 { .. }) => Err(SignatureError::Scheme {
                got: "rsassa".into(),
                want: "ecdsa",
            }),
        }
    }
}

impl KeyMaterial {
    /// Whether it is a key at all: a point of the curve, a modulus of the right length.
    #[must_use]
    pub fn is_key(&self) -> bool {
        match self {
            Self::P256 { x, y } => point(x, y).is_ok(),
            Self::Rsa2048 { modulus, exponent } => rsa_key(modulus, *exponent).is_ok(),
        }
    }
}

fn point(x: &[u8; 32], y: &[u8; 32]) -> Result<p256::ecdsa::VerifyingKey, SignatureError> {
    let point = [[4].as_slice(), x, y].concat();
    p256::ecdsa::VerifyingKey::from_sec1_bytes(&point).map_err(|_off_curve| SignatureError::Key)
}

fn rsa_key(modulus: &[u8], exponent: u32) -> Result<rsa::RsaPublicKey, SignatureError> {
    // A modulus with leading zeros would be a shorter key than its length says.
    if modulus.len() != MAX_RSA || modulus.first().is_none_or(|byte| byte & 0x80 == 0) {
        return Err(SignatureError::Key);
    }
    let modulus = rsa::BoxedUint::from_be_slice_vartime(modulus);
    rsa::RsaPublicKey::new(modulus, rsa::BoxedUint::from(exponent))
        .map_err(|_invalid| SignatureError::Key)
}

fn ecdsa(
    r: &[u8; 32],
    s: &[u8; 32],
    x: &[u8; 32],
    y: &[u8; 32],
    digest: &[u8],
) -> Result<(), SignatureError> {
    let key = point(x, y)?;
    let signature = p256::ecdsa::Signature::from_scalars(*r, *s)
        .map_err(|_out_of_range| SignatureError::Mismatch)?;
    key.verify_prehash(digest, &signature)
        .map_err(|_opaque| SignatureError::Mismatch)
}

fn rsassa(
    signature: &[u8],
    modulus: &[u8],
    exponent: u32,
    digest: &[u8],
) -> Result<(), SignatureError> {
    let key = rsa_key(modulus, exponent)?;
    if signature.len() != MAX_RSA {
        return Err(SignatureError::Mismatch);
    }
    rsa::Pkcs1v15Sign::new::<Sha256>()
        .verify(&key, digest, signature)
        .map_err(|_opaque| SignatureError::Mismatch)
}
