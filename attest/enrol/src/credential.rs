//! `TPM2_MakeCredential` in software (TPM 2.0 Library Part 1, 24, and Annexes B.10 and C.6).
//!
//! The seed is encrypted to the endorsement key; from it and the attestation key's Name come the
//! keys that encrypt and authenticate the secret. So a TPM opens it only if it holds the
//! endorsement key, and a key of that Name is loaded beside it.

use crate::Random;
use aes::Aes128;
use cfb_mode::cipher::KeyIvInit as _;
use core::convert::Infallible;
use hmac::{Hmac, KeyInit as _, Mac as _};
use merestone_verify::ek::EkKey;
use rsa::Oaep;
use rsa::rand_core::{TryCryptoRng, TryRng};
use sha2::{Digest as _, Sha256};

/// Bytes of a SHA-256 digest, of the seed and of the secret.
const DIGEST: usize = 32;
const AES_KEY: usize = 16;
const AES_BITS: u32 = 128;
const DIGEST_BITS: u32 = 256;
/// How often a random scalar may be out of range: once is already beyond belief.
const TRIES: usize = 8;

/// Why nothing was sealed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CredentialError {
    /// The endorsement key is no key.
    #[error("the endorsement key is not a valid key")]
    Key,
    /// The random numbers are not random.
    #[error("no usable random number in {TRIES} tries")]
    Random,
}

/// A sealed secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sealed {
    /// `TPMS_ID_OBJECT`, the contents of the `TPM2B_ID_OBJECT`.
    pub id_object: Vec<u8>,
    /// The contents of the `TPM2B_ENCRYPTED_SECRET`.
    pub encrypted_seed: Vec<u8>,
}

/// Seals `secret` for the TPM with `ek`, to be opened beside the key named `ak_name`.
///
/// Name algorithm SHA-256 and AES-128-CFB, as in the endorsement key's template: whoever calls
/// this has checked that the public area says so.
pub fn make(
    ek: &EkKey,
    ak_name: &[u8],
    secret: &[u8; DIGEST],
    random: Random<'_>,
) -> Result<Sealed, CredentialError> {
    let (seed, encrypted_seed) = match ek {
        EkKey::Rsa { modulus, exponent } => rsa_seed(modulus, *exponent, random)?,
        EkKey::P256 { x, y } => ecc_seed(x, y, random)?,
    };
    let mut key = [0; AES_KEY];
    let derived = kdf_a(&seed, "STORAGE", ak_name, AES_BITS);
    key.copy_from_slice(
        derived
            .first_chunk::<AES_KEY>()
            .ok_or(CredentialError::Key)?,
    );
    // A TPM2B_DIGEST, with a zero initialisation vector: the key is used once.
    let mut identity = [&[0, 32], secret.as_slice()].concat();
    cfb_mode::Encryptor::<Aes128>::new(&key.into(), &[0; 16].into()).encrypt(&mut identity);
    let integrity_key = kdf_a(&seed, "INTEGRITY", &[], DIGEST_BITS);
    let integrity = hmac(&integrity_key, &[&identity, ak_name]);
    Ok(Sealed {
        id_object: [[0, 32].as_slice(), &integrity, &identity].concat(),
        encrypted_seed,
    })
}

type Seed = ([u8; DIGEST], Vec<u8>);

/// Annex B.10.3: the seed is random, and encrypted with OAEP under the label `IDENTITY`, its
/// terminating zero included.
fn rsa_seed(modulus: &[u8], exponent: u32, random: Random<'_>) -> Result<Seed, CredentialError> {
    let mut seed = [0; DIGEST];
    random(&mut seed);
    let modulus = rsa::BoxedUint::from_be_slice_vartime(modulus);
    let key = rsa::RsaPublicKey::new(modulus, rsa::BoxedUint::from(exponent))
        .map_err(|_invalid| CredentialError::Key)?;
    let padding = Oaep::<Sha256>::new_with_label(b"IDENTITY\0".as_slice());
    let encrypted = key
        .encrypt(&mut Source(random), padding, &seed)
        .map_err(|_invalid| CredentialError::Key)?;
    Ok((seed, encrypted))
}

/// Annex C.6.3: one-pass Diffie-Hellman, `KDFe` over the shared x coordinate.
fn ecc_seed(x: &[u8; 32], y: &[u8; 32], random: Random<'_>) -> Result<Seed, CredentialError> {
    let point = [[4].as_slice(), x, y].concat();
    let theirs =
        p256::PublicKey::from_sec1_bytes(&point).map_err(|_off_curve| CredentialError::Key)?;
    let ours = (0..TRIES)
        .find_map(|_try| {
            let mut scalar = [0; 32];
            random(&mut scalar);
            p256::SecretKey::from_slice(&scalar).ok()
        })
        .ok_or(CredentialError::Random)?;
    let shared = p256::ecdh::diffie_hellman(ours.to_nonzero_scalar(), theirs.as_affine());
    let point = p256::ecdsa::VerifyingKey::from(ours.public_key()).to_sec1_point(false);
    let (own_x, own_y) = point
        .as_bytes()
        .get(1..)
        .and_then(|both| both.split_at_checked(32))
        .ok_or(CredentialError::Key)?;
    let seed = kdf_e(shared.raw_secret_bytes(), "IDENTITY", own_x, x);
    // TPMS_ECC_POINT.
    let encrypted = [[0, 32].as_slice(), own_x, &[0, 32], own_y].concat();
    Ok((seed, encrypted))
}

/// Part 1, 11.4.10.2: one block, since no more than a digest's worth is ever asked for.
fn kdf_a(key: &[u8], label: &str, context: &[u8], bits: u32) -> [u8; DIGEST] {
    let counter = 1_u32.to_be_bytes();
    let parts = [
        counter.as_slice(),
        label.as_bytes(),
        &[0],
        context,
        &bits.to_be_bytes(),
    ];
    hmac(key, &parts)
}

/// Part 1, 11.4.10.3: one block.
fn kdf_e(shared: &[u8], label: &str, ours: &[u8], theirs: &[u8]) -> [u8; DIGEST] {
    let mut hash = Sha256::new();
    hash.update(1_u32.to_be_bytes());
    hash.update(shared);
    hash.update(label.as_bytes());
    hash.update([0]);
    hash.update(ours);
    hash.update(theirs);
    hash.finalize().into()
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; DIGEST] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        // HMAC takes a key of any length.
        return [0; DIGEST];
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// The caller's random numbers as a library wants them.
struct Source<'r>(Random<'r>);

impl TryRng for Source<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        (self.0)(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        (self.0)(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        (self.0)(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Source<'_> {}
