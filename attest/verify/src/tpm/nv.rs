//! What a TPM says of its own memory: an index's public area, and a certification of it.

use super::attest::{Header, TYPE_NV, header};
use super::{ALG_SHA256, AttestError, ClockInfo, MAX_NAME};
use crate::wire::{Reader, WireError};

/// Longest contents we look at (`MAX_NV_BUFFER_SIZE` of the PC Client profile is below).
const MAX_CONTENTS: usize = 2048;
const MAX_POLICY: usize = 64;
const COUNTER_SIZE: u16 = 8;

/// `TPMA_NV` (Part 2, 13.4), by bit.
const AUTHWRITE: u32 = 1 << 2;
const WRITELOCKED: u32 = 1 << 11;
const WRITEDEFINE: u32 = 1 << 13;
const ORDERLY: u32 = 1 << 26;
const CLEAR_STCLEAR: u32 = 1 << 27;
const WRITTEN: u32 = 1 << 29;
const NAMES: [(u32, &str); 9] = [
    (1, "ppwrite"),
    (1 << 1, "ownerwrite"),
    (AUTHWRITE, "authwrite"),
    (1 << 3, "policywrite"),
    (WRITELOCKED, "writelocked"),
    (WRITEDEFINE, "writedefine"),
    (ORDERLY, "orderly"),
    (CLEAR_STCLEAR, "clear_stclear"),
    (WRITTEN, "written"),
];
/// Write by the platform, the owner, or a policy.
const OTHER_WRITERS: u32 = 1 | 1 << 1 | 1 << 3;
/// `TPM_NT`.
const TYPE: u32 = 0xf0;
const TYPE_COUNTER: u32 = 0x10;

/// Why a public area cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NvPublicError {
    /// Not the form of one.
    #[error("TPMS_NV_PUBLIC: {0}")]
    Form(#[from] WireError),
    /// An index that others can write, or that is not what it is used as.
    #[error("nv index {index:#010x} cannot be {used}: {wrong}")]
    Attributes {
        /// Its handle.
        index: u32,
        /// As what.
        used: &'static str,
        /// What is wrong.
        wrong: String,
    },
}

/// What an index is used as.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NvUse {
    /// A counter that may be kept in working memory.
    Counter,
    /// A counter that is written at once.
    PlainCounter,
    /// A place, locked for good.
    Geotag,
}

/// `TPMS_NV_PUBLIC`, read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NvPublic {
    /// Its handle.
    pub index: u32,
    /// `TPMA_NV`.
    pub attributes: u32,
    /// Bytes of its contents.
    pub size: u16,
    has_policy: bool,
}

impl NvPublic {
    /// Reads a whole public area; nothing may follow it.
    pub fn parse(bytes: &[u8]) -> Result<Self, NvPublicError> {
        let mut reader = Reader::new(bytes);
        let index = reader.u32()?;
        let at = reader.at();
        let hash = reader.u16()?;
        if hash != ALG_SHA256 {
            return Err(WireError::Field {
                field: "nameAlg",
                at,
                got: hash.into(),
            }
            .into());
        }
        let attributes = reader.u32()?;
        let policy = reader.sized("authPolicy length", MAX_POLICY)?;
        let size = reader.u16()?;
        reader.end()?;
        Ok(Self {
            index,
            attributes,
            size,
            has_policy: !policy.is_empty(),
        })
    }

    /// It is kept in working memory, so a loss of power moves it forward.
    #[must_use]
    pub const fn is_orderly(&self) -> bool {
        self.attributes & ORDERLY != 0
    }

    /// Whether it can be used so: of that type, written, and with one way to write alone.
    pub fn check(&self, used: NvUse) -> Result<(), NvPublicError> {
        let (name, kind, wanted, refused) = match used {
            NvUse::Counter => (
                "a counter",
                TYPE_COUNTER,
                AUTHWRITE | WRITTEN,
                OTHER_WRITERS | CLEAR_STCLEAR,
            ),
            NvUse::PlainCounter => (
                "a counter of sessions",
                TYPE_COUNTER,
                AUTHWRITE | WRITTEN,
                OTHER_WRITERS | CLEAR_STCLEAR | ORDERLY,
            ),
            NvUse::Geotag => (
                "a geotag",
                0,
                WRITTEN | WRITELOCKED | WRITEDEFINE,
                CLEAR_STCLEAR | ORDERLY,
            ),
        };
        let mut wrong: Vec<String> = Vec::new();
        if self.attributes & TYPE != kind {
            wrong.push(format!("its type is {}", (self.attributes & TYPE) >> 4));
        }
        for (bit, name) in NAMES {
            if wanted & bit & !self.attributes != 0 {
                wrong.push(format!("not {name}"));
            }
            if refused & bit & self.attributes != 0 {
                wrong.push(name.to_owned());
            }
        }
        if self.has_policy {
            wrong.push("it has a policy".to_owned());
        }
        if kind == TYPE_COUNTER && self.size != COUNTER_SIZE {
            wrong.push(format!("{} bytes", self.size));
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(NvPublicError::Attributes {
            index: self.index,
            used: name,
            wrong: wrong.join(", "),
        })
    }
}

/// A certification of an index, read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NvAttest {
    /// Qualified Name of the key that signed it.
    pub qualified_signer: Vec<u8>,
    /// What the caller asked to be signed along.
    pub extra: Vec<u8>,
    /// The TPM's clock.
    pub clock: ClockInfo,
    /// Name of the index.
    pub name: Vec<u8>,
    /// Where in the index the contents begin.
    pub offset: u16,
    /// The contents.
    pub contents: Vec<u8>,
}

impl NvAttest {
    /// Reads a whole `TPMS_ATTEST` of type NV; nothing may follow it.
    pub fn parse(bytes: &[u8]) -> Result<Self, AttestError> {
        let mut reader = Reader::new(bytes);
        let Header {
            qualified_signer,
            extra,
            clock,
            firmware: _,
        } = header(&mut reader, TYPE_NV)?;
        let name = reader.sized("indexName length", MAX_NAME)?.to_vec();
        let offset = reader.u16()?;
        let contents = reader.sized("nvContents length", MAX_CONTENTS)?.to_vec();
        reader.end()?;
        Ok(Self {
            qualified_signer,
            extra,
            clock,
            name,
            offset,
            contents,
        })
    }
}
