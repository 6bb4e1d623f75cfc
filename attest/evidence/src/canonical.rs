//! The one encoder and the one decoder.

use crate::shape::{self, ShapeError};
use minicbor::{Decode, Encode};

/// What an object of a kind may cost before anything of it is decoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Bytes of its encoding.
    pub bytes: usize,
    /// Levels of arrays and maps.
    pub depth: usize,
}

/// A type with one canonical encoding and a size limit.
pub trait Record: Sized {
    /// The limits of the kind.
    const LIMITS: Limits;
    /// The string at key 0.
    const KIND: &'static str;
}

/// Why bytes are not the encoding of a value of the wanted kind.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Too big, too deep, or not deterministic CBOR.
    #[error("not a well formed {kind}: {source}")]
    Shape {
        /// The kind that was wanted.
        kind: &'static str,
        /// What is wrong.
        source: ShapeError,
    },
    /// Well formed, but not this kind of object.
    #[error("not a {kind}: {detail}")]
    Content {
        /// The kind that was wanted.
        kind: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// Decodes, but is not what an encoder writes: unknown or repeated keys, keys out of order.
    #[error("a {kind} that no encoder writes: it differs from its canonical form at byte {at}")]
    NotCanonical {
        /// The kind that was wanted.
        kind: &'static str,
        /// First byte that differs.
        at: usize,
    },
    /// The bytes could not be had.
    #[error("cannot be read at byte {at}: {detail}")]
    Unreadable {
        /// Where.
        at: u64,
        /// Why.
        detail: String,
    },
}

impl DecodeError {
    /// The same of a file in which everything behind byte `from` stands `by` bytes further on.
    pub(crate) fn moved(self, from: usize, by: usize) -> Self {
        match self {
            Self::Shape { kind, source } => Self::Shape {
                kind,
                source: source.moved(from, by),
            },
            Self::NotCanonical { kind, at } if at > from => Self::NotCanonical {
                kind,
                at: at.saturating_add(by),
            },
            other => other,
        }
    }
}

/// The canonical bytes of a value: what is hashed, quoted and carried.
pub fn encode<T: Record + Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to a Vec cannot fail and no type here has a failing encoder.
    if let Err(never) = minicbor::encode(value, &mut bytes) {
        debug_assert!(false, "{never}");
        bytes.clear();
    }
    bytes
}

/// Decodes the canonical bytes of a value; any other bytes are refused.
pub fn decode<'b, T>(bytes: &'b [u8]) -> Result<T, DecodeError>
where
    T: Record + Decode<'b, ()> + Encode<()>,
{
    let kind = T::KIND;
    let limit = T::LIMITS.bytes;
    if bytes.len() > limit {
        let source = ShapeError::TooLong {
            got: bytes.len(),
            limit,
        };
        return Err(DecodeError::Shape { kind, source });
    }
    shape::check(bytes, T::LIMITS.depth).map_err(|source| DecodeError::Shape { kind, source })?;
    let value: T = minicbor::decode(bytes).map_err(|error| DecodeError::Content {
        kind,
        detail: error.to_string(),
    })?;
    same(&value, bytes).map_err(|at| DecodeError::NotCanonical { kind, at })?;
    Ok(value)
}

/// Whether a value encodes to these bytes; the first byte that differs where not.
fn same<T: Encode<()>>(value: &T, bytes: &[u8]) -> Result<(), usize> {
    let mut against = Against { bytes, at: 0 };
    let encoded = minicbor::encode(value, &mut against);
    if encoded.is_ok() && against.at == bytes.len() {
        return Ok(());
    }
    Err(against.at)
}

/// Compares what is written instead of keeping it: no second copy of anything.
struct Against<'b> {
    bytes: &'b [u8],
    at: usize,
}

/// What was written is not what was read.
#[derive(Debug)]
struct Differs;

impl minicbor::encode::Write for &mut Against<'_> {
    type Error = Differs;

    fn write_all(&mut self, written: &[u8]) -> Result<(), Differs> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.starts_with(written) {
            self.at += written.len();
            return Ok(());
        }
        self.at += written.iter().zip(rest).take_while(|(a, b)| a == b).count();
        Err(Differs)
    }
}
