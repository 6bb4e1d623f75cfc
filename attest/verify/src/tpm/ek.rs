//! `TPMT_PUBLIC` of an endorsement key: what a secret can be sealed to.

use super::{ALG_NULL, ALG_SHA256, Attributes};
use crate::ek::EkKey;
use crate::wire::{Reader, WireError};

const TYPE_RSA: u16 = 0x0001;
const TYPE_ECC: u16 = 0x0023;
const ALG_AES: u16 = 0x0006;
const ALG_CFB: u16 = 0x0043;
const AES_BITS: u16 = 128;
const CURVE_P256: u16 = 0x0003;
const RSA_BITS: u16 = 2048;
const DEFAULT_EXPONENT: u32 = 65_537;
const MAX_POLICY: usize = 64;
const MAX_COORDINATE: usize = 32;
const MAX_MODULUS: usize = 256;

/// Made in this TPM, can never leave it, decrypts only what the TPM itself asks for.
const WANTED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 17;
/// It must not sign.
const REFUSED: u32 = 1 << 18;

/// Why an endorsement key's public area cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EkPublicError {
    /// A kind of key that is not known here.
    #[error(
        "{what} {got:#06x} is not supported: use the endorsement key of the rsa-2048 or ecc p-256 template (sha-256, aes-128-cfb)"
    )]
    Unsupported {
        /// Which property.
        what: &'static str,
        /// Its value.
        got: u64,
    },
    /// Not an endorsement key.
    #[error("the endorsement key's attributes {got:?} are not those of one")]
    Attributes {
        /// Its attributes.
        got: Attributes,
    },
    /// Not the form of a public area.
    #[error("TPMT_PUBLIC of the endorsement key: {0}")]
    Form(#[from] WireError),
}

/// An endorsement key's public area of the low-range templates L-1 and L-2 (TCG EK Credential
/// Profile, B.3.3 and B.3.4).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EkPublic {
    /// The key.
    pub key: EkKey,
}

impl EkPublic {
    /// Reads a whole `TPMT_PUBLIC`; nothing may follow it.
    pub fn parse(bytes: &[u8]) -> Result<Self, EkPublicError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u16()?;
        supported("name algorithm", reader.u16()?, ALG_SHA256)?;
        let attributes = Attributes(reader.u32()?);
        if attributes.0 & WANTED != WANTED || attributes.0 & REFUSED != 0 {
            return Err(EkPublicError::Attributes { got: attributes });
        }
        reader.sized("authPolicy length", MAX_POLICY)?;
        if !matches!(kind, TYPE_RSA | TYPE_ECC) {
            return Err(EkPublicError::Unsupported {
                what: "key type",
                got: kind.into(),
            });
        }
        supported("symmetric algorithm", reader.u16()?, ALG_AES)?;
        supported("symmetric bits", reader.u16()?, AES_BITS)?;
        supported("symmetric mode", reader.u16()?, ALG_CFB)?;
        supported("scheme", reader.u16()?, ALG_NULL)?;
        let key = if kind == TYPE_RSA {
            supported("key bits", reader.u16()?, RSA_BITS)?;
            let exponent = match reader.u32()? {
                0 => DEFAULT_EXPONENT,
                other => other,
            };
            supported("exponent", exponent, DEFAULT_EXPONENT)?;
            let modulus = reader.sized("modulus length", MAX_MODULUS)?.to_vec();
            EkKey::Rsa { modulus, exponent }
        } else {
            supported("curve", reader.u16()?, CURVE_P256)?;
            supported("key derivation", reader.u16()?, ALG_NULL)?;
            let x = super::public::padded(reader.sized("x length", MAX_COORDINATE)?);
            let y = super::public::padded(reader.sized("y length", MAX_COORDINATE)?);
            EkKey::P256 { x, y }
        };
        reader.end()?;
        Ok(Self { key })
    }
}

fn supported<T: Copy + Into<u64>>(
    what: &'static str,
    got: T,
    want: T,
) -> Result<(), EkPublicError> {
    if got.into() == want.into() {
        Ok(())
    } else {
        let got = got.into();
        Err(EkPublicError::Unsupported { what, got })
    }
}
