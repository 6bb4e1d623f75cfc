//! Puts a boundary into the kernel as one whole.
//!
//! The next generation is written beside the live one; one array write makes
//! it live; the old one is deleted when no program can still be in it. No
//! packet is judged by a mixture. A crash in between leaves the old generation
//! live and rubbish beside it, which the next start sweeps away.

use super::KernelError;
use super::maps::{Maps, failed, is_absent};
use super::protocols;
use super::selects::{self, TableSelect};
use super::wire::Wire;
use aya::maps::lpm_trie::Key;
use merestone_abi::{
    GENERATION_SLOTS, MAX_PREFIXES, MAX_RULE_SETS, PREFIX_HEADER_BITS, Prefix, PrefixValue,
    RuleSet, Settings, maps,
};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// A boundary as the kernel takes it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tables {
    /// A denial is reported and let pass.
    pub audit: bool,
    /// Prefixes; none twice.
    pub prefixes: Vec<TablePrefix>,
    /// The rule sets they point at.
    pub sets: Vec<RuleSet>,
    /// [`merestone_abi::Deputies`].
    pub deputies: u8,
    /// Which groups other boundaries than the default one judge.
    pub selects: Vec<TableSelect>,
}

/// One prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TablePrefix {
    /// The boundary's number; 0 is the default one.
    pub boundary: u16,
    /// The network address, IPv4 in mapped form.
    pub address: [u8; 16],
    /// Leading bits that must match, 0 to 128.
    pub bits: u8,
    /// Index into the sets.
    pub set: u32,
}

/// Longer than a program can be held up between reading the generation and
/// looking a prefix up in it; one that is held up longer finds none: denied.
const GRACE: Duration = Duration::from_millis(100);

/// Writes `tables` as the next generation and makes it live.
pub(super) fn install(
    maps: &mut Maps,
    hierarchy: &Path,
    tables: &Tables,
) -> Result<u32, KernelError> {
    check(tables)?;
    let live = settings(maps)?;
    let next = following(live.generation);
    // What an install that was cut short has left.
    sweep(maps, live.generation)?;
    let slot = next % GENERATION_SLOTS;
    write(maps, tables, next, slot * MAX_RULE_SETS)?;
    selects::write(maps, hierarchy, &tables.selects, slot)?;
    let audit = with(live.audit, slot, u8::from(tables.audit));
    let deputies = with(live.deputies, slot, tables.deputies);
    let selects = with(live.selects, slot, u8::from(!tables.selects.is_empty()));
    let protocols = with(live.protocols, slot, protocols::allowed(&tables.sets));
    // The mode goes first: its slot is not live, so that the second write
    // changes the generation and nothing else.
    for generation in [live.generation, next] {
        let settings = Settings {
            generation,
            audit,
            deputies,
            names: live.names,
            selects,
            protocols,
            reserved: [0; 2],
        };
        maps.settings
            .set(0, Wire(settings), 0)
            .map_err(|error| failed(maps::SETTINGS, &error))?;
    }
    if live.generation != 0 {
        thread::sleep(GRACE);
        sweep(maps, next)?;
        // Groups and cgroups that came while the first walk was under way.
        selects::catch_up(maps, hierarchy, &tables.selects, slot)?;
    }
    Ok(next)
}

/// A pair indexed by slot, with one of them changed.
fn with(mut pair: [u8; 2], slot: u32, value: u8) -> [u8; 2] {
    if let Some(own) = pair.get_mut(slot as usize) {
        *own = value;
    }
    pair
}

/// What is live now.
pub(super) fn settings(maps: &Maps) -> Result<Settings, KernelError> {
    let Wire(settings) = maps
        .settings
        .get(&0, 0)
        .map_err(|error| failed(maps::SETTINGS, &error))?;
    Ok(settings)
}

/// The generation after `live`: never 0, in 16 bits, and in the other slot.
fn following(live: u32) -> u32 {
    let next = live.wrapping_add(1);
    if next > u32::from(u16::MAX) {
        GENERATION_SLOTS + next % GENERATION_SLOTS
    } else {
        next
    }
}

fn check(tables: &Tables) -> Result<(), KernelError> {
    let limits = [
        (
            "prefixes",
            tables.prefixes.len(),
            MAX_PREFIXES / GENERATION_SLOTS,
        ),
        ("rule sets", tables.sets.len(), MAX_RULE_SETS),
    ];
    for (what, got, limit) in limits {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        if got > limit {
            return Err(KernelError::TooLarge { what, got, limit });
        }
    }
    Ok(())
}

fn write(maps: &mut Maps, tables: &Tables, generation: u32, base: u32) -> Result<(), KernelError> {
    for (set, index) in tables.sets.iter().zip(base..) {
        maps.rule_sets
            .set(index, Wire(*set), 0)
            .map_err(|error| failed(maps::RULE_SETS, &error))?;
    }
    for prefix in &tables.prefixes {
        let value = PrefixValue {
            set: base + prefix.set,
        };
        maps.prefixes
            .insert(&key(prefix, generation), Wire(value), 0)
            .map_err(|error| failed(maps::PREFIXES, &error))?;
    }
    Ok(())
}

fn key(prefix: &TablePrefix, generation: u32) -> Key<Wire<Prefix>> {
    let data = self::prefix(prefix, generation);
    Key::new(PREFIX_HEADER_BITS + u32::from(prefix.bits), Wire(data))
}

/// The data part of a prefix's key.
pub(super) fn prefix(prefix: &TablePrefix, generation: u32) -> Prefix {
    Prefix {
        generation: generation_bytes(generation),
        boundary: prefix.boundary.to_be_bytes(),
        address: prefix.address,
    }
}

pub(super) fn generation_bytes(generation: u32) -> [u8; 2] {
    let [_, _, high, low] = generation.to_be_bytes();
    [high, low]
}

/// Deletes every prefix that is not of generation `live`.
fn sweep(maps: &mut Maps, live: u32) -> Result<(), KernelError> {
    let live = generation_bytes(live);
    let mut stale = Vec::new();
    for key in maps.prefixes.keys() {
        let key = key.map_err(|error| failed(maps::PREFIXES, &error))?;
        let Wire(data) = key.data();
        if data.generation != live {
            stale.push(key);
        }
    }
    for key in stale {
        if let Err(error) = maps.prefixes.remove(&key)
            && !is_absent(&error)
        {
            return Err(failed(maps::PREFIXES, &error));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_follows_in_the_other_slot_and_is_never_zero() {
        for live in [0, 1, 2, 65_534, 65_535] {
            let next = following(live);
            assert_ne!(next % 2, live % 2, "after {live}");
            assert!(next > 0 && next <= 65_535, "after {live}: {next}");
        }
    }

    #[test]
    fn a_boundary_that_does_not_fit_is_refused() {
        let sets = vec![
            RuleSet {
                length: 0,
                reserved: 0,
                entries: Default::default(),
            };
            MAX_RULE_SETS as usize + 1
        ];
        let tables = Tables {
            sets,
            ..Tables::default()
        };
        assert!(matches!(check(&tables), Err(KernelError::TooLarge { .. })));
    }
}
