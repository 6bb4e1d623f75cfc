//! The tables of names, selects and grants, watched: what the kernel holds of
//! them is what was installed, and what was used of a grant never shrinks.
//!
//! It judges no address that was learned by a name: the kernel writes those, and
//! one that somebody else wrote for a listed name looks the same.

use super::boundary::Tables;
use super::maps::{Maps, failed};
use super::names::{TableName, TableResolver};
use super::reap::keys;
use super::selects::{self, TableSelect};
use super::wire::Wire;
use super::{Finding, KernelError, cgroups, scan};
use merestone_abi::{
    Attempt, GENERATION_SLOTS, Grant, GrantUse, GroupId, MAX_GRANTS, MAX_RULE_SETS,
    NAME_HEADER_BITS, PREFIX_HEADER_BITS, Resolver, TREE_GROUP, maps,
};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;

/// Names that are looked at in one second; of more, each look takes a turn
/// less often.
const NAMES_A_LOOK: usize = 4096;

/// What the tables should hold.
#[derive(Debug, Default)]
pub(super) struct Watched {
    hasher: RandomState,
    generation: u32,
    names: usize,
    sum: u64,
    /// Looks until the names have their turn again.
    waits: usize,
    uses: BTreeMap<u32, (Grant, GrantUse)>,
    /// Paths of cgroups by id, as last walked.
    paths: BTreeMap<u64, String>,
    /// Groups that were seen with an entry.
    selected: BTreeSet<GroupId>,
}

impl Watched {
    /// What was just installed.
    pub(super) fn of(tables: &Tables, generation: u32) -> Self {
        let mut watched = Self::default();
        watched.installed(tables, generation);
        watched
    }

    /// Another boundary was.
    pub(super) fn installed(&mut self, tables: &Tables, generation: u32) {
        self.generation = generation;
        self.names = tables.names.len() + tables.resolvers.len();
        self.waits = 0;
        self.selected.clear();
        let base = generation % GENERATION_SLOTS * MAX_RULE_SETS;
        let names = tables.names.iter().map(|name| self.name(name, base));
        let resolvers = tables.resolvers.iter().map(|one| self.resolver(one));
        self.sum = names.chain(resolvers).fold(0, u64::wrapping_add);
    }

    /// Other selects were.
    pub(super) fn selected(&mut self) {
        self.selected.clear();
    }

    /// A grant begins, with nothing used of it.
    pub(super) fn granted(&mut self, place: u32) {
        self.uses.remove(&place);
    }

    fn name(&self, name: &TableName, base: u32) -> u64 {
        let bits = NAME_HEADER_BITS + u32::from(name.bits);
        let number = name.boundary.to_be_bytes();
        self.hasher
            .hash_one((bits, number, name.name, name.value(base)))
    }

    fn resolver(&self, one: &TableResolver) -> u64 {
        let bits = PREFIX_HEADER_BITS + u32::from(one.bits);
        let kind = if one.trusted {
            Resolver::TRUSTED
        } else {
            Resolver::NONE
        };
        self.hasher
            .hash_one((bits, one.boundary.to_be_bytes(), one.address, kind))
    }

    /// Whether the names or resolvers differ from what was installed, so that
    /// the boundary is to be installed again.
    pub(super) fn names_differ(&mut self, maps: &Maps) -> Result<bool, KernelError> {
        if self.waits > 0 {
            self.waits -= 1;
            return Ok(false);
        }
        self.waits = self.names / NAMES_A_LOOK;
        let generation = super::names::generation_bytes(self.generation);
        let mut sum = 0_u64;
        for entry in &maps.names {
            let (key, set) = entry.map_err(|error| failed(maps::NAMES, &error))?;
            let Wire(data) = key.data();
            if data.generation == generation {
                let bits = key.prefix_len();
                let hash = self.hasher.hash_one((bits, data.boundary, data.name, set));
                sum = sum.wrapping_add(hash);
            }
        }
        for entry in &maps.resolvers {
            let (key, kind) = entry.map_err(|error| failed(maps::RESOLVERS, &error))?;
            let Wire(data) = key.data();
            if data.generation == generation {
                let bits = key.prefix_len();
                let hash = self
                    .hasher
                    .hash_one((bits, data.boundary, data.address, kind));
                sum = sum.wrapping_add(hash);
            }
        }
        Ok(sum != self.sum)
    }

    /// Puts back what was used of a grant where somebody made it less.
    pub(super) fn look_at_uses(
        &mut self,
        maps: &mut Maps,
        found: &mut Vec<Finding>,
    ) -> Result<(), KernelError> {
        for place in 0..MAX_GRANTS {
            let grant = maps.grants.get(&place, 0);
            let Wire(grant) = grant.map_err(|error| failed(maps::GRANTS, &error))?;
            if grant == Grant::default() {
                self.uses.remove(&place);
                continue;
            }
            let used = maps.grant_uses.get(&place, 0);
            let Wire(used) = used.map_err(|error| failed(maps::GRANT_USES, &error))?;
            let before = self.uses.get(&place).filter(|(of, _)| *of == grant);
            let before = before.map(|(_, used)| *used).unwrap_or_default();
            if used.bytes >= before.bytes && used.packets >= before.packets {
                self.uses.insert(place, (grant, used));
                continue;
            }
            let done = maps.grant_uses.set(place, Wire(before), 0);
            found.push(Finding {
                attempt: Attempt::MAP_WRITE,
                target: format!("{}: place {place}", maps::GRANT_USES),
                repaired: done.map_err(|error| failed(maps::GRANT_USES, &error).to_string()),
            });
        }
        Ok(())
    }

    /// Puts back which boundary judges which group.
    pub(super) fn look_at_selected(
        &mut self,
        maps: &mut Maps,
        hierarchy: &Path,
        wanted: &[TableSelect],
        found: &mut Vec<Finding>,
    ) -> Result<(), KernelError> {
        let known: Vec<u64> = keys(maps::SELECTED, maps.selected.keys())?;
        if wanted.is_empty() && known.is_empty() {
            return Ok(());
        }
        let groups: Vec<u64> = keys(maps::GROUPS, maps.groups.keys())?;
        let of_cgroups = |id: &&u64| *id & TREE_GROUP == 0;
        let ids: BTreeSet<u64> = known
            .iter()
            .chain(&groups)
            .filter(of_cgroups)
            .copied()
            .collect();
        if ids.iter().any(|id| !self.paths.contains_key(id)) {
            self.paths = selects::paths(hierarchy);
        }
        let slot = self.generation % GENERATION_SLOTS;
        let mut changed = false;
        for id in ids {
            // One that is gone is judged by what it was left with.
            let Some(path) = self.paths.get(&id) else {
                continue;
            };
            if cgroups::id(&cgroups::at(hierarchy, path)) != Some(id) {
                self.paths.remove(&id);
                continue;
            }
            let right = selects::number(path, wanted);
            let now = selects::entry(maps, id, slot);
            let is_missing = now.is_none() && right != 0 && groups.contains(&id);
            if now.is_none_or(|now| now == right) && !is_missing {
                self.selected.extend(now.map(|_| id));
                continue;
            }
            let done = selects::set(maps, id, id, slot, right);
            changed = true;
            // A group that has just become guarded may have none yet.
            if is_missing && !self.selected.contains(&id) {
                continue;
            }
            found.push(Finding {
                attempt: Attempt::MAP_WRITE,
                target: format!("{}: {path}", maps::SELECTED),
                repaired: done.map_err(|error| error.to_string()),
            });
        }
        if changed {
            scan::changed(maps)?;
        }
        Ok(())
    }
}
