//! The question section: the one form of question that can be judged.
//!
//! A question that leaves the host carries what its sender puts in it, to the
//! resolver and by it to whoever serves the name. So everything is refused
//! that is not needed to ask for an address: further questions and records,
//! EDNS options but a cookie (which ends at the resolver, RFC 7873 §4), bytes
//! after the end, and label bytes that no host name has.

use core::hint::black_box;

use crate::name::{KEY_BYTES, Key, OPEN_KEY, WIRE_BYTES, fold};

/// Bytes of the header (RFC 1035 §4.1.1).
pub const HEADER_BYTES: u32 = 12;
/// Bytes of the array a message is read from: more than any question in form.
pub const MESSAGE_BYTES: usize = 512;
const LAST: u32 = MESSAGE_BYTES as u32 - 1;

/// Where a byte of the message lies in the array.
macro_rules! place {
    ($at:expr) => {
        (($at) & LAST) as usize
    };
}

/// The longest question in form: a whole name, type and class, and EDNS with a
/// client's and a server's cookie.
const LONGEST: u32 = HEADER_BYTES + WIRE_BYTES + 1 + 4 + OPT_BYTES + 4 + 40;
/// An EDNS record without options: root, type, size, rcode, version, flags,
/// length (RFC 6891 §6.1.2).
const OPT_BYTES: u32 = 11;

/// Bits of the header's flags (RFC 1035 §4.1.1, RFC 4035 §3).
const RESPONSE: u16 = 1 << 15;
const OPCODE: u16 = 0xf << 11;
const TRUNCATED: u16 = 1 << 9;
const RECURSION_DESIRED: u16 = 1 << 8;
const AUTHENTIC_DATA: u16 = 1 << 5;
const CHECKING_DISABLED: u16 = 1 << 4;
const RCODE: u16 = 0xf;
/// Of the flags of EDNS only this one has a meaning (RFC 3225 §3).
const DNSSEC_OK: u16 = 1 << 15;

const IN: u16 = 1;
const OPT: u16 = 41;
const COOKIE: u16 = 10;

/// The message is not in the form that can be judged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refused;

/// A question that could be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Asked {
    /// The transaction.
    pub id: u16,
    /// Digest of the name as it was spelled, and of the type: an answer must
    /// repeat both, upper and lower case included.
    pub spelled: u64,
    /// Digest of the name alone, whatever its case.
    pub name: u64,
    /// Where the question section ends.
    pub end: u32,
}

/// The name could not be read.
const UNFIT: u32 = u32::MAX;

/// A message, what was found in it, and the key that its name is looked up by.
///
/// The steps talk through it and not by values, in the kernel each is a
/// function of its own: the verifier then walks what follows a loop once, not
/// once for each way out of the loop.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Work {
    /// The message from its header on; the name in it is folded in place.
    pub message: [u8; MESSAGE_BYTES],
    /// What the name is looked up by.
    pub lookup: Lookup,
    /// As [`Asked::spelled`].
    pub spelled: u64,
    /// As [`Asked::name`].
    pub name: u64,
    /// Bytes of the message; what lies in the array after them is rubbish.
    pub length: u32,
    /// Bytes of the name on the wire without the zero at its end.
    wire: u32,
}

/// A key of the kernel's longest-prefix map of names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct Lookup {
    /// Bits that must match.
    pub bits: u32,
    /// Whose rules: generation and boundary.
    pub owner: [u8; 4],
    /// The name.
    pub key: Key,
}

/// Types that a question may be of: A NS CNAME SOA PTR MX TXT AAAA SRV SVCB
/// HTTPS. Anything else is 16 bits for the sender to choose.
#[inline(always)]
fn may_be_asked(kind: u16) -> bool {
    const LOW: u64 =
        1 << 1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 12 | 1 << 15 | 1 << 16 | 1 << 28 | 1 << 33;
    (kind < 64 && (LOW >> (kind & 63)) & 1 == 1) || kind == 64 || kind == 65
}

