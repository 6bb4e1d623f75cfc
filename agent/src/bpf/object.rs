//! The eBPF object this build carries, and its digest.

use super::Error;
use sha2::{Digest as _, Sha256};

#[cfg(bpf_object)]
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/merestone.o"));

/// The object's bytes, or why there are none.
#[cfg(bpf_object)]
pub fn object() -> Result<&'static [u8], Error> {
    Ok(OBJECT)
}

/// The object's bytes, or why there are none.
#[cfg(not(bpf_object))]
pub fn object() -> Result<&'static [u8], Error> {
    Err(Error::NoObject)
}

/// SHA-256 of the object, where this build carries one.
#[must_use]
pub fn object_sha256() -> Option<[u8; 32]> {
    object().ok().map(|bytes| Sha256::digest(bytes).into())
}
