//! Names in the kernel: written with a boundary, carried over a reload, read
//! for people.
//!
//! What was learned under one generation is looked up anew under the next, by
//! its name, so that a reload neither forgets an address that is still allowed
//! nor keeps one that is not. Nothing is learned here: that is the kernel's.

use super::KernelError;
use super::boundary::Tables;
use super::coverage;
use super::hooks::{Hook, TierKind};
use super::maps::{Maps, failed, gone, is_absent};
use super::wire::Wire;
use crate::clock;
use aya::maps::MapError;
use aya::maps::lpm_trie::Key;
use merestone_abi::{
    DENIED_NAME, Event, EventKind, GENERATION_SLOTS, LEARNED_SLOTS, Learned, LearnedKey,
    MAX_LEARNED, MAX_RULE_SETS, NAME_BYTES, NAME_HEADER_BITS, NamePrefix, PREFIX_HEADER_BITS,
    Reason, Resolver, ResolverPrefix, maps,
};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

/// One name or wildcard of a boundary.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TableName {
    /// The boundary's number.
    pub boundary: u16,
    /// The name backwards; see `merestone-dns`.
    pub name: [u8; NAME_BYTES],
    /// Leading bits of it that must match.
    pub bits: u16,
    /// Index into the sets.
    pub set: u32,
    /// The rule that refuses even to ask for it.
    pub denied: Option<u16>,
}

impl TableName {
    /// What the kernel holds of it, where the sets of its generation begin at
    /// `base`.
    pub(super) fn value(&self, base: u32) -> u32 {
        match self.denied {
            Some(rule) => DENIED_NAME | u32::from(rule),
            None => base.wrapping_add(self.set),
        }
    }
}

/// Whose answers a boundary learns from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TableResolver {
    /// The boundary's number.
    pub boundary: u16,
    /// The network address, IPv4 in mapped form.
    pub address: [u8; 16],
    /// Leading bits that must match.
    pub bits: u8,
    /// Whether it is trusted. One that is not, of no bits, says that the
    /// boundary has names at all.
    pub trusted: bool,
}

/// An address that a name has now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LearnedAddress {
    /// The boundary's number.
    pub boundary: u16,
    /// The address.
    pub address: IpAddr,
    /// The name.
    pub name: String,
    /// The resolver that said so.
    pub resolver: IpAddr,
    /// Nothing new may use it from here on, nanoseconds since boot.
    pub expires_boot_ns: u64,
}

/// Refuses a boundary with names where nothing learns their addresses.
pub(super) fn require(tables: &Tables, hooks: &[Hook]) -> Result<(), KernelError> {
    if tables.resolvers.is_empty() {
        return Ok(());
    }
    let mut tiers = coverage::tiers(hooks).into_iter();
    match tiers.find(|tier| tier.name == TierKind::Names.name() && !tier.active) {
        Some(tier) => Err(KernelError::NoNames {
            detail: tier.detail,
        }),
        None => Ok(()),
    }
}

/// The boundaries that have names.
pub(super) fn boundaries(tables: &Tables) -> BTreeSet<u16> {
    let resolvers = tables.resolvers.iter();
    resolvers.map(|resolver| resolver.boundary).collect()
}

pub(super) fn write(maps: &mut Maps, tables: &Tables, generation: u32) -> Result<(), KernelError> {
    let base = generation % GENERATION_SLOTS * MAX_RULE_SETS;
    let generation = generation_bytes(generation);
    for name in &tables.names {
        let data = NamePrefix {
            generation,
            boundary: name.boundary.to_be_bytes(),
            name: name.name,
        };
        let key = Key::new(NAME_HEADER_BITS + u32::from(name.bits), Wire(data));
        maps.names
            .insert(&key, name.value(base), 0)
            .map_err(|error| failed(maps::NAMES, &error))?;
    }
    for resolver in &tables.resolvers {
        let data = ResolverPrefix {
            generation,
            boundary: resolver.boundary.to_be_bytes(),
            address: resolver.address,
        };
        let kind = if resolver.trusted {
            Resolver::TRUSTED
        } else {
            Resolver::NONE
        };
        let key = Key::new(PREFIX_HEADER_BITS + u32::from(resolver.bits), Wire(data));
        maps.resolvers
            .insert(&key, kind, 0)
            .map_err(|error| failed(maps::RESOLVERS, &error))?;
    }
    Ok(())
}

