//! Writes small databases for tests, from the format's description alone
//! (<https://maxmind.github.io/MaxMind-DB/>): 24-bit records, IPv4 at `::/96`,
//! and aliases where makers put them.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// What an entry holds.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Entry {
    Country(&'static str),
    Asn(u32),
}

#[derive(Clone, Copy)]
enum Record {
    Nothing,
    Node(usize),
    Data(usize),
}

/// A database of these networks, IPv4 below `::/96`; `with_aliases` repeats
/// IPv4 under `::ffff:0:0/96`, `2001::/32` and `2002::/16`.
pub(crate) fn write(entries: &[(&str, Entry)], with_aliases: bool) -> Vec<u8> {
    let mut nodes = vec![[Record::Nothing; 2]];
    let mut data = Vec::new();
    let mut offsets: BTreeMap<Entry, usize> = BTreeMap::new();
    for (network, entry) in entries {
        let at = *offsets.entry(entry.clone()).or_insert_with(|| {
            let at = data.len();
            encode(entry, &mut data);
            at
        });
        let (address, bits) = network.split_once('/').unwrap();
        let bits: usize = bits.parse().unwrap();
        let (bytes, bits) = match address.parse().unwrap() {
            IpAddr::V4(v4) => (v4.to_ipv6_compatible().octets(), bits + 96),
            IpAddr::V6(v6) => (v6.octets(), bits),
        };
        insert(&mut nodes, bytes, bits, Record::Data(at));
    }
    if with_aliases {
        let mut root = 0;
        for _ in 0..96 {
            root = match nodes[root][0] {
                Record::Node(next) => next,
                _ => panic!("no IPv4 in this database"),
            };
        }
        let mapped: std::net::Ipv6Addr = "::ffff:0:0".parse().unwrap();
        insert(&mut nodes, mapped.octets(), 96, Record::Node(root));
        for (address, bits) in [("2001::", 32), ("2002::", 16)] {
            let address: std::net::Ipv6Addr = address.parse().unwrap();
            insert(&mut nodes, address.octets(), bits, Record::Node(root));
        }
    }
    whole(&nodes, &data)
}

fn insert(nodes: &mut Vec<[Record; 2]>, bytes: [u8; 16], bits: usize, record: Record) {
    let mut node = 0;
    for depth in 0..bits {
        let side = usize::from(bytes[depth / 8] >> (7 - depth % 8) & 1);
        if depth + 1 == bits {
            nodes[node][side] = record;
            return;
        }
        node = match nodes[node][side] {
            Record::Node(next) => next,
            Record::Nothing => {
                nodes.push([Record::Nothing; 2]);
                let next = nodes.len() - 1;
                nodes[node][side] = Record::Node(next);
                next
            }
            Record::Data(_) => panic!("a network inside another"),
        };
    }
}

fn whole(nodes: &[[Record; 2]], data: &[u8]) -> Vec<u8> {
    let count = nodes.len();
    let mut out = Vec::new();
    for record in nodes.iter().flatten() {
        let value = match record {
            Record::Nothing => count,
            Record::Node(node) => *node,
            Record::Data(at) => count + 16 + at,
        };
        out.extend(&u32::try_from(value).unwrap().to_be_bytes()[1..]);
    }
    out.extend([0; 16]);
    out.extend(data);
    out.extend(b"\xab\xcd\xefMaxMind.com");
    map(&mut out, 9);
    string(&mut out, "node_count");
    number(&mut out, u32::try_from(count).unwrap());
    for (key, value) in [
        ("record_size", 24_u16),
        ("ip_version", 6),
        ("binary_format_major_version", 2),
        ("binary_format_minor_version", 0),
    ] {
        string(&mut out, key);
        out.push(5 << 5 | 2);
        out.extend(value.to_be_bytes());
    }
    string(&mut out, "build_epoch");
    out.extend([8, 2]); // eight bytes of type 9
    out.extend(1_700_000_000_u64.to_be_bytes());
    string(&mut out, "database_type");
    string(&mut out, "Merestone-Test");
    string(&mut out, "languages");
    out.extend([0, 4]); // an empty array
    string(&mut out, "description");
    map(&mut out, 0);
    out
}

fn encode(entry: &Entry, out: &mut Vec<u8>) {
    match entry {
        Entry::Country(code) => {
            map(out, 2);
            string(out, "country");
            map(out, 1);
            string(out, "iso_code");
            string(out, code);
            string(out, "registered_country");
            map(out, 1);
            string(out, "iso_code");
            string(out, "ZZ");
        }
        Entry::Asn(asn) => {
            map(out, 1);
            string(out, "autonomous_system_number");
            number(out, *asn);
        }
    }
}

fn map(out: &mut Vec<u8>, length: u8) {
    out.push(7 << 5 | length);
}

fn string(out: &mut Vec<u8>, text: &str) {
    let length = u8::try_from(text.len()).unwrap();
    if length < 29 {
        out.push(2 << 5 | length);
    } else {
        out.extend([2 << 5 | 0x1d, length - 29]);
    }
    out.extend(text.as_bytes());
}

/// An unsigned integer of four bytes.
fn number(out: &mut Vec<u8>, value: u32) {
    out.push(6 << 5 | 4);
    out.extend(value.to_be_bytes());
}
