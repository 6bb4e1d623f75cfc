//! One try, in a process of its own: a way out, and what the kernel answered.
//!
//! It judges nothing. What is not to be had on this host is said to be absent
//! only where the kernel names the thing itself as missing.

use super::child::Place;
use super::ring::Ring;
use super::sys;
use super::vector::{DNS, PORT};
use super::words::Outcome;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::process::Stdio;

// include/uapi/linux/in.h
const UDPLITE: i32 = 136;
const MPTCP: i32 = 262;
/// include/uapi/linux/in6.h
const IPV6_RTHDR: i32 = 57;
/// include/uapi/linux/if_packet.h
const PACKET_QDISC_BYPASS: i32 = 20;
// include/uapi/linux/if_xdp.h
const SOL_XDP: i32 = 283;
const XDP_TX_RING: i32 = 3;
/// include/uapi/linux/netlink.h
const NETLINK_XFRM: i32 = 6;
/// Says on the wire what it is, should it ever get there.
const WORDS: &[u8] = b"merestone canary: this packet should not have left its host";

/// The way to an outcome: whatever ends it early.
type Step<T> = Result<T, Outcome>;

/// A call's outcome, where it failed.
fn call<T>(name: &str, result: io::Result<T>) -> Step<T> {
    result.map_err(|error| match error.raw_os_error() {
        // Under way: the kernel took it.
        Some(libc::EINPROGRESS | libc::EAGAIN) => Outcome::Taken {
            call: name.to_owned(),
        },
        Some(
            libc::EAFNOSUPPORT
            | libc::EPFNOSUPPORT
            | libc::EPROTONOSUPPORT
            | libc::ESOCKTNOSUPPORT
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::ENOSYS,
        ) => absent(format!("not on this host: {name}: {error}")),
        Some(errno) => Outcome::Refused {
            call: name.to_owned(),
            errno,
        },
        None => Outcome::Broken {
            why: format!("{name}: {error}"),
        },
    })
}

fn absent(why: impl Into<String>) -> Outcome {
    Outcome::Absent { why: why.into() }
}

fn broken(why: impl Into<String>) -> Outcome {
    Outcome::Broken { why: why.into() }
}

/// Tries one way out.
pub(super) fn attempt(vector: &str, place: &Place) -> Outcome {
    let last = match vector {
        "tcp4" => connect(libc::AF_INET, 0, place.v4(PORT)),
        "tcp6" => connect(libc::AF_INET6, 0, place.v6(PORT)),
        "tcp_mapped" => connect(libc::AF_INET6, 0, place.mapped(PORT)),
        "dns_tcp" => connect(libc::AF_INET, 0, place.v4(DNS)),
        "mptcp" => connect(libc::AF_INET, MPTCP, place.v4(PORT)),
        "sctp" => connect(libc::AF_INET, libc::IPPROTO_SCTP, place.v4(PORT)),
        "udp4" => send(libc::AF_INET, 0, place.v4(PORT), WORDS),
        "udp6" => send(libc::AF_INET6, 0, place.v6(PORT), WORDS),
        "udp_mapped" => send(libc::AF_INET6, 0, place.mapped(PORT), WORDS),
        "udplite" => send(libc::AF_INET, UDPLITE, place.v4(PORT), WORDS),
        "dns_udp" => send(libc::AF_INET, 0, place.v4(DNS), &query()),
        "nat64" => send(libc::AF_INET6, 0, place.nat64(PORT), WORDS),
        "udp4_connected" => connected(place),
        "udp4_older" | "udp6_older" => older(place),
        "sendmmsg" => sendmmsg(place),
        "fastopen" => fastopen(place),
        "ping" => ping(place),
        "raw_icmp" => raw(libc::AF_INET, libc::IPPROTO_ICMP, place.v4(0), &echo(8)),
        "raw_icmp6" => raw(
            libc::AF_INET6,
            libc::IPPROTO_ICMPV6,
            place.v6(0),
            &echo(128),
        ),
        "raw_header" => raw(
            libc::AF_INET,
            libc::IPPROTO_RAW,
            place.v4(0),
            &packet(place),
        ),
        "ring_connect" => ring_connect(place),
        "ring_send" => ring_send(place),
        "grandchild" => grandchild(place),
        "source_route" => option(
            libc::AF_INET,
            libc::IPPROTO_IP,
            libc::IP_OPTIONS,
            &lsrr(place),
        ),
        "routing_header" => option(
            libc::AF_INET6,
            libc::IPPROTO_IPV6,
            IPV6_RTHDR,
            &segments(place),
        ),
        "mark" => option(
            libc::AF_INET,
            libc::SOL_SOCKET,
            libc::SO_MARK,
            &1_i32.to_ne_bytes(),
        ),
        "packet" => frame(),
        "packet_bypass" => bypass(),
        "xdp" => xdp(),
        "tunnel" => tunnel(place),
        "vsock" => bare("socket vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        "netlink" => bare(
            "socket netlink",
            libc::AF_NETLINK,
            libc::SOCK_RAW,
            NETLINK_XFRM,
        ),
        "left_cgroup" => left_cgroup(place),
        _ => Err(broken("this canary does not know that way out")),
    };
    match last {
        Ok(call) => Outcome::Taken {
            call: call.to_owned(),
        },
        Err(outcome) => outcome,
    }
}

