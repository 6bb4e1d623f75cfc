//! What an enrolment authority vouches for: this attestation key lives in that TPM, of that node.
//!
//! The transcript of a credential activation convinces only who ran it. So an authority that did
//! signs an enrolment certificate, and this module believes it if, and only if, the trust policy
//! pins the authority's key. Where the policy also pins vendors' roots, the endorsement
//! certificate in it is traced to one of them again.
//!
//! It refuses a signature by a key that is not pinned (N34), a certificate of another key (N22)
//! or another node (N24), and one bad certificate among good ones (N10). A certificate holds for
//! evidence sealed while it was valid, however long ago; revocation ends that.

mod cose;
mod error;
mod judge;
mod trust;
mod vouch;

pub use cose::{CoseError, Kind, Opened, key_id, open, protected_header, public_key};
pub(crate) use cose::{Kind as CoseKind, open_with};
pub use error::EnrolmentError;
pub use trust::Authority;

pub(crate) use judge::judge;
pub(crate) use trust::{Table, all_certificates, content};
pub(crate) use vouch::{Vouched, vouch};
