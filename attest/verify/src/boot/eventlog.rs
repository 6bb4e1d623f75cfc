//! The firmware's event log, TCG crypto-agile form, read and replayed.
//!
//! TCG PC Client Platform Firmware Profile 1.06, chapter 10. Only digests are measured: types
//! and data are the writer's word (N16). The one exception is the startup locality, and a lie
//! about it makes the replay end elsewhere.

use crate::tpm::ALG_SHA256;
use crate::wire::{Reader, WireError};
use merestone_evidence::Digest;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a log.
const MAX_LOG: usize = 16 << 20;
/// Events of a log.
const MAX_EVENTS: usize = 1 << 16;
/// Bytes of one event's data.
const MAX_DATA: usize = 4 << 20;
/// Algorithms of a log.
const MAX_ALGORITHMS: u32 = 8;
/// Longest digest: SHA-512.
const MAX_DIGEST: u16 = 64;
const SIGNATURE: &[u8; 16] = b"Spec ID Event03\0";
const LOCALITY: &[u8; 16] = b"StartupLocality\0";
/// `EV_NO_ACTION`: recorded, never extended.
const NO_ACTION: u32 = 3;
/// Registers there are.
const REGISTERS: u32 = 24;

/// Why a boot event log is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EventLogError {
    /// Not the form of a log.
    #[error("event {event}: {source}")]
    Form {
        /// Which event, from 0.
        event: usize,
        /// What is wrong.
        source: WireError,
    },
    /// More than a log may have.
    #[error("{got} {what} where at most {limit} are allowed")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much.
        got: usize,
        /// How much may be.
        limit: usize,
    },
    /// No crypto-agile header.
    #[error("it does not begin with a spec id event of a crypto-agile log")]
    Header,
    /// No SHA-256 digests.
    #[error("it has no sha-256 digests; a weaker bank is never replayed")]
    Bank,
    /// An event with other digests than the header announces.
    #[error("event {event} has digests {got:?}, the header announces {want:?}")]
    Digests {
        /// Which event.
        event: usize,
        /// Algorithms of its digests.
        got: Vec<u16>,
        /// Algorithms announced.
        want: Vec<u16>,
    },
    /// A register there is not.
    #[error("event {event} is for register {got}")]
    Register {
        /// Which event.
        event: usize,
        /// The register.
        got: u32,
    },
    /// A second or late startup locality.
    #[error("event {event}: a startup locality of {got} that cannot be")]
    Locality {
        /// Which event.
        event: usize,
        /// The locality.
        got: u8,
    },
    /// A register with another value than the log explains.
    #[error("register {register} replays to {got}, quoted is {want}")]
    Replay {
        /// The register.
        register: u8,
        /// What the log leads to.
        got: Digest,
        /// What was quoted.
        want: Digest,
    },
    /// A register that firmware always extends holds nothing.
    #[error("register {register} was never extended: nothing measured this boot")]
    NeverExtended {
        /// The register.
        register: u8,
    },
}

/// A log, read: what it extends, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EventLog {
    /// Register and SHA-256 digest of each event that extends.
    pub extends: Vec<(u8, Digest)>,
    /// Events, with those that extend nothing.
    pub events: usize,
    locality: Option<u8>,
}

impl EventLog {
    /// Reads a whole log.
    pub fn parse(bytes: &[u8]) -> Result<Self, EventLogError> {
        let got = bytes.len();
        if got > MAX_LOG {
            return Err(EventLogError::TooMuch {
                what: "bytes",
                got,
                limit: MAX_LOG,
            });
        }
        let mut reader = Reader::new(bytes);
        let algorithms = header(&mut reader)?;
        if !algorithms
            .iter()
            .any(|(id, size)| (*id, *size) == (ALG_SHA256, 32))
        {
            return Err(EventLogError::Bank);
        }
        let mut log = Self {
            extends: Vec::new(),
            events: 1,
            locality: None,
        };
        while !reader.is_empty() && !terminated(&reader) {
            if log.events >= MAX_EVENTS {
                let got = log.events + 1;
                return Err(EventLogError::TooMuch {
                    what: "events",
                    got,
                    limit: MAX_EVENTS,
                });
            }
            log.event(&mut reader, &algorithms)?;
            log.events += 1;
        }
        Ok(log)
    }

    /// What the log leads to: the registers it extends.
    #[must_use]
    pub fn replay(&self) -> BTreeMap<u8, Digest> {
        let mut registers = BTreeMap::new();
        for (register, digest) in &self.extends {
            let value = registers
                .entry(*register)
                .or_insert_with(|| self.initial(*register));
            *value = value.extended(digest);
        }
        registers
    }

    /// What a register holds before anything is extended (PC Client TPM Profile, 4.6.1).
    #[must_use]
    pub fn initial(&self, register: u8) -> Digest {
        let mut value = Digest::ZERO;
        match (register, self.locality, value.0.last_mut()) {
            (17..=22, ..) => value = Digest([0xff; 32]),
            (0, Some(locality), Some(last)) => *last = locality,
            _ => {}
        }
        value
    }

