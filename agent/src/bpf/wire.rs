//! The bridge from the wire contract to aya's maps.
#![expect(
    unsafe_code,
    reason = "aya::Pod is an unsafe trait; this is its only implementation"
)]

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A contract type as a map key or value.
///
/// aya cannot see that a type has no padding and no forbidden bit pattern, so
/// it asks for `unsafe impl Pod`. zerocopy's derives prove both; the wrapper
/// turns that proof into aya's marker, once, for every contract type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(transparent)]
pub(crate) struct Wire<T>(pub(crate) T);

// SAFETY: `IntoBytes` rules out padding (every byte may be read), `FromBytes`
// rules out invalid bit patterns (every byte may be written), and
// `repr(transparent)` gives `Wire<T>` the layout of `T`.
unsafe impl<T: Copy + FromBytes + Immutable + IntoBytes + 'static> aya::Pod for Wire<T> {}
