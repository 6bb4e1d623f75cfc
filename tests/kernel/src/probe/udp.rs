//! Datagrams: every call that sends one, to every kind of address that means
//! the denied host.

use super::{Probe, mapped};
use crate::job::{self, PORT};
use crate::sys::{self, SharedAddress};
use crate::wire;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// `IPPROTO_UDPLITE`, include/uapi/linux/in.h.
const UDPLITE: i32 = 136;

fn datagram(v6: bool, protocol: i32) -> io::Result<OwnedFd> {
    let domain = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    sys::socket(domain, libc::SOCK_DGRAM, protocol)
}

fn send_to(probe: &Probe, v6: bool, target: SocketAddr, data: &[u8]) -> io::Result<()> {
    probe.open_gpu()?;
    probe.attempt("sendto", || {
        sys::send(&datagram(v6, 0)?, data, 0, &wire::sockaddr(target))
    });
    Ok(())
}

/// sendto(2) on an unconnected socket.
pub fn unconnected(probe: &Probe, v6: bool) -> io::Result<()> {
    send_to(probe, v6, probe.job.target(v6), probe.marker())
}

/// The same from a dual-stack socket to `::ffff:a.b.c.d`.
pub fn unconnected_mapped(probe: &Probe, _v6: bool) -> io::Result<()> {
    send_to(probe, true, mapped(probe.job.denied4), probe.marker())
}

/// connect(2), then send(2).
pub fn connected(probe: &Probe, v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    let target = wire::sockaddr(probe.job.target(v6));
    probe.attempt("connect", || {
        let socket = datagram(v6, 0)?;
        sys::connect(&socket, &target)?;
        sys::send(&socket, probe.marker(), 0, &[])
    });
    Ok(())
}

/// The same from a dual-stack socket to `::ffff:a.b.c.d`.
pub fn connected_mapped(probe: &Probe, _v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    let target = wire::sockaddr(mapped(probe.job.denied4));
    probe.attempt("connect", || {
        let socket = datagram(true, 0)?;
        sys::connect(&socket, &target)?;
        sys::send(&socket, probe.marker(), 0, &[])
    });
    Ok(())
}

fn preconnected(probe: &Probe, v6: bool, data: &[u8]) -> io::Result<()> {
    let socket = datagram(v6, 0)?;
    sys::connect(&socket, &wire::sockaddr(probe.job.target(v6)))?;
    probe.open_gpu()?;
    probe.attempt("send", || sys::send(&socket, data, 0, &[]));
    Ok(())
}

/// send(2) on a socket connected before the GPU was opened.
pub fn older(probe: &Probe, v6: bool) -> io::Result<()> {
    preconnected(probe, v6, probe.marker())
}

/// The same with a datagram of three fragments, the marker in the last.
pub fn older_fragmented(probe: &Probe, v6: bool) -> io::Result<()> {
    preconnected(probe, v6, &long(probe))
}

/// A datagram of three fragments on a new socket.
pub fn fragmented(probe: &Probe, v6: bool) -> io::Result<()> {
    send_to(probe, v6, probe.job.target(v6), &long(probe))
}

fn long(probe: &Probe) -> Vec<u8> {
    [&[b'.'; 3500][..], probe.marker()].concat()
}

/// connect(2) to the allowed host, sendto(2) to the denied one.
pub fn other_address(probe: &Probe, v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    let socket = datagram(v6, 0)?;
    let allowed = SocketAddr::new(job::allowed(v6), PORT);
    sys::connect(&socket, &wire::sockaddr(allowed))?;
    let target = wire::sockaddr(probe.job.target(v6));
    probe.attempt("sendto", || sys::send(&socket, probe.marker(), 0, &target));
    Ok(())
}

/// sendmsg(2) in two parts.
pub fn message(probe: &Probe, v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    let target = wire::sockaddr(probe.job.target(v6));
    probe.attempt("sendmsg", || {
        sys::send_message(&datagram(v6, 0)?, &[b"..", probe.marker()], &target)
    });
    Ok(())
}

/// sendmmsg(2).
pub fn messages(probe: &Probe, v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    let target = wire::sockaddr(probe.job.target(v6));
    probe.attempt("sendmmsg", || {
        sys::send_messages(&datagram(v6, 0)?, probe.marker(), &target)
    });
    Ok(())
}

/// `MSG_MORE` with the address, then send(2) without one, carrying the marker.
pub fn more(probe: &Probe, v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    let target = wire::sockaddr(probe.job.target(v6));
    probe.attempt("sendto more", || {
        let socket = datagram(v6, 0)?;
        sys::send(&socket, b"..", libc::MSG_MORE, &target)?;
        sys::send(&socket, probe.marker(), 0, &[])
    });
    Ok(())
}

