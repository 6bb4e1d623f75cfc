//! The signature on a certificate. SHA-1 and MD5 are refused; what is not known is said to be.

use super::EkError;
use super::certificate::Certificate;
use super::der::{SEQUENCE, elements, only, positive};
use core::fmt::Display;
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use rsa::traits::SignatureScheme as _;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use x509_cert::der::asn1::ObjectIdentifier as Oid;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

pub(super) const RSA_ENCRYPTION: Oid = Oid::new_unwrap("1.2.840.113549.1.1.1");
/// Some vendors certify an RSA key as one for OAEP; the key is written alike.
pub(super) const RSA_OAEP: Oid = Oid::new_unwrap("1.2.840.113549.1.1.7");
pub(super) const EC_PUBLIC_KEY: Oid = Oid::new_unwrap("1.2.840.10045.2.1");
pub(super) const P256: Oid = Oid::new_unwrap("1.2.840.10045.3.1.7");
pub(super) const P384: Oid = Oid::new_unwrap("1.3.132.0.34");
const P521: Oid = Oid::new_unwrap("1.3.132.0.35");

const MD5_RSA: Oid = Oid::new_unwrap("1.2.840.113549.1.1.4");
const SHA1_RSA: Oid = Oid::new_unwrap("1.2.840.113549.1.1.5");
const SHA256_RSA: Oid = Oid::new_unwrap("1.2.840.113549.1.1.11");
const SHA384_RSA: Oid = Oid::new_unwrap("1.2.840.113549.1.1.12");
const SHA512_RSA: Oid = Oid::new_unwrap("1.2.840.113549.1.1.13");
const SHA1_ECDSA: Oid = Oid::new_unwrap("1.2.840.10045.4.1");
const SHA256_ECDSA: Oid = Oid::new_unwrap("1.2.840.10045.4.3.2");
const SHA384_ECDSA: Oid = Oid::new_unwrap("1.2.840.10045.4.3.3");
const SHA512_ECDSA: Oid = Oid::new_unwrap("1.2.840.10045.4.3.4");

/// Shortest modulus of an issuer, and of a TPM.
pub(super) const MIN_RSA_BYTES: usize = 256;

enum Hashed {
    Sha256(Vec<u8>),
    Sha384(Vec<u8>),
    Sha512(Vec<u8>),
}

impl Hashed {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) | Self::Sha384(bytes) | Self::Sha512(bytes) => bytes,
        }
    }
}

/// Checks that `issuer`'s key made the signature on `subject`.
pub(super) fn check(subject: &Certificate, issuer: &Certificate) -> Result<(), EkError> {
    let mismatch = || EkError::Signature {
        subject: subject.subject(),
        issuer: issuer.subject(),
    };
    let algorithm = subject.algorithm();
    let weak = |got| EkError::Weak {
        subject: subject.subject(),
        got,
    };
    let unknown = |what, got: &dyn Display| EkError::Unknown {
        subject: subject.subject(),
        what,
        got: got.to_string(),
    };
    let signature = subject.signature().ok_or_else(mismatch)?;
    signed(
        algorithm,
        issuer.key_info(),
        subject.signed_part(),
        signature,
    )
    .map_err(|wrong| match wrong {
        Wrong::Mismatch => mismatch(),
        Wrong::Weak(got) => weak(got),
        Wrong::Unknown(what, got) => unknown(what, &got),
    })
}

