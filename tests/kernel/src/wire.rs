//! Bytes on the wire and in socket addresses, built and read without structs.
//!
//! Builds what a hostile process would send, so it checks nothing; reads what
//! the sniffer caught, so it never indexes past what it was given.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `sockaddr_in` or `sockaddr_in6` of an address.
pub fn sockaddr(address: SocketAddr) -> Vec<u8> {
    match address {
        SocketAddr::V4(address) => [
            &family(libc::AF_INET)[..],
            &address.port().to_be_bytes(),
            &address.ip().octets(),
            &[0; 8],
        ]
        .concat(),
        SocketAddr::V6(address) => [
            &family(libc::AF_INET6)[..],
            &address.port().to_be_bytes(),
            &[0; 4],
            &address.ip().octets(),
            &address.scope_id().to_ne_bytes(),
        ]
        .concat(),
    }
}

/// A family number as the first two bytes of any socket address.
pub fn family(family: i32) -> [u8; 2] {
    u16::try_from(family).unwrap_or(0).to_ne_bytes()
}

/// The internet checksum (RFC 1071) over several parts of even length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            let high = pair.first().copied().unwrap_or(0);
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([high, low]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [_, _, high, low] = sum.to_be_bytes();
    !u16::from_be_bytes([high, low])
}

/// An echo request; the checksums of version 6 are the kernel's to fill in.
pub fn echo(v6: bool, payload: &[u8]) -> Vec<u8> {
    let kind = if v6 { 128 } else { 8 };
    let mut packet = vec![kind, 0, 0, 0, 0x4d, 0x52, 0, 1];
    packet.extend_from_slice(payload);
    if !v6 {
        let sum = checksum(&[&packet]).to_be_bytes();
        if let Some(place) = packet.get_mut(2..4) {
            place.copy_from_slice(&sum);
        }
    }
    packet
}

/// A length field; nothing built here is longer than it can say.
fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

/// A UDP datagram with its header.
pub fn udp(source: IpAddr, target: IpAddr, port: u16, payload: &[u8]) -> Vec<u8> {
    let size = length(8 + payload.len());
    let head = |sum: u16| {
        [
            40000_u16.to_be_bytes(),
            port.to_be_bytes(),
            size.to_be_bytes(),
            sum.to_be_bytes(),
        ]
        .concat()
    };
    let pseudo = [
        octets(source),
        octets(target),
        vec![0, 17],
        size.to_be_bytes().to_vec(),
    ]
    .concat();
    let sum = checksum(&[&pseudo, &head(0), payload]);
    [head(sum), payload.to_vec()].concat()
}

/// The bytes of an address.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An IPv4 packet; `fragment` is the flags-and-offset field.
pub fn ipv4(
    source: Ipv4Addr,
    target: Ipv4Addr,
    protocol: u8,
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    let size = length(20 + payload.len());
    let head = |sum: u16| {
        [
            &[0x45, 0][..],
            &size.to_be_bytes(),
            &[0x4d, 0x52],
            &fragment.to_be_bytes(),
            &[64, protocol],
            &sum.to_be_bytes(),
            &source.octets(),
            &target.octets(),
        ]
        .concat()
    };
    let sum = checksum(&[&head(0)]);
    [head(sum), payload.to_vec()].concat()
}

/// An IPv6 packet.
pub fn ipv6(source: Ipv6Addr, target: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let size = length(payload.len());
    [
        &[0x60, 0, 0, 0][..],
        &size.to_be_bytes(),
        &[next, 64],
        &source.octets(),
        &target.octets(),
        payload,
    ]
    .concat()
}

