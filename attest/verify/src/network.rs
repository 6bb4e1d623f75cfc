//! Networks in a trust policy and in a grant's terms: `203.0.113.0/24`, `2001:db8::/32`.

use std::net::IpAddr;

/// Bits before an IPv4 address in the form that both kinds share.
const MAPPED_BITS: u8 = 96;

/// Addresses that share their first bits; IPv4 as `::ffff:a.b.c.d`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Network {
    address: u128,
    bits: u8,
}

impl Network {
    /// An address alone is a network of itself. Bits beyond the prefix are an error: somebody
    /// meant something else.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let wrong = || format!("{text:?} is no network like 203.0.113.0/24 or 2001:db8::/32");
        let address: IpAddr = address.parse().ok().ok_or_else(wrong)?;
        let (address, width) = match address {
            IpAddr::V4(address) => (address.to_ipv6_mapped(), 32),
            IpAddr::V6(address) => (address, 128),
        };
        let bits = match bits {
            None => width,
            // A sign or a leading zero is another spelling of the same: refused.
            Some(bits) => bits
                .parse()
                .ok()
                .filter(|parsed: &u8| *parsed <= width && parsed.to_string() == bits)
                .ok_or_else(wrong)?,
        };
        let bits = if width == 32 {
            MAPPED_BITS + bits
        } else {
            bits
        };
        let network = Self {
            address: address.to_bits(),
            bits,
        };
        if network.address & !network.mask() != 0 {
            return Err(format!("{text:?} has bits beyond its prefix"));
        }
        Ok(network)
    }

    fn mask(self) -> u128 {
        let below = 128_u32.saturating_sub(u32::from(self.bits));
        u128::MAX.checked_shl(below).unwrap_or(0)
    }

    /// Whether every address of another one is in this.
    pub(crate) fn holds(self, other: Self) -> bool {
        other.bits >= self.bits && other.address & self.mask() == self.address
    }
}

#[cfg(test)]
mod tests {
    use super::Network;

    fn network(text: &str) -> Network {
        Network::parse(text).unwrap()
    }

    #[test]
    fn a_network_holds_those_inside_it_and_itself_and_no_other() {
        let wide = network("203.0.113.0/24");
        assert!(wide.holds(network("203.0.113.7")) && wide.holds(wide));
        assert!(wide.holds(network("203.0.113.128/25")));
        assert!(!wide.holds(network("203.0.112.0/23")) && !wide.holds(network("203.0.114.1")));
        assert!(!wide.holds(network("2001:db8::1")));
        assert!(network("0.0.0.0/0").holds(wide) && network("::/0").holds(wide));
        assert!(!network("0.0.0.0/0").holds(network("2001:db8::/32")));
        assert!(network("2001:db8::/32").holds(network("2001:db8:7::/48")));
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "",
            "/",
            "203.0.113.7/33",
            "203.0.113.7/24",
            "203.0.113.0/024",
            "203.0.113.0/+24",
            "2001:db8::/129",
            "host.example",
            "203.0.113.0/24 ",
            "203.0.113/24",
        ] {
            assert!(Network::parse(text).is_err(), "{text:?}");
        }
    }
}
