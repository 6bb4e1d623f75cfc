//! Tokens of Google's metadata server: RS256 by a key of a pinned set, nothing else (N34, N36).

use base64ct::{Base64UrlUnpadded, Encoding as _};
use rsa::traits::SignatureScheme as _;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// Longest token.
const MOST_BYTES: usize = 16 << 10;
/// Shortest modulus.
const LEAST_RSA_BYTES: usize = 256;

/// One key of a set.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub(crate) struct Key {
    kty: String,
    kid: String,
    n: String,
    e: String,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
    #[serde(default)]
    crit: Option<serde_json::Value>,
}

/// What a token claims.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) aud: String,
    pub(super) iat: u64,
    pub(super) exp: u64,
    pub(super) google: Google,
}

#[derive(Debug, Deserialize)]
pub(super) struct Google {
    pub(super) compute_engine: Engine,
}

#[derive(Debug, Deserialize)]
pub(super) struct Engine {
    pub(super) instance_id: String,
    pub(super) zone: String,
}

/// Reads a set of keys (RFC 7517).
pub(super) fn keys(bytes: &[u8]) -> Result<Vec<Key>, String> {
    let set: Set = serde_json::from_slice(bytes).map_err(|error| format!("no key set: {error}"))?;
    if set.keys.is_empty() {
        return Err("a key set without keys".to_owned());
    }
    for key in &set.keys {
        if public(key).is_none() {
            return Err(format!(
                "key {:?} is no RSA key of 2048 bits or more",
                key.kid
            ));
        }
    }
    Ok(set.keys)
}

fn public(key: &Key) -> Option<rsa::RsaPublicKey> {
    let modulus = Base64UrlUnpadded::decode_vec(&key.n).ok()?;
    let exponent = Base64UrlUnpadded::decode_vec(&key.e).ok()?;
    let exponent = exponent.iter().try_fold(0_u32, |sum, digit| {
        Some(sum.checked_mul(256)? | u32::from(*digit))
    })?;
    if key.kty != "RSA" || modulus.len() < LEAST_RSA_BYTES {
        return None;
    }
    let modulus = rsa::BoxedUint::from_be_slice_vartime(&modulus);
    rsa::RsaPublicKey::new(modulus, rsa::BoxedUint::from(exponent)).ok()
}

/// The claims of a token that a pinned key signed; they are not read before.
pub(super) fn open(token: &[u8], keys: &[Key]) -> Result<Claims, String> {
    let text = core::str::from_utf8(token).map_err(|_utf8| "not a token")?;
    let text = text.trim();
    let parts: Vec<&str> = text.split('.').collect();
    let ([header, payload, signature], true) = (parts.as_slice(), text.len() <= MOST_BYTES) else {
        return Err("not a token of three parts".to_owned());
    };
    let decode = |part: &str| {
        Base64UrlUnpadded::decode_vec(part).map_err(|_base64| "not base64url".to_owned())
    };
    let header: Header =
        serde_json::from_slice(&decode(header)?).map_err(|error| format!("its header: {error}"))?;
    if header.alg != "RS256" || header.crit.is_some() {
        return Err(format!("its algorithm is {:?}, want RS256", header.alg));
    }
    let key = keys.iter().find(|key| key.kid == header.kid);
    let key = key.ok_or_else(|| format!("key {:?} is not pinned", header.kid))?;
    let key = public(key).ok_or("its key is no RSA key")?;
    let signed = text.rsplit_once('.').map_or(text, |(signed, _)| signed);
    rsa::Pkcs1v15Sign::new::<Sha256>()
        .verify(&key, &Sha256::digest(signed), &decode(signature)?)
        .map_err(|_mismatch| "its signature does not hold")?;
    serde_json::from_slice(&decode(payload)?).map_err(|error| format!("its claims: {error}"))
}
