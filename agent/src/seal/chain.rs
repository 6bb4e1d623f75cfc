//! One epoch, from its statement on the disk to its quote beside it.
//!
//! The order makes every crash recognisable: the statement is on the disk
//! before the register is extended with its digest, so afterwards the register
//! holds either the value before (not extended), the value after (extended), or
//! something that neither explains (a reboot, or another program).

use super::SealError;
use crate::ledger::Ledger;
use merestone_evidence::{Digest, Quote};
use merestone_tpm::{Clock, Quoted, Tpm, TpmError};
use prometheus::Histogram;

const IMA_PCR: u8 = 10;

/// An epoch statement on its way to its quote.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) digest: Digest,
    /// The chain register before the digest goes in.
    pub(super) before: Digest,
    /// The TPM's clock in the session's quote.
    pub(super) clock: Clock,
    pub(super) pcrs: Vec<u8>,
    pub(super) chain_pcr: u8,
}

/// What the chain register says of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Its digest is not in the register.
    Before,
    /// Its digest is the last thing in the register.
    After,
    /// Neither explains what the register holds.
    Elsewhere(Digest),
}

impl Step {
    fn after(&self) -> Digest {
        self.before.extended(&self.digest)
    }

    pub(super) fn place(&self, tpm: &mut dyn Tpm) -> Result<Place, SealError> {
        let now = chain_value(&tpm.read_pcrs(&[self.chain_pcr])?, self.chain_pcr)?;
        Ok(match now {
            now if now == self.before => Place::Before,
            now if now == self.after() => Place::After,
            now => Place::Elsewhere(now),
        })
    }

    /// From the disk into the register and to the quote.
    pub(super) fn take(
        &self,
        tpm: &mut dyn Tpm,
        ledger: &Ledger,
        quote_seconds: &Histogram,
    ) -> Result<Quote, SealError> {
        match self.place(tpm)? {
            Place::Before => tpm.extend(self.chain_pcr, &self.digest)?,
            Place::After => {}
            Place::Elsewhere(got) => return Err(self.foreign(ledger, self.before, got)?),
        }
        self.quote(tpm, ledger, quote_seconds)
    }

    /// Quote a step whose digest is in the register, and store the quote.
    pub(super) fn quote(
        &self,
        tpm: &mut dyn Tpm,
        ledger: &Ledger,
        quote_seconds: &Histogram,
    ) -> Result<Quote, SealError> {
        let Quoted { quote, clock } = timed(quote_seconds, || tpm.quote(&self.pcrs, &self.digest))?;
        let got = chain_value(&quote.pcrs, self.chain_pcr)?;
        if !clock.is_same_run(&self.clock) {
            ledger.abandon_epoch(&SealError::Restarted.to_string())?;
            return Err(SealError::Restarted);
        }
        if got != self.after() {
            return Err(self.foreign(ledger, self.after(), got)?);
        }
        ledger.seal_epoch(&quote)?;
        Ok(quote)
    }

    pub(super) fn foreign(
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

/// Count the time of a quote that succeeds.
pub(super) fn timed<T>(
    seconds: &Histogram,
    quote: impl FnOnce() -> Result<T, TpmError>,
) -> Result<T, TpmError> {
    let timer = seconds.start_timer();
    let result = quote();
    if result.is_ok() {
        timer.observe_duration();
    } else {
        timer.stop_and_discard();
    }
    result
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
