//! Reads where a packet goes, and refuses to guess.
//!
//! Refused: routing headers and source routes, because the next stop is not
//! the destination the header shows; next headers that are not known
//! transports, because what follows them cannot be found; and whatever is cut
//! short. Later fragments carry no ports and are judged without.

use crate::decide::{self, Destination};
use crate::protocols::{self, FRAGMENT, ROUTING};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use core::mem::MaybeUninit;
use merestone_abi::Reason;

/// `ETH_P_IP` and `ETH_P_IPV6` as `skb->protocol` holds them.
pub(crate) const IPV4: u32 = 0x0800_u16.to_be() as u32;
pub(crate) const IPV6: u32 = 0x86dd_u16.to_be() as u32;

const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
/// RFC 791 §3.1: loose and strict source route.
const LSRR: u8 = 131;
const SSRR: u8 = 137;
/// Options fit in 60 - 20 bytes, one byte each at least.
const MAX_OPTIONS: u32 = 40;

/// Headers walked before the packet counts as unparsable. RFC 8200 §4.1 has
/// each occur once, destination options twice.
const MAX_HEADERS: u32 = 8;

/// Reads at an offset from the network header.
#[inline(always)]
pub(crate) fn load<T: Copy>(skb: *mut __sk_buff, offset: u32) -> Result<T, Reason> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes `size_of::<T>()` bytes or fails.
    let failed = unsafe {
        bpf_skb_load_bytes(
            skb.cast_const().cast(),
            offset,
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
        )
    };
    if failed != 0 {
        return Err(Reason::UNPARSABLE);
    }
    // SAFETY: the helper has filled it; `T` is bytes or words here.
    Ok(unsafe { value.assume_init() })
}

/// Where a packet goes; the port it comes from, 0 where it shows none. `to`
/// keeps what could be read when it is refused.
#[inline(always)]
pub(crate) fn parse(skb: *mut __sk_buff, to: &mut Destination) -> Result<u16, Reason> {
    match merestone_parse(skb, to) {
        refused if refused & REFUSED != 0 => Err(Reason(refused as u8)),
        offset => Ok(offset as u16),
    }
}

/// Set in what [`merestone_parse`] returns when the rest is a reason.
const REFUSED: u32 = 1 << 16;

/// [`parse`] for the verifier to walk once; see `decide::merestone_decide`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn merestone_parse(skb: *mut __sk_buff, to: *mut Destination) -> u32 {
    // SAFETY: the caller passes a reference; the verifier wants the check.
    let Some(to) = (unsafe { to.as_mut() }) else {
        return REFUSED | u32::from(Reason::UNPARSABLE.0);
    };
    match by_ethertype(skb, to) {
        Ok(offset) => u32::from(offset),
        Err(reason) => REFUSED | u32::from(reason.0),
    }
}

#[inline(always)]
fn by_ethertype(skb: *mut __sk_buff, to: &mut Destination) -> Result<u16, Reason> {
    // SAFETY: the context is valid.
    let ethertype = unsafe { (&raw const (*skb).protocol).read_volatile() };
    // What leaves as IPv4 is read as IPv4: with IP_HDRINCL the version in the
    // packet is the sender's choice.
    if ethertype == IPV4 {
        parse_v4(skb, to)
    } else if ethertype == IPV6 {
        parse_v6(skb, to)
    } else {
        Err(Reason::UNPARSABLE)
    }
}

#[inline(always)]
fn parse_v4(skb: *mut __sk_buff, to: &mut Destination) -> Result<u16, Reason> {
    let header: [u8; IPV4_HEADER as usize] = load(skb, 0)?;
    to.address = decide::mapped([header[16], header[17], header[18], header[19]]);
    to.protocol = header[9];
    if header[0] >> 4 != 4 {
        return Err(Reason::UNPARSABLE);
    }
    let length = u32::from(header[0] & 0xf) * 4;
    if length < IPV4_HEADER {
        return Err(Reason::UNPARSABLE);
    }
    if length > IPV4_HEADER {
        refuse_source_route(skb, length)?;
    }
    to.fragment = (u16::from_be_bytes([header[6], header[7]]) & 0x1fff) != 0;
    read_port(skb, length, to)
}

/// Walks IPv4 options (RFC 791 §3.1) for a source route.
#[inline(never)]
fn refuse_source_route(skb: *mut __sk_buff, end: u32) -> Result<(), Reason> {
    let mut at = IPV4_HEADER;
    for _ in 0..MAX_OPTIONS {
        if at >= end {
            return Ok(());
        }
        let kind: u8 = load(skb, at)?;
        match kind {
            0 => return Ok(()),
            1 => at += 1,
            LSRR | SSRR => return Err(Reason::SOURCE_ROUTE),
            _ => {
                let length: u8 = load(skb, at + 1)?;
                if length < 2 {
                    return Err(Reason::UNPARSABLE);
                }
                at += u32::from(length);
            }
        }
    }
    if at == end {
        Ok(())
    } else {
        Err(Reason::UNPARSABLE)
    }
}

#[inline(always)]
fn parse_v6(skb: *mut __sk_buff, to: &mut Destination) -> Result<u16, Reason> {
    // RFC 8200 §3: the version is the first half byte, the next header the
    // seventh byte, the destination the last 16.
    let version: u8 = load(skb, 0)?;
    let mut next: u8 = load(skb, 6)?;
    to.address = load(skb, 24)?;
    to.protocol = next;
    if version >> 4 != 6 {
        return Err(Reason::UNPARSABLE);
    }
    let mut at = IPV6_HEADER;
    for _ in 0..MAX_HEADERS {
        if protocols::is_transport(next) {
            to.protocol = next;
            return read_port(skb, at, to);
        }
        if !protocols::is_walked(next) {
            return Err(if next == ROUTING {
                Reason::ROUTING_HEADER
            } else {
                Reason::UNKNOWN_HEADER
            });
        }
        let header: [u8; 4] = load(skb, at)?;
        if next == FRAGMENT && u16::from_be_bytes([header[2], header[3]]) & 0xfff8 != 0 {
            to.fragment = true;
            to.protocol = header[0];
            return if protocols::is_transport(header[0]) {
                Ok(0)
            } else {
                Err(Reason::UNKNOWN_HEADER)
            };
        }
        at += protocols::header_bytes(next, header[1]);
        next = header[0];
        to.protocol = next;
    }
    Err(Reason::UNPARSABLE)
}

#[inline(always)]
fn read_port(skb: *mut __sk_buff, at: u32, to: &mut Destination) -> Result<u16, Reason> {
    if to.fragment || !protocols::has_ports(to.protocol) {
        return Ok(0);
    }
    let ports: [u8; 4] = load(skb, at)?;
    to.port = u16::from_be_bytes([ports[2], ports[3]]);
    Ok(u16::from_be_bytes([ports[0], ports[1]]))
}
