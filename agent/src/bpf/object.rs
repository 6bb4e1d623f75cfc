//! The eBPF object this build carries, and its digest.

use super::KernelError;
use sha2::{Digest as _, Sha256};
use std::sync::OnceLock;

#[cfg(bpf_object)]
static OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(concat!(
    env!("OUT_DIR"),
    "/merestone.o"
)));
#[cfg(not(bpf_object))]
static OBJECT: Option<&[u8]> = None;

/// The object's bytes, or why there are none.
pub fn object() -> Result<&'static [u8], KernelError> {
    OBJECT.ok_or(KernelError::NoObject)
}

/// SHA-256 of the object, where this build carries one.
#[must_use]
pub fn object_sha256() -> Option<[u8; 32]> {
    // Every epoch, status and scrape asks; the bytes never change.
    static DIGEST: OnceLock<Option<[u8; 32]>> = OnceLock::new();
    *DIGEST.get_or_init(|| object().ok().map(|bytes| Sha256::digest(bytes).into()))
}
