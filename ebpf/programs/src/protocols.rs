//! What each IP protocol number is.
//!
//! A table, not a match: the verifier then walks the rest of a program once,
//! not once for each number that it could tell apart.

use merestone_abi::protocol;

const HOP_BY_HOP: u8 = 0;
/// RFC 8200 §4.4.
pub(crate) const ROUTING: u8 = 43;
/// RFC 8200 §4.5.
pub(crate) const FRAGMENT: u8 = 44;
const GRE: u8 = 47;
const ESP: u8 = 50;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Starts with a source and a destination port.
const PORTS: u8 = 1;
/// Ends an IPv6 header chain. An unknown number could as well be an extension
/// header (RFC 7045 §2.1) that hides one that does.
const TRANSPORT: u8 = 1 << 1;
/// An IPv6 extension header that is walked.
const WALKED: u8 = 1 << 2;
/// Its second byte counts units beyond the first (or the first two).
const HAS_LENGTH: u8 = 1 << 3;
/// Two units are not counted, instead of one.
const TWO_MORE: u8 = 1 << 4;
/// The unit is 8 bytes, not 4.
const EIGHTS: u8 = 1 << 5;

static KINDS: [u8; 256] = kinds();

const fn kinds() -> [u8; 256] {
    let mut kinds = [0; 256];
    let mut number = 0;
    while number < 256 {
        kinds[number] = if protocol::has_ports(number as u8) {
            PORTS | TRANSPORT
        } else {
            match number as u8 {
                GRE | ESP | protocol::ICMPV6 => TRANSPORT,
                // RFC 8200 §4.2: in 8 bytes, minus one.
                HOP_BY_HOP | DESTINATION_OPTIONS => WALKED | HAS_LENGTH | EIGHTS,
                // RFC 4302 §2.2: in 4 bytes, minus two.
                AUTHENTICATION => WALKED | HAS_LENGTH | TWO_MORE,
                FRAGMENT => WALKED | EIGHTS,
                _ => 0,
            }
        };
        number += 1;
    }
    kinds
}

#[inline(always)]
fn kind(number: u8) -> u8 {
    // SAFETY: the table has an entry for each number; volatile, so that it
    // stays a table.
    unsafe { (&raw const KINDS[number as usize]).read_volatile() }
}

/// Whether the protocol starts with a source and a destination port.
#[inline(always)]
pub(crate) fn has_ports(number: u8) -> bool {
    kind(number) & PORTS != 0
}

/// Whether the protocol ends an IPv6 header chain.
#[inline(always)]
pub(crate) fn is_transport(number: u8) -> bool {
    kind(number) & TRANSPORT != 0
}

/// Whether the protocol is an IPv6 extension header that is walked.
#[inline(always)]
pub(crate) fn is_walked(number: u8) -> bool {
    kind(number) & WALKED != 0
}

/// The length of a walked header whose second byte is `length`. Without a
/// branch, so that the verifier sees one range of lengths, not one a kind.
#[inline(always)]
pub(crate) fn header_bytes(number: u8, length: u8) -> u32 {
    let kind = u32::from(kind(number));
    let counted = u32::from(length) * ((kind / HAS_LENGTH as u32) & 1);
    let units = counted + 1 + ((kind / TWO_MORE as u32) & 1);
    units << (2 + ((kind / EIGHTS as u32) & 1))
}
