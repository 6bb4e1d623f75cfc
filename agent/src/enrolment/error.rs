//! Why the host's side of an enrolment goes no further.

use merestone_evidence::DecodeError;
use merestone_tpm::TpmError;
use std::path::PathBuf;

/// Why the host's side of an enrolment goes no further.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnrolmentError {
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// A file that is not what it should be.
    #[error(transparent)]
    Form(#[from] DecodeError),
    /// A certificate that is not in its signed form.
    #[error("not a signed file (COSE_Sign1): {detail}")]
    Signed {
        /// What is wrong.
        detail: String,
    },
    /// For another host.
    #[error("the file is for node {got:?}, this host is {want:?}")]
    Node {
        /// The file's node.
        got: String,
        /// This one.
        want: String,
    },
    /// For another key.
    #[error(
        "the {what} is for the attestation key {got}, this host's is {want}; begin again with `merestone enroll request`"
    )]
    Key {
        /// What was given.
        what: &'static str,
        /// Name of the key in it.
        got: String,
        /// Name of this host's.
        want: String,
    },
    /// The secret could not be used.
    #[error("the secret of the challenge cannot be used")]
    Secret,
    /// Not signed by the key that was named.
    #[error("the certificate is not signed by that authority")]
    Authority,
    /// A file of the state folder.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A kept certificate that cannot be read.
    #[error("{}: {source}; remove it, or install it again", path.display())]
    Kept {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: Box<Self>,
    },
}
