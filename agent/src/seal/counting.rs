//! Counters in the TPM: one step with each sealed epoch, one with each start and end of a session.
//!
//! A step is taken only after what it counts is on the disk, and the statement says beforehand
//! what the counter will come to. So a crash at any instant leaves the counter at most one step
//! behind what is stored, and the next start takes that step. A counter that is ahead instead
//! means that somebody else counted, or that the disk is an older one: it is certified as it is,
//! and the verifier sees it.
//!
//! A TPM without room or without the commands is said to have no counters, in the session's
//! statement. It refuses to begin an epoch while the one before is not counted.

use super::{SealCore, SealError};
use crate::ledger::{Left, NvAt};
use merestone_evidence::{
    Cause, Digest, EpochStatement, NvCertified, NvCounter, NvCounters, NvHeld, SessionStatement,
    decode, session_end, sha256,
};
use merestone_tpm::{
    Certified, EPOCHS_INDEX, GEOTAG_INDEX, NvAuth, NvRole, SESSIONS_INDEX, Tpm, TpmError,
};

/// The counters of an open session.
#[derive(Debug)]
pub(super) struct Counting {
    /// Value of the counter of epochs after the last one that was counted.
    epochs: u64,
    /// The epoch that is sealed and not counted yet.
    due: Option<Due>,
}

#[derive(Debug, Clone, Copy)]
struct Due {
    digest: Digest,
    value: u64,
    /// The step may have been taken by a try that failed afterwards.
    is_tried: bool,
}

impl Counting {
    /// What the counter comes to with the next epoch.
    pub(super) const fn next(&self) -> u64 {
        self.epochs.saturating_add(1)
    }

    /// An epoch was sealed whose statement has that value.
    pub(super) const fn sealed(&mut self, digest: Digest, value: u64) {
        self.due = Some(Due {
            digest,
            value,
            is_tried: false,
        });
    }
}

/// What a session statement says of the TPM's memory.
#[derive(Debug, Default)]
pub(super) struct Declared {
    pub(super) counters: Option<NvCounters>,
    pub(super) geotag: Option<NvHeld>,
}

/// The TPM will not do this, now or later: no reason to try again in this session.
const fn is_final(error: &TpmError) -> bool {
    matches!(
        error,
        TpmError::Refused { .. }
            | TpmError::NvTaken { .. }
            | TpmError::NvGone { .. }
            | TpmError::Answer { .. }
    )
}

fn number(bytes: &[u8]) -> Result<u64, TpmError> {
    let bytes = bytes.try_into();
    bytes
        .map(u64::from_be_bytes)
        .map_err(|_length| TpmError::Answer {
            what: "a counter",
            why: "not of 8 bytes".into(),
        })
}

fn value_of(certified: &Certified) -> Result<u64, TpmError> {
    number(&certified.contents)
}

fn found(tpm: &mut dyn Tpm, role: NvRole, auth: &NvAuth) -> Result<NvCounter, TpmError> {
    let index = tpm.nv_counter(role, auth)?;
    // A trial, so that a TPM that cannot certify is known before anything rests on it.
    let trial = tpm.nv_certify(role.index(), auth, &sha256(b"merestone/trial/v1"))?;
    Ok(NvCounter {
        held: index.held,
        value: value_of(&trial)?,
    })
}

/// Take the step to `value` unless it was taken; what the TPM says then.
fn step(
    tpm: &mut dyn Tpm,
    (index, auth): (u32, &NvAuth),
    value: u64,
    qualifying: &Digest,
) -> Result<Certified, TpmError> {
    if number(&tpm.nv_read(index, auth)?)? < value {
        tpm.nv_increment(index, auth)?;
    }
    tpm.nv_certify(index, auth, qualifying)
}

impl SealCore {
    /// The counters, defined where they are not there yet, and the geotag.
    pub(super) fn declare(&mut self) -> Result<(Declared, Option<Counting>), SealError> {
        let Some(auth) = self.options.nv.clone() else {
            return Ok((Declared::default(), None));
        };
        let tpm = self.tpm.as_mut();
        let pair = found(tpm, NvRole::Epochs, &auth).and_then(|epochs| {
            let sessions = found(tpm, NvRole::Sessions, &auth)?;
            Ok((epochs, sessions))
        });
        let (counters, counting) = match pair {
            Ok((epochs, sessions)) => {
                let counting = Counting {
                    epochs: epochs.value,
                    due: None,
                };
                let counters = NvCounters {
                    epochs: Some(epochs),
                    sessions: Some(sessions),
                    absent: None,
                };
                (counters, Some(counting))
            }
            Err(error) if is_final(&error) => {
                tracing::warn!(%error, "no counters: epochs cut from the end of the log will not show");
                let counters = NvCounters {
                    epochs: None,
                    sessions: None,
                    absent: Some(error.to_string()),
                };
                (counters, None)
            }
            Err(error) => return Err(error.into()),
        };
        let geotag = match self.tpm.nv_find(NvRole::Geotag) {
            Ok(index) => index.map(|index| index.held),
            Err(error) if is_final(&error) => {
                tracing::warn!(%error, "the geotag's index cannot be used");
                None
            }
            Err(error) => return Err(error.into()),
        };
        let declared = Declared {
            counters: Some(counters),
            geotag,
        };
        Ok((declared, counting))
    }

