//! Evidence on its way out of the host: the bundle and the trust file.
//!
//! Both are made from the sealed part of the log alone, without the agent and
//! without a TPM, also beside a running agent. Nothing is decided here: what is
//! wrong in the log goes out as it is and the verifier refuses it. The only
//! things checked are those without which no bundle can be made, and proofs:
//! one that does not hold is not handed out.

mod bundle;
mod checkpoint;
mod proofs;
mod receipt;
mod tree;
mod trust;

pub use bundle::{ExportError, bundle, bundle_with};
pub use receipt::{Found, receipt};
pub use trust::{TrustInputs, trust_file};