/// Learns again, under the next generation, what the live one has learned, as
/// far as the next one's rules list its name.
pub(super) fn carry_over(maps: &mut Maps, live: u32, next: u32) -> Result<(), KernelError> {
    let old = generation_bytes(live);
    for (key, learned) in entries(maps)? {
        if key.generation != old {
            continue;
        }
        let generation = generation_bytes(next);
        let data = NamePrefix {
            generation,
            boundary: key.boundary,
            name: learned.name,
        };
        let bits = NAME_HEADER_BITS + 8 * u32::try_from(NAME_BYTES).unwrap_or(0);
        // A private address that the next boundary does not know is not taken
        // along either, nor what a resolver said that is not trusted any more:
        // it is denied until it is asked for again.
        let is_own = maps.own.get(&key.address, 0).is_ok();
        if is_own || !still_public(&key.address) || !trusts(maps, &key, &learned, next)? {
            continue;
        }
        match maps.names.get(&Key::new(bits, Wire(data)), 0) {
            Ok(set) if set & DENIED_NAME != 0 => {}
            Ok(set) => {
                let key = LearnedKey { generation, ..key };
                let learned = Learned { set, ..learned };
                maps.learned
                    .insert(Wire(key), Wire(learned), 0)
                    .map_err(|error| failed(maps::LEARNED, &error))?;
            }
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(failed(maps::NAMES, &error)),
        }
    }
    Ok(())
}

/// Whether the next generation trusts the resolver that it was learned from.
fn trusts(
    maps: &Maps,
    key: &LearnedKey,
    learned: &Learned,
    next: u32,
) -> Result<bool, KernelError> {
    let data = ResolverPrefix {
        generation: generation_bytes(next),
        boundary: key.boundary,
        address: learned.resolver,
    };
    let bits = PREFIX_HEADER_BITS + 128;
    match maps.resolvers.get(&Key::new(bits, Wire(data)), 0) {
        Ok(kind) => Ok(kind == Resolver::TRUSTED),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(failed(maps::RESOLVERS, &error)),
    }
}

fn still_public(address: &[u8; 16]) -> bool {
    let standing = match Ipv6Addr::from(*address).to_canonical() {
        IpAddr::V4(four) => merestone_dns::Standing::of_four(four.octets()),
        IpAddr::V6(six) => merestone_dns::Standing::of_six(&six.octets()),
    };
    standing == merestone_dns::Standing::Public
}

/// Deletes all that is not of generation `live`.
pub(super) fn sweep(maps: &mut Maps, live: u32) -> Result<(), KernelError> {
    let live = generation_bytes(live);
    let names: Vec<_> = keys(maps::NAMES, maps.names.keys())?;
    for key in names {
        let Wire(data) = key.data();
        if data.generation != live {
            gone(maps::NAMES, maps.names.remove(&key))?;
        }
    }
    let resolvers: Vec<_> = keys(maps::RESOLVERS, maps.resolvers.keys())?;
    for key in resolvers {
        let Wire(data) = key.data();
        if data.generation != live {
            gone(maps::RESOLVERS, maps.resolvers.remove(&key))?;
        }
    }
    let learned: Vec<_> = keys(maps::LEARNED, maps.learned.keys())?;
    for key in learned {
        if key.0.generation != live {
            gone(maps::LEARNED, maps.learned.remove(&key))?;
        }
    }
    Ok(())
}

/// How long an address is kept that nothing new may use: a connection that was
/// opened in time goes on, and is judged again when the boundary or who is
/// guarded changes.
const LINGER_NS: u64 = 7 * 86_400 * 1_000_000_000;
/// Addresses kept so; past that those that ended first are forgotten.
const MOST_LINGERING: usize = MAX_LEARNED as usize / 4;

