//! Puts a boundary into the kernel as one whole.
//!
//! The next generation is written beside the live one; one array write makes
//! it live; the old one is deleted when no program can still be in it. No
//! packet is judged by a mixture. A crash in between leaves the old generation
//! live and rubbish beside it, which the next start sweeps away.

use super::KernelError;
use super::maps::{Maps, failed, is_absent};
use super::names::{self, TableName, TableResolver};
use super::wire::Wire;
use aya::maps::lpm_trie::Key;
use merestone_abi::{
    GENERATION_SLOTS, MAX_NAMES, MAX_PREFIXES, MAX_RESOLVERS, MAX_RULE_SETS, PREFIX_HEADER_BITS,
    Prefix, PrefixValue, RuleSet, Settings, maps,
};
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
    /// Names; none twice in one boundary.
    pub names: Vec<TableName>,
    /// Boundaries that have names, and the resolvers they trust.
    pub resolvers: Vec<TableResolver>,
}

/// One prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TablePrefix {
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
pub(super) fn install(maps: &mut Maps, tables: &Tables) -> Result<u32, KernelError> {
    check(tables)?;
    let live = settings(maps)?;
    let next = following(live.generation);
    // What an install that was cut short has left.
    sweep(maps, live.generation)?;
    names::sweep(maps, live.generation)?;
    let slot = next % GENERATION_SLOTS;
    let base = slot * MAX_RULE_SETS;
    write(maps, tables, next, base)?;
    names::write(maps, tables, next, base)?;
    names::carry_over(maps, live.generation, next)?;
    let mut audit = live.audit;
    if let Some(mode) = audit.get_mut(slot as usize) {
        *mode = u8::from(tables.audit);
    }
    let mut with_names = live.names;
    if let Some(flag) = with_names.get_mut(slot as usize) {
        *flag = u8::from(!tables.resolvers.is_empty());
    }
    // The mode goes first: its slot is not live, so that the second write
    // changes the generation and nothing else.
    for generation in [live.generation, next] {
        let settings = Settings {
            generation,
            audit,
            deputies: live.deputies,
            names: with_names,
            reserved: [0; 6],
        };
        maps.settings
            .set(0, Wire(settings), 0)
            .map_err(|error| failed(maps::SETTINGS, &error))?;
    }
    if live.generation != 0 {
        thread::sleep(GRACE);
        sweep(maps, next)?;
        names::sweep(maps, next)?;
    }
    Ok(next)
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
        ("names", tables.names.len(), MAX_NAMES / GENERATION_SLOTS),
        (
            "resolvers",
            tables.resolvers.len(),
            MAX_RESOLVERS / GENERATION_SLOTS,
        ),
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
    let data = Prefix {
        generation: generation_bytes(generation),
        boundary: [0; 2],
        address: prefix.address,
    };
    Key::new(PREFIX_HEADER_BITS + u32::from(prefix.bits), Wire(data))
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