    fn event(
        &mut self,
        reader: &mut Reader<'_>,
        algorithms: &[(u16, u16)],
    ) -> Result<(), EventLogError> {
        let event = self.events;
        let form = |source| EventLogError::Form { event, source };
        let register = reader.u32_le().map_err(form)?;
        let kind = reader.u32_le().map_err(form)?;
        let digest = digests(reader, algorithms, event)?;
        let data = reader.sized_le("event size", MAX_DATA).map_err(form)?;
        if kind == NO_ACTION {
            return self.no_action(register, data);
        }
        match u8::try_from(register) {
            Ok(register) if u32::from(register) < REGISTERS => {
                self.extends.push((register, digest));
                Ok(())
            }
            _ => Err(EventLogError::Register {
                event,
                got: register,
            }),
        }
    }

    /// PFP 10.4.5.3: the locality is in force before the first measurement, and said once.
    fn no_action(&mut self, register: u32, data: &[u8]) -> Result<(), EventLogError> {
        let Some(&[got]) = data.strip_prefix(LOCALITY) else {
            return Ok(());
        };
        let late = self.extends.iter().any(|(register, _)| *register == 0);
        if register != 0 || late || self.locality.is_some() || !matches!(got, 0 | 3 | 4) {
            return Err(EventLogError::Locality {
                event: self.events,
                got,
            });
        }
        self.locality = Some(got);
        Ok(())
    }
}

/// Some firmware hands over its whole buffer: the unused end is all ones.
fn terminated(reader: &Reader<'_>) -> bool {
    let mut ahead = reader.clone();
    matches!(
        (ahead.u32_le(), ahead.u32_le()),
        (Ok(u32::MAX), Ok(u32::MAX))
    )
}

fn digests(
    reader: &mut Reader<'_>,
    algorithms: &[(u16, u16)],
    event: usize,
) -> Result<Digest, EventLogError> {
    let form = |source| EventLogError::Form { event, source };
    let want = || algorithms.iter().map(|(id, _)| *id).collect::<Vec<_>>();
    let at = reader.at();
    let count = reader.u32_le().map_err(form)?;
    if count > MAX_ALGORITHMS {
        let field = "digest count";
        return Err(form(WireError::Field {
            field,
            at,
            got: count.into(),
        }));
    }
    let mut got = Vec::new();
    let mut sha256 = None;
    for _ in 0..count {
        let id = reader.u16_le().map_err(form)?;
        got.push(id);
        let Some((_, size)) = algorithms.iter().find(|(known, _)| *known == id) else {
            return Err(EventLogError::Digests {
                event,
                got,
                want: want(),
            });
        };
        let digest = reader.take((*size).into()).map_err(form)?;
        if id == ALG_SHA256 {
            sha256 = digest.try_into().ok().map(Digest);
        }
    }
    let unique: BTreeSet<_> = got.iter().collect();
    match sha256 {
        Some(digest) if got.len() == algorithms.len() && unique.len() == got.len() => Ok(digest),
        _ => Err(EventLogError::Digests {
            event,
            got,
            want: want(),
        }),
    }
}

/// The first event is of the old form and tells the algorithms of all others.
fn header(reader: &mut Reader<'_>) -> Result<Vec<(u16, u16)>, EventLogError> {
    let form = |source| EventLogError::Form { event: 0, source };
    let register = reader.u32_le().map_err(form)?;
    let kind = reader.u32_le().map_err(form)?;
    reader.take(20).map_err(form)?;
    if (register, kind) != (0, NO_ACTION) {
        return Err(EventLogError::Header);
    }
    let data = reader.sized_le("event size", MAX_DATA).map_err(form)?;
    let mut data = Reader::new(data);
    if data.array::<16>().ok().as_ref() != Some(SIGNATURE) {
        return Err(EventLogError::Header);
    }
    // Platform class, version, errata, size of a pointer: nothing depends on them.
    data.take(8).map_err(form)?;
    let at = data.at();
    let count = data.u32_le().map_err(form)?;
    if !(1..=MAX_ALGORITHMS).contains(&count) {
        let field = "algorithm count";
        return Err(form(WireError::Field {
            field,
            at,
            got: count.into(),
        }));
    }
    let mut algorithms = Vec::new();
    for _ in 0..count {
        let id = data.u16_le().map_err(form)?;
        let at = data.at();
        let size = data.u16_le().map_err(form)?;
        let known = algorithms.iter().any(|(known, _)| *known == id);
        if known || size == 0 || size > MAX_DIGEST {
            let field = "digest size";
            return Err(form(WireError::Field {
                field,
                at,
                got: size.into(),
            }));
        }
        algorithms.push((id, size));
    }
    let vendor = data.u8().map_err(form)?;
    data.take(vendor.into()).map_err(form)?;
    data.end().map_err(form)?;
    Ok(algorithms)
}