/// Why a signature does not count.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Wrong {
    /// It is not of this key over these bytes.
    Mismatch,
    /// Its hash is broken.
    Weak(&'static str),
    /// It is of a kind that is not known here.
    Unknown(&'static str, Oid),
}

/// Checks a signature in the form that certificates have.
pub(super) fn signed(
    algorithm: Oid,
    key: &SubjectPublicKeyInfoOwned,
    message: &[u8],
    signature: &[u8],
) -> Result<(), Wrong> {
    let (is_rsa, hashed) = match algorithm {
        MD5_RSA => return Err(Wrong::Weak("md5")),
        SHA1_RSA | SHA1_ECDSA => return Err(Wrong::Weak("sha-1")),
        SHA256_RSA => (true, Hashed::Sha256(Sha256::digest(message).to_vec())),
        SHA384_RSA => (true, Hashed::Sha384(Sha384::digest(message).to_vec())),
        SHA512_RSA => (true, Hashed::Sha512(Sha512::digest(message).to_vec())),
        SHA256_ECDSA => (false, Hashed::Sha256(Sha256::digest(message).to_vec())),
        SHA384_ECDSA => (false, Hashed::Sha384(Sha384::digest(message).to_vec())),
        SHA512_ECDSA => (false, Hashed::Sha512(Sha512::digest(message).to_vec())),
        other => return Err(Wrong::Unknown("signature algorithm", other)),
    };
    let holds = match (is_rsa, key.algorithm.oid) {
        (true, RSA_ENCRYPTION) => rsa(key, &hashed, signature),
        (false, EC_PUBLIC_KEY) => {
            let curve = curve(key).ok_or(Wrong::Mismatch)?;
            let point = key.subject_public_key.as_bytes().unwrap_or_default();
            match curve {
                P256 => p256(point, hashed.bytes(), signature),
                P384 => p384(point, hashed.bytes(), signature),
                P521 => p521(point, hashed.bytes(), signature),
                other => return Err(Wrong::Unknown("curve of its issuer", other)),
            }
        }
        _ => None,
    };
    holds.ok_or(Wrong::Mismatch)
}

/// The named curve of an elliptic-curve key.
pub(super) fn curve(key: &SubjectPublicKeyInfoOwned) -> Option<Oid> {
    let parameters = key.algorithm.parameters.as_ref()?;
    parameters.decode_as::<Oid>().ok()
}

/// Modulus and exponent of an RSA key.
pub(super) fn rsa_numbers(key: &SubjectPublicKeyInfoOwned) -> Option<(Vec<u8>, u32)> {
    let bytes = key.subject_public_key.as_bytes()?;
    let numbers = elements(only(bytes, SEQUENCE)?)?;
    let [modulus, exponent] = numbers.as_slice() else {
        return None;
    };
    let exponent = positive(exponent)?;
    let mut padded = [0; 4];
    let from = padded.len().checked_sub(exponent.len())?;
    padded.get_mut(from..)?.copy_from_slice(&exponent);
    Some((positive(modulus)?, u32::from_be_bytes(padded)))
}

/// Checks a signature of PKCS #1 v1.5 with SHA-256.
pub(crate) fn rsa_sha256(
    key: &SubjectPublicKeyInfoOwned,
    message: &[u8],
    signature: &[u8],
) -> Option<()> {
    if key.algorithm.oid != RSA_ENCRYPTION {
        return None;
    }
    let hashed = Hashed::Sha256(Sha256::digest(message).to_vec());
    rsa(key, &hashed, signature)
}

fn rsa(key: &SubjectPublicKeyInfoOwned, hashed: &Hashed, signature: &[u8]) -> Option<()> {
    let (modulus, exponent) = rsa_numbers(key)?;
    if modulus.len() < MIN_RSA_BYTES {
        return None;
    }
    let modulus = rsa::BoxedUint::from_be_slice_vartime(&modulus);
    let key = rsa::RsaPublicKey::new(modulus, rsa::BoxedUint::from(exponent)).ok()?;
    let scheme = match hashed {
        Hashed::Sha256(_) => rsa::Pkcs1v15Sign::new::<Sha256>(),
        Hashed::Sha384(_) => rsa::Pkcs1v15Sign::new::<Sha384>(),
        Hashed::Sha512(_) => rsa::Pkcs1v15Sign::new::<Sha512>(),
    };
    scheme.verify(&key, hashed.bytes(), signature).ok()
}

macro_rules! ecdsa {
    ($($curve:ident)*) => {$(
        fn $curve(point: &[u8], digest: &[u8], signature: &[u8]) -> Option<()> {
            let key = ::$curve::ecdsa::VerifyingKey::from_sec1_bytes(point).ok()?;
            let signature = ::$curve::ecdsa::Signature::from_der(signature).ok()?;
            key.verify_prehash(digest, &signature).ok()
        }
    )*};
}

ecdsa! { p256 p384 p521 }
