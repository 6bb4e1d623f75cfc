//! Databases as makers ship them, and as nobody should.

use super::writer::{Entry, write};
use super::*;

fn database(entries: &[(&str, Entry)], kind: Kind, with_aliases: bool) -> Database {
    Database::of_bytes(Path::new("t.mmdb"), kind, write(entries, with_aliases)).unwrap()
}

fn of(database: &Database, code: Code) -> Vec<String> {
    let found = database.networks(&BTreeSet::from([code])).unwrap();
    let networks = found.get(&code).cloned().unwrap_or_default();
    networks.iter().map(ToString::to_string).collect()
}

const DE: Code = Code::Country(*b"DE");
const FR: Code = Code::Country(*b"FR");

fn countries(with_aliases: bool) -> Database {
    let entries = [
        ("198.18.0.0/16", Entry::Country("DE")),
        ("198.19.0.0/17", Entry::Country("FR")),
        ("198.19.128.0/17", Entry::Country("DE")),
        ("203.0.113.0/25", Entry::Country("FR")),
        ("203.0.113.128/25", Entry::Country("FR")),
        ("2001:db8::/33", Entry::Country("DE")),
        ("2001:db8:8000::/33", Entry::Country("DE")),
        ("2001:db9::/32", Entry::Country("FR")),
    ];
    database(&entries, Kind::Country, with_aliases)
}

#[test]
fn a_country_is_all_its_networks_sorted_and_joined() {
    let database = countries(false);
    assert_eq!(
        of(&database, DE),
        ["198.18.0.0/16", "198.19.128.0/17", "2001:db8::/32"]
    );
    assert_eq!(
        of(&database, FR),
        ["198.19.0.0/17", "203.0.113.0/24", "2001:db9::/32"]
    );
    assert!(of(&database, Code::Country(*b"ZZ")).is_empty());
}

#[test]
fn ranges_that_stand_for_ipv4_give_nothing_twice_b20() {
    let (with, without) = (countries(true), countries(false));
    for code in [DE, FR] {
        assert_eq!(of(&with, code), of(&without, code));
    }
    let address = "2002:c612:1::1".parse().unwrap();
    assert_eq!(with.entry(address).unwrap(), None);
}

#[test]
fn an_entry_is_found_by_address_with_its_own_network() {
    let database = countries(true);
    let entry = |text: &str| {
        let found = database.entry(text.parse().unwrap()).unwrap();
        found.map(|(code, network)| format!("{code} {network}"))
    };
    assert_eq!(entry("198.19.200.1").unwrap(), "DE 198.19.128.0/17");
    assert_eq!(
        entry("::ffff:203.0.113.200").unwrap(),
        "FR 203.0.113.128/25"
    );
    assert_eq!(entry("2001:db8:8000::1").unwrap(), "DE 2001:db8:8000::/33");
    assert_eq!(entry("192.0.2.1"), None);
}

#[test]
fn an_operator_is_found_by_number() {
    let entries = [
        ("198.18.0.0/15", Entry::Asn(64_500)),
        ("2001:db8::/32", Entry::Asn(64_501)),
    ];
    let database = database(&entries, Kind::Asn, false);
    assert_eq!(of(&database, Code::Asn(64_500)), ["198.18.0.0/15"]);
    assert_eq!(of(&database, Code::Asn(64_501)), ["2001:db8::/32"]);
}

#[test]
fn what_is_left_without_aliases_is_ipv6_and_nothing_of_it_is_missing() {
    let mut ranges = Vec::new();
    without_aliases(Network::of([0; 16], 0), &mut ranges);
    ranges.extend(aliases());
    // Disjoint, and together 2^128 addresses, which is 0 in 128 bits.
    let overlaps = |one: &Network| ranges.iter().filter(|other| other.covers(one)).count();
    assert!(ranges.iter().all(|range| overlaps(range) == 1));
    let all = ranges.iter().fold(0_u128, |sum, range| {
        sum.wrapping_add(1 << (128 - u32::from(range.bits)))
    });
    assert_eq!(all, 0);
}

#[test]
fn a_small_database_with_billions_of_leaves_is_given_up_on() {
    // The first nodes lead to each other, both ways, for 64 bits.
    let mut maze = write(&[("2001:db8::/64", Entry::Country("DE"))], false);
    for (at, node) in maze.chunks_exact_mut(6).take(63).enumerate() {
        let next = u32::try_from(at + 1).unwrap().to_be_bytes();
        node.copy_from_slice(&[next[1], next[2], next[3], next[1], next[2], next[3]]);
    }
    let database = Database::of_bytes(Path::new("t.mmdb"), Kind::Country, maze).unwrap();
    let outcome = database.networks(&BTreeSet::from([DE]));
    assert!(
        matches!(outcome, Err(GeoError::Leaves { limit, .. }) if limit < 10_000),
        "{outcome:?}"
    );
}

#[test]
fn a_broken_database_is_an_error_and_never_a_panic() {
    let sound = write(
        &[
            ("198.18.0.0/16", Entry::Country("DE")),
            ("2001:db8::/32", Entry::Country("FR")),
        ],
        true,
    );
    let wanted = BTreeSet::from([DE, FR]);
    let ask = |bytes: Vec<u8>| {
        let database = Database::of_bytes(Path::new("t.mmdb"), Kind::Country, bytes)?;
        database.entry("198.18.0.1".parse().unwrap())?;
        database.networks(&wanted)
    };
    assert!(ask(sound.clone()).is_ok());
    assert!(ask(Vec::new()).is_err());
    for length in (0..sound.len()).step_by(7) {
        ask(sound[..length].to_vec()).ok();
    }
    // From the records on; the tree's first nodes are long chains.
    for at in (0..sound.len()).rev().take(400) {
        let mut broken = sound.clone();
        broken[at] ^= 0x55;
        ask(broken).ok();
    }
}