fn bare(name: &'static str, family: i32, kind: i32, protocol: i32) -> Step<&'static str> {
    call(name, sys::socket(family, kind, protocol))?;
    Ok(name)
}

fn connect(family: i32, protocol: i32, to: SocketAddr) -> Step<&'static str> {
    let socket = call("socket", sys::socket(family, libc::SOCK_STREAM, protocol))?;
    call("connect", sys::connect(&socket, &sys::sockaddr(to)))?;
    Ok("connect")
}

fn give(name: &str, socket: &OwnedFd, data: &[u8], flags: i32, to: &[u8]) -> Step<()> {
    use std::os::fd::AsRawFd as _;
    call(name, sys::send(socket.as_raw_fd(), data, flags, to))
}

fn send(family: i32, protocol: i32, to: SocketAddr, data: &[u8]) -> Step<&'static str> {
    let socket = call("socket", sys::socket(family, libc::SOCK_DGRAM, protocol))?;
    give("sendto", &socket, data, 0, &sys::sockaddr(to))?;
    Ok("sendto")
}

fn connected(place: &Place) -> Step<&'static str> {
    let socket = call("socket", sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0))?;
    call(
        "connect",
        sys::connect(&socket, &sys::sockaddr(place.v4(PORT))),
    )?;
    give("send", &socket, WORDS, 0, &[])?;
    Ok("send")
}

/// The canary connected it before it opened the device node.
fn older(place: &Place) -> Step<&'static str> {
    let fd = place.fd.ok_or_else(|| broken("no socket was handed on"))?;
    call("send", sys::send(fd, WORDS, 0, &[]))?;
    Ok("send")
}

fn sendmmsg(place: &Place) -> Step<&'static str> {
    let socket = call("socket", sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0))?;
    let to = sys::sockaddr(place.v4(PORT));
    call("sendmmsg", sys::send_twice(&socket, WORDS, &to))?;
    Ok("sendmmsg")
}

fn fastopen(place: &Place) -> Step<&'static str> {
    let socket = call("socket", sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0))?;
    let to = sys::sockaddr(place.v4(PORT));
    give("sendto", &socket, WORDS, libc::MSG_FASTOPEN, &to)?;
    Ok("sendto")
}

fn ping(place: &Place) -> Step<&'static str> {
    let made = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP);
    // net/ipv4/ping.c `ping_init_sock`, before any hook.
    if let Err(error) = &made
        && error.raw_os_error() == Some(libc::EACCES)
    {
        return Err(absent("net.ipv4.ping_group_range leaves root out"));
    }
    let socket = call("socket", made)?;
    give("sendto", &socket, &echo(8), 0, &sys::sockaddr(place.v4(0)))?;
    Ok("sendto")
}

/// What asks for a capability is refused without it by the kernel itself.
fn may_be_raw() -> Step<()> {
    let held = rustix::thread::capabilities(None);
    let held = held.map_err(|error| broken(format!("capget: {error}")))?;
    if held
        .effective
        .contains(rustix::thread::CapabilitySet::NET_RAW)
    {
        return Ok(());
    }
    Err(absent(
        "the agent was started without CAP_NET_RAW: add it to the unit's CapabilityBoundingSet",
    ))
}

