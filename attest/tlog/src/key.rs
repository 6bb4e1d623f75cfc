//! Keys of notes: the text form others pin, and the one a signer keeps.

use base64ct::{Base64, Encoding as _};
use core::fmt;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use merestone_evidence::sha256;

use crate::note::NoteSignature;

/// Longest name of a key; the specification sets no limit, a file has to.
const MAX_NAME: usize = 255;
const PRIVATE: &str = "PRIVATE+KEY+";

/// What a key signs.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Algorithm {
    /// The text of a note: a log's own signature.
    Ed25519,
    /// The text of a checkpoint with the time it was seen: a witness's.
    Cosignature,
}

impl Algorithm {
    const fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::Cosignature => 0x04,
        }
    }

    const fn of(byte: u8) -> Option<Self> {
        match byte {
            0x01 => Some(Self::Ed25519),
            0x04 => Some(Self::Cosignature),
            _ => None,
        }
    }
}

/// Why a text is no key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyError {
    /// Not three parts joined by plus signs.
    #[error("a key is NAME+8 hexadecimal digits+base64")]
    Form,
    /// A name that no signature line can carry.
    #[error(
        "a key's name has 1 to 255 bytes and neither spaces, plus signs nor control characters"
    )]
    Name,
    /// Not Ed25519.
    #[error("the key is of type {got:#04x}; known are 0x01 (logs) and 0x04 (witnesses)")]
    Algorithm {
        /// The type byte.
        got: u8,
    },
    /// Not a point, or one of small order.
    #[error("the key is no Ed25519 key")]
    Point,
    /// The digits belong to another key.
    #[error("the key's id is {got:08x}, its name and bytes give {want:08x}")]
    Id {
        /// In the text.
        got: u32,
        /// Computed.
        want: u32,
    },
}

/// Whether a signature line can carry this name.
#[must_use]
pub fn is_key_name(name: &str) -> bool {
    let is_odd =
        |character: char| character.is_whitespace() || character.is_control() || character == '+';
    !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(is_odd)
}

fn id_of(name: &str, algorithm: Algorithm, key: &[u8; 32]) -> [u8; 4] {
    let mut bytes = Vec::with_capacity(name.len() + 34);
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(b'\n');
    bytes.push(algorithm.byte());
    bytes.extend_from_slice(key);
    let [first, second, third, fourth, ..] = sha256(&bytes).0;
    [first, second, third, fourth]
}

type Parts<'t> = (&'t str, [u8; 4], Algorithm, [u8; 32]);

/// `name`, id, and algorithm with 32 bytes, of a text without its prefix.
fn parts(text: &str) -> Result<Parts<'_>, KeyError> {
    let (name, rest) = text.split_once('+').ok_or(KeyError::Form)?;
    let (digits, data) = rest.split_once('+').ok_or(KeyError::Form)?;
    if !is_key_name(name) {
        return Err(KeyError::Name);
    }
    let mut id = [0; 4];
    let is_lower = digits.len() == 8 && !digits.bytes().any(|digit| digit.is_ascii_uppercase());
    if !is_lower || hex::decode_to_slice(digits, &mut id).is_err() {
        return Err(KeyError::Form);
    }
    let data = Base64::decode_vec(data).map_err(|_base64| KeyError::Form)?;
    let (&byte, key) = data.split_first().ok_or(KeyError::Form)?;
    let algorithm = Algorithm::of(byte).ok_or(KeyError::Algorithm { got: byte })?;
    let key = key.try_into().map_err(|_length| KeyError::Point)?;
    Ok((name, id, algorithm, key))
}

fn same_id(got: [u8; 4], want: [u8; 4]) -> Result<(), KeyError> {
    if got == want {
        return Ok(());
    }
    Err(KeyError::Id {
        got: u32::from_be_bytes(got),
        want: u32::from_be_bytes(want),
    })
}

/// A key that is believed: a *vkey*.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    algorithm: Algorithm,
    key: VerifyingKey,
}

