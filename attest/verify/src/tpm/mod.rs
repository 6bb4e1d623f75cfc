//! The TPM structures that evidence carries, read from their marshalled form.
//!
//! TPM 2.0 Library, Part 2 (rev. 1.59) gives the layouts. Nothing here talks to a TPM, and
//! nothing here is a check of trust: these are forms.

mod attest;
mod ek;
mod nv;
mod public;
mod signature;

pub use attest::{Attest, AttestError, ClockInfo};
pub use ek::{EkPublic, EkPublicError};
pub use nv::{NvAttest, NvPublic, NvPublicError, NvUse};
pub use public::{Attributes, KeyMaterial, Public, PublicError};
pub use signature::{Signature, SignatureError};

/// `TPM_ALG_SHA256`.
pub const ALG_SHA256: u16 = 0x000b;
/// `TPM_ALG_NULL`.
const ALG_NULL: u16 = 0x0010;
/// `TPM_ALG_RSASSA`.
const ALG_RSASSA: u16 = 0x0014;
/// `TPM_ALG_ECDSA`.
const ALG_ECDSA: u16 = 0x0018;
/// `TPM_RH_ENDORSEMENT`: the handle that stands for the endorsement hierarchy's name.
const RH_ENDORSEMENT: u32 = 0x4000_000b;
/// Longest `TPM2B_NAME`: algorithm and a SHA-512 digest.
const MAX_NAME: usize = 66;