fn raw(family: i32, protocol: i32, to: SocketAddr, data: &[u8]) -> Step<&'static str> {
    may_be_raw()?;
    let socket = call("socket", sys::socket(family, libc::SOCK_RAW, protocol))?;
    give("sendto", &socket, data, 0, &sys::sockaddr(to))?;
    Ok("sendto")
}

/// RFC 792 and RFC 4443: an echo request; the checksum may be wrong, it is not
/// to arrive.
fn echo(kind: u8) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 1, 0, 1][..], WORDS].concat()
}

/// RFC 1035: one question, for a name that cannot exist (RFC 6761).
fn query() -> Vec<u8> {
    let head = [0x6d, 0x72, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let name = b"\x10merestone-canary\x07invalid\x00";
    [&head[..], name, &[0, 1, 0, 1]].concat()
}

/// RFC 791: a header of 20 bytes, then UDP without a checksum.
fn packet(place: &Place) -> Vec<u8> {
    let size = u16::try_from(28 + WORDS.len()).unwrap_or(28);
    let ip = [
        &[0x45, 0][..],
        &size.to_be_bytes(),
        &[0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0],
        &place.v4.octets(),
    ]
    .concat();
    let port = PORT.to_be_bytes();
    let udp = [&port[..], &port, &(size - 20).to_be_bytes(), &[0, 0]].concat();
    [&ip[..], &udp, WORDS].concat()
}

fn ring() -> Step<Ring> {
    // io_uring_disabled, or a seccomp filter; the kill tier does not return.
    Ring::new().map_err(|error| absent(format!("no io_uring here: {error}")))
}

fn ring_connect(place: &Place) -> Step<&'static str> {
    let ring = ring()?;
    let socket = call("socket", sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0))?;
    let to = sys::sockaddr(place.v4(PORT));
    call("ring connect", ring.connect(&socket, &to))?;
    Ok("ring connect")
}

fn ring_send(place: &Place) -> Step<&'static str> {
    let ring = ring()?;
    let socket = call("socket", sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0))?;
    let to = sys::sockaddr(place.v4(PORT));
    call("ring send", ring.send(&socket, WORDS, &to))?;
    Ok("ring send")
}

/// The same as `udp4`, one generation further down.
fn grandchild(place: &Place) -> Step<&'static str> {
    let mut command = place.command("udp4");
    let said = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let said = said.map_err(|error| broken(format!("cannot start a child: {error}")))?;
    match serde_json::from_slice(&said.stdout) {
        Ok(outcome) => Err(outcome),
        Err(_) => Err(broken("the child's child said nothing")),
    }
}

fn option(family: i32, level: i32, name: i32, value: &[u8]) -> Step<&'static str> {
    let socket = call("socket", sys::socket(family, libc::SOCK_DGRAM, 0))?;
    call("setsockopt", sys::set_option(&socket, level, name, value))?;
    Ok("setsockopt")
}

/// Loose source and record route (RFC 791 §3.1), by way of one host.
fn lsrr(place: &Place) -> Vec<u8> {
    [&[131, 7, 4][..], &place.v4.octets(), &[0]].concat()
}

/// Segment routing (RFC 8754), the one routing type open to every user.
fn segments(place: &Place) -> Vec<u8> {
    [&[0, 4, 4, 1, 1, 0, 0, 0][..], &[0; 16], &place.v6.octets()].concat()
}

/// A link that has a route, other than loopback.
fn link() -> Step<u32> {
    let (v4, v6) = ("/proc/self/net/route", "/proc/self/net/ipv6_route");
    let first = std::fs::read_to_string(v4).unwrap_or_default();
    let second = std::fs::read_to_string(v6).unwrap_or_default();
    let v4 = first
        .lines()
        .skip(1)
        .filter_map(|l| l.split_whitespace().next());
    let v6 = second
        .lines()
        .filter_map(|l| l.split_whitespace().next_back());
    let name = v4.chain(v6).find(|name| *name != "lo");
    let name = name.ok_or_else(|| absent("no link but loopback has a route"))?;
    let socket = call("socket", sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0))?;
    rustix::net::netdevice::name_to_index(&socket, name)
        .map_err(|error| broken(format!("link {name}: {error}")))
}

