//! Packets as `PROG_TEST_RUN` takes them: with an Ethernet header.

/// UDP over IPv4.
pub(crate) fn udp4(to: [u8; 4], port: u16, payload: usize) -> Vec<u8> {
    v4(to, 17, port, payload)
}

/// ICMP over IPv4: judged anew each time, because only TCP and UDP are
/// remembered.
pub(crate) fn icmp4(to: [u8; 4], payload: usize) -> Vec<u8> {
    v4(to, 1, 0, payload)
}

fn v4(to: [u8; 4], protocol: u8, port: u16, payload: usize) -> Vec<u8> {
    let mut packet = vec![0; 12];
    packet.extend(0x0800_u16.to_be_bytes());
    let length = u16::try_from(28 + payload).unwrap_or(u16::MAX);
    packet.extend([0x45, 0]);
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 198, 18, 0, 1]);
    packet.extend(to);
    packet.extend([0x30, 0x39]);
    packet.extend(port.to_be_bytes());
    packet.extend([0; 4]);
    packet.resize(14 + usize::from(length), 0);
    packet
}

/// UDP over IPv6.
pub(crate) fn udp6(to: [u8; 16], port: u16, payload: usize) -> Vec<u8> {
    let mut packet = vec![0; 12];
    packet.extend(0x86dd_u16.to_be_bytes());
    let length = u16::try_from(8 + payload).unwrap_or(u16::MAX);
    packet.extend([0x60, 0, 0, 0]);
    packet.extend(length.to_be_bytes());
    packet.extend([17, 64]);
    packet.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend(to);
    packet.extend([0x30, 0x39]);
    packet.extend(port.to_be_bytes());
    packet.extend(length.to_be_bytes());
    packet.extend([0; 2]);
    packet.resize(54 + usize::from(length), 0);
    packet
}
