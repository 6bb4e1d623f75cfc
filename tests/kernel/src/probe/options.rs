//! Datagrams under options and control messages that change how they leave:
//! corks, segmentation, other sources, other devices, extension headers.

use super::Probe;
use crate::job::{INTERFACE, PORT, home};
use crate::sys;
use crate::wire;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

// include/uapi/linux/udp.h
const SOL_UDP: i32 = 17;
const UDP_CORK: i32 = 1;
const UDP_SEGMENT: i32 = 103;
// include/uapi/linux/in.h, in6.h
const IP_TRANSPARENT: i32 = 19;
const IPV6_TRANSPARENT: i32 = 75;
const IPV6_HOPOPTS: i32 = 54;
const IPV6_DSTOPTS: i32 = 59;
const IPV6_PKTINFO: i32 = 50;
/// include/uapi/asm-generic/socket.h
const SO_ZEROCOPY: i32 = 60;
/// include/linux/socket.h
const MSG_ZEROCOPY: i32 = 0x0400_0000;

pub(super) fn datagram(v6: bool) -> io::Result<OwnedFd> {
    let domain = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    sys::socket(domain, libc::SOCK_DGRAM, 0)
}

fn connected(probe: &Probe, v6: bool) -> io::Result<OwnedFd> {
    let socket = datagram(v6)?;
    sys::connect(&socket, &wire::sockaddr(probe.job.target(v6)))?;
    Ok(socket)
}

/// An IPv6 socket takes an IPv4 address as it is (net/ipv6/udp.c
/// `udpv6_sendmsg`), without the mapped form.
pub fn inet_on_v6(probe: &Probe, _v6: bool) -> io::Result<()> {
    let target = wire::sockaddr(probe.job.target(false));
    probe.open_gpu()?;
    probe.attempt("sendto", || {
        sys::send(&datagram(true)?, probe.marker(), 0, &target)
    });
    Ok(())
}

/// `AF_UNSPEC` means `AF_INET` to sendto(2) (net/ipv4/udp.c `udp_sendmsg`).
pub fn no_family(probe: &Probe, v6: bool) -> io::Result<()> {
    let mut target = wire::sockaddr(probe.job.target(v6));
    if let Some(family) = target.get_mut(..2) {
        family.copy_from_slice(&wire::family(libc::AF_UNSPEC));
    }
    probe.open_gpu()?;
    probe.attempt("sendto", || {
        sys::send(&datagram(v6)?, probe.marker(), 0, &target)
    });
    Ok(())
}

/// The datagram was written before the GPU was opened; taking the cork out
/// afterwards sends it.
pub fn uncorked(probe: &Probe, v6: bool) -> io::Result<()> {
    let socket = connected(probe, v6)?;
    sys::set_number(&socket, SOL_UDP, UDP_CORK, 1)?;
    sys::send(&socket, probe.marker(), 0, &[])?;
    probe.open_gpu()?;
    probe.attempt("uncork", || sys::set_number(&socket, SOL_UDP, UDP_CORK, 0));
    Ok(())
}

/// One write, several datagrams, cut by the kernel or the device.
pub fn segmented(probe: &Probe, v6: bool) -> io::Result<()> {
    let socket = connected(probe, v6)?;
    let size = i32::try_from(probe.marker().len()).unwrap_or(28);
    sys::set_number(&socket, SOL_UDP, UDP_SEGMENT, size)?;
    probe.open_gpu()?;
    let three = probe.marker().repeat(3);
    probe.attempt("send", || sys::send(&socket, &three, 0, &[]));
    Ok(())
}

/// `MSG_ZEROCOPY`: the pages go to the device as they are.
pub fn zero_copy(probe: &Probe, v6: bool) -> io::Result<()> {
    let socket = connected(probe, v6)?;
    sys::set_number(&socket, libc::SOL_SOCKET, SO_ZEROCOPY, 1)?;
    probe.open_gpu()?;
    probe.attempt("send", || {
        sys::send(&socket, probe.marker(), MSG_ZEROCOPY, &[])
    });
    Ok(())
}

/// `IP_PKTINFO`: source and device chosen for one datagram.
pub fn packet_info(probe: &Probe, v6: bool) -> io::Result<()> {
    let index = sys::interface(INTERFACE)?;
    let own = wire::octets(home(v6));
    let target = wire::sockaddr(probe.job.target(v6));
    // struct in_pktinfo: index, source, destination; in6_pktinfo: source, index.
    let (level, kind, info) = if v6 {
        let info = [&own[..], &index.to_ne_bytes()].concat();
        (libc::IPPROTO_IPV6, IPV6_PKTINFO, info)
    } else {
        let info = [&index.to_ne_bytes()[..], &own, &[0; 4]].concat();
        (libc::IPPROTO_IP, libc::IP_PKTINFO, info)
    };
    probe.open_gpu()?;
    probe.attempt("sendmsg", || {
        let socket = datagram(v6)?;
        sys::send_control(&socket, probe.marker(), &target, (level, kind, &info))
    });
    Ok(())
}

/// Bound to a device, past every routing rule.
pub fn bound_to_device(probe: &Probe, v6: bool) -> io::Result<()> {
    let target = wire::sockaddr(probe.job.target(v6));
    probe.open_gpu()?;
    probe.attempt("sendto", || {
        let socket = datagram(v6)?;
        let name = INTERFACE.as_bytes();
        sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name)?;
        sys::send(&socket, probe.marker(), 0, &target)
    });
    Ok(())
}

/// `IP_TRANSPARENT`: from an address that is not this host's.
pub fn transparent(probe: &Probe, v6: bool) -> io::Result<()> {
    let (level, name, source): (_, _, IpAddr) = if v6 {
        let source = Ipv6Addr::new(0xfd00, 0x6d65, 0, 0, 0, 0, 0, 0x77);
        (libc::IPPROTO_IPV6, IPV6_TRANSPARENT, source.into())
    } else {
        let source = Ipv4Addr::new(198, 18, 0, 77);
        (libc::IPPROTO_IP, IP_TRANSPARENT, source.into())
    };
    let source = wire::sockaddr(SocketAddr::new(source, PORT));
    let target = wire::sockaddr(probe.job.target(v6));
    probe.open_gpu()?;
    probe.attempt("sendto", || {
        let socket = datagram(v6)?;
        sys::set_number(&socket, level, name, 1)?;
        sys::bind(&socket, &source)?;
        sys::send(&socket, probe.marker(), 0, &target)
    });
    Ok(())
}

fn under_extension(probe: &Probe, name: i32) -> io::Result<()> {
    let socket = connected(probe, true)?;
    // Next header (the kernel's), length 0 (8 bytes), PadN of 4.
    let header = [0, 0, 1, 4, 0, 0, 0, 0];
    sys::set_option(&socket, libc::IPPROTO_IPV6, name, &header)?;
    probe.open_gpu()?;
    probe.attempt("send", || sys::send(&socket, probe.marker(), 0, &[]));
    Ok(())
}

/// Behind a hop-by-hop options header.
pub fn hop_by_hop(probe: &Probe, _v6: bool) -> io::Result<()> {
    under_extension(probe, IPV6_HOPOPTS)
}

/// Behind a destination options header.
pub fn destination_options(probe: &Probe, _v6: bool) -> io::Result<()> {
    under_extension(probe, IPV6_DSTOPTS)
}