fn packet_socket() -> Step<OwnedFd> {
    may_be_raw()?;
    call(
        "socket packet",
        sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0),
    )
}

/// To an address for documentation (RFC 7042 §2.1.1), of an ethertype for
/// experiments (IEEE 802): no switch and no host has a use for it.
fn frame() -> Step<&'static str> {
    const TO: [u8; 6] = [0, 0, 0x5e, 0, 0x53, 1];
    const KIND: [u8; 2] = [0x88, 0xb5];
    let index = link()?;
    let socket = packet_socket()?;
    let family = u16::try_from(libc::AF_PACKET).unwrap_or(0).to_ne_bytes();
    // struct sockaddr_ll, include/uapi/linux/if_packet.h
    let to = [
        &family[..],
        &KIND,
        &index.to_ne_bytes(),
        &[0, 0, 0, 6],
        &TO,
        &[0, 0],
    ]
    .concat();
    let frame = [&TO[..], &[0, 0, 0x5e, 0, 0x53, 2], &KIND, WORDS].concat();
    give("sendto packet", &socket, &frame, 0, &to)?;
    Ok("sendto packet")
}

fn bypass() -> Step<&'static str> {
    let socket = packet_socket()?;
    let on = 1_i32.to_ne_bytes();
    let set = sys::set_option(&socket, libc::SOL_PACKET, PACKET_QDISC_BYPASS, &on);
    call("setsockopt", set)?;
    Ok("setsockopt")
}

fn xdp() -> Step<&'static str> {
    may_be_raw()?;
    let socket = call("socket xdp", sys::socket(libc::AF_XDP, libc::SOCK_RAW, 0))?;
    let size = 64_u32.to_ne_bytes();
    call(
        "setsockopt",
        sys::set_option(&socket, SOL_XDP, XDP_TX_RING, &size),
    )?;
    Ok("setsockopt")
}

fn tunnel(place: &Place) -> Step<&'static str> {
    let folder = place
        .fd
        .ok_or_else(|| broken("no device folder was handed on"))?;
    let path = format!("/proc/self/fd/{folder}/{}", super::child::TUN);
    call(
        "open",
        std::fs::File::options().read(true).write(true).open(path),
    )?;
    Ok("open")
}

/// Moves itself into the root cgroup, where no group holds it.
fn left_cgroup(place: &Place) -> Step<&'static str> {
    let root = place.root.join("cgroup.procs");
    match std::fs::write(&root, "0") {
        Ok(()) => send(libc::AF_INET, 0, place.v4(PORT), WORDS),
        Err(error) => Err(absent(format!(
            "cannot leave its cgroup by {}: {error}",
            root.display()
        ))),
    }
}

impl Place {
    fn v4(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.v4), port)
    }

    fn v6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(self.v6), port)
    }

    fn mapped(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(self.v4.to_ipv6_mapped()), port)
    }

    fn nat64(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(nat64(self.v4)), port)
    }
}

/// RFC 6052 §2.1.
pub(super) fn nat64(v4: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = v4.octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low)
}

#[cfg(test)]
mod tests {
    use super::super::vector::VECTORS;
    use super::*;

    #[test]
    fn a_missing_protocol_is_absent_and_a_refusal_is_not() {
        let error = |errno| Err::<(), _>(io::Error::from_raw_os_error(errno));
        let of = |errno| call("socket", error(errno)).unwrap_err();
        assert!(matches!(of(libc::EPROTONOSUPPORT), Outcome::Absent { .. }));
        assert!(matches!(of(libc::EINPROGRESS), Outcome::Taken { .. }));
        assert!(matches!(of(libc::EPERM), Outcome::Refused { .. }));
        assert!(matches!(of(libc::ENETUNREACH), Outcome::Refused { .. }));
    }

    #[test]
    fn every_way_out_of_the_list_is_known_to_the_canary() {
        let source = include_str!("tries.rs");
        for vector in VECTORS {
            let arm = format!("\"{}\"", vector.name);
            assert!(source.contains(&arm), "{}", vector.name);
        }
    }

    #[test]
    fn an_address_goes_into_the_translators_prefix() {
        let found = nat64(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(found.to_string(), "64:ff9b::c000:201");
    }
}
