//! Keys: the pinned ones of signers, and a signer's own.
//!
//! A public key is a PEM file (`SubjectPublicKeyInfo`, as OpenSSL writes it) or
//! `ed25519:` and the 32 bytes in base64. A private key is a PEM file
//! (PKCS #8, not encrypted). Keys of small order are refused: a signature by
//! such a key can hold for more than one message.

use super::SignedError;
use base64ct::{Base64, Encoding as _};
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _,
};
use ed25519_dalek::{SigningKey, VerifyingKey};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest as _, Sha256};
use std::io::Read as _;
use std::path::Path;

/// How a key written out in the configuration begins.
const INLINE: &str = "ed25519:";

/// Largest key file.
const LIMIT_BYTES: u64 = 16 << 10;

/// The keys whose signatures count.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Signers(Vec<([u8; 32], VerifyingKey)>);

/// A key's id: the SHA-256 of its 32 bytes.
#[must_use]
pub fn key_id(key: &VerifyingKey) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

impl Signers {
    /// Reads the keys of a `signers` list: paths of PEM files, or
    /// `ed25519:BASE64`.
    pub fn load<S: AsRef<str>>(names: &[S]) -> Result<Self, SignedError> {
        let mut keys = Vec::new();
        for name in names {
            let key = public_key(name.as_ref())?;
            if !keys.iter().any(|(_, known)| *known == key) {
                keys.push((key_id(&key), key));
            }
        }
        Ok(Self(keys))
    }

    /// Whether nobody is pinned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ids of the keys, in the order they were given.
    pub fn ids(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.0.iter().map(|(id, _)| id)
    }

    pub(super) fn key(&self, id: &[u8; 32]) -> Option<&VerifyingKey> {
        self.0.iter().find(|(own, _)| own == id).map(|(_, key)| key)
    }
}

/// One public key: `ed25519:BASE64`, or the path of a PEM file.
pub fn public_key(name: &str) -> Result<VerifyingKey, SignedError> {
    let refused = |detail: String| SignedError::Key {
        name: name.to_owned(),
        detail,
    };
    let key = if let Some(text) = name.strip_prefix(INLINE) {
        let mut bytes = [0; 32];
        let length = Base64::decode(text, &mut bytes)
            .map_err(|error| refused(error.to_string()))?
            .len();
        if length != bytes.len() {
            return Err(refused(format!("is {length} bytes, expected 32")));
        }
        VerifyingKey::from_bytes(&bytes).map_err(|error| refused(error.to_string()))?
    } else {
        let text = pem(Path::new(name)).map_err(|error| refused(error.to_string()))?;
        VerifyingKey::from_public_key_pem(&text)
            .map_err(|error| refused(format!("not the PEM of an Ed25519 public key: {error}")))?
    };
    if key.is_weak() {
        return Err(refused("is a key of small order".to_owned()));
    }
    Ok(key)
}

/// A signer's private key, from its PEM file.
pub fn signing_key(path: &Path) -> Result<SigningKey, SignedError> {
    let refused = |detail: String| SignedError::Key {
        name: path.display().to_string(),
        detail,
    };
    let text = pem(path).map_err(|error| refused(error.to_string()))?;
    SigningKey::from_pkcs8_pem(&text)
        .map_err(|error| refused(format!("not the PEM of an Ed25519 private key: {error}")))
}

fn pem(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(LIMIT_BYTES)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// A new key: the private PEM, the public PEM and the public key as a
/// configuration names it.
pub fn generate() -> Result<(String, String, String), SignedError> {
    let refused = |detail: String| SignedError::Key {
        name: "new key".to_owned(),
        detail,
    };
    let mut seed = [0; 32];
    let got = getrandom(&mut seed, GetRandomFlags::empty())
        .map_err(|error| refused(format!("no randomness: {error}")))?;
    if got != seed.len() {
        return Err(refused(format!("{got} random bytes, expected 32")));
    }
    let key = SigningKey::from_bytes(&seed);
    let private = key
        .to_pkcs8_pem(LineEnding::LF)
        .map_err(|error| refused(error.to_string()))?;
    let public = key
        .verifying_key()
        .to_public_key_pem(LineEnding::LF)
        .map_err(|error| refused(error.to_string()))?;
    let inline = format!(
        "{INLINE}{}",
        Base64::encode_string(key.verifying_key().as_bytes())
    );
    Ok((private.to_string(), public, inline))
}
