//! Headers that make the packet go elsewhere than its address says (B22, B23).

use super::Probe;
use crate::job::{self, PORT};
use crate::sys;
use crate::wire;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

/// `IPV6_RTHDR`, include/uapi/linux/in6.h.
const IPV6_RTHDR: i32 = 57;
/// Segment routing (RFC 8754): the only routing type open to every user.
const SEGMENTS: u8 = 4;
/// Loose source and record route (RFC 791 §3.1).
const LSRR: u8 = 131;

/// A segment routing header with one segment before the destination.
fn segments(via: IpAddr) -> Vec<u8> {
    // next header, length, type, segments left, last entry, flags, tag.
    let head = [0, 4, SEGMENTS, 1, 1, 0, 0, 0];
    // segments[0] is the destination, which the kernel fills in.
    [&head[..], &[0; 16], &wire::octets(via)].concat()
}

fn source_route(via: IpAddr) -> Vec<u8> {
    [&[1, LSRR, 7, 4][..], &wire::octets(via)].concat()
}

fn routed(probe: &Probe, v6: bool, via: IpAddr, target: IpAddr) -> io::Result<()> {
    let (domain, level, name, header) = if v6 {
        let header = segments(via);
        (libc::AF_INET6, libc::IPPROTO_IPV6, IPV6_RTHDR, header)
    } else {
        let header = source_route(via);
        (libc::AF_INET, libc::IPPROTO_IP, libc::IP_OPTIONS, header)
    };
    let target = wire::sockaddr(SocketAddr::new(target, PORT));
    probe.open_gpu()?;
    probe.attempt("sendto", || {
        let socket: OwnedFd = sys::socket(domain, libc::SOCK_DGRAM, 0)?;
        sys::set_option(&socket, level, name, &header)?;
        sys::send(&socket, probe.marker(), 0, &target)
    });
    Ok(())
}

/// The same header, as a control message of this datagram alone.
fn routed_once(probe: &Probe, v6: bool, via: IpAddr, target: IpAddr) -> io::Result<()> {
    let (domain, level, kind, header) = if v6 {
        (
            libc::AF_INET6,
            libc::IPPROTO_IPV6,
            IPV6_RTHDR,
            segments(via),
        )
    } else {
        (
            libc::AF_INET,
            libc::IPPROTO_IP,
            libc::IP_RETOPTS,
            source_route(via),
        )
    };
    let target = wire::sockaddr(SocketAddr::new(target, PORT));
    probe.open_gpu()?;
    probe.attempt("sendmsg", || {
        let socket = sys::socket(domain, libc::SOCK_DGRAM, 0)?;
        sys::send_control(&socket, probe.marker(), &target, (level, kind, &header))
    });
    Ok(())
}

/// [`through_denied`], by a control message.
pub fn once_through_denied(probe: &Probe, v6: bool) -> io::Result<()> {
    routed_once(probe, v6, probe.job.denied(v6), job::allowed(v6))
}

/// To the allowed host by way of the denied one.
pub fn through_denied(probe: &Probe, v6: bool) -> io::Result<()> {
    routed(probe, v6, probe.job.denied(v6), job::allowed(v6))
}

/// To the denied host by way of the allowed one.
pub fn through_allowed(probe: &Probe, v6: bool) -> io::Result<()> {
    routed(probe, v6, job::allowed(v6), probe.job.denied(v6))
}
