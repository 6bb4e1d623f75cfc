//! One network of the boundary, in the form the kernel holds it.
//!
//! IPv4 lives inside `::ffff:0:0/96` (RFC 4291 §2.5.5.2), so one address space
//! serves both families. An IPv6 network written into that range is refused:
//! the same destination must not have two spellings.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Bits before the IPv4 address in its mapped form.
pub(super) const MAPPED_BITS: u8 = 96;

/// A network; no bit past `bits` is set.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Network {
    /// The address, IPv4 in mapped form.
    pub address: [u8; 16],
    /// Leading bits that must match, 0 to 128.
    pub bits: u8,
}

/// The 16 bytes of an address, IPv4 mapped.
#[must_use]
pub fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address of 16 bytes, as people write it.
#[must_use]
pub fn unmapped(address: [u8; 16]) -> IpAddr {
    let v6 = Ipv6Addr::from(address);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}

impl Network {
    /// The network of `bits` that holds `address`.
    #[must_use]
    pub fn of(address: [u8; 16], bits: u8) -> Self {
        let bits = bits.min(128);
        let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
        let address = (u128::from_be_bytes(address) & mask).to_be_bytes();
        Self { address, bits }
    }

    /// Whether it is a network of IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.bits >= MAPPED_BITS && Ipv6Addr::from(self.address).to_ipv4_mapped().is_some()
    }

    /// Whether every bit of it matches `address`.
    #[must_use]
    pub fn contains(&self, address: [u8; 16]) -> bool {
        Self::of(address, self.bits).address == self.address
    }

    /// Whether `other` lies inside it, or is it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.bits <= other.bits && self.contains(other.address)
    }

    /// Reads `address/bits`; the error is what is wrong, and what to write.
    pub(crate) fn parse(text: &str) -> Result<Self, (String, String)> {
        let Some((address, length)) = text.split_once('/') else {
            return Err(match text.parse::<IpAddr>() {
                Ok(IpAddr::V4(v4)) => (
                    format!("{text:?} has no prefix length"),
                    format!("write \"{v4}/32\" for that host alone"),
                ),
                Ok(IpAddr::V6(v6)) => (
                    format!("{text:?} has no prefix length"),
                    format!("write \"{v6}/128\" for that host alone"),
                ),
                Err(_) => not_a_network(text),
            });
        };
        let address: Option<IpAddr> = address.parse().ok();
        let address = address.ok_or_else(|| not_a_network(text))?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let digits = length.bytes().all(|b| b.is_ascii_digit())
            && (length.len() == 1 || !length.starts_with('0'));
        let bits: u8 = length
            .parse()
            .ok()
            .filter(|bits| digits && *bits <= longest)
            .ok_or_else(|| {
                (
                    format!("{text:?} has no prefix length between 0 and {longest}"),
                    format!("write \"{address}/{longest}\" for that host alone"),
                )
            })?;
        Self::checked(text, address, bits)
    }

    fn checked(text: &str, address: IpAddr, bits: u8) -> Result<Self, (String, String)> {
        let offset = if address.is_ipv4() { MAPPED_BITS } else { 0 };
        let exact = mapped(address);
        let network = Self::of(exact, bits + offset);
        if address.is_ipv6() && network.is_ipv4() {
            return Err((
                format!("{text:?} is IPv4 in IPv6 form"),
                format!("write it as IPv4: \"{network}\""),
            ));
        }
        if network.address != exact {
            let longest = if address.is_ipv4() { 32 } else { 128 };
            return Err((
                format!("{text:?} has bits set past its prefix length"),
                format!(
                    "write \"{network}\" for the network, or \"{address}/{longest}\" for that host alone"
                ),
            ));
        }
        Ok(network)
    }
}

fn not_a_network(text: &str) -> (String, String) {
    (
        format!("{text:?} is not a network"),
        "write an address and a prefix length, as in \"10.0.0.0/8\" or \"2001:db8::/32\"".into(),
    )
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_ipv4() {
            let bits = self.bits - MAPPED_BITS;
            return write!(f, "{}/{bits}", unmapped(self.address));
        }
        write!(f, "{}/{}", Ipv6Addr::from(self.address), self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (String, String) {
        Network::parse(text).expect_err(text)
    }

    #[test]
    fn networks_of_both_families_are_read_and_shown_alike() {
        for text in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "192.0.2.7/32",
            "2001:db8:10::/48",
            "::/0",
            "::1/128",
        ] {
            assert_eq!(Network::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn host_bits_are_refused_with_the_fixed_form() {
        let (message, hint) = refused("10.1.2.3/8");
        assert_eq!(
            message,
            "\"10.1.2.3/8\" has bits set past its prefix length"
        );
        assert!(
            hint.contains("\"10.0.0.0/8\"") && hint.contains("\"10.1.2.3/32\""),
            "{hint}"
        );
        assert!(refused("2001:db8::1/64").1.contains("\"2001:db8::/64\""));
        assert!(refused("10.0.0.1/0").1.contains("\"0.0.0.0/0\""));
    }

    #[test]
    fn a_mapped_network_is_refused_because_a_destination_has_one_spelling_b20() {
        assert!(refused("::ffff:10.0.0.0/104").1.contains("\"10.0.0.0/8\""));
        assert!(refused("::ffff:0:0/96").1.contains("\"0.0.0.0/0\""));
        assert!(refused("::ffff:10.0.0.1/104").1.contains("\"10.0.0.0/8\""));
    }

    #[test]
    fn what_is_not_a_network_is_refused() {
        for text in [
            "",
            "/",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0/8",
            "010.0.0.0/8",
            "::/129",
            "fe80::1%eth1/64",
            "example.com",
            "10.0.0.0/8 ",
        ] {
            refused(text);
        }
        assert!(refused("192.0.2.1").1.contains("192.0.2.1/32"));
    }
}
