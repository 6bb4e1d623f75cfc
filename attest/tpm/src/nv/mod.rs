//! The TPM's own memory: two counters that only grow, and a geotag that is locked for good.
//!
//! An index of ours is written with its own password and by nobody else: no attribute lets the
//! owner, the platform or a policy write it. What the owner's authorization can do is to undefine
//! and define it anew; a counter then goes on above every value that any counter of this TPM ever
//! had (part 3 §31.8, part 1 §37.2.5), so it never goes back, and a geotag of other contents is
//! seen by who knows the contents. Reading needs no secret.
//!
//! It refuses to count with an index whose attributes are not exactly those: something else is
//! under the handle, and it is left alone.

mod commands;

use crate::{Clock, EsysTpm, TpmError, ak::hex, wire::Wire};
use commands::{certify, define, find, found_again, increment, lock, read, undefine, write};
use merestone_evidence::{Digest, NvCertified, NvHeld};

/// `TPMA_NV` (part 2 §13.4).
const AUTHWRITE: u32 = 1 << 2;
const COUNTER: u32 = 1 << 4;
const WRITELOCKED: u32 = 1 << 11;
const WRITEDEFINE: u32 = 1 << 13;
const OWNERREAD: u32 = 1 << 17;
const AUTHREAD: u32 = 1 << 18;
const NO_DA: u32 = 1 << 25;
const ORDERLY: u32 = 1 << 26;
const WRITTEN: u32 = 1 << 29;

/// Counter of epochs; in the range of the owner (TCG registry of reserved handles).
pub const EPOCHS_INDEX: u32 = 0x0180_4D45;
/// Counter of sessions.
pub const SESSIONS_INDEX: u32 = 0x0180_4D53;
/// The geotag.
pub const GEOTAG_INDEX: u32 = 0x0180_4D47;

/// What an index of ours is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NvRole {
    /// Counts epochs, in the TPM's working memory (orderly): no wear, and after a loss of power
    /// at most 255 ahead.
    Epochs,
    /// Counts starts and ends of sessions.
    Sessions,
    /// Holds a geotag.
    Geotag,
}

impl NvRole {
    /// Its handle.
    #[must_use]
    pub const fn index(self) -> u32 {
        match self {
            Self::Epochs => EPOCHS_INDEX,
            Self::Sessions => SESSIONS_INDEX,
            Self::Geotag => GEOTAG_INDEX,
        }
    }

    const fn attributes(self) -> u32 {
        let common = AUTHWRITE | OWNERREAD | AUTHREAD | NO_DA;
        match self {
            Self::Epochs => common | COUNTER | ORDERLY,
            Self::Sessions => common | COUNTER,
            Self::Geotag => common | WRITEDEFINE,
        }
    }

    /// Those of an index that is ready for use.
    const fn wanted(self) -> u32 {
        match self {
            Self::Epochs | Self::Sessions => self.attributes() | WRITTEN,
            Self::Geotag => self.attributes() | WRITTEN | WRITELOCKED,
        }
    }
}

/// An index and what the TPM says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvIndex {
    /// Handle and public area.
    pub held: NvHeld,
    /// Its Name.
    pub name: Vec<u8>,
    attributes: u32,
    size: u16,
}

/// The contents of an index, signed by the attestation key.
#[derive(Debug, Clone)]
pub struct Certified {
    /// What goes into evidence.
    pub evidence: NvCertified,
    /// The clock in it.
    pub clock: Clock,
    /// The contents in it.
    pub contents: Vec<u8>,
}

impl Certified {
    /// The contents as a counter's value.
    #[must_use]
    pub fn value(&self) -> Option<u64> {
        self.contents
            .as_slice()
            .try_into()
            .ok()
            .map(u64::from_be_bytes)
    }
}

/// The passwords for what this module does.
#[derive(Clone, Default)]
pub struct NvAuth {
    /// Of the owner hierarchy, needed to define.
    pub owner: Vec<u8>,
    /// Of the indices: who counts must know it.
    pub index: Vec<u8>,
}

impl std::fmt::Debug for NvAuth {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("NvAuth")
    }
}

impl EsysTpm {
    /// The index of a role, `None` where it is not defined.
    pub fn nv_find(&mut self, role: NvRole) -> Result<Option<NvIndex>, TpmError> {
        self.on_wire(|wire| find(wire, role.index()))
    }

    /// The counter of a role, defined if it is not there, and counted once so that it has a value.
    pub fn nv_counter(&mut self, role: NvRole, auth: &NvAuth) -> Result<NvIndex, TpmError> {
        self.on_wire(|wire| {
            let index = role.index();
            let found = if let Some(found) = find(wire, index)? {
                found
            } else {
                define(wire, role, 8, auth)?;
                found_again(wire, index)?
            };
            let is_ours = found.attributes | WRITTEN == role.wanted() && found.size == 8;
            if !is_ours {
                return Err(taken(&found));
            }
            if found.attributes & WRITTEN != 0 {
                return Ok(found);
            }
            increment(wire, index, &auth.index)?;
            found_again(wire, index)
        })
    }

    /// Write a geotag and lock it for good; one that is there is only replaced if `replace`.
    pub fn nv_geotag(
        &mut self,
        content: &[u8],
        replace: bool,
        auth: &NvAuth,
    ) -> Result<NvIndex, TpmError> {
        self.on_wire(|wire| {
            let (role, index) = (NvRole::Geotag, GEOTAG_INDEX);
            if let Some(found) = find(wire, index)? {
                if !replace {
                    return Err(TpmError::NvTaken {
                        index,
                        why: "a geotag is there already",
                        name: hex(&found.name),
                    });
                }
                undefine(wire, index, auth)?;
            }
            let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
            define(wire, role, length, auth)?;
            write(wire, index, content, &auth.index)?;
            lock(wire, index, &auth.index)?;
            let made = found_again(wire, index)?;
            if made.attributes == role.wanted() {
                Ok(made)
            } else {
                Err(taken(&made))
            }
        })
    }

    fn on_wire<T>(
        &mut self,
        work: impl FnOnce(&mut Wire) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let mut wire = self.link.wire()?;
        let done = work(&mut wire);
        // What the TPM refused leaves the line in step; anything else may not.
        if matches!(
            done,
            Ok(_) | Err(TpmError::Refused { .. } | TpmError::NvTaken { .. })
        ) {
            self.link.keep(wire);
        }
        done
    }

    pub(crate) fn increment_index(&mut self, index: u32, auth: &[u8]) -> Result<(), TpmError> {
        self.on_wire(|wire| increment(wire, index, auth))
    }

    pub(crate) fn read_index(&mut self, index: u32, auth: &[u8]) -> Result<Vec<u8>, TpmError> {
        self.on_wire(|wire| {
            let found = found_again(wire, index)?;
            read(wire, index, found.size, auth)
        })
    }

    pub(crate) fn certify_index(
        &mut self,
        index: u32,
        auth: &[u8],
        qualifying: &Digest,
    ) -> Result<Certified, TpmError> {
        let key = self.link.ak_handle();
        self.on_wire(|wire| {
            let found = found_again(wire, index)?;
            certify(wire, key, &found, auth, qualifying)
        })
    }
}

fn taken(found: &NvIndex) -> TpmError {
    TpmError::NvTaken {
        index: found.held.index,
        why: "its attributes are not those of ours",
        name: hex(&found.name),
    }
}
