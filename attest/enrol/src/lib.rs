//! An authority's side of enrolment: a request in, a challenge out; an answer in, a signed
//! certificate out.
//!
//! A request is checked first: the endorsement certificate leads to a pinned vendor, it is the
//! endorsement key's, and the attestation key can sign only what its TPM says. Then a secret is
//! sealed so that only that TPM opens it, and only while it holds that attestation key
//! (`TPM2_MakeCredential` in software, [`credential`]). Whoever answers has shown both, and the
//! authority signs it.
//!
//! This crate does no input or output, reads no clock and has no random numbers: time and
//! randomness are arguments. It refuses an answer to another challenge, one that was used, and a
//! request other than the one that was challenged. It cannot tell whether the TPM stands where
//! the request says: that is the authority's own knowledge, given with [`Terms`].
#![forbid(unsafe_code)]

mod accept;
mod authority;
mod challenge;
pub mod credential;
mod error;
mod geotag;
mod request;
mod revoke;
mod sign;

pub use accept::{Accepted, Terms, accept};
pub use authority::{AuthorityError, Policy};
pub use challenge::{Challenged, challenge};
pub use error::EnrolError;
pub use geotag::geotag;
pub use request::{Checked, check_request};
pub use revoke::{RevokeError, revoke};
pub use sign::{SignError, payload, sign, signing_key};

/// A source of random bytes, good enough for keys; it fills the slice whole.
pub type Random<'r> = &'r mut dyn FnMut(&mut [u8]);
