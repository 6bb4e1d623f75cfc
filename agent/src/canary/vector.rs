//! The ways out that the canary tries, and what holds each.

/// The hooks that a way out needs to be held by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Needs {
    /// The cgroup tier, which is always there: never "uncovered".
    Cgroup,
    /// LSM, or the link tier, or the kill tier.
    BelowIp,
    /// LSM or the kill tier.
    Family,
    /// LSM alone.
    Lsm,
    /// The lineage tier.
    Lineage,
}

/// Where a way out leads; it is tried only where the boundary denies that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum To {
    /// Refused whatever the boundary says.
    Anywhere,
    /// An IPv4 address, by protocol and port.
    V4(u8, u16),
    /// An IPv6 address, likewise.
    V6(u8, u16),
    /// An IPv4 address inside `64:ff9b::/96`, likewise.
    Nat64(u8, u16),
}

/// What it means that the kernel took a call without an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Taken {
    /// The call itself is what must not succeed.
    Escaped,
    /// A hook may drop the packet behind the caller's back: the counters say.
    AskCounters,
}

/// One way out.
#[derive(Clone, Copy, Debug)]
pub struct Vector {
    /// Its name, in status, metric, evidence and table.
    pub name: &'static str,
    /// What is tried, in a line.
    pub what: &'static str,
    /// The hooks it needs.
    pub needs: Needs,
    /// Where it leads.
    pub to: To,
    /// What success of the call means.
    pub taken: Taken,
    /// Errors by which it is refused; all others prove nothing.
    pub errnos: &'static [i32],
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const UDPLITE: u8 = 136;
/// A port that is allowed soonest: what is denied here is denied.
pub(super) const PORT: u16 = 443;
/// DNS.
pub(super) const DNS: u16 = 53;

const REFUSED: &[i32] = &[libc::EPERM];
/// A frame that a link's hook drops (net/core/dev.c `sch_handle_egress`:
/// `NET_XMIT_DROP`, which is `ENOBUFS` to a packet socket).
const DROPPED: &[i32] = &[libc::EPERM, libc::ENOBUFS];

const fn ip(name: &'static str, what: &'static str, to: To) -> Vector {
    Vector {
        name,
        what,
        needs: Needs::Cgroup,
        to,
        taken: Taken::AskCounters,
        errnos: REFUSED,
    }
}

const fn call(name: &'static str, what: &'static str, needs: Needs) -> Vector {
    Vector {
        name,
        what,
        needs,
        to: To::Anywhere,
        taken: Taken::Escaped,
        errnos: REFUSED,
    }
}

/// Every way out that is tried, in the order in which they are.
pub const VECTORS: &[Vector] = &[
    ip("tcp4", "connect(2), TCP over IPv4", To::V4(TCP, PORT)),
    ip("tcp6", "connect(2), TCP over IPv6", To::V6(TCP, PORT)),
    ip(
        "tcp_mapped",
        "connect(2) to ::ffff:a.b.c.d",
        To::V4(TCP, PORT),
    ),
    ip("udp4", "sendto(2), UDP over IPv4", To::V4(UDP, PORT)),
    ip("udp6", "sendto(2), UDP over IPv6", To::V6(UDP, PORT)),
    ip(
        "udp_mapped",
        "sendto(2) to ::ffff:a.b.c.d",
        To::V4(UDP, PORT),
    ),
    ip(
        "udp4_connected",
        "connect(2) and send(2), UDP",
        To::V4(UDP, PORT),
    ),
    ip(
        "udp4_older",
        "send(2) on a socket older than the guarding, IPv4",
        To::V4(UDP, PORT),
    ),
    ip(
        "udp6_older",
        "send(2) on a socket older than the guarding, IPv6",
        To::V6(UDP, PORT),
    ),
    ip("sendmmsg", "sendmmsg(2), UDP", To::V4(UDP, PORT)),
    ip("fastopen", "sendto(2) with MSG_FASTOPEN", To::V4(TCP, PORT)),
    ip("dns_udp", "a DNS query over UDP", To::V4(UDP, DNS)),
    ip("dns_tcp", "a DNS query over TCP", To::V4(TCP, DNS)),
    ip(
        "nat64",
        "sendto(2) to 64:ff9b::a.b.c.d",
        To::Nat64(UDP, PORT),
    ),
    ip("mptcp", "connect(2), Multipath TCP", To::V4(TCP, PORT)),
    ip("sctp", "connect(2), SCTP", To::V4(SCTP, PORT)),
    ip("udplite", "sendto(2), UDP-Lite", To::V4(UDPLITE, PORT)),
    ip("ping", "an echo request, ping socket", To::V4(ICMP, 0)),
    ip("raw_icmp", "an echo request, raw socket", To::V4(ICMP, 0)),
    ip(
        "raw_icmp6",
        "an ICMPv6 echo request, raw socket",
        To::V6(ICMPV6, 0),
    ),
    ip(
        "raw_header",
        "a datagram under an IP header of one's own",
        To::V4(UDP, PORT),
    ),
    ip(
        "ring_connect",
        "connect by io_uring, TCP",
        To::V4(TCP, PORT),
    ),
    ip("ring_send", "send by io_uring, UDP", To::V4(UDP, PORT)),
    ip(
        "grandchild",
        "sendto(2), UDP, by a child's child",
        To::V4(UDP, PORT),
    ),
    call(
        "source_route",
        "IP_OPTIONS with a loose source route",
        Needs::Cgroup,
    ),
    call("routing_header", "IPV6_RTHDR", Needs::Cgroup),
    call("mark", "SO_MARK", Needs::Cgroup),
    call(
        "packet_bypass",
        "AF_PACKET with PACKET_QDISC_BYPASS",
        Needs::Cgroup,
    ),
    call("xdp", "AF_XDP with a transmit ring", Needs::Cgroup),
    call("tunnel", "open(2) of a tunnel device's node", Needs::Cgroup),
    Vector {
        name: "packet",
        what: "a frame through AF_PACKET",
        needs: Needs::BelowIp,
        to: To::Anywhere,
        taken: Taken::AskCounters,
        errnos: DROPPED,
    },
    call("vsock", "socket(2) of AF_VSOCK", Needs::Family),
    call("netlink", "socket(2) of NETLINK_XFRM", Needs::Lsm),
    Vector {
        needs: Needs::Lineage,
        ..ip(
            "left_cgroup",
            "sendto(2), UDP, after leaving the cgroup",
            To::V4(UDP, PORT),
        )
    },
];

/// The vector called `name`.
pub(super) fn find(name: &str) -> Option<usize> {
    VECTORS.iter().position(|vector| vector.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_name_is_there_once_and_is_a_word() {
        let names: BTreeSet<_> = VECTORS.iter().map(|vector| vector.name).collect();
        assert_eq!(names.len(), VECTORS.len());
        for name in names {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            assert!(name.bytes().all(plain), "{name}");
        }
        assert_eq!(find("tcp4"), Some(0));
        assert_eq!(find("no such"), None);
    }
}