/// A DNS query for one name below `example`, with `label` as its first label.
pub fn query(label: &str) -> Vec<u8> {
    let mut bytes = vec![0x4d, 0x52, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for part in [label, "example"] {
        bytes.push(u8::try_from(part.len()).unwrap_or(63));
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

/// How much of a conversation a packet is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Weight {
    /// A TCP SYN: somebody tried to connect, and the packet got out.
    Syn,
    /// Carries bytes of the sender, or is not TCP at all.
    Data,
    /// A TCP segment without payload: an acknowledgement, a reset.
    Bare,
}

/// What the sniffer needs to know of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Packet {
    /// Destination in the IP header.
    pub target: IpAddr,
    /// How much of a conversation it is.
    pub weight: Weight,
}

/// The first group that a report of joins (RFC 3376 §4.2, RFC 3810 §5.2)
/// in an Ethernet frame names.
pub fn reported_group(frame: &[u8]) -> Option<IpAddr> {
    let kind = u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]);
    let ip = frame.get(14..)?;
    if kind == 0x0800 && *ip.get(9)? == 2 {
        let report = ip.get(usize::from(ip.first()? & 15) * 4..)?;
        let group: [u8; 4] = match report.first()? {
            0x22 => report.get(12..16)?.try_into().ok()?,
            // Versions 1 and 2 name one group, after checksum.
            _ => report.get(4..8)?.try_into().ok()?,
        };
        return Some(Ipv4Addr::from(group).into());
    }
    // A hop-by-hop header of 8 bytes with the router alert comes first.
    if kind == 0x86dd && *ip.get(6)? == 0 && *ip.get(40)? == 58 {
        let report = ip.get(48..)?;
        let group: [u8; 16] = match report.first()? {
            143 => report.get(12..28)?.try_into().ok()?,
            131 | 132 => report.get(8..24)?.try_into().ok()?,
            _ => return None,
        };
        return Some(Ipv6Addr::from(group).into());
    }
    None
}

/// Reads an Ethernet frame as far as [`Packet`] needs; `None` if it is not IP.
pub fn parse(frame: &[u8]) -> Option<Packet> {
    let kind = u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]);
    let ip = frame.get(14..)?;
    let (target, protocol, header, total): (IpAddr, u8, usize, usize) = match kind {
        0x0800 => {
            let target: [u8; 4] = ip.get(16..20)?.try_into().ok()?;
            let total = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
            let header = usize::from(ip.first()? & 15) * 4;
            (Ipv4Addr::from(target).into(), *ip.get(9)?, header, total)
        }
        0x86dd => {
            let target: [u8; 16] = ip.get(24..40)?.try_into().ok()?;
            let size = usize::from(u16::from_be_bytes([*ip.get(4)?, *ip.get(5)?]));
            (Ipv6Addr::from(target).into(), *ip.get(6)?, 40, 40 + size)
        }
        _ => return None,
    };
    let weight = match (protocol, ip.get(header + 12), ip.get(header + 13)) {
        (6, Some(offset), Some(flags)) => {
            let payload = total.saturating_sub(header + usize::from(offset >> 4) * 4);
            match (flags & 2 != 0, payload) {
                (true, _) => Weight::Syn,
                (false, 1..) => Weight::Data,
                (false, 0) => Weight::Bare,
            }
        }
        _ => Weight::Data,
    };
    Some(Packet { target, weight })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_datagram_reads_back_as_data_for_its_destination() {
        let (source, target) = (Ipv4Addr::new(198, 18, 0, 2), Ipv4Addr::new(203, 0, 113, 7));
        let datagram = udp(source.into(), target.into(), 7777, b"hello");
        let frame = [
            vec![0; 12],
            vec![8, 0],
            ipv4(source, target, 17, 0, &datagram),
        ]
        .concat();
        let packet = parse(&frame).expect("an IPv4 frame");
        assert_eq!(packet.target, IpAddr::from(target));
        assert_eq!(packet.weight, Weight::Data);
    }

    #[test]
    fn a_cut_frame_is_not_a_packet() {
        assert_eq!(parse(&[0; 20]), None);
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn the_checksum_of_a_packet_with_its_checksum_is_zero() {
        assert_eq!(checksum(&[&echo(false, b"marker")]), 0);
    }
}
