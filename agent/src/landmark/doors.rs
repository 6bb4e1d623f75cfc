//! Ways in for the fuzz targets, compiled for them alone.

use super::wire::{LARGEST, Packet};
use super::{LandmarkError, cloud};

/// A packet read and written again; `None` where it is none.
#[must_use]
pub fn packet(bytes: &[u8]) -> Option<Vec<u8>> {
    let bytes = bytes.get(..LARGEST.min(bytes.len()))?;
    Packet::read(bytes).map(|packet| packet.bytes())
}

/// The body of what a metadata service answered.
pub fn metadata(bytes: &[u8]) -> Result<Vec<u8>, LandmarkError> {
    cloud::body(bytes)
}
