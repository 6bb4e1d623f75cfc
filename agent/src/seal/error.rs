//! Why something could not be sealed. None of these loses a record: what was
//! not sealed stays in the log and the next epoch covers it.

use crate::ledger::LedgerError;
use merestone_evidence::Digest;
use merestone_tpm::TpmError;

/// Why the sealer could not do a step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The TPM could not do its part.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The disk could not do its part.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The chain register holds something that this agent did not put there.
    #[error(
        "pcr {pcr} holds {got}, not {expected}: another program extends it; a new session has to be started, and [evidence] chain_pcr should name a register of its own"
    )]
    ForeignExtend {
        /// The chain register.
        pcr: u8,
        /// What it should hold.
        expected: Digest,
        /// What it holds.
        got: Digest,
    },
    /// The TPM was reset, restarted or resumed.
    #[error(
        "the TPM was restarted since the session began (the host slept, or the TPM was reset); a new session has to be started"
    )]
    Restarted,
    /// No session was started, or the last one came to an end.
    #[error("no session is open; start one before closing an epoch")]
    NoSession,
    /// The configuration asks for something that proves nothing.
    #[error("the quote must select the chain register {chain_pcr}, it selects {pcrs:?}")]
    Selection {
        /// The registers.
        pcrs: Vec<u8>,
        /// The chain register.
        chain_pcr: u8,
    },
    /// The kernel gave no random bytes.
    #[error("cannot draw random bytes for a session key: {source}")]
    Random {
        /// Its reason.
        source: std::io::Error,
    },
    /// The counters' password cannot be read or made.
    #[error("cannot use {}, the password of the TPM's counters: {source}", path.display())]
    Secret {
        /// Its file.
        path: std::path::PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// What is on the disk is not what an agent writes.
    #[error("the epoch that waits for its quote cannot be read: {why}")]
    Pending {
        /// What is wrong.
        why: String,
    },
    /// A receipt could not be signed.
    #[error("a receipt is not signed: {why}")]
    Receipt {
        /// What is wrong.
        why: String,
    },
    /// The thread that owns the TPM is gone.
    #[error("the sealing thread ended; restart the agent")]
    Gone,
}

impl SealError {
    /// The session came to an end with this: start another.
    #[must_use]
    pub const fn ends_session(&self) -> bool {
        matches!(
            self,
            Self::ForeignExtend { .. } | Self::Restarted | Self::NoSession
        )
    }

    /// A short word for metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Tpm(TpmError::Deadline { .. } | TpmError::Busy) => "tpm_slow",
            Self::Tpm(_) => "tpm",
            Self::Ledger(_) => "disk",
            Self::ForeignExtend { .. } => "foreign_extend",
            Self::Restarted => "tpm_restart",
            Self::NoSession => "no_session",
            Self::Selection { .. }
            | Self::Random { .. }
            | Self::Secret { .. }
            | Self::Pending { .. }
            | Self::Receipt { .. }
            | Self::Gone => "internal",
        }
    }
}
