//! The answer section: which addresses belong to the name that was asked for.
//!
//! An address belongs if its record's owner is that name, or the target of an
//! alias that belongs and stands before it. Owners are told apart by where
//! they lie in the message: a resolver writes a name once and points at it
//! from then on (RFC 1035 §4.1.4). A record whose owner is spelled out again
//! ends the walk, and what follows is not learned: refused, never guessed.

/// The bytes of a message, wherever they are.
pub trait Message {
    /// `N` bytes at an offset from the header; none where they are not there.
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]>;
}

impl Message for [u8] {
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        let at = usize::try_from(at).ok()?;
        self.get(at..at.checked_add(N)?)?.try_into().ok()
    }
}

/// An address of the name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Address {
    /// IPv4 in mapped form (RFC 4291 §2.5.5.2).
    pub bytes: [u8; 16],
    /// For how long: the least of its own time and those of the aliases.
    pub ttl_s: u32,
    /// Whether it may be learned at all.
    pub standing: Standing,
}

/// What an address is worth as an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// An address of the internet at large.
    Public,
    /// A private network's: only if the boundary knows it already. A name must
    /// not open what is behind the wall (DNS rebinding).
    Private,
    /// This host, this link, a group, a translator's, or nobody's.
    Never,
}

/// What a record was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// An address of the name.
    Address(Address),
    /// Something else; there may be more.
    Other,
}

/// A walk over the records.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    at: u32,
    /// Where the name lies that owners must point at.
    owner: u32,
    /// The least time of the aliases so far.
    ttl_s: u32,
}

/// The question's name follows the header.
const QUESTION: u32 = 12;

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const IN: u16 = 1;

impl Walk {
    /// Begins after the question section.
    #[inline(always)]
    #[must_use]
    pub fn new(end: u32) -> Self {
        Self {
            at: end,
            owner: QUESTION,
            ttl_s: u32::MAX,
        }
    }

    /// The next record; none at the end or where the message is not in form.
    #[inline(always)]
    pub fn next<M: Message + ?Sized>(&mut self, message: &M) -> Option<Step> {
        let at = self.at;
        let head: [u8; 12] = message.load(at)?;
        let owner = pointer([head[0], head[1]])?;
        let kind = u16::from_be_bytes([head[2], head[3]]);
        let class = u16::from_be_bytes([head[4], head[5]]);
        let ttl = u32::from_be_bytes([head[6], head[7], head[8], head[9]]);
        let length = u16::from_be_bytes([head[10], head[11]]);
        let data = at + 12;
        self.at = data + u32::from(length);
        if class != IN || !(kind == A || kind == AAAA || kind == CNAME) {
            return Some(Step::Other);
        }
        if place(message, owner)? != self.owner {
            return Some(Step::Other);
        }
        // RFC 2181 §8: with the highest bit set it counts as zero.
        let ttl = if ttl >> 31 == 0 { ttl } else { 0 };
        let ttl_s = if ttl < self.ttl_s { ttl } else { self.ttl_s };
        if kind == CNAME {
            self.ttl_s = ttl_s;
            self.owner = place(message, data)?;
            return Some(Step::Other);
        }
        let mut bytes = [0; 16];
        let standing;
        if kind == A {
            if length != 4 {
                return None;
            }
            let four: [u8; 4] = message.load(data)?;
            bytes[10] = 0xff;
            bytes[11] = 0xff;
            bytes[12] = four[0];
            bytes[13] = four[1];
            bytes[14] = four[2];
            bytes[15] = four[3];
            standing = Standing::of_four(four);
        } else {
            if length != 16 {
                return None;
            }
            bytes = message.load(data)?;
            standing = Standing::of_six(&bytes);
        }
        Some(Step::Address(Address {
            bytes,
            ttl_s,
            standing,
        }))
    }
}

/// Where a compression pointer points; none for a name that is spelled out.
#[inline(always)]
fn pointer(bytes: [u8; 2]) -> Option<u32> {
    let word = u16::from_be_bytes(bytes);
    (word >> 14 == 3).then_some(u32::from(word & 0x3fff))
}

/// Where the name at `at` is spelled out, if it is a pointer to it. One step:
/// a pointer to a pointer to a pointer is a place like no other, so a loop
/// ends here too.
#[inline(always)]
fn place<M: Message + ?Sized>(message: &M, at: u32) -> Option<u32> {
    let bytes: [u8; 2] = message.load(at)?;
    Some(pointer(bytes).unwrap_or(at))
}

impl Standing {
    /// Of an IPv4 address (IANA special-purpose registry).
    #[inline(always)]
    #[must_use]
    pub const fn of_four(address: [u8; 4]) -> Self {
        let word = u32::from_be_bytes(address);
        let top = word >> 24;
        // This network, loopback, link-local, multicast and what is above it.
        if top == 0 || top == 127 || word >> 16 == 0xa9fe || top >= 224 {
            return Self::Never;
        }
        // RFC 1918 and RFC 6598.
        if top == 10 || word >> 20 == 0xac1 || word >> 16 == 0xc0a8 || word >> 22 == 0x191 {
            return Self::Private;
        }
        Self::Public
    }

    /// Of an IPv6 address. One that carries an IPv4 address is never learned.
    #[inline(always)]
    #[must_use]
    pub const fn of_six(address: &[u8; 16]) -> Self {
        let head = u32::from_be_bytes([address[0], address[1], address[2], address[3]]);
        // ::/8: loopback, mapped, compatible, NAT64; ff00::/8, fe80::/9 (link-
        // and site-local), 2002::/16 (6to4), 2001::/32 (Teredo).
        if head >> 24 == 0
            || head >> 24 == 0xff
            || head >> 23 == 0xfe80_0000 >> 23
            || head >> 16 == 0x2002
            || head == 0x2001_0000
        {
            return Self::Never;
        }
        if head >> 25 == 0xfc00_0000 >> 25 {
            return Self::Private;
        }
        Self::Public
    }
}
