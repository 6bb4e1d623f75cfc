//! Sessions and epochs: what the agent says of itself, sealed by the TPM.
//!
//! A session is one start of the agent, or one break of the chain register. Its
//! statement is quoted once. Each epoch statement is put on the disk, its
//! digest extended into the chain register, and the same digest quoted; so the
//! register forces one linear history per boot, and the quote ties it to this
//! statement.
//!
//! A TPM that fails or hangs loses nothing: the statement stays pending, later
//! entries gather behind it, and the next call takes it up where it stands. No
//! further epoch is begun before, since the register could then never show the
//! pending one. After a crash the value of the register tells how far the
//! pending epoch got: if its digest is in there it gets its quote, under its own,
//! unchanged statement; if not (it never got there, or a reboot cleared the
//! register) it is abandoned, and what it covered is sealed by the first epoch
//! of the next session, whose cause is `recovered`.
//!
//! It refuses to sign anything with the TPM that is not on the disk, and to go
//! on with a register that somebody else extends.

mod boot;
mod chain;
mod counting;
mod error;
mod inputs;
mod key;
mod metrics;
mod recover;
mod secret;
mod session;
mod status;
mod thread;

pub use boot::BootLogs;
pub use error::SealError;
pub use inputs::{EpochInputs, SessionInputs};
pub use key::{KeySlot, SessionKey};
pub use metrics::Metrics;
pub use recover::Recovered;
pub use secret::nv_auth;
pub use session::{EpochSealed, SealCore, SealOptions, SessionSealed};
pub use status::Status;
pub use thread::Sealer;

use merestone_evidence::sha256;

/// The node's id unless the configuration gives one: it follows from the TPM.
#[must_use]
pub fn default_node_id(ak_name: &[u8]) -> String {
    let digest = sha256(ak_name).to_string();
    format!("node-{}", digest.get(..16).unwrap_or(&digest))
}
