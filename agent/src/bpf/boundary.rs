//! Puts a boundary into the kernel as one whole.
//!
//! Each generation has a trie of its own, filled before any program can see it
//! and put into its slot whole; one array write makes it live; the old one is
//! let go when no program can still be in it. Taking a million prefixes back is
//! then the kernel's work, in its own time. No packet is judged by a mixture. A
//! crash in between leaves the old generation live, and at most a trie in the
//! other slot, which the next install takes out first.

use super::KernelError;
use super::maps::{Maps, failed};
use super::names::{self, TableName, TableResolver};
use super::protocols;
use super::scan;
use super::selects::{self, TableSelect};
use super::sys;
use super::wire::Wire;
use merestone_abi::{
    GENERATION_SLOTS, MAX_NAMES, MAX_PREFIXES, MAX_RESOLVERS, MAX_RULE_SETS, PREFIX_HEADER_BITS,
    Prefix, PrefixValue, RuleSet, Settings, maps,
};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::Duration;
use zerocopy::IntoBytes as _;

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
    /// Names; none twice in one boundary.
    pub names: Vec<TableName>,
    /// Boundaries that have names, and the resolvers they trust.
    pub resolvers: Vec<TableResolver>,
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
/// Prefixes handed to the kernel at once.
const BATCH: usize = 4096;

