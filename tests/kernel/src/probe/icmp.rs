//! Below the transports: ping sockets, raw sockets, headers of one's own.

use super::Probe;
use crate::job;
use crate::sys;
use crate::wire;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

/// A protocol number for experiments (RFC 3692), with no ports.
const EXPERIMENT: i32 = 253;
/// `IPV6_HDRINCL`, include/uapi/linux/in6.h.
const IPV6_HDRINCL: i32 = 36;

fn icmp(v6: bool, kind: i32) -> io::Result<OwnedFd> {
    if v6 {
        sys::socket(libc::AF_INET6, kind, libc::IPPROTO_ICMPV6)
    } else {
        sys::socket(libc::AF_INET, kind, libc::IPPROTO_ICMP)
    }
}

fn address(probe: &Probe, v6: bool) -> Vec<u8> {
    wire::sockaddr(SocketAddr::new(probe.job.denied(v6), 0))
}

fn echo_to(probe: &Probe, v6: bool, kind: i32) -> io::Result<()> {
    probe.open_gpu()?;
    let echo = wire::echo(v6, probe.marker());
    probe.attempt("sendto", || {
        sys::send(&icmp(v6, kind)?, &echo, 0, &address(probe, v6))
    });
    Ok(())
}

fn echo_connected(probe: &Probe, v6: bool, kind: i32) -> io::Result<()> {
    probe.open_gpu()?;
    let echo = wire::echo(v6, probe.marker());
    probe.attempt("connect", || {
        let socket = icmp(v6, kind)?;
        sys::connect(&socket, &address(probe, v6))?;
        sys::send(&socket, &echo, 0, &[])
    });
    Ok(())
}

/// sendto(2) on a ping socket, which needs no privilege.
pub fn ping(probe: &Probe, v6: bool) -> io::Result<()> {
    echo_to(probe, v6, libc::SOCK_DGRAM)
}

/// connect(2) and send(2) on a ping socket.
pub fn ping_connected(probe: &Probe, v6: bool) -> io::Result<()> {
    echo_connected(probe, v6, libc::SOCK_DGRAM)
}

/// sendto(2) on a raw ICMP socket.
pub fn raw(probe: &Probe, v6: bool) -> io::Result<()> {
    echo_to(probe, v6, libc::SOCK_RAW)
}

/// connect(2) and send(2) on a raw ICMP socket.
pub fn raw_connected(probe: &Probe, v6: bool) -> io::Result<()> {
    echo_connected(probe, v6, libc::SOCK_RAW)
}

/// A raw ICMP socket made before the GPU was opened.
pub fn raw_older(probe: &Probe, v6: bool) -> io::Result<()> {
    let socket = icmp(v6, libc::SOCK_RAW)?;
    probe.open_gpu()?;
    let echo = wire::echo(v6, probe.marker());
    probe.attempt("sendto", || {
        sys::send(&socket, &echo, 0, &address(probe, v6))
    });
    Ok(())
}

/// A protocol nobody knows.
pub fn experiment(probe: &Probe, v6: bool) -> io::Result<()> {
    let domain = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    probe.open_gpu()?;
    probe.attempt("sendto", || {
        let socket = sys::socket(domain, libc::SOCK_RAW, EXPERIMENT)?;
        sys::send(&socket, probe.marker(), 0, &address(probe, v6))
    });
    Ok(())
}

fn with_header(probe: &Probe, v6: bool, packet: &[u8]) -> io::Result<()> {
    probe.open_gpu()?;
    probe.attempt("sendto", || {
        let (domain, level, name) = if v6 {
            (libc::AF_INET6, libc::IPPROTO_IPV6, IPV6_HDRINCL)
        } else {
            (libc::AF_INET, libc::IPPROTO_IP, libc::IP_HDRINCL)
        };
        let socket = sys::socket(domain, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
        sys::set_number(&socket, level, name, 1)?;
        sys::send(&socket, packet, 0, &address(probe, v6))
    });
    Ok(())
}

fn packet(probe: &Probe, source: IpAddr, target: IpAddr) -> Vec<u8> {
    let datagram = wire::udp(source, target, job::PORT, probe.marker());
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => wire::ipv4(source, target, 17, 0, &datagram),
        (IpAddr::V6(source), IpAddr::V6(target)) => wire::ipv6(source, target, 17, &datagram),
        _ => Vec::new(),
    }
}

/// A datagram under an IP header of one's own.
pub fn own_header(probe: &Probe, v6: bool) -> io::Result<()> {
    let packet = packet(probe, job::home(v6), probe.job.denied(v6));
    with_header(probe, v6, &packet)
}

/// The same from an address that is not ours.
pub fn spoofed(probe: &Probe, v6: bool) -> io::Result<()> {
    let source: IpAddr = if v6 {
        Ipv6Addr::new(0xfd00, 0x6d65, 0, 0, 0, 0, 0, 0x77).into()
    } else {
        Ipv4Addr::new(198, 18, 0, 77).into()
    };
    let packet = packet(probe, source, probe.job.denied(v6));
    with_header(probe, v6, &packet)
}

/// sendto(2) names the allowed host, the header the denied one.
pub fn two_faced(probe: &Probe, _v6: bool) -> io::Result<()> {
    let packet = packet(probe, job::home(false), probe.job.denied(false));
    probe.open_gpu()?;
    let allowed = wire::sockaddr(SocketAddr::new(job::allowed(false), 0));
    probe.attempt("sendto", || {
        let socket = sys::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
        sys::send(&socket, &packet, 0, &allowed)
    });
    Ok(())
}

/// A fragment that is not the first: no port to look at.
pub fn later_fragment(probe: &Probe, _v6: bool) -> io::Result<()> {
    let payload = [b"........", probe.marker()].concat();
    let packet = wire::ipv4(job::HOME4, probe.job.denied4, 17, 1 << 8, &payload);
    with_header(probe, false, &packet)
}
