//! Below and beside IP: packet sockets, vsock, and every family there is.

use super::{Probe, say};
use crate::job::{INSIDE_MAC, INTERFACE, Line, OUTSIDE_MAC, home};
use crate::sys;
use crate::wire;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};

/// `PACKET_QDISC_BYPASS`, `include/uapi/linux/if_packet.h`.
const QDISC_BYPASS: i32 = 20;
/// `TUNSETIFF`, `_IOW(T, 202, int)`, `include/uapi/linux/if_tun.h`.
const TUNSETIFF: u64 = 0x4004_54ca;
/// `IFF_TUN`.
const IFF_TUN: i16 = 1;
/// `IFF_NO_PI`.
const IFF_NO_PI: i16 = 0x1000;
/// `SOL_XDP` and `XDP_TX_RING`, `include/uapi/linux/if_xdp.h`.
const SOL_XDP: i32 = 283;
const XDP_TX_RING: i32 = 3;
/// The highest family number there is, include/linux/socket.h (`AF_MAX` is one more).
const LAST_FAMILY: i32 = 45;
/// The highest netlink protocol looked at (`NETLINK_CRYPTO`).
const LAST_NETLINK: i32 = 21;

fn link_address(v6: bool) -> io::Result<Vec<u8>> {
    let index = rustix::net::netdevice::name_to_index(
        rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            None,
        )?,
        INTERFACE,
    )?;
    let kind: u16 = if v6 { 0x86dd } else { 0x0800 };
    Ok([
        &wire::family(libc::AF_PACKET)[..],
        &kind.to_be_bytes(),
        &index.to_ne_bytes(),
        &[0, 0, 0, 6],
        &OUTSIDE_MAC,
        &[0, 0],
    ]
    .concat())
}

fn packet(probe: &Probe, v6: bool) -> Vec<u8> {
    let (source, target) = (home(v6), probe.job.denied(v6));
    let datagram = wire::udp(source, target, crate::job::PORT, probe.marker());
    match (source, target) {
        (std::net::IpAddr::V4(source), std::net::IpAddr::V4(target)) => {
            wire::ipv4(source, target, 17, 0, &datagram)
        }
        (std::net::IpAddr::V6(source), std::net::IpAddr::V6(target)) => {
            wire::ipv6(source, target, 17, &datagram)
        }
        _ => Vec::new(),
    }
}

pub(super) fn frame(probe: &Probe, v6: bool) -> Vec<u8> {
    let kind: u16 = if v6 { 0x86dd } else { 0x0800 };
    [
        &OUTSIDE_MAC[..],
        &INSIDE_MAC,
        &kind.to_be_bytes(),
        &packet(probe, v6),
    ]
    .concat()
}

/// A whole frame through `AF_PACKET`.
pub fn frames(probe: &Probe, v6: bool) -> io::Result<()> {
    let address = link_address(v6)?;
    probe.open_gpu()?;
    probe.attempt("socket packet", || {
        let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
        sys::send(&socket, &frame(probe, v6), 0, &address)
    });
    Ok(())
}

/// A packet through `AF_PACKET`, the kernel adding the link header.
pub fn cooked(probe: &Probe, v6: bool) -> io::Result<()> {
    let address = link_address(v6)?;
    probe.open_gpu()?;
    probe.attempt("socket packet", || {
        let socket = sys::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0)?;
        sys::send(&socket, &packet(probe, v6), 0, &address)
    });
    Ok(())
}

fn other_frame(probe: &Probe, kind: &[u8]) -> io::Result<()> {
    let address = link_address(false)?;
    let frame = [
        &OUTSIDE_MAC[..],
        &INSIDE_MAC,
        kind,
        probe.marker(),
        &[0; 32],
    ]
    .concat();
    probe.open_gpu()?;
    probe.attempt("socket packet", || {
        let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
        sys::send(&socket, &frame, 0, &address)
    });
    Ok(())
}

/// A frame of an ethertype for experiments (IEEE 802).
pub fn ethertype(probe: &Probe, _v6: bool) -> io::Result<()> {
    other_frame(probe, &[0x88, 0xb5])
}

/// A frame under two VLAN tags.
pub fn tagged(probe: &Probe, _v6: bool) -> io::Result<()> {
    let tags = [
        &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 8, 0][..],
        &packet(probe, false),
    ]
    .concat();
    other_frame(probe, &tags)
}

