//! What a GPU signs: one SPDM `GET_MEASUREMENTS` exchange (DMTF DSP0274 1.1, 10.11), the request
//! as the driver sent it and the response as the GPU gave it, its signature last.
//!
//! Numbers are little-endian. Everything is bounded and nothing may be left over. The report does
//! not say whose it is: that is what the certificate is for.

use crate::wire::{Reader, WireError};
use p384::ecdsa::signature::hazmat::PrehashVerifier as _;
use p384::ecdsa::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha384};
use std::collections::BTreeMap;

const VERSION: u8 = 0x11;
const GET_MEASUREMENTS: u8 = 0xe0;
const MEASUREMENTS: u8 = 0x60;
/// `Param1` of the request: a signature is asked for.
const WANTS_SIGNATURE: u8 = 1;
/// `Param2` of the request: every measurement.
const ALL: u8 = 0xff;
/// `MeasurementSpecification` of the forms that DMTF defines.
const DMTF: u8 = 1;
/// Two numbers of P-384.
const SIGNATURE_BYTES: usize = 96;
/// Largest report; NVML's buffer has 8 KiB.
const MAX_BYTES: usize = 16 << 10;

const DRIVER: u16 = 3;
const VBIOS: u16 = 6;
/// State of the first video decoder, and what it is where that is switched off.
const DECODER: u16 = 11;
const DECODER_OFF: u8 = 0x55;
/// Parts of the name of the VBIOS's manifest.
const CHIP_SKU: u16 = 15;
const PROJECT: u16 = 17;
const PROJECT_SKU: u16 = 18;
/// The digest of the firmware that holds the key, as its certificate has it too.
const FIRMWARE: u16 = 20;

/// Why a report is none, or not signed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SpdmError {
    /// Not the form of an exchange.
    #[error("spdm measurements: {0}")]
    Form(#[from] WireError),
    /// A field that is not what this form has.
    #[error("spdm measurements: {field} is {got}, not {want}")]
    Field {
        /// Its name.
        field: &'static str,
        /// Its value.
        got: u64,
        /// What it has to be.
        want: u64,
    },
    /// The same twice, or out of order.
    #[error("spdm measurements: {what} {got} is there twice or out of order")]
    Order {
        /// What.
        what: &'static str,
        /// Its number.
        got: u64,
    },
    /// Not made by that key.
    #[error("the gpu's signature was not made by the key of its certificate over this report")]
    Signature,
}

/// A report, read. Nothing in it is believed before [`Report::signed_by`].
#[derive(Clone, Debug)]
pub struct Report<'b> {
    /// What whoever asked wanted to see in the answer.
    pub nonce: [u8; 32],
    /// The measurement record, as it stands.
    pub record: &'b [u8],
    /// Measurements, by index.
    pub measurements: BTreeMap<u8, &'b [u8]>,
    opaque: BTreeMap<u16, &'b [u8]>,
    signed: &'b [u8],
    signature: &'b [u8],
}

