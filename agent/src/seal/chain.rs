//! One epoch, from its statement on the disk to its quote beside it.
//!
//! The order makes every crash recognisable: the statement is on the disk
//! before the register is extended with its digest, so afterwards the register
//! holds either the value before (not extended), the value after (extended), or
//! something that neither explains (a reboot, or another program).

use super::SealError;
use crate::ledger::Ledger;
use merestone_evidence::{Digest, Quote, sha256};
use merestone_tpm::{Quoted, Tpm, TpmError};
use prometheus::Histogram;

const IMA_PCR: u8 = 10;

/// An epoch statement on its way to its quote.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) digest: Digest,
    /// The chain register before the digest goes in.
    pub(super) before: Digest,
    pub(super) pcrs: Vec<u8>,
    pub(super) chain_pcr: u8,
}

impl Step {
    pub(super) fn of(statement: &[u8], before: Digest, pcrs: &[u8], chain_pcr: u8) -> Self {
        Self {
            digest: sha256(statement),
            before,
            pcrs: pcrs.to_vec(),
            chain_pcr,
        }
    }

    fn after(&self) -> Digest {
        self.before.extended(&self.digest)
    }

    /// Take the step as far as it has to go. Every error but `ForeignExtend`
    /// leaves it to be taken again; that one gives the epoch up.
    pub(super) fn take(
        &self,
        tpm: &mut dyn Tpm,
        ledger: &Ledger,
        quote_seconds: &Histogram,
    ) -> Result<Quote, SealError> {
        let now = chain_value(&tpm.read_pcrs(&[self.chain_pcr])?, self.chain_pcr)?;
        if now == self.before {
            tpm.extend(self.chain_pcr, &self.digest)?;
        } else if now != self.after() {
            return Err(self.give_up(ledger, self.before, now)?);
        }
        let timer = quote_seconds.start_timer();
        let Quoted { quote, clock: _ } = match tpm.quote(&self.pcrs, &self.digest) {
            Ok(quoted) => quoted,
            Err(error) => {
                timer.stop_and_discard();
                return Err(error.into());
            }
        };
        timer.observe_duration();
        let quoted = chain_value(&quote.pcrs, self.chain_pcr)?;
        if quoted != self.after() {
            return Err(self.give_up(ledger, self.after(), quoted)?);
        }
        ledger.seal_epoch(&quote)?;
        Ok(quote)
    }

    fn give_up(
        &self,
        ledger: &Ledger,
        expected: Digest,
        got: Digest,
    ) -> Result<SealError, SealError> {
        let error = SealError::ForeignExtend {
            pcr: self.chain_pcr,
            expected,
            got,
        };
        ledger.abandon_epoch(&error.to_string())?;
        Ok(error)
    }
}

/// The value of the chain register among `pcrs`.
pub(super) fn chain_value(
    pcrs: &[merestone_evidence::PcrValue],
    chain_pcr: u8,
) -> Result<Digest, SealError> {
    let found = pcrs.iter().find(|pcr| pcr.index == chain_pcr);
    found
        .map(|pcr| pcr.value)
        .ok_or(SealError::Tpm(TpmError::NoBank { pcr: chain_pcr }))
}

/// What the kernel's measurements have made of their register.
pub(super) fn ima_value(quote: &Quote) -> Option<Digest> {
    quote
        .pcrs
        .iter()
        .find(|pcr| pcr.index == IMA_PCR)
        .map(|pcr| pcr.value)
}
