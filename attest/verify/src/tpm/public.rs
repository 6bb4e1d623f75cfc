//! `TPMT_PUBLIC`: an attestation key's public area, and the Name that stands for it.

use super::{ALG_ECDSA, ALG_NULL, ALG_RSASSA, ALG_SHA256, RH_ENDORSEMENT};
use crate::wire::{Reader, WireError};
use core::fmt;
use merestone_evidence::sha256;

const TYPE_RSA: u16 = 0x0001;
const TYPE_ECC: u16 = 0x0023;
const CURVE_P256: u16 = 0x0003;
const RSA_BITS: u16 = 2048;
/// What exponent 0 stands for (Part 2, 12.2.3.5).
const DEFAULT_EXPONENT: u32 = 65_537;
const MAX_POLICY: usize = 64;
const MAX_COORDINATE: usize = 32;
const MAX_MODULUS: usize = 256;

/// Why a public area cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PublicError {
    /// A kind of key that this verifier does not know.
    #[error(
        "{what} {got:#06x} is not supported: use an ecc p-256 ecdsa or an rsa-2048 rsassa key, both with sha-256"
    )]
    Unsupported {
        /// Which property.
        what: &'static str,
        /// Its value.
        got: u64,
    },
    /// Not the form of a public area.
    #[error("TPMT_PUBLIC: {0}")]
    Form(#[from] WireError),
}

/// `TPMA_OBJECT`.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Attributes(pub u32);

impl Attributes {
    const NAMES: [(u32, &'static str); 6] = [
        (1 << 1, "fixedTPM"),
        (1 << 4, "fixedParent"),
        (1 << 5, "sensitiveDataOrigin"),
        (1 << 16, "restricted"),
        (1 << 17, "decrypt"),
        (1 << 18, "sign"),
    ];
    /// Must be set: made in this TPM, can never leave it, signs only what the TPM itself says.
    const WANTED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 18;
    /// Must not be set.
    const REFUSED: u32 = 1 << 17;

    /// Names of the attributes that are not as an attestation key's must be.
    #[must_use]
    pub fn faults(self) -> Vec<&'static str> {
        let wrong = (self.0 & Self::WANTED ^ Self::WANTED) | self.0 & Self::REFUSED;
        let wrong = Self::NAMES.iter().filter(|(bit, _)| wrong & bit != 0);
        wrong.map(|(_, name)| *name).collect()
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// The key itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeyMaterial {
    /// ECDSA over P-256 with SHA-256.
    P256 {
        /// X coordinate, big-endian, padded.
        x: [u8; 32],
        /// Y coordinate, big-endian, padded.
        y: [u8; 32],
    },
    /// RSASSA-PKCS1-v1_5 with a 2048-bit modulus and SHA-256.
    Rsa2048 {
        /// Modulus, big-endian.
        modulus: Vec<u8>,
        /// Public exponent.
        exponent: u32,
    },
}

/// A public area, read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Public {
    /// Attributes.
    pub attributes: Attributes,
    /// The key.
    pub key: KeyMaterial,
}

impl Public {
    /// The Name of a public area given as bytes: it needs no parsing, so it comes first.
    #[must_use]
    pub fn name_of(bytes: &[u8]) -> Vec<u8> {
        [ALG_SHA256.to_be_bytes().as_slice(), &sha256(bytes).0].concat()
    }

    /// The Qualified Name a primary key of this Name has under the endorsement hierarchy
    /// (Part 1, 16: Qualified Name).
    #[must_use]
    pub fn endorsement_primary(name: &[u8]) -> Vec<u8> {
        let inner = [RH_ENDORSEMENT.to_be_bytes().as_slice(), name].concat();
        [ALG_SHA256.to_be_bytes().as_slice(), &sha256(&inner).0].concat()
    }

    /// Reads a whole `TPMT_PUBLIC`; nothing may follow it.
    pub fn parse(bytes: &[u8]) -> Result<Self, PublicError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u16()?;
        supported("name algorithm", reader.u16()?, ALG_SHA256)?;
        let attributes = Attributes(reader.u32()?);
        reader.sized("authPolicy length", MAX_POLICY)?;
        let key = match kind {
            TYPE_ECC => ecc(&mut reader)?,
            TYPE_RSA => rsa(&mut reader)?,
            got => {
                return Err(PublicError::Unsupported {
                    what: "key type",
                    got: got.into(),
                });
            }
        };
        reader.end()?;
        Ok(Self { attributes, key })
    }
}

fn ecc(reader: &mut Reader<'_>) -> Result<KeyMaterial, PublicError> {
    supported("symmetric algorithm", reader.u16()?, ALG_NULL)?;
    supported("signature scheme", reader.u16()?, ALG_ECDSA)?;
    supported("signature hash", reader.u16()?, ALG_SHA256)?;
    supported("curve", reader.u16()?, CURVE_P256)?;
    supported("key derivation", reader.u16()?, ALG_NULL)?;
    let x = padded(reader.sized("x length", MAX_COORDINATE)?);
    let y = padded(reader.sized("y length", MAX_COORDINATE)?);
    Ok(KeyMaterial::P256 { x, y })
}

fn rsa(reader: &mut Reader<'_>) -> Result<KeyMaterial, PublicError> {
    supported("symmetric algorithm", reader.u16()?, ALG_NULL)?;
    supported("signature scheme", reader.u16()?, ALG_RSASSA)?;
    supported("signature hash", reader.u16()?, ALG_SHA256)?;
    supported("key bits", reader.u16()?, RSA_BITS)?;
    let exponent = match reader.u32()? {
        0 => DEFAULT_EXPONENT,
        other => other,
    };
    supported("exponent", exponent, DEFAULT_EXPONENT)?;
    let modulus = reader.sized("modulus length", MAX_MODULUS)?.to_vec();
    Ok(KeyMaterial::Rsa2048 { modulus, exponent })
}

fn supported<T: Copy + Into<u64>>(what: &'static str, got: T, want: T) -> Result<(), PublicError> {
    if got.into() == want.into() {
        Ok(())
    } else {
        Err(PublicError::Unsupported {
            what,
            got: got.into(),
        })
    }
}

/// A big-endian number of at most 32 bytes, in 32.
pub(super) fn padded(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let from = out.len().saturating_sub(bytes.len());
    for (slot, byte) in out.iter_mut().skip(from).zip(bytes) {
        *slot = *byte;
    }
    out
}
