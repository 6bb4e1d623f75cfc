//! A destination as an operator types it.

use super::names::NamePattern;
use super::network::{mapped, unmapped};
use merestone_abi::protocol;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A destination to ask about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Target {
    /// The address.
    pub address: IpAddr,
    /// The port; 0 where the protocol has none.
    pub port: u16,
    /// The IP protocol number.
    pub protocol: u8,
}

/// Why a destination cannot be asked about.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TargetError {
    /// Not an address.
    #[error("{given:?} is not an address with a port")]
    Address {
        /// What was given.
        given: String,
    },
    /// The protocol has ports and none is given.
    #[error("{protocol} needs a port")]
    PortMissing {
        /// The protocol.
        protocol: String,
    },
    /// The protocol has no ports and one is given.
    #[error("{protocol} has no ports")]
    PortGiven {
        /// The protocol.
        protocol: String,
    },
    /// Not a protocol.
    #[error("{given:?} is not a protocol")]
    Protocol {
        /// What was given.
        given: String,
    },
}

/// A name to ask about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NameTarget {
    /// In lower case.
    pub name: String,
    /// The port, where one is meant.
    pub port: Option<u16>,
    /// The IP protocol number.
    pub protocol: u8,
}

impl NameTarget {
    /// From `NAME` or `NAME:PORT`; none for what is no name.
    #[must_use]
    pub fn parse(to: &str, word: &str) -> Option<Self> {
        let (name, port) = match to.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok().filter(|port| *port > 0)?)),
            None => (to, None),
        };
        let name = NamePattern::parse(name.strip_suffix('.').unwrap_or(name)).ok()?;
        let protocol = protocol_number(word).ok()?;
        (name.is_exact() && (port.is_none() || protocol::has_ports(protocol))).then_some(Self {
            name: name.text,
            port,
            protocol,
        })
    }
}

impl TargetError {
    /// What to write instead.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Address { .. } => {
                "write 203.0.113.7:443, [2001:db8::7]:443 or registry.example.eu:443"
            }
            Self::PortMissing { .. } => "add :PORT to the address",
            Self::PortGiven { .. } => "leave the port out",
            Self::Protocol { .. } => {
                "write tcp, udp, icmp, sctp, dccp, udplite, or a number of 1 to 255"
            }
        }
    }
}

impl Target {
    /// From `--to` and `--protocol`.
    pub fn parse(to: &str, word: &str) -> Result<Self, TargetError> {
        let given = || TargetError::Address {
            given: to.to_owned(),
        };
        let (address, port) = if let Ok(socket) = to.parse::<SocketAddr>() {
            (socket.ip(), Some(socket.port()))
        } else {
            let bare = to.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let address: Option<IpAddr> = bare.unwrap_or(to).parse().ok();
            (address.ok_or_else(given)?, None)
        };
        // As the kernel does: to connect to no address is to connect to this host.
        let address = match unmapped(mapped(address)) {
            IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            named => named,
        };
        let number = match word {
            "icmp" if address.is_ipv6() => protocol::ICMPV6,
            _ => protocol_number(word)?,
        };
        let word = word.to_owned();
        let port = match (port, protocol::has_ports(number)) {
            (Some(port), true) => port,
            (None, false) => 0,
            (None, true) => return Err(TargetError::PortMissing { protocol: word }),
            (Some(_), false) => return Err(TargetError::PortGiven { protocol: word }),
        };
        Ok(Self {
            address,
            port,
            protocol: number,
        })
    }
}

fn protocol_number(word: &str) -> Result<u8, TargetError> {
    Ok(match word {
        "tcp" => protocol::TCP,
        "udp" => protocol::UDP,
        "icmp" => protocol::ICMP,
        "sctp" => protocol::SCTP,
        "dccp" => protocol::DCCP,
        "udplite" => protocol::UDP_LITE,
        _ => {
            let number = word.parse().ok().filter(|number| *number > 0);
            number.ok_or_else(|| TargetError::Protocol {
                given: word.to_owned(),
            })?
        }
    })
}

/// The name of a protocol number, or the number.
pub(super) fn protocol_name(number: u8) -> String {
    match number {
        protocol::TCP => "tcp".into(),
        protocol::UDP => "udp".into(),
        protocol::ICMP | protocol::ICMPV6 => "icmp".into(),
        protocol::SCTP => "sctp".into(),
        protocol::DCCP => "dccp".into(),
        protocol::UDP_LITE => "udplite".into(),
        _ => number.to_string(),
    }
}
