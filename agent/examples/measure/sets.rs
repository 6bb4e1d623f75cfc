//! The prefixes that everything is measured with: three in five IPv4.

use merestone_abi::{LOOPBACK_RULE, RULE_ENTRIES, RuleEntry, RuleSet, Verdict};
use merestone_agent::bpf::{TablePrefix, Tables};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

/// What is allowed beside the set: the measuring networks and loopback.
const ALWAYS: [&str; 4] = ["198.18.0.0/15", "2001:db8::/32", "127.0.0.0/8", "::1/128"];

/// The `index`th IPv4 /24, each another, in an order that jumps about, none of
/// them loopback, the measuring network's or multicast.
pub(crate) fn v4(index: u32) -> Ipv4Addr {
    let net = 0x80_00_00 | index.wrapping_mul(0x9E_37_7B) & 0x3f_ff_ff;
    Ipv4Addr::from_bits(net << 8)
}

/// The `index`th IPv6 /48 of `2a00::/12`, each another.
pub(crate) fn v6(index: u32) -> Ipv6Addr {
    let net = u64::from(index.wrapping_mul(0x9E37_79B1)) & 0x0fff_ffff;
    Ipv6Addr::from_bits(u128::from(0x2a0_u64 << 28 | net) << 88)
}

/// How many of so many prefixes are IPv4.
pub(crate) fn split(count: u32) -> (u32, u32) {
    let four = count / 5 * 3;
    (four, count - four)
}

/// A network's address and its length.
pub(crate) type Network = (Vec<u8>, u32);

/// So many prefixes and what is always allowed, by family, as addresses in
/// network order with their lengths.
pub(crate) fn networks(count: u32) -> (Vec<Network>, Vec<Network>) {
    let (four, six) = split(count);
    let mut four: Vec<Network> = (0..four)
        .map(|index| (v4(index).octets().to_vec(), 24))
        .collect();
    let mut six: Vec<Network> = (0..six)
        .map(|index| (v6(index).octets().to_vec(), 48))
        .collect();
    four.extend([(vec![198, 18, 0, 0], 15), (vec![127, 0, 0, 0], 8)]);
    let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
    six.push((documentation.octets().to_vec(), 32));
    six.push((Ipv6Addr::LOCALHOST.octets().to_vec(), 128));
    (four, six)
}

/// The same as lines of a unit of systemd; everything else is denied.
pub(crate) fn unit(count: u32) -> String {
    let (four, six) = split(count);
    let always = ALWAYS.iter().map(|network| (*network).to_owned());
    let networks = always
        .chain((0..four).map(|index| format!("{}/24", v4(index))))
        .chain((0..six).map(|index| format!("{}/48", v6(index))));
    networks.fold("IPAddressDeny=any\n".to_owned(), |lines, network| {
        lines + "IPAddressAllow=" + &network + "\n"
    })
}

/// Everything is allowed, by that rule.
fn set(rule: u16) -> RuleSet {
    let mut entries = [RuleEntry::default(); RULE_ENTRIES];
    if let Some(first) = entries.first_mut() {
        *first = RuleEntry {
            port_low: 0,
            port_high: u16::MAX,
            rule,
            protocol: 0,
            action: Verdict::ALLOW.0,
        };
    }
    RuleSet {
        length: 1,
        reserved: 0,
        entries,
    }
}

/// A boundary of so many prefixes, as the kernel takes it.
pub(crate) fn tables(count: u32) -> Tables {
    let (four, six) = split(count);
    let prefix = |address: Ipv6Addr, bits, set| TablePrefix {
        boundary: 0,
        address: address.octets(),
        bits,
        set,
    };
    let mut prefixes = vec![
        prefix(Ipv4Addr::new(127, 0, 0, 0).to_ipv6_mapped(), 104, 1),
        prefix(Ipv6Addr::LOCALHOST, 128, 1),
        prefix(Ipv4Addr::new(198, 18, 0, 0).to_ipv6_mapped(), 111, 0),
        prefix(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, 0),
    ];
    prefixes.extend((0..four).map(|index| prefix(v4(index).to_ipv6_mapped(), 120, 0)));
    prefixes.extend((0..six).map(|index| prefix(v6(index), 48, 0)));
    Tables {
        prefixes,
        sets: vec![set(1), set(LOOPBACK_RULE)],
        ..Tables::default()
    }
}

/// The same as a boundary file.
pub(crate) fn file(count: u32) -> String {
    let mut text = String::from("name = \"measured\"\n\n[[allow]]\ncidr = [\n");
    let (four, six) = split(count);
    let mut line = |network: String| {
        // Writing to a string cannot fail.
        writeln!(text, "  \"{network}\",").ok();
    };
    for always in ALWAYS {
        line(always.to_owned());
    }
    for index in 0..four {
        line(format!("{}/24", v4(index)));
    }
    for index in 0..six {
        line(format!("{}/48", v6(index)));
    }
    text.push_str("]\n");
    text
}

/// The same for `nft -f`: everything else is dropped.
pub(crate) fn nftables(count: u32) -> String {
    let (four, six) = split(count);
    let join = |own: [&str; 2], rest: Vec<String>| {
        own.into_iter()
            .map(str::to_owned)
            .chain(rest)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let four = join(
        [ALWAYS[0], ALWAYS[2]],
        (0..four).map(|index| format!("{}/24", v4(index))).collect(),
    );
    let six = join(
        [ALWAYS[1], ALWAYS[3]],
        (0..six).map(|index| format!("{}/48", v6(index))).collect(),
    );
    format!(
        "table inet measured {{
  set four {{ type ipv4_addr; flags interval; elements = {{ {four} }} }}
  set six {{ type ipv6_addr; flags interval; elements = {{ {six} }} }}
  chain out {{
    type filter hook output priority 0; policy drop;
    ip daddr @four accept
    ip6 daddr @six accept
    meta l4proto ipv6-icmp accept
  }}
}}
"
    )
}
