//! [`QuoteChecked`] → [`BootChecked`]: what firmware and kernel say they measured is what the
//! TPM quoted, and the TPM's clock goes forward.
//!
//! It does not appraise what was measured: a log that replays can be the log of bad firmware.
//! The policy's register values are for that.

mod eventlog;
mod ima;

pub use eventlog::{EventLog, EventLogError};
pub use ima::{Covered, ImaError, replay as replay_ima};

use crate::clock;
use crate::quote::{QuoteChecked, Session};
use crate::refusal::Refusal;
use crate::trust::Trust;
use crate::verdict::{CheckId, Tally};
use merestone_evidence::Digest;
use std::collections::BTreeMap;

/// Registers of the firmware: quoted values must be explained whether or not they are logged.
const FIRMWARE: core::ops::RangeInclusive<u8> = 0..=7;
/// Registers of boot loader and shim: explained where the log speaks of them at all.
const LOADER: [u8; 3] = [8, 9, 14];
/// Firmware extends these on every measured boot.
const ALWAYS_EXTENDED: [u8; 2] = [0, 4];

/// Sessions whose boots are explained as far as logs are shown.
#[derive(Debug)]
pub struct BootChecked<'s> {
    pub(crate) quotes: QuoteChecked<'s>,
}

impl<'s> BootChecked<'s> {
    pub(crate) fn check(
        quotes: QuoteChecked<'s>,
        trust: &Trust,
        tally: &mut Tally,
    ) -> Option<Self> {
        if let Err(refusal) = boot_logs(&quotes.sessions, trust, tally) {
            tally.fail(CheckId::BootLog, &refusal);
            return None;
        }
        if let Err(refusal) = ima_lists(&quotes.sessions, trust, tally) {
            tally.fail(CheckId::BootIma, &refusal);
            return None;
        }
        if let Err(refusal) = clock::check(&quotes.sessions, trust, tally) {
            tally.fail(CheckId::ClockCounters, &refusal);
            return None;
        }
        Some(Self { quotes })
    }
}

/// The log of a session, or of an earlier session of the same boot: firmware logs do not grow.
fn boot_logs(sessions: &[Session], trust: &Trust, tally: &mut Tally) -> Result<(), Refusal> {
    let mut by_boot: BTreeMap<u32, &[u8]> = BTreeMap::new();
    let mut events = 0;
    let mut without = Vec::new();
    for session in sessions {
        let at = session.at.as_str();
        let refuse = |source| Refusal::EventLog {
            at: at.to_owned(),
            source,
        };
        let boot = session.said.clock.resets;
        if let Some(log) = &session.boot_log {
            by_boot.insert(boot, log);
        }
        let Some(bytes) = by_boot.get(&boot) else {
            if trust.require.boot_log {
                measured(&session.said.pcrs).map_err(refuse)?;
            }
            without.push(at);
            continue;
        };
        let log = EventLog::parse(bytes).map_err(refuse)?;
        explained(&log, &session.said.pcrs, session.statement.chain_pcr).map_err(refuse)?;
        measured(&session.said.pcrs).map_err(refuse)?;
        for epoch in &session.epochs {
            unchanged(&session.said.pcrs, &epoch.said.pcrs).map_err(|source| {
                let at = epoch.at.clone();
                Refusal::EventLog { at, source }
            })?;
        }
        events += log.events;
    }
    if without.is_empty() {
        tally.pass(
            CheckId::BootLog,
            format!("{events} events replay to the quoted registers"),
        );
    } else if trust.require.boot_log {
        tally.missing(
            CheckId::BootLog,
            format!("no boot event log for {}", without.join(", ")),
        );
    } else {
        let detail = format!(
            "no boot event log for {}: what booted is not known",
            without.join(", ")
        );
        tally.skip(CheckId::BootLog, detail);
    }
    Ok(())
}

fn explained(
    log: &EventLog,
    quoted: &BTreeMap<u8, Digest>,
    chain: u8,
) -> Result<(), EventLogError> {
    let replayed = log.replay();
    for (&register, &want) in quoted {
        let logged = replayed.get(&register).copied();
        let judged = FIRMWARE.contains(&register) || LOADER.contains(&register) && logged.is_some();
        if !judged || register == chain {
            continue;
        }
        let got = logged.unwrap_or_else(|| log.initial(register));
        if got != want {
            return Err(EventLogError::Replay {
                register,
                got,
                want,
            });
        }
    }
    Ok(())
}

/// Firmware registers do not move while a session runs: what moved them is in no log.
fn unchanged(
    session: &BTreeMap<u8, Digest>,
    epoch: &BTreeMap<u8, Digest>,
) -> Result<(), EventLogError> {
    for register in FIRMWARE {
        if let (Some(&got), Some(&want)) = (session.get(&register), epoch.get(&register))
            && got != want
        {
            return Err(EventLogError::Replay {
                register,
                got,
                want,
            });
        }
    }
    Ok(())
}

/// A register that firmware always extends and that is zero means that whoever quoted it could
/// have filled it with anything (N13).
fn measured(quoted: &BTreeMap<u8, Digest>) -> Result<(), EventLogError> {
    for register in ALWAYS_EXTENDED {
        if quoted
            .get(&register)
            .is_none_or(|value| value.0.iter().take(31).all(|byte| *byte == 0))
        {
            return Err(EventLogError::NeverExtended { register });
        }
    }
    Ok(())
}

fn ima_lists(sessions: &[Session], trust: &Trust, tally: &mut Tally) -> Result<(), Refusal> {
    let mut covered = Covered {
        quoted: 0,
        after: 0,
    };
    let mut without = Vec::new();
    for session in sessions {
        let quoted = session.said.pcrs.get(&ima::REGISTER);
        let (Some(bytes), Some(want)) = (&session.ima_log, quoted) else {
            without.push(session.at.as_str());
            continue;
        };
        let got = ima::replay(bytes, want).map_err(|source| Refusal::Ima {
            at: session.at.clone(),
            source,
        })?;
        // A list that covers nothing is no evidence of what ran.
        if got.quoted == 0 {
            without.push(session.at.as_str());
        }
        covered.quoted += got.quoted;
        covered.after += got.after;
    }
    let Covered { quoted, after } = covered;
    if without.is_empty() {
        let detail = format!(
            "{quoted} entries replay to the quoted register; {after} after it are not covered"
        );
        tally.pass(CheckId::BootIma, detail);
    } else if trust.require.ima {
        tally.missing(
            CheckId::BootIma,
            format!("no ima list for {}", without.join(", ")),
        );
    } else {
        let detail = format!(
            "no ima list for {}: what ran since boot is not known",
            without.join(", ")
        );
        tally.skip(CheckId::BootIma, detail);
    }
    Ok(())
}