impl<'b> Report<'b> {
    /// Reads a whole report.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, SpdmError> {
        if bytes.len() > MAX_BYTES {
            return Err(SpdmError::Field {
                field: "its length",
                got: bytes.len() as u64,
                want: MAX_BYTES as u64,
            });
        }
        let mut reader = Reader::new(bytes);
        expect("version of the request", reader.u8()?, VERSION)?;
        expect("code of the request", reader.u8()?, GET_MEASUREMENTS)?;
        expect(
            "signature asked for",
            reader.u8()? & WANTS_SIGNATURE,
            WANTS_SIGNATURE,
        )?;
        expect("measurements asked for", reader.u8()?, ALL)?;
        let nonce = reader.array()?;
        expect("slot", reader.u8()?, 0)?;
        expect("version of the response", reader.u8()?, VERSION)?;
        expect("code of the response", reader.u8()?, MEASUREMENTS)?;
        reader.take(2)?;
        let blocks = reader.u8()?;
        let [low, middle, high] = reader.array::<3>()?;
        let length = u32::from_le_bytes([low, middle, high, 0]);
        let record = reader.take(length as usize)?;
        let measurements = measurements(record, blocks)?;
        // The GPU's own random number; what it answers to is in the request.
        reader.take(32)?;
        let length = usize::from(reader.u16_le()?);
        let opaque = opaque(reader.take(length)?)?;
        let signed = bytes.get(..reader.at()).unwrap_or_default();
        let signature = reader.take(SIGNATURE_BYTES)?;
        reader.end()?;
        Ok(Self {
            nonce,
            record,
            measurements,
            opaque,
            signed,
            signature,
        })
    }

    /// Checks that the key of this point (SEC 1, P-384) made the signature.
    pub fn signed_by(&self, point: &[u8]) -> Result<(), SpdmError> {
        let key = VerifyingKey::from_sec1_bytes(point).map_err(|_off| SpdmError::Signature)?;
        let signature =
            Signature::from_slice(self.signature).map_err(|_range| SpdmError::Signature)?;
        let digest = Sha384::digest(self.signed);
        key.verify_prehash(&digest, &signature)
            .map_err(|_other| SpdmError::Signature)
    }

    /// The driver's version, where it is told.
    #[must_use]
    pub fn driver(&self) -> Option<String> {
        self.text(DRIVER)
    }

    fn text(&self, kind: u16) -> Option<String> {
        let text = self.opaque.get(&kind)?;
        let text = text.split(|byte| *byte == 0).next()?;
        let is_plain = text.iter().all(u8::is_ascii_graphic);
        is_plain.then(|| String::from_utf8_lossy(text).into_owned())
    }

    /// What NVIDIA's service calls the manifest of this VBIOS.
    pub(super) fn vbios_manifest(&self) -> Option<String> {
        let (project, project_sku) = (self.text(PROJECT)?, self.text(PROJECT_SKU)?);
        let (chip_sku, version) = (self.text(CHIP_SKU)?, self.vbios()?.replace('.', ""));
        Some(format!(
            "NV_GPU_VBIOS_{project}_{project_sku}_{chip_sku}_{version}"
        ))
    }

    /// The VBIOS's version, where it is told, as NVIDIA's tools print it.
    #[must_use]
    pub fn vbios(&self) -> Option<String> {
        let [number @ .., oem] = self.opaque.get(&VBIOS)?.get(..5)? else {
            return None;
        };
        let number = number.iter().rev().chain([oem]);
        let parts: Vec<_> = number.map(|part| format!("{part:02X}")).collect();
        Some(parts.join("."))
    }

    /// Whether the first video decoder is told to be off, so that its measurement says nothing.
    pub(super) fn is_decoder_off(&self) -> bool {
        self.opaque.get(&DECODER) == Some(&[DECODER_OFF].as_slice())
    }

    /// The digest of the firmware that signed, where it is told.
    #[must_use]
    pub fn firmware(&self) -> Option<&'b [u8]> {
        self.opaque.get(&FIRMWARE).copied()
    }
}

fn expect(field: &'static str, got: u8, want: u8) -> Result<(), SpdmError> {
    if got == want {
        Ok(())
    } else {
        let (got, want) = (got.into(), want.into());
        Err(SpdmError::Field { field, got, want })
    }
}

/// Measurement blocks (DSP0274 1.1, table 53), each of DMTF's form (table 54).
fn measurements(record: &[u8], blocks: u8) -> Result<BTreeMap<u8, &[u8]>, SpdmError> {
    let mut reader = Reader::new(record);
    let mut found = BTreeMap::new();
    for _ in 0..blocks {
        let index = reader.u8()?;
        expect("measurement specification", reader.u8()?, DMTF)?;
        let length = usize::from(reader.u16_le()?);
        let mut block = Reader::new(reader.take(length)?);
        block.u8()?;
        let length = usize::from(block.u16_le()?);
        let value = block.take(length)?;
        block.end()?;
        let is_next = found.last_key_value().is_none_or(|(last, _)| *last < index);
        if !is_next {
            return Err(SpdmError::Order {
                what: "measurement",
                got: index.into(),
            });
        }
        found.insert(index, value);
    }
    reader.end()?;
    Ok(found)
}

/// NVIDIA's own fields: a type and a length in two bytes each, then the value.
fn opaque(bytes: &[u8]) -> Result<BTreeMap<u16, &[u8]>, SpdmError> {
    let mut reader = Reader::new(bytes);
    let mut found = BTreeMap::new();
    while !reader.is_empty() {
        let kind = reader.u16_le()?;
        let length = usize::from(reader.u16_le()?);
        if found.insert(kind, reader.take(length)?).is_some() {
            return Err(SpdmError::Order {
                what: "opaque field",
                got: kind.into(),
            });
        }
    }
    Ok(found)
}
