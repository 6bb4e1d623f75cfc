//! Which boundary judges a group.
//!
//! A number of a boundary means something only in its generation, and a group
//! outlives many. So what is remembered of a group is written for both slots,
//! like the rules, and is read under the generation that judges.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a key of [`crate::maps::SELECTORS`]: a cgroup's path below the
/// root, or a unit's name without a slash, filled up with zeros.
pub const SELECTOR_BYTES: usize = 256;
/// Selectors a boundary may have.
pub const MAX_SELECTORS: u32 = 1024;

/// Boundary numbers by generation slot; 0 is the default boundary.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Selected {
    /// The cgroup it was found for: for a tree, that of its first process.
    pub cgroup: u64,
    /// Indexed by `generation % GENERATION_SLOTS`.
    pub boundary: [u16; 2],
    /// Always zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Selected>() == 16);