    /// Count the start of a session and certify all that it declares.
    pub(super) fn count_start(
        &mut self,
        statement: &SessionStatement,
        digest: &Digest,
    ) -> Result<(), SealError> {
        let Some(auth) = self.options.nv.clone() else {
            return Ok(());
        };
        let mut certified: Vec<NvCertified> = Vec::new();
        let counters = statement.counters.as_ref();
        let pair = counters.and_then(|one| one.epochs.as_ref().zip(one.sessions.as_ref()));
        if pair.is_some() {
            self.tpm.nv_increment(SESSIONS_INDEX, &auth)?;
            for index in [SESSIONS_INDEX, EPOCHS_INDEX] {
                let one = self.tpm.nv_certify(index, &auth, digest)?;
                certified.push(one.evidence);
            }
        }
        if statement.geotag.is_some() {
            match self.tpm.nv_certify(GEOTAG_INDEX, &auth, digest) {
                Ok(one) => certified.push(one.evidence),
                // Declared and not certified: the verifier does not let that pass.
                Err(error) if is_final(&error) => {
                    tracing::warn!(%error, "the geotag cannot be certified");
                }
                Err(error) => return Err(error.into()),
            }
        }
        if !certified.is_empty() {
            self.ledger.keep_nv(NvAt::Start, &certified)?;
        }
        Ok(())
    }

    /// Count the epoch that was sealed last, if that is still to be done.
    pub(super) fn count_due(&mut self) -> Result<(), SealError> {
        let Some(auth) = self.options.nv.clone() else {
            return Ok(());
        };
        let Some(counting) = self.open.as_mut().and_then(|open| open.counting.as_mut()) else {
            return Ok(());
        };
        let Some(due) = counting.due.as_mut() else {
            return Ok(());
        };
        let tpm = self.tpm.as_mut();
        let counted = if due.is_tried {
            step(tpm, (EPOCHS_INDEX, &auth), due.value, &due.digest)
        } else {
            due.is_tried = true;
            tpm.nv_increment(EPOCHS_INDEX, &auth)
                .and_then(|()| tpm.nv_certify(EPOCHS_INDEX, &auth, &due.digest))
        };
        let counted = match counted {
            Ok(counted) => counted,
            Err(error) => {
                if is_final(&error) {
                    tracing::warn!(%error, "the epochs of this session are not counted any more");
                    if let Some(open) = self.open.as_mut() {
                        open.counting = None;
                    }
                }
                return Err(error.into());
            }
        };
        let value = value_of(&counted)?;
        if value != due.value {
            tracing::warn!(value, expected = due.value, "somebody else counts epochs");
        }
        self.ledger.count_epoch(&[counted.evidence])?;
        counting.epochs = value;
        counting.due = None;
        Ok(())
    }

    /// Count the end of the session whose last statement has `last`.
    pub(super) fn count_end(&mut self, last: &Digest) -> Result<(), SealError> {
        let counts = self.open.as_ref().is_some_and(|open| {
            let counting = open.counting.as_ref();
            counting.is_some_and(|counting| counting.due.is_none())
        });
        let Some(auth) = self.options.nv.clone().filter(|_auth| counts) else {
            return Ok(());
        };
        self.tpm.nv_increment(SESSIONS_INDEX, &auth)?;
        let end = self
            .tpm
            .nv_certify(SESSIONS_INDEX, &auth, &session_end(last))?;
        Ok(self.ledger.keep_nv(NvAt::End, &[end.evidence])?)
    }

    /// Take the steps that a crash left out: of the last sealed epoch, of a session that ended.
    pub(super) fn count_left(&mut self) -> Result<(), SealError> {
        let Some(auth) = self.options.nv.clone() else {
            return Ok(());
        };
        let Some(left) = self.ledger.left()? else {
            return Ok(());
        };
        if left.session.ak_public != self.tpm.ak_public() {
            return Ok(());
        }
        match self.take_left(&left, &auth) {
            Err(SealError::Tpm(error)) if is_final(&error) => {
                tracing::warn!(%error, "the end of the session before is not counted");
                Ok(())
            }
            other => other,
        }
    }

    fn take_left(&mut self, left: &Left, auth: &NvAuth) -> Result<(), SealError> {
        let statement: Option<SessionStatement> = decode(&left.session.statement).ok();
        let counters = statement.and_then(|statement| statement.counters);
        let sessions = counters.and_then(|counters| counters.sessions);
        let (Some(sessions), Some(epoch)) = (sessions, &left.epoch) else {
            return Ok(());
        };
        let Ok(last) = decode::<EpochStatement>(&epoch.statement) else {
            return Ok(());
        };
        let digest = sha256(&epoch.statement);
        let tpm = self.tpm.as_mut();
        let Some(value) = last.counter else {
            return Ok(());
        };
        if epoch.nv.is_none() {
            let counted = step(tpm, (EPOCHS_INDEX, auth), value, &digest)?;
            // A counter that went ahead with a loss of power says nothing of this epoch.
            if value_of(&counted)? == value {
                self.ledger.count_epoch(&[counted.evidence])?;
            }
        }
        if last.cause == Cause::Shutdown && !left.is_ended {
            let value = sessions.value.saturating_add(2);
            let end = session_end(&digest);
            let counted = step(tpm, (SESSIONS_INDEX, auth), value, &end)?;
            if value_of(&counted)? == value {
                self.ledger.keep_nv(NvAt::End, &[counted.evidence])?;
            }
        }
        Ok(())
    }
}
