//! Names as the kernel holds them: rules by name, questions that wait for an
//! answer, and addresses that answers gave.
//!
//! An address is only ever learned from the answer to a question that a guarded
//! socket asked, of a resolver that the boundary trusts, for a name that a rule
//! lists.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a name's key; see `merestone-dns`.
pub const NAME_BYTES: usize = 252;
/// Bits of [`NamePrefix`] before the name: always matched in full.
pub const NAME_HEADER_BITS: u32 = 32;
/// Names that rules list, over both live generations.
pub const MAX_NAMES: u32 = 2 * 16_384;
/// Networks of resolvers, over both live generations.
pub const MAX_RESOLVERS: u32 = 2 * 1024;
/// Addresses learned, over both live generations.
pub const MAX_LEARNED: u32 = 2 * 16_384;
/// Names that can hold the same address at once.
pub const LEARNED_SLOTS: u32 = 4;
/// Questions that can wait for an answer; the oldest gives way.
pub const MAX_QUESTIONS: u32 = 4096;
/// Names of refused questions that are kept for the agent; the oldest gives way.
pub const MAX_ASKED: u32 = 1024;
/// The host's own addresses that are known.
pub const MAX_OWN: u32 = 4096;
/// In place of a rule set: the name is listed only to be refused, by the rule
/// whose number is in the low 16 bits.
pub const DENIED_NAME: u32 = 1 << 31;

/// The data part of a key of the names: generation and boundary, then the
/// name backwards.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct NamePrefix {
    /// The generation, big endian, modulo 2^16.
    pub generation: [u8; 2],
    /// The boundary's number, big endian; 0 is the default one.
    pub boundary: [u8; 2],
    /// The name backwards; ends with a zero, or with the dot of a wildcard.
    pub name: [u8; NAME_BYTES],
}

/// The data part of a resolver's key: generation and boundary, then the address.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct ResolverPrefix {
    /// As in [`NamePrefix`].
    pub generation: [u8; 2],
    /// As in [`NamePrefix`].
    pub boundary: [u8; 2],
    /// The network address.
    pub address: [u8; 16],
}

/// What a resolver's prefix holds.
#[derive(Clone, Copy, Debug)]
pub struct Resolver;

impl Resolver {
    /// The entry of no address bits: the boundary has rules for names, so that
    /// questions are judged. Whoever is found by it is no resolver.
    pub const NONE: u32 = 0;
    /// Its answers are learned from.
    pub const TRUSTED: u32 = 1;
}

/// A question on its way: who asked whom.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct Question {
    /// The socket's cookie.
    pub cookie: u64,
    /// The resolver's address.
    pub resolver: [u8; 16],
    /// The transaction.
    pub id: u32,
    /// Always zero.
    pub reserved: u32,
}

/// What was asked.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct Pending {
    /// The group that asked.
    pub group: crate::GroupId,
    /// Digest of name, spelling and type.
    pub spelled: u64,
    /// When, nanoseconds since boot.
    pub asked_boot_ns: u64,
    /// The boundary that judges the group.
    pub boundary: u32,
    /// The process, 0 where the hook could not know.
    pub tgid: u32,
}

/// An address that a name has.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct LearnedKey {
    /// As in [`NamePrefix`].
    pub generation: [u8; 2],
    /// As in [`NamePrefix`].
    pub boundary: [u8; 2],
    /// 0 to [`LEARNED_SLOTS`]: names that share the address lie side by side.
    pub slot: u32,
    /// The address.
    pub address: [u8; 16],
}

/// Which name, by which rules, until when.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct Learned {
    /// Nothing new may use it from here on, nanoseconds since boot.
    pub expires_boot_ns: u64,
    /// Digest of the name; see [`crate::Event`] on where it is told.
    pub digest: u64,
    /// The resolver that said so.
    pub resolver: [u8; 16],
    /// Index into the rule-set array, the generation's slot already added.
    pub set: u32,
    /// The name backwards, as in [`NamePrefix`].
    pub name: [u8; NAME_BYTES],
}

/// The least and the most time an address stays learned, whatever its record
/// says: a time of zero must outlast the connect that follows the answer.
pub const LEAST_TTL_S: u32 = 5;
/// See [`LEAST_TTL_S`].
pub const MOST_TTL_S: u32 = 86_400;
/// How long a question waits for its answer.
pub const ANSWER_WITHIN_NS: u64 = 30_000_000_000;

const _: () = {
    assert!(size_of::<NamePrefix>() == 256);
    assert!(size_of::<Question>() == 32);
    assert!(size_of::<Pending>() == 32);
    assert!(size_of::<LearnedKey>() == 24);
    assert!(size_of::<Learned>() == 288);
};
