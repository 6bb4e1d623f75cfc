//! `TPMS_ATTEST` of type quote: what the attestation key signed.

use super::{ALG_SHA256, MAX_NAME};
use crate::wire::{Reader, WireError};
use merestone_evidence::Digest;
use std::collections::BTreeSet;

/// `TPM_GENERATED_VALUE`: a restricted key signs nothing else that begins with it.
const MAGIC: u32 = 0xff54_4347;
/// `TPM_ST_ATTEST_QUOTE`.
const TYPE_QUOTE: u16 = 0x8018;
/// `TPM_ST_ATTEST_NV`.
pub(super) const TYPE_NV: u16 = 0x8014;
/// Longest `TPM2B_DATA` we look at.
const MAX_EXTRA: usize = 66;
/// Bytes of the selection bit map: registers 0 to 31.
const MAX_SELECT: u8 = 4;

/// Why bytes are not a quote that can be judged.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AttestError {
    /// Not made by a TPM: a restricted key never signs such a structure.
    #[error("magic is {got:#010x}, not {MAGIC:#010x}: no tpm generated this")]
    Magic {
        /// The value.
        got: u32,
    },
    /// Another kind of attestation.
    #[error("attestation type is {got:#06x}, not {}", kind(*.want))]
    Type {
        /// The value.
        got: u16,
        /// The type that belongs there.
        want: u16,
    },
    /// Not one bank, or not the SHA-256 bank.
    #[error("the quote selects {got}, not the sha-256 bank alone")]
    Bank {
        /// What it selects.
        got: String,
    },
    /// Not the form of a quote.
    #[error("TPMS_ATTEST: {0}")]
    Form(#[from] WireError),
}

/// `TPMS_CLOCK_INFO`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClockInfo {
    /// Milliseconds the TPM has been powered in its life.
    pub clock_ms: u64,
    /// TPM resets since the TPM was cleared.
    pub resets: u32,
    /// Restarts and resumes since the reset.
    pub restarts: u32,
    /// The clock cannot have been higher before.
    pub safe: bool,
}

/// A quote's statement, read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attest {
    /// Qualified Name of the key: its Name and where it hangs.
    pub qualified_signer: Vec<u8>,
    /// What the caller asked to be signed along.
    pub extra: Vec<u8>,
    /// The TPM's clock.
    pub clock: ClockInfo,
    /// The TPM's firmware version.
    pub firmware: u64,
    /// The registers quoted, SHA-256 bank.
    pub selected: BTreeSet<u8>,
    /// Digest of their values.
    pub pcr_digest: Digest,
}

/// What every `TPMS_ATTEST` begins with.
pub(super) struct Header {
    pub(super) qualified_signer: Vec<u8>,
    pub(super) extra: Vec<u8>,
    pub(super) clock: ClockInfo,
    pub(super) firmware: u64,
}

/// Reads the beginning of an attestation of the type `want`.
pub(super) fn header(reader: &mut Reader<'_>, want: u16) -> Result<Header, AttestError> {
    let magic = reader.u32()?;
    if magic != MAGIC {
        return Err(AttestError::Magic { got: magic });
    }
    let got = reader.u16()?;
    if got != want {
        return Err(AttestError::Type { got, want });
    }
    Ok(Header {
        qualified_signer: reader.sized("qualifiedSigner length", MAX_NAME)?.to_vec(),
        extra: reader.sized("extraData length", MAX_EXTRA)?.to_vec(),
        clock: clock_info(reader)?,
        firmware: reader.u64()?,
    })
}

impl Attest {
    /// Reads a whole `TPMS_ATTEST`; nothing may follow it.
    pub fn parse(bytes: &[u8]) -> Result<Self, AttestError> {
        let mut reader = Reader::new(bytes);
        let Header {
            qualified_signer,
            extra,
            clock,
            firmware,
        } = header(&mut reader, TYPE_QUOTE)?;
        let selected = selection(&mut reader)?;
        let at = reader.at();
        let digest = reader.sized("pcrDigest length", MAX_NAME)?;
        let pcr_digest = digest
            .try_into()
            .map_err(|_length: core::array::TryFromSliceError| WireError::Field {
                field: "pcrDigest length",
                at,
                got: digest.len() as u64,
            })?;
        reader.end()?;
        Ok(Self {
            qualified_signer,
            extra,
            clock,
            firmware,
            selected,
            pcr_digest: Digest(pcr_digest),
        })
    }
}

fn kind(code: u16) -> String {
    let name = match code {
        TYPE_QUOTE => "a quote",
        TYPE_NV => "a certification of an NV index",
        _ => "known",
    };
    format!("{name} ({code:#06x})")
}

fn clock_info(reader: &mut Reader<'_>) -> Result<ClockInfo, WireError> {
    let clock_ms = reader.u64()?;
    let resets = reader.u32()?;
    let restarts = reader.u32()?;
    let at = reader.at();
    let safe = match reader.u8()? {
        0 => false,
        1 => true,
        got => {
            return Err(WireError::Field {
                field: "safe",
                at,
                got: got.into(),
            });
        }
    };
    Ok(ClockInfo {
        clock_ms,
        resets,
        restarts,
        safe,
    })
}

/// `TPML_PCR_SELECTION` of exactly one SHA-256 entry. A TPM that has more banks may list them
/// with no register selected; those say nothing and are passed over.
fn selection(reader: &mut Reader<'_>) -> Result<BTreeSet<u8>, AttestError> {
    let at = reader.at();
    let count = reader.u32()?;
    if count > 16 {
        return Err(WireError::Field {
            field: "selection count",
            at,
            got: count.into(),
        }
        .into());
    }
    let mut banks = Vec::new();
    for _ in 0..count {
        let hash = reader.u16()?;
        let at = reader.at();
        let length = reader.u8()?;
        if length > MAX_SELECT {
            return Err(WireError::Field {
                field: "sizeofSelect",
                at,
                got: length.into(),
            }
            .into());
        }
        let mut registers = BTreeSet::new();
        for (byte, bits) in (0_u8..).zip(reader.take(length.into())?) {
            registers.extend(
                (0..8)
                    .filter(|bit| bits >> bit & 1 == 1)
                    .map(|bit| byte * 8 + bit),
            );
        }
        if !registers.is_empty() {
            banks.push((hash, registers));
        }
    }
    match <[_; 1]>::try_from(banks) {
        Ok([(ALG_SHA256, registers)]) => Ok(registers),
        Ok([(hash, _)]) => Err(AttestError::Bank {
            got: format!("bank {hash:#06x}"),
        }),
        Err(banks) => Err(AttestError::Bank {
            got: format!("{} banks", banks.len()),
        }),
    }
}