/// Forgets addresses whose time is long over.
pub(super) fn expire(maps: &mut Maps) -> Result<(), KernelError> {
    let now = clock::boot_ns();
    let mut over = entries(maps)?;
    over.retain(|(_, learned)| learned.expires_boot_ns <= now);
    over.sort_unstable_by_key(|(_, learned)| std::cmp::Reverse(learned.expires_boot_ns));
    let is_old = |learned: &Learned| now.saturating_sub(learned.expires_boot_ns) > LINGER_NS;
    for (place, (key, learned)) in over.iter().enumerate() {
        if place >= MOST_LINGERING || is_old(learned) {
            gone(maps::LEARNED, maps.learned.remove(&Wire(*key)))?;
        }
    }
    Ok(())
}

/// Forgets what was learned for addresses that are this host's own now.
pub(super) fn forget(maps: &mut Maps, own: &BTreeSet<[u8; 16]>) -> Result<(), KernelError> {
    let learned: Vec<_> = keys(maps::LEARNED, maps.learned.keys())?;
    for key in learned {
        if own.contains(&key.0.address) {
            gone(maps::LEARNED, maps.learned.remove(&key))?;
        }
    }
    Ok(())
}

pub(super) fn learned(maps: &Maps) -> Result<Vec<LearnedAddress>, KernelError> {
    let now = clock::boot_ns();
    let live = generation_bytes(super::boundary::settings(maps)?.generation);
    let current = |(key, learned): &(LearnedKey, Learned)| {
        key.generation == live && learned.expires_boot_ns > now
    };
    let told = |(key, learned): (LearnedKey, Learned)| LearnedAddress {
        boundary: u16::from_be_bytes(key.boundary),
        address: Ipv6Addr::from(key.address).to_canonical(),
        name: text(&learned.name),
        resolver: Ipv6Addr::from(learned.resolver).to_canonical(),
        expires_boot_ns: learned.expires_boot_ns,
    };
    Ok(entries(maps)?
        .into_iter()
        .filter(current)
        .map(told)
        .collect())
}

/// The name of an event; none where there is none or it is forgotten.
pub(super) fn name_of(maps: &Maps, named: &BTreeSet<u16>, event: &Event) -> Option<String> {
    let asked = event.kind == EventKind::FLOW && event.reason == Reason::NAME;
    if asked || event.kind == EventKind::ANSWER {
        let digest = (u64::from(event.major) << 32) | u64::from(event.minor);
        return maps.asked.get(&digest, 0).ok().map(|name| text(&name));
    }
    if event.kind != EventKind::FLOW {
        return None;
    }
    let generation = generation_bytes(event.generation);
    // Which boundary judged it an event does not say.
    let mut places = named
        .iter()
        .flat_map(|number| (0..LEARNED_SLOTS).map(move |slot| (*number, slot)));
    places.find_map(|(number, slot)| {
        let key = LearnedKey {
            generation,
            boundary: number.to_be_bytes(),
            slot,
            address: event.address,
        };
        // Of an address whose time is over too: that is why it was refused.
        let Wire(learned) = maps.learned.get(&Wire(key), 0).ok()?;
        Some(text(&learned.name))
    })
}

fn text(name: &[u8; NAME_BYTES]) -> String {
    let mut text = [0; NAME_BYTES];
    merestone_dns::key_text(name, &mut text).to_owned()
}

/// Everything learned. Entries that come or go meanwhile may be missed.
fn entries(maps: &Maps) -> Result<Vec<(LearnedKey, Learned)>, KernelError> {
    let mut found = Vec::new();
    for key in keys(maps::LEARNED, maps.learned.keys())? {
        match maps.learned.get(&key, 0) {
            Ok(Wire(learned)) => found.push((key.0, learned)),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(failed(maps::LEARNED, &error)),
        }
    }
    Ok(found)
}

fn keys<K>(
    map: &'static str,
    keys: impl Iterator<Item = Result<K, MapError>>,
) -> Result<Vec<K>, KernelError> {
    keys.collect::<Result<_, _>>()
        .map_err(|error| failed(map, &error))
}

/// The generation as the keys have it.
pub(super) fn generation_bytes(generation: u32) -> [u8; 2] {
    let [_, _, high, low] = generation.to_be_bytes();
    [high, low]
}