/// `MSG_MORE` before the GPU was opened; the write that sends comes after.
pub fn more_older(probe: &Probe, v6: bool) -> io::Result<()> {
    let target = wire::sockaddr(probe.job.target(v6));
    let socket = datagram(v6, 0)?;
    sys::send(&socket, b"..", libc::MSG_MORE, &target)?;
    probe.open_gpu()?;
    probe.attempt("send", || sys::send(&socket, probe.marker(), 0, &[]));
    Ok(())
}

/// With every bit of `SO_MARK` set: no mark may be an exemption.
pub fn marked(probe: &Probe, v6: bool) -> io::Result<()> {
    let socket = datagram(v6, 0)?;
    sys::connect(&socket, &wire::sockaddr(probe.job.target(v6)))?;
    sys::set_number(&socket, libc::SOL_SOCKET, libc::SO_MARK, -1)?;
    probe.open_gpu()?;
    probe.attempt("send", || sys::send(&socket, probe.marker(), 0, &[]));
    Ok(())
}

/// Multicast beyond the link.
pub fn multicast(probe: &Probe, v6: bool) -> io::Result<()> {
    let group: IpAddr = if v6 {
        Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0x6d65, 0x66).into()
    } else {
        Ipv4Addr::new(239, 66, 66, 66).into()
    };
    send_to(probe, v6, SocketAddr::new(group, PORT), probe.marker())
}

/// Limited broadcast.
pub fn broadcast(probe: &Probe, _v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    let target = wire::sockaddr(SocketAddr::new(Ipv4Addr::BROADCAST.into(), PORT));
    probe.attempt("sendto", || {
        let socket = datagram(false, 0)?;
        sys::set_number(&socket, libc::SOL_SOCKET, libc::SO_BROADCAST, 1)?;
        sys::send(&socket, probe.marker(), 0, &target)
    });
    Ok(())
}

/// `64:ff9b::a.b.c.d` (RFC 6052): allowed as IPv6, outside as IPv4.
pub fn nat64(probe: &Probe, _v6: bool) -> io::Result<()> {
    let [a, b, c, d] = probe.job.denied4.octets();
    let high = u16::from_be_bytes([a, b]);
    let low = u16::from_be_bytes([c, d]);
    let target = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low);
    send_to(
        probe,
        true,
        SocketAddr::new(target.into(), PORT),
        probe.marker(),
    )
}

/// `2002:a.b.c.d::` (RFC 3056): allowed as IPv6, outside as IPv4.
pub fn six_to_four(probe: &Probe, _v6: bool) -> io::Result<()> {
    let [a, b, c, d] = probe.job.denied4.octets();
    let high = u16::from_be_bytes([a, b]);
    let low = u16::from_be_bytes([c, d]);
    let target = Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1);
    send_to(
        probe,
        true,
        SocketAddr::new(target.into(), PORT),
        probe.marker(),
    )
}

/// A DNS query to a resolver outside, the marker in the name.
pub fn dns(probe: &Probe, v6: bool) -> io::Result<()> {
    let resolver = SocketAddr::new(probe.job.denied(v6), 53);
    send_to(probe, v6, resolver, &wire::query(&probe.job.marker))
}

/// UDP-Lite.
pub fn lite(probe: &Probe, v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    let target = wire::sockaddr(probe.job.target(v6));
    probe.attempt("sendto", || {
        sys::send(&datagram(v6, UDPLITE)?, probe.marker(), 0, &target)
    });
    Ok(())
}

/// Another thread flips the address between allowed and denied under the call.
pub fn flipped(probe: &Probe, _v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    let socket = datagram(false, 0)?;
    let denied = u32::from(probe.job.denied4).to_be();
    let allowed = u32::from(job::ALLOWED4).to_be();
    let shared = SharedAddress {
        family: u16::from_ne_bytes(wire::family(libc::AF_INET)),
        port: PORT.to_be(),
        address: AtomicU32::new(allowed),
        zero: [0; 8],
    };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                shared.address.store(denied, Ordering::Relaxed);
                shared.address.store(allowed, Ordering::Relaxed);
            }
        });
        probe.attempt("sendto", || {
            let mut outcome = Ok(0);
            for _ in 0..probe.job.count.max(1) {
                // The marker travels to whichever host the kernel read, so
                // for this vector only the destination tells a leak.
                if let Err(error) = sys::send_shared(&socket, b"flip", &shared) {
                    outcome = Err(error);
                }
            }
            outcome
        });
        over.store(true, Ordering::Relaxed);
    });
    Ok(())
}