/// `PACKET_QDISC_BYPASS`: past every traffic control hook too.
pub fn bypass(probe: &Probe, v6: bool) -> io::Result<()> {
    let address = link_address(v6)?;
    probe.open_gpu()?;
    probe.attempt("socket packet", || {
        let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
        sys::set_number(&socket, libc::SOL_PACKET, QDISC_BYPASS, 1)?;
        sys::send(&socket, &frame(probe, v6), 0, &address)
    });
    Ok(())
}

/// A packet socket made before the GPU was opened.
pub fn older_frames(probe: &Probe, v6: bool) -> io::Result<()> {
    let address = link_address(v6)?;
    let socket: OwnedFd = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    probe.open_gpu()?;
    let frame = frame(probe, v6);
    probe.attempt("send packet", || sys::send(&socket, &frame, 0, &address));
    Ok(())
}

/// A new tunnel device, down.
pub(super) fn tunnel_device(name: &str) -> io::Result<File> {
    let device = match File::options().read(true).write(true).open("/dev/net/tun") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        opened => opened?,
    };
    sys::control(
        device.as_fd(),
        TUNSETIFF,
        &mut request(name, IFF_TUN | IFF_NO_PI),
    )?;
    Ok(device)
}

/// A tunnel device of its own that is up.
fn tunnel_up() -> io::Result<File> {
    let device = tunnel_device("mretun")?;
    let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    let up = i16::try_from(libc::IFF_UP).unwrap_or(1);
    sys::control(
        socket.as_fd(),
        libc::SIOCSIFFLAGS,
        &mut request("mretun", up),
    )?;
    Ok(device)
}

/// Has the kernel forward a packet.
fn write_tunnel(probe: &Probe, mut device: &File) -> io::Result<()> {
    device.write_all(&foreign(probe))?;
    // The device goes when it is closed, and what it still queues with it.
    std::thread::sleep(std::time::Duration::from_millis(20));
    Ok(())
}

/// A packet of some other host's to the denied one.
pub(super) fn foreign(probe: &Probe) -> Vec<u8> {
    let source = Ipv4Addr::new(198, 18, 0, 77);
    let target = probe.job.denied4;
    let datagram = wire::udp(
        source.into(),
        target.into(),
        crate::job::PORT,
        probe.marker(),
    );
    wire::ipv4(source, target, 17, 0, &datagram)
}

/// Writes a packet to a tunnel device of its own and has the kernel forward it.
pub fn tunnel(probe: &Probe, _v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    probe.attempt("write tunnel", || write_tunnel(probe, &tunnel_up()?));
    Ok(())
}

/// The same by a device that was set up before the GPU was opened.
pub fn older_tunnel(probe: &Probe, _v6: bool) -> io::Result<()> {
    let device = tunnel_up();
    probe.open_gpu()?;
    probe.attempt("write tunnel", || write_tunnel(probe, &device?));
    Ok(())
}

/// struct ifreq of a tunnel device with its flags.
fn request(name: &str, flags: i16) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.resize(40, 0);
    bytes
}

/// socket(2) of `AF_VSOCK`; what it could reach is not on any wire of ours.
pub fn vsock(probe: &Probe, _v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    probe.attempt("socket vsock", || {
        sys::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)
    });
    Ok(())
}

/// `AF_XDP`, as far as it takes to send: without a ring it is nothing.
pub fn xdp(probe: &Probe, _v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    probe.attempt("socket xdp", || {
        let socket = sys::socket(libc::AF_XDP, libc::SOCK_RAW, 0)?;
        sys::set_number(&socket, SOL_XDP, XDP_TX_RING, 64)
    });
    Ok(())
}

/// Every family, in every type, and every netlink protocol.
pub fn all(probe: &Probe, _v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    let mut created = Vec::new();
    let kinds = [
        libc::SOCK_STREAM,
        libc::SOCK_DGRAM,
        libc::SOCK_RAW,
        libc::SOCK_SEQPACKET,
    ];
    for family in 1..=LAST_FAMILY {
        let protocols = if family == libc::AF_NETLINK {
            0..=LAST_NETLINK
        } else {
            0..=0
        };
        for protocol in protocols {
            for kind in kinds {
                if sys::socket(family, kind, protocol).is_ok() {
                    created.push(format!("{family}/{kind}/{protocol}"));
                }
            }
        }
    }
    say(&Line::Families { created });
    Ok(())
}
