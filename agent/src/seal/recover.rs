//! What a crash left behind: the pending epoch, torn records, unsealed entries.

use super::{
    SealCore, SealError,
    chain::{Place, Step, chain_value},
};
use crate::{
    clock,
    ledger::{Cut, Pending},
};
use merestone_evidence::{Body, Cause, Entry, EntryKind, SessionStatement, decode, sha256};
use merestone_tpm::Clock;

const OTHER_KEY: &str = "the TPM or its attestation key is another one now";
const NOT_EXTENDED: &str = "it never reached the chain register";
const ELSEWHERE: &str = "the chain register holds neither value of it: the machine was rebooted, or another program extends it";

/// What was left over from before and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The pending epoch: `true` it has its quote now, `false` it was abandoned.
    pub pending: Option<bool>,
    /// A torn end of the log was cut off.
    pub cut: Option<Cut>,
    /// Leaves that the session before did not seal.
    pub unsealed: u64,
}

impl SealCore {
    /// Deal with what an earlier session left, and write down what was found.
    pub(super) fn recover(&mut self) -> Result<Recovered, SealError> {
        let mut found = Recovered {
            pending: None,
            cut: self.opened.cut.clone(),
            unsealed: 0,
        };
        let mut notes = Vec::new();
        if let Some(pending) = self.ledger.pending()? {
            let digest = sha256(&pending.statement);
            let outcome = self.finish(&pending)?;
            found.pending = Some(outcome.is_none());
            notes.push(match outcome {
                None => format!("the epoch {digest} had no quote and has one now"),
                Some(why) => format!("the epoch {digest} was abandoned: {why}"),
            });
        }
        self.count_left()?;
        if let Some(Cut { offset, bytes }) = self.opened.cut.take() {
            notes.push(format!(
                "{bytes} bytes of a torn record at offset {offset} of the log were cut"
            ));
        }
        found.unsealed = self.ledger.size() - self.ledger.sealed().size;
        if found.unsealed > 0 {
            notes.push(format!(
                "{} entries of the session before are sealed in this one",
                found.unsealed
            ));
        }
        for detail in notes {
            tracing::warn!(detail, "recovered");
            self.ledger.append(&Entry {
                kind: EntryKind,
                time_ms: clock::now_ms(),
                boot_ns: clock::boot_ns(),
                body: Body::Recovered {
                    cause: Cause::Recovered,
                    detail,
                },
            })?;
        }
        Ok(found)
    }

    /// Quote the pending epoch if its digest is in the register; `Some` says
    /// why it was given up instead.
    fn finish(&mut self, pending: &Pending) -> Result<Option<&'static str>, SealError> {
        let session: SessionStatement =
            decode(&pending.session.statement).map_err(|error| SealError::Pending {
                why: error.to_string(),
            })?;
        let clock = pending
            .session
            .quote
            .as_ref()
            .and_then(|quote| Clock::of_attest(&quote.attest));
        let clock = clock.ok_or_else(|| SealError::Pending {
            why: "its session has no quote".to_owned(),
        })?;
        if pending.session.ak_public != self.tpm.ak_public() {
            self.ledger.abandon_epoch(OTHER_KEY)?;
            return Ok(Some(OTHER_KEY));
        }
        let step = Step {
            digest: sha256(&pending.statement),
            before: chain_value(&pending.last_quote.pcrs, session.chain_pcr)?,
            clock,
            pcrs: session.pcrs,
            chain_pcr: session.chain_pcr,
        };
        let why = match step.place(self.tpm.as_mut())? {
            Place::After => {
                return match step.quote(
                    self.tpm.as_mut(),
                    &self.ledger,
                    &self.metrics.quote_seconds,
                ) {
                    Ok(_quote) => {
                        self.metrics.epochs.inc();
                        Ok(None)
                    }
                    Err(SealError::Restarted | SealError::ForeignExtend { .. }) => {
                        Ok(Some(ELSEWHERE))
                    }
                    Err(error) => Err(error),
                };
            }
            // Nothing may go into the register now: after a reboot it can hold
            // the same value as before the epoch, namely zero.
            Place::Before => NOT_EXTENDED,
            Place::Elsewhere(_) => ELSEWHERE,
        };
        self.ledger.abandon_epoch(why)?;
        Ok(Some(why))
    }
}
