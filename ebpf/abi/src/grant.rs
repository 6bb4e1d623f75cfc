//! Grants: permission for one group to one destination, for a time, up to a
//! number of bytes.
//!
//! The agent writes a [`Grant`] and never touches its [`GrantUse`] while it is
//! live: the count is the kernel's.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Grants at once.
pub const MAX_GRANTS: u32 = 32;
/// Ranges of ports a grant may name.
pub const GRANT_PORTS: usize = 4;
/// Protocols a grant may name.
pub const GRANT_PROTOCOLS: usize = 4;

/// One grant; all zero where its place is free.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Grant {
    /// The guarded group it is for; 0 for none.
    pub group: u64,
    /// Not before, nanoseconds since boot.
    pub from_boot_ns: u64,
    /// Not from then on.
    pub until_boot_ns: u64,
    /// How many bytes of IP packets may pass.
    pub limit_bytes: u64,
    /// First bytes of the digest of the signed file: which grant this is.
    pub id: u64,
    /// The network, network order, IPv4 in mapped form.
    pub address: [u8; 16],
    /// Bits of the network that count, as a mask.
    pub mask: [u8; 16],
    /// Ranges of ports, lowest and highest; past `ports` unused.
    pub ranges: [[u16; 2]; GRANT_PORTS],
    /// IP protocol numbers; 0 is none.
    pub protocols: [u8; GRANT_PROTOCOLS],
    /// Ranges in use; 0 for any port.
    pub ports: u8,
    /// Always zero.
    pub reserved: [u8; 3],
}

/// What was used of a grant.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct GrantUse {
    /// Bytes that passed; never more than the limit.
    pub bytes: u64,
    /// Packets that passed.
    pub packets: u64,
    /// Not 0 once a packet was refused because it would have been too much.
    pub refused: u64,
}

const _: () = {
    assert!(size_of::<Grant>() == 96);
    assert!(size_of::<GrantUse>() == 24);
};
