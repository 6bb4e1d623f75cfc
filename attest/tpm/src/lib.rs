//! The host's TPM, behind one small trait.
//!
//! This is the only crate that links a TPM stack (`tss-esapi` over libtss2).
//! It owns one key, the attestation key (AK): a restricted P-256 signing
//! primary of the endorsement hierarchy, made persistent under a handle of its
//! own, RSA-2048 where the TPM has no P-256. With it the TPM quotes PCRs of the
//! SHA-256 bank. The endorsement hierarchy matters: under the owner hierarchy a
//! TPM obfuscates resetCount and firmwareVersion, and a reboot would not show.
//!
//! What it refuses to do: replace a key that somebody else put under its
//! handle; extend a PCR that any process may reset (16, 23); hand out PCR
//! values that do not hash to the digest the TPM signed; wait for a TPM longer
//! than its caller said ([`Deadline`]).
//!
//! libtss2 writes to standard error by itself. The common failures (nothing
//! listens, no device, no permission) are found before it is called, so they
//! give one line; for the rest `TSS2_LOG=all+none` in the environment of the
//! process silences it. It can only be set before the first call, and changing
//! the environment inside a running process is a data race, so this crate
//! leaves it to the unit file.

mod address;
mod ak;
mod connect;
mod deadline;
mod ek;
mod error;
mod esys;
mod link;
mod nv;
mod properties;
mod wire;

pub use address::Address;
pub use ak::{AkKind, DEFAULT_AK_HANDLE};
pub use deadline::Deadline;
pub use ek::{EkKind, Endorsement};
pub use error::TpmError;
pub use esys::{EsysTpm, Options, check_chain_pcr};
pub use nv::{Certified, EPOCHS_INDEX, GEOTAG_INDEX, NvAuth, NvIndex, NvRole, SESSIONS_INDEX};
pub use properties::Properties;

use merestone_evidence::{Digest, PcrValue, Quote};

/// PCRs that any process may reset from locality 0 (PC Client Platform TPM
/// Profile 1.05 §4.6.2): an extend of them proves nothing.
pub const RESETTABLE_PCRS: [u8; 2] = [16, 23];

/// The TPM's own clock, as signed in a quote (`TPMS_CLOCK_INFO`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Milliseconds the TPM has been powered in its life.
    pub powered_ms: u64,
    /// TPM resets (reboots).
    pub reset_count: u32,
    /// TPM restarts and resumes since the last reset.
    pub restart_count: u32,
    /// No value of the clock above this one was reported before.
    pub safe: bool,
}

impl Clock {
    /// The clock in a marshalled `TPMS_ATTEST` (TPM 2.0 part 2 §10.12.12);
    /// `None` where the bytes end too early. Nothing else is checked.
    #[must_use]
    pub fn of_attest(attest: &[u8]) -> Option<Self> {
        let after_kind = attest.get(6..)?;
        let after_signer = skip_sized(after_kind)?;
        let after_extra = skip_sized(after_signer)?;
        let (powered_ms, rest) = after_extra.split_first_chunk()?;
        let (reset_count, rest) = rest.split_first_chunk()?;
        let (restart_count, rest) = rest.split_first_chunk()?;
        Some(Self {
            powered_ms: u64::from_be_bytes(*powered_ms),
            reset_count: u32::from_be_bytes(*reset_count),
            restart_count: u32::from_be_bytes(*restart_count),
            safe: *rest.first()? != 0,
        })
    }

    /// No reset, restart or resume lies between the two.
    #[must_use]
    pub const fn is_same_run(&self, other: &Self) -> bool {
        self.reset_count == other.reset_count && self.restart_count == other.restart_count
    }
}

fn skip_sized(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.get(usize::from(u16::from_be_bytes(*length))..)
}

/// A quote and the clock that was signed with it.
#[derive(Debug, Clone)]
pub struct Quoted {
    /// What goes into evidence.
    pub quote: Quote,
    /// The clock in `quote.attest`.
    pub clock: Clock,
}

/// What the agent needs of a TPM. The calls block; see [`Deadline`].
pub trait Tpm: Send {
    /// The AK's `TPMT_PUBLIC`, as marshalled by the TPM.
    fn ak_public(&self) -> &[u8];

    /// The AK's Name: `000b ‖ SHA-256(TPMT_PUBLIC)`.
    fn ak_name(&self) -> &[u8];

    /// What the TPM says of itself, read once when it was opened.
    fn properties(&self) -> &Properties;

    /// Extend a PCR of the SHA-256 bank.
    fn extend(&mut self, pcr: u8, digest: &Digest) -> Result<(), TpmError>;

    /// Read PCRs of the SHA-256 bank, in ascending order of index.
    fn read_pcrs(&mut self, pcrs: &[u8]) -> Result<Vec<PcrValue>, TpmError>;

    /// Quote PCRs of the SHA-256 bank. The values in the answer hash to the
    /// digest in the signed structure.
    fn quote(&mut self, pcrs: &[u8], qualifying: &Digest) -> Result<Quoted, TpmError>;

    /// The TPM's clock, read from a quote over no PCR.
    fn clock(&mut self) -> Result<Clock, TpmError>;

    /// The index of a role, `None` where it is not defined.
    fn nv_find(&mut self, role: NvRole) -> Result<Option<NvIndex>, TpmError>;

    /// The counter of a role, defined where it is not there yet.
    fn nv_counter(&mut self, role: NvRole, auth: &NvAuth) -> Result<NvIndex, TpmError>;

    /// Count up by one.
    fn nv_increment(&mut self, index: u32, auth: &NvAuth) -> Result<(), TpmError>;

    /// The contents of an index; nobody signs them.
    fn nv_read(&mut self, index: u32, auth: &NvAuth) -> Result<Vec<u8>, TpmError>;

    /// The contents of an index, signed for `qualifying` by the attestation key.
    fn nv_certify(
        &mut self,
        index: u32,
        auth: &NvAuth,
        qualifying: &Digest,
    ) -> Result<Certified, TpmError>;
}