impl VerifierKey {
    /// Reads `NAME+ID+BASE64`.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, id, algorithm, bytes) = parts(text)?;
        same_id(id, id_of(name, algorithm, &bytes))?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_point| KeyError::Point)?;
        // One of small order verifies what nobody signed.
        if key.is_weak() {
            return Err(KeyError::Point);
        }
        Ok(Self {
            name: name.to_owned(),
            id,
            algorithm,
            key,
        })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id that its signatures begin with.
    #[must_use]
    pub const fn id(&self) -> [u8; 4] {
        self.id
    }

    /// What it signs.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether both are the same key, whatever they are called.
    #[must_use]
    pub fn is_same_key(&self, other: &Self) -> bool {
        self.key == other.key
    }

    /// Whether a signature line claims to be by this key.
    pub(crate) fn claims(&self, signature: &NoteSignature) -> bool {
        signature.name == self.name && signature.id == self.id
    }

    /// Whether this key signed the text so; with a cosignature, its time in seconds.
    pub(crate) fn check(&self, text: &str, bytes: &[u8]) -> Option<u64> {
        let (time, message, signature) = match self.algorithm {
            Algorithm::Ed25519 => (0, text.as_bytes().to_vec(), bytes),
            Algorithm::Cosignature => {
                let (time, signature) = bytes.split_first_chunk::<8>()?;
                let time = u64::from_be_bytes(*time);
                i64::try_from(time).ok()?;
                (time, cosigned(text, time), signature)
            }
        };
        let signature = ed25519_dalek::Signature::from_slice(signature).ok()?;
        self.key.verify_strict(&message, &signature).ok()?;
        Some(time)
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut data = vec![self.algorithm.byte()];
        data.extend_from_slice(self.key.as_bytes());
        let (id, data) = (hex::encode(self.id), Base64::encode_string(&data));
        write!(f, "{}+{id}+{data}", self.name)
    }
}

/// What a witness signs (tlog-cosignature, "Ed25519 signed message").
fn cosigned(text: &str, time_s: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {time_s}\n{text}").into_bytes()
}

/// A private key with its name.
#[derive(Clone)]
pub struct Signer {
    name: String,
    algorithm: Algorithm,
    key: SigningKey,
}

impl Signer {
    /// A key of 32 random bytes.
    pub fn from_seed(name: &str, algorithm: Algorithm, seed: &[u8; 32]) -> Result<Self, KeyError> {
        if !is_key_name(name) {
            return Err(KeyError::Name);
        }
        Ok(Self {
            name: name.to_owned(),
            algorithm,
            key: SigningKey::from_bytes(seed),
        })
    }

    /// Reads `PRIVATE+KEY+NAME+ID+BASE64`, as Go's sumdb note writes it.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.strip_prefix(PRIVATE).ok_or(KeyError::Form)?;
        let (name, id, algorithm, seed) = parts(text)?;
        let signer = Self::from_seed(name, algorithm, &seed)?;
        same_id(id, signer.verifier().id)?;
        Ok(signer)
    }

    /// What [`Self::parse`] reads. Whoever has it can sign.
    #[must_use]
    pub fn secret(&self) -> String {
        let mut data = vec![self.algorithm.byte()];
        data.extend_from_slice(self.key.as_bytes());
        let (id, data) = (
            hex::encode(self.verifier().id),
            Base64::encode_string(&data),
        );
        format!("{PRIVATE}{}+{id}+{data}", self.name)
    }

    /// The key that others pin.
    #[must_use]
    pub fn verifier(&self) -> VerifierKey {
        let key = self.key.verifying_key();
        VerifierKey {
            name: self.name.clone(),
            id: id_of(&self.name, self.algorithm, key.as_bytes()),
            algorithm: self.algorithm,
            key,
        }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Signs the text of a note; `time_s` goes into a cosignature alone.
    #[must_use]
    pub fn sign(&self, text: &str, time_s: u64) -> NoteSignature {
        let bytes = match self.algorithm {
            Algorithm::Ed25519 => self.key.sign(text.as_bytes()).to_bytes().to_vec(),
            Algorithm::Cosignature => {
                let signature = self.key.sign(&cosigned(text, time_s)).to_bytes();
                [&time_s.to_be_bytes()[..], &signature[..]].concat()
            }
        };
        NoteSignature {
            name: self.name.clone(),
            id: self.verifier().id,
            bytes,
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