/// Writes `tables` as the next generation and makes it live.
pub(super) fn install(
    maps: &mut Maps,
    hierarchy: &Path,
    tables: &Tables,
) -> Result<u32, KernelError> {
    check(tables)?;
    let live = settings(maps)?;
    let next = following(live.generation);
    let slot = next % GENERATION_SLOTS;
    // When this returns no program is in that slot any more, so that its rule
    // sets can be written (kernel/bpf/syscall.c `maybe_wait_bpf_programs`).
    vacate(maps, slot)?;
    write(maps, tables, slot)?;
    selects::write(maps, hierarchy, &tables.selects, slot)?;
    let audit = with(live.audit, slot, u8::from(tables.audit));
    let deputies = with(live.deputies, slot, tables.deputies);
    let selects = with(live.selects, slot, u8::from(!tables.selects.is_empty()));
    let protocols = with(live.protocols, slot, protocols::allowed(&tables.sets));
    // Last, because what is learned until the switch is learned for the old one.
    names::sweep(maps, live.generation)?;
    names::write(maps, tables, next)?;
    names::carry_over(maps, live.generation, next)?;
    let names = with(live.names, slot, u8::from(!tables.resolvers.is_empty()));
    // The mode goes first: its slot is not live, so that the second write
    // changes the generation and nothing else.
    for generation in [live.generation, next] {
        let settings = Settings {
            generation,
            audit,
            deputies,
            names,
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
        vacate(maps, live.generation % GENERATION_SLOTS)?;
        // Groups and cgroups that came while the first walk was under way; what
        // sockets remember of them was judged by another number.
        selects::catch_up(maps, hierarchy, &tables.selects, slot)?;
        if !tables.selects.is_empty() {
            scan::changed(maps)?;
        }
        names::sweep(maps, next)?;
    }
    Ok(next)
}

/// Changes which boundary judges which group, in the live generation.
pub(super) fn select(
    maps: &mut Maps,
    hierarchy: &Path,
    selects: &[TableSelect],
) -> Result<(), KernelError> {
    let live = settings(maps)?;
    let slot = live.generation % GENERATION_SLOTS;
    selects::write(maps, hierarchy, selects, slot)?;
    scan::changed(maps)?;
    // Who became guarded while the walk was under way.
    selects::catch_up(maps, hierarchy, selects, slot)?;
    let flags = with(live.selects, slot, u8::from(!selects.is_empty()));
    if flags != live.selects {
        let settings = Settings {
            selects: flags,
            ..live
        };
        maps.settings
            .set(0, Wire(settings), 0)
            .map_err(|error| failed(maps::SETTINGS, &error))?;
    }
    scan::changed(maps)
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

/// The generation after `live`: never 0, and in the other slot.
fn following(live: u32) -> u32 {
    live.checked_add(1).unwrap_or(GENERATION_SLOTS)
}

fn check(tables: &Tables) -> Result<(), KernelError> {
    let limits = [
        ("prefixes", tables.prefixes.len(), MAX_PREFIXES),
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

fn write(maps: &mut Maps, tables: &Tables, slot: u32) -> Result<(), KernelError> {
    let base = slot * MAX_RULE_SETS;
    for (set, index) in tables.sets.iter().zip(base..) {
        maps.rule_sets
            .set(index, Wire(*set), 0)
            .map_err(|error| failed(maps::RULE_SETS, &error))?;
    }
    let trie = sys::create_trie(KEY_SIZE, VALUE_SIZE, MAX_PREFIXES).map_err(refused)?;
    for batch in tables.prefixes.chunks(BATCH) {
        fill(&trie, batch, base).map_err(refused)?;
    }
    // Nobody writes it any more, without BPF LSM either: what is left to whoever
    // would change it is to put another trie in its place, which is seen.
    sys::freeze(&trie).map_err(refused)?;
    sys::put_inner(maps.prefixes.fd(), slot, &trie).map_err(refused)?;
    maps.trie = Some(trie);
    Ok(())
}

/// The key as the kernel has it, `struct bpf_lpm_trie_key_u8`: a length in
/// bits, then the data.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the sizes of two small structs"
)]
mod sizes {
    use merestone_abi::{Prefix, PrefixValue};

    pub(in crate::bpf) const KEY_SIZE: u32 = 4 + size_of::<Prefix>() as u32;
    pub(super) const VALUE_SIZE: u32 = size_of::<PrefixValue>() as u32;
}
pub(super) use sizes::KEY_SIZE;
use sizes::VALUE_SIZE;

/// A prefix's key.
pub(super) fn key(prefix: &TablePrefix) -> [u8; KEY_SIZE as usize] {
    let data = Prefix {
        reserved: [0; 2],
        boundary: prefix.boundary.to_be_bytes(),
        address: prefix.address,
    };
    let mut key = [0; KEY_SIZE as usize];
    let (bits, rest) = key.split_at_mut(4);
    bits.copy_from_slice(&(PREFIX_HEADER_BITS + u32::from(prefix.bits)).to_ne_bytes());
    rest.copy_from_slice(data.as_bytes());
    key
}

/// Adds prefixes, all at once.
fn fill(trie: impl AsFd, batch: &[TablePrefix], base: u32) -> io::Result<()> {
    let mut keys = Vec::with_capacity(batch.len() * KEY_SIZE as usize);
    let mut values = Vec::with_capacity(batch.len() * VALUE_SIZE as usize);
    for prefix in batch {
        keys.extend_from_slice(&key(prefix));
        let set = base + prefix.set;
        values.extend_from_slice(PrefixValue { set }.as_bytes());
    }
    let sizes = (KEY_SIZE as usize, VALUE_SIZE as usize);
    sys::update_all(trie, (&keys, sizes.0), (&values, sizes.1))
}

/// Makes the array of tries and pins it, where that was not done before.
///
/// The loader would do it, but gives the trie that it shows the kernel as a
/// model a type (BTF), and kernels as old as 6.1 then take no trie without one
/// (`kernel/bpf/map_in_map.c`, `bpf_map_meta_equal`, the `timer_off` there).
pub(super) fn prepare(pins: &Path) -> Result<(), KernelError> {
    let at = pins.join(maps::PREFIXES);
    if at.exists() {
        return Ok(());
    }
    let model = sys::create_trie(KEY_SIZE, VALUE_SIZE, MAX_PREFIXES).map_err(refused)?;
    let name = *b"PREFIXES\0\0\0\0\0\0\0\0";
    let tries = sys::create_array_of(model, GENERATION_SLOTS, name).map_err(refused)?;
    sys::pin(tries, &at).map_err(refused)
}

/// Takes a generation's trie out of its slot. No program uses it afterwards.
fn vacate(maps: &mut Maps, slot: u32) -> Result<(), KernelError> {
    sys::take_inner(maps.prefixes.fd(), slot).map_err(refused)
}

fn refused(error: io::Error) -> KernelError {
    KernelError::Map {
        name: maps::PREFIXES,
        detail: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_follows_in_the_other_slot_and_is_never_zero() {
        for live in [0, 1, 2, 65_535, u32::MAX - 1, u32::MAX] {
            let next = following(live);
            assert_ne!(next % 2, live % 2, "after {live}");
            assert!(next > 0, "after {live}: {next}");
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
