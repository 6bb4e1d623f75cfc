//! The certificate of an endorsement key, traced to a vendor that somebody pinned.
//!
//! The rules are RFC 5280's for a path, and the TCG EK Credential Profile's (2.x) for its end:
//! the extended key usage `2.23.133.8.1`, a subject alternative name that names the TPM in a
//! directory name (critical where the subject is empty, as vendors rightly do), and a key usage
//! for encryption alone. An extension that is critical and not known here is refused.
//!
//! It refuses a root that came with the evidence (N27a), an issuer that is no issuer (N27b), and
//! SHA-1. It asks no network: revocation lists of vendors are not looked at, and the report says
//! so. That the TPM holds the key is not shown by its certificate but by the enrolment.

mod certificate;
pub(crate) mod der;
mod error;
mod identity;
#[cfg(test)]
mod limbo;
mod name;
mod path;
mod signature;
#[cfg(test)]
mod wycheproof;

pub use certificate::{Certificate, certificates};
pub use error::EkError;
pub use identity::Identity;
pub(crate) use path::signs_statements;
pub use path::{Anchors, EkTrusted, Rules};
pub(crate) use signature::rsa_sha256;

/// A public key that a TPM can decrypt with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EkKey {
    /// RSA.
    Rsa {
        /// Modulus, big-endian, without leading zeros.
        modulus: Vec<u8>,
        /// Public exponent.
        exponent: u32,
    },
    /// A point of P-256, uncompressed coordinates.
    P256 {
        /// X coordinate.
        x: [u8; 32],
        /// Y coordinate.
        y: [u8; 32],
    },
}
