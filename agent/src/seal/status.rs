//! What the operator may see of the sealer.

use merestone_evidence::{Digest, SessionId};
use merestone_tpm::Properties;

/// The sealer's state after its last step.
#[derive(Debug, Clone)]
pub struct Status {
    /// The node's id.
    pub node: String,
    /// The attestation key's Name, hex.
    pub ak_name: String,
    /// What the TPM says of itself.
    pub tpm: Properties,
    /// The open session.
    pub session: Option<SessionId>,
    /// Digest of its statement.
    pub statement: Option<Digest>,
    /// Epochs sealed in it.
    pub epochs: u64,
    /// When the last one was closed.
    pub last_epoch_ms: Option<u64>,
    /// Digest of the last sealed statement.
    pub last: Option<Digest>,
    /// An epoch statement waits for its quote.
    pub is_pending: bool,
    /// Why the last step failed; `None` if it did not.
    pub error: Option<String>,
}