/// FNV-1a, 64 bits: tells names apart that nobody chose to collide. What is
/// allowed is looked up by the whole name.
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[inline(always)]
fn mix(digest: u64, byte: u8) -> u64 {
    (digest ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
}

/// One less, as a table: the verifier then knows nothing of the result, and
/// walks each byte of a name once, not once for each length of its label.
static ONE_LESS: [u8; 256] = one_less();

const fn one_less() -> [u8; 256] {
    let mut table = [0; 256];
    let mut number = 1;
    while number < 256 {
        table[number] = number as u8 - 1;
        number += 1;
    }
    table
}

impl Work {
    /// Nothing read yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            message: [0; MESSAGE_BYTES],
            lookup: Lookup {
                bits: 0,
                owner: [0; 4],
                key: OPEN_KEY,
            },
            spelled: 0,
            name: 0,
            length: 0,
            wire: UNFIT,
        }
    }

    #[inline(always)]
    fn byte(&self, at: u32) -> u8 {
        self.message[place!(at)]
    }

    #[inline(always)]
    fn word(&self, at: u32) -> u16 {
        u16::from_be_bytes([self.byte(at), self.byte(at + 1)])
    }

    /// Step 1: walks the name, folds it in place and takes its digests.
    #[inline(always)]
    pub fn walk(&mut self) {
        self.wire = UNFIT;
        let mut left = 0_u8;
        let mut spelled = FNV_START;
        let mut name = FNV_START;
        for i in 0..=WIRE_BYTES {
            let byte = self.byte(HEADER_BYTES + i);
            spelled = mix(spelled, byte);
            let folded;
            if left == 0 {
                if byte == 0 {
                    self.wire = i;
                    self.spelled = spelled;
                    self.name = name;
                    return;
                }
                // 64 and above are pointers and extended labels.
                if byte > 63 {
                    return;
                }
                // The dot before the label; the first is the key's end.
                folded = if i == 0 { 0 } else { b'.' };
                left = byte;
            } else {
                folded = fold(byte);
                if folded == 0 {
                    return;
                }
                left = ONE_LESS[left as usize];
            }
            name = mix(name, folded);
            self.message[place!(HEADER_BYTES + i)] = folded;
        }
    }

    /// Step 2: writes the name's key, backwards.
    #[inline(always)]
    pub fn write_key(&mut self) {
        self.lookup.key = OPEN_KEY;
        let wire = self.wire;
        for j in 0..KEY_BYTES as u32 {
            if j >= wire {
                return;
            }
            // Wraps where the name is unfit; what is written then, nobody reads. A
            // bound on it here would cost the mask, and with it the verifier.
            let at = HEADER_BYTES.wrapping_add(wire).wrapping_sub(1 + j);
            self.lookup.key[j as usize] = self.message[place!(at)];
        }
    }

    /// Step 3 of a question: whether all of it is in form.
    #[inline(always)]
    pub fn question(&self) -> Result<Asked, Refused> {
        let flags = self.word(2);
        let additional = self.word(10);
        let others = self.word(6) | self.word(8);
        let wanted = RECURSION_DESIRED | AUTHENTIC_DATA | CHECKING_DISABLED;
        let length = self.length;
        if length > LONGEST
            || flags & !wanted != 0
            || self.word(4) != 1
            || others != 0
            || additional > 1
        {
            return Err(Refused);
        }
        let asked = self.section()?;
        if additional == 1 {
            self.edns(asked.end)?;
        } else if asked.end != length {
            return Err(Refused);
        }
        Ok(asked)
    }

    /// Step 3 of an answer: its question, and how many records it has, where
    /// it is whole and says that it found something. The array may hold its
    /// beginning only.
    #[inline(always)]
    pub fn answer(&self) -> Result<(Asked, u16), Refused> {
        let flags = self.word(2);
        let records = self.word(6);
        let refused = OPCODE | TRUNCATED | RCODE;
        if flags & (RESPONSE | refused) != RESPONSE || self.word(4) != 1 || records == 0 {
            return Err(Refused);
        }
        Ok((self.section()?, records))
    }

    /// The question section.
    #[inline(always)]
    fn section(&self) -> Result<Asked, Refused> {
        let wire = self.wire;
        if wire > WIRE_BYTES {
            return Err(Refused);
        }
        // Out of the compiler's sight: it would drop the masks below, and older
        // verifiers do not see what makes them needless.
        let end = black_box(HEADER_BYTES + wire + 5);
        let kind = self.word(end - 4);
        if end > self.length || !may_be_asked(kind) || self.word(end - 2) != IN {
            return Err(Refused);
        }
        Ok(Asked {
            id: self.word(0),
            spelled: mix(mix(self.spelled, (kind >> 8) as u8), kind as u8),
            name: self.name,
            end,
        })
    }

    /// EDNS without options, or with a cookie alone, from `at` to the very end.
    #[inline(always)]
    fn edns(&self, at: u32) -> Result<(), Refused> {
        let extended = self.word(at + 5);
        let flags = self.word(at + 7);
        let options = u32::from(self.word(at + 9));
        if self.byte(at) != 0
            || self.word(at + 1) != OPT
            || extended != 0
            || flags & !DNSSEC_OK != 0
            || at + OPT_BYTES + options != self.length
        {
            return Err(Refused);
        }
        if options == 0 {
            return Ok(());
        }
        // A client's cookie of 8 bytes, alone or with a server's of 8 to 32.
        let at = at + OPT_BYTES;
        let cookie = u32::from(self.word(at + 2));
        let fits = cookie == 8 || (16..=40).contains(&cookie);
        if self.word(at) != COOKIE || !fits || cookie + 4 != options {
            return Err(Refused);
        }
        Ok(())
    }
}

impl Default for Work {
    fn default() -> Self {
        Self::new()
    }
}

/// All steps on a question, as the kernel takes them.
#[must_use]
pub fn question(message: &[u8]) -> Option<(Asked, Key)> {
    let mut work = read(message)?;
    (message.len() == work.length as usize).then_some(())?;
    work.walk();
    work.write_key();
    let asked = work.question().ok()?;
    Some((asked, work.lookup.key))
}

/// All steps on an answer: its question, the name's key, how many records.
#[must_use]
pub fn answered(message: &[u8]) -> Option<(Asked, Key, u16)> {
    let mut work = read(message)?;
    work.walk();
    work.write_key();
    let (asked, records) = work.answer().ok()?;
    Some((asked, work.lookup.key, records))
}

/// The beginning of a message, as far as it fits.
fn read(message: &[u8]) -> Option<Work> {
    let mut work = Work::new();
    let length = message.len().min(MESSAGE_BYTES);
    work.length = u32::try_from(length).ok()?;
    for (slot, byte) in work.message.iter_mut().zip(message) {
        *slot = *byte;
    }
    (work.length > HEADER_BYTES).then_some(work)
}
