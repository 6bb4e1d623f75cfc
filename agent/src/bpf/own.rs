//! The addresses of this host, which a name must not open: what listens there
//! was never meant for the outside (DNS rebinding).
//!
//! They are those of the agent's own network namespace, as the kernel's routing
//! tables have them; read anew every few seconds. What was learned for one
//! before it became this host's is forgotten.

use super::KernelError;
use super::maps::{Maps, failed, gone};
use super::names;
use super::reap::keys;
use crate::policy::mapped;
use merestone_abi::{MAX_OWN, maps};
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Brings the kernel's list up to date.
pub(super) fn refresh(maps: &mut Maps) -> Result<(), KernelError> {
    let read = |path: &'static str| match fs::read_to_string(path) {
        // A kernel without IPv6 has no such file.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|source| KernelError::Io {
            action: "cannot read",
            path: path.into(),
            source,
        }),
    };
    let mut own = four(&read("/proc/net/fib_trie")?);
    own.extend(six(&read("/proc/net/if_inet6")?));
    let known: BTreeSet<[u8; 16]> = keys(maps::OWN, maps.own.keys())?.into_iter().collect();
    for left in known.difference(&own) {
        gone(maps::OWN, maps.own.remove(left))?;
    }
    let room = (MAX_OWN as usize).saturating_sub(known.intersection(&own).count());
    let new: Vec<_> = own.difference(&known).collect();
    if new.len() > room {
        tracing::error!(
            left_out = new.len() - room,
            "this host has more addresses than the kernel's list holds"
        );
    }
    for address in new.iter().take(room) {
        maps.own
            .insert(*address, 1, 0)
            .map_err(|error| failed(maps::OWN, &error))?;
    }
    if !new.is_empty() {
        names::forget(maps, &own)?;
    }
    Ok(())
}

/// Of `/proc/net/fib_trie`: a leaf, then what it is (`net/ipv4/fib_trie.c`,
/// `fib_trie_seq_show`).
fn four(text: &str) -> BTreeSet<[u8; 16]> {
    let mut found = BTreeSet::new();
    let mut leaf: Option<Ipv4Addr> = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = leaf
        {
            found.insert(mapped(IpAddr::V4(address)));
        }
    }
    found
}

/// Of `/proc/net/if_inet6`: 32 digits first (`net/ipv6/addrconf.c`,
/// `if6_seq_show`).
fn six(text: &str) -> BTreeSet<[u8; 16]> {
    let addresses = text.lines().filter_map(|line| {
        let digits = line.split_ascii_whitespace().next()?;
        let number = (digits.len() == 32).then(|| u128::from_str_radix(digits, 16).ok())??;
        Some(mapped(IpAddr::V6(Ipv6Addr::from(number))))
    });
    addresses.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_s_own_addresses_are_taken_out_of_its_routing_tables() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
                    \x20    +-- 192.0.2.0/24 2 0 2\n        |-- 192.0.2.0\n           /24 link UNICAST\n\
                    \x20       |-- 192.0.2.7\n           /32 host LOCAL\n\
                    \x20       |-- 192.0.2.255\n           /32 link BROADCAST\n";
        let own: Vec<_> = four(trie).into_iter().collect();
        assert_eq!(own, [mapped("192.0.2.7".parse().unwrap())]);
        let inet6 = "20010db8000000000000000000000007 02 40 00 80     eth0\nshort 1\n";
        let own: Vec<_> = six(inet6).into_iter().collect();
        assert_eq!(own, [mapped("2001:db8::7".parse().unwrap())]);
    }
}
