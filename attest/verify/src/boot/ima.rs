//! The kernel's measurement list (`binary_runtime_measurements`), replayed to a quoted register.
//!
//! Linux, `security/integrity/ima`: `ima_fs.c` (`ima_measurements_show`) writes the list;
//! `ima_crypto.c` (`ima_calc_field_array_hash`, since 5.8) hashes the template data for each
//! bank; `ima_queue.c` (`ima_init_digests`) extends all ones for a violation.

use crate::wire::{Reader, WireError};
use merestone_evidence::{Digest, sha256};

/// Bytes of a list.
const MAX_LIST: usize = 64 << 20;
/// Entries of a list.
const MAX_ENTRIES: usize = 1 << 19;
/// Longest template name (`IMA_TEMPLATE_NAME_FMT_LEN_MAX` is 15).
const MAX_NAME: usize = 15;
/// Bytes of one entry's template data.
const MAX_DATA: usize = 1 << 20;
/// The template whose data has no length of its own.
const OLD_TEMPLATE: &[u8] = b"ima";
/// File name field of the old template (`IMA_EVENT_NAME_LEN_MAX` and its zero).
const OLD_NAME: usize = 256;
/// The register that the kernel extends (`CONFIG_IMA_MEASURE_PCR_IDX`).
pub(super) const REGISTER: u8 = 10;

/// Why an IMA list is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ImaError {
    /// Not the form of a list.
    #[error("entry {entry}: {source}")]
    Form {
        /// Which entry, from 0.
        entry: usize,
        /// What is wrong.
        source: WireError,
    },
    /// More than a list may have.
    #[error("{got} {what} where at most {limit} are allowed")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much.
        got: usize,
        /// How much may be.
        limit: usize,
    },
    /// An entry for another register.
    #[error("entry {entry} is for register {got}, not {REGISTER}")]
    Register {
        /// Which entry.
        entry: usize,
        /// The register.
        got: u32,
    },
    /// No beginning of the list leads to the quoted value.
    #[error("no beginning of its {entries} entries leads to the quoted value {want}")]
    Replay {
        /// Entries.
        entries: usize,
        /// The quoted value.
        want: Digest,
    },
}

/// How much of a list a quote covers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Covered {
    /// Entries up to the quoted value.
    pub quoted: usize,
    /// Entries after it: nobody vouches for them, and nothing may be concluded from them (N20).
    pub after: usize,
}

/// Replays a list until the register has the quoted value.
pub fn replay(bytes: &[u8], want: &Digest) -> Result<Covered, ImaError> {
    let got = bytes.len();
    if got > MAX_LIST {
        return Err(ImaError::TooMuch {
            what: "bytes",
            got,
            limit: MAX_LIST,
        });
    }
    let mut reader = Reader::new(bytes);
    let mut value = Digest::ZERO;
    let mut quoted = (value == *want).then_some(0);
    let mut entries = 0;
    while !reader.is_empty() {
        if entries >= MAX_ENTRIES {
            let got = entries + 1;
            return Err(ImaError::TooMuch {
                what: "entries",
                got,
                limit: MAX_ENTRIES,
            });
        }
        value = value.extended(&entry(&mut reader, entries)?);
        entries += 1;
        if value == *want {
            quoted = Some(entries);
        }
    }
    let quoted = quoted.ok_or(ImaError::Replay {
        entries,
        want: *want,
    })?;
    Ok(Covered {
        quoted,
        after: entries - quoted,
    })
}

/// What one entry extends.
fn entry(reader: &mut Reader<'_>, entry: usize) -> Result<Digest, ImaError> {
    let form = |source| ImaError::Form { entry, source };
    let register = reader.u32_le().map_err(form)?;
    if register != u32::from(REGISTER) {
        return Err(ImaError::Register {
            entry,
            got: register,
        });
    }
    let sha1: [u8; 20] = reader.array().map_err(form)?;
    let name = reader
        .sized_le("template name length", MAX_NAME)
        .map_err(form)?;
    let hashed = if name == OLD_TEMPLATE {
        old(reader)
    } else {
        new(reader)
    }
    .map_err(form)?;
    if sha1 == [0; 20] {
        Ok(Digest([0xff; 32]))
    } else {
        Ok(hashed)
    }
}

fn new(reader: &mut Reader<'_>) -> Result<Digest, WireError> {
    Ok(sha256(reader.sized_le("template data length", MAX_DATA)?))
}

/// The old template hashes its file name padded with zeros to a fixed width.
fn old(reader: &mut Reader<'_>) -> Result<Digest, WireError> {
    let mut data = reader.take(20)?.to_vec();
    let name = reader.sized_le("file name length", OLD_NAME)?;
    data.extend(name);
    data.resize(20 + OLD_NAME, 0);
    Ok(sha256(&data))
}
