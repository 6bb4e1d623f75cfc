//! The agent's own watch: what the maps hold is what the agent wrote.
//!
//! It compares with what this process remembers, so that nobody's word counts
//! but its own; what differs is put back at once and told. It sees what was
//! changed between two looks, and not what was changed and changed back.

use super::maps::{Maps, failed};
use super::standing::{self, OnLoss};
use super::tally::{Expected, Pass};
use super::wire::Wire;
use super::{DeviceRule, KernelError, Tables, boundary, reap, scan};
use merestone_abi::{
    AgentState, Armed, Attempt, Device, Glass, Grant, Group, GroupId, MAX_GRANTS, SELECTOR_BYTES,
    Settings, Stance, maps,
};
use std::collections::BTreeMap;

/// Something that was not as the agent left it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// What somebody must have done.
    pub attempt: Attempt,
    /// To what.
    pub target: String,
    /// Whether it was put back, or why it was not.
    pub repaired: Result<(), String>,
}

/// What the maps should hold.
#[derive(Debug)]
pub(super) struct Shadow {
    settings: Settings,
    expected: Expected,
    pass: Pass,
    devices: BTreeMap<(u32, u32), u8>,
    grants: BTreeMap<u32, Grant>,
    selectors: BTreeMap<[u8; SELECTOR_BYTES], [u16; 4]>,
    tree_roots: Vec<u64>,
    groups: BTreeMap<GroupId, Group>,
    armed: u64,
    state: AgentState,
    stance: u32,
    glass: Glass,
}

fn fixed(attempt: Attempt, target: impl Into<String>, done: Result<(), KernelError>) -> Finding {
    Finding {
        attempt,
        target: target.into(),
        repaired: done.map_err(|error| error.to_string()),
    }
}

impl Shadow {
    /// Remembers what has just been written.
    pub(super) fn of(maps: &Maps, tables: &Tables, on_loss: OnLoss) -> Result<Self, KernelError> {
        let settings = boundary::settings(maps)?;
        let mut shadow = Self {
            settings,
            expected: Expected::of(tables, settings.generation),
            pass: Pass::default(),
            devices: BTreeMap::new(),
            grants: grants(maps)?,
            selectors: selectors(maps)?,
            tree_roots: reap::keys(maps::TREE_ROOTS, maps.tree_roots.keys())?,
            groups: BTreeMap::new(),
            armed: 0,
            state: standing::state(maps)?,
            stance: standing::living_stance(on_loss),
            glass: standing::glass(maps)?,
        };
        shadow.groups = groups(maps)?;
        shadow.armed = armed(maps);
        Ok(shadow)
    }

    /// Another boundary was installed.
    pub(super) fn installed(&mut self, maps: &Maps, tables: &Tables) -> Result<(), KernelError> {
        self.settings = boundary::settings(maps)?;
        self.expected = Expected::of(tables, self.settings.generation);
        self.pass = Pass::default();
        self.selectors = selectors(maps)?;
        Ok(())
    }

    /// Other selects were written.
    pub(super) fn selected(&mut self, maps: &Maps) -> Result<(), KernelError> {
        self.settings = boundary::settings(maps)?;
        self.selectors = selectors(maps)?;
        Ok(())
    }

    /// A grant was written, or taken away with the default.
    pub(super) fn granted(&mut self, place: u32, grant: Grant) {
        self.grants.insert(place, grant);
    }

    /// Devices were written.
    pub(super) fn devices(&mut self, rules: &[DeviceRule]) {
        for rule in rules {
            let Device { major, minor } = rule.key();
            self.devices.insert((major, minor), rule.class.0);
        }
    }

    /// Groups were let go.
    pub(super) fn released(&mut self, groups: &[GroupId]) {
        for group in groups {
            self.groups.remove(group);
        }
    }

    /// The pins are on the file system of that number.
    pub(super) fn pinned_on(&mut self, dev: u32) {
        self.state.pin_dev = dev;
    }

    /// The agent itself opened or closed protection.
    pub(super) fn glass(&mut self, glass: Glass) {
        self.glass = glass;
    }

    /// One look at everything but the boundary.
    pub(super) fn look(&mut self, maps: &mut Maps) -> Result<Vec<Finding>, KernelError> {
        let mut found = Vec::new();
        self.look_at_settings(maps, &mut found)?;
        self.look_at_devices(maps, &mut found);
        self.look_at_tree_roots(maps, &mut found)?;
        self.look_at_grants(maps, &mut found)?;
        self.look_at_selectors(maps, &mut found)?;
        self.look_at_groups(maps, &mut found)?;
        self.look_at_standing(maps, &mut found)?;
        Ok(found)
    }

    /// Goes on with the walk over the boundary; `true` where it differs from
    /// what was installed, so that it is to be installed again.
    pub(super) fn boundary_differs(&mut self, maps: &Maps) -> Result<bool, KernelError> {
        let differs = self.pass.step(maps, &self.expected)?;
        if differs {
            self.pass = Pass::default();
        }
        Ok(differs)
    }

    fn look_at_settings(
        &self,
        maps: &mut Maps,
        found: &mut Vec<Finding>,
    ) -> Result<(), KernelError> {
        let now = boundary::settings(maps)?;
        if now != self.settings {
            let done = maps
                .settings
                .set(0, Wire(self.settings), 0)
                .map_err(|error| failed(maps::SETTINGS, &error));
            let target = format!(
                "{}: generation {} and modes {:?}, not {} and {:?}",
                maps::SETTINGS,
                now.generation,
                now.audit,
                self.settings.generation,
                self.settings.audit
            );
            found.push(fixed(Attempt::MAP_WRITE, target, done));
        }
        Ok(())
    }

    fn look_at_devices(&self, maps: &mut Maps, found: &mut Vec<Finding>) {
        for (&(major, minor), &class) in &self.devices {
            let key = Device { major, minor };
            let there = maps.devices.get(&Wire(key), 0);
            if there.is_ok_and(|Wire(there)| there.0 == class) {
                continue;
            }
            let done = maps
                .devices
                .insert(Wire(key), Wire(merestone_abi::DeviceClass(class)), 0)
                .map_err(|error| failed(maps::DEVICES, &error));
            let target = format!("{}: device {major}:{minor}", maps::DEVICES);
            found.push(fixed(Attempt::MAP_WRITE, target, done));
        }
    }

    fn look_at_tree_roots(
        &self,
        maps: &mut Maps,
        found: &mut Vec<Finding>,
    ) -> Result<(), KernelError> {
        // Only one too many opens a way: its cgroups are not guarded whole.
        for id in reap::keys(maps::TREE_ROOTS, maps.tree_roots.keys())? {
            if self.tree_roots.contains(&id) {
                continue;
            }
            let done = maps
                .tree_roots
                .remove(&id)
                .map_err(|error| failed(maps::TREE_ROOTS, &error))
                .and_then(|()| scan::changed(maps));
            let target = format!("{}: cgroup {id}", maps::TREE_ROOTS);
            found.push(fixed(Attempt::MAP_WRITE, target, done));
        }
        Ok(())
    }

    fn look_at_grants(&self, maps: &mut Maps, found: &mut Vec<Finding>) -> Result<(), KernelError> {
        for (place, now) in grants(maps)? {
            let expected = self.grants.get(&place).copied().unwrap_or_default();
            if now == expected {
                continue;
            }
            let done = maps
                .grants
                .set(place, Wire(expected), 0)
                .map_err(|error| failed(maps::GRANTS, &error));
            let target = format!("{}: place {place}", maps::GRANTS);
            found.push(fixed(Attempt::MAP_WRITE, target, done));
        }
        Ok(())
    }

    fn look_at_selectors(
        &self,
        maps: &mut Maps,
        found: &mut Vec<Finding>,
    ) -> Result<(), KernelError> {
        let now = selectors(maps)?;
        if now == self.selectors {
            return Ok(());
        }
        let mut done = Ok(());
        for key in now.keys().filter(|key| !self.selectors.contains_key(*key)) {
            done = done.and(maps.selectors.remove(key));
        }
        for (key, value) in &self.selectors {
            done = done.and(maps.selectors.insert(key, value, 0));
        }
        let done = done.map_err(|error| failed(maps::SELECTORS, &error));
        found.push(fixed(Attempt::MAP_WRITE, maps::SELECTORS, done));
        Ok(())
    }

    fn look_at_groups(
        &mut self,
        maps: &mut Maps,
        found: &mut Vec<Finding>,
    ) -> Result<(), KernelError> {
        let now = groups(maps)?;
        for (id, group) in &self.groups {
            if now.contains_key(id) {
                continue;
            }
            let done = maps
                .groups
                .insert(id, Wire(*group), 0)
                .map_err(|error| failed(maps::GROUPS, &error));
            // Sockets may remember that nobody guarded was behind them.
            let done = done.and_then(|()| scan::changed(maps));
            let target = format!("{}: group {id}", maps::GROUPS);
            found.push(fixed(Attempt::MAP_WRITE, target, done));
        }
        // Of one that was put back the entry stays as it was.
        self.groups.extend(now);
        let armed_now = armed(maps);
        if armed_now & self.armed != self.armed {
            let done = maps
                .armed
                .set(Armed::AGENT, armed_now | self.armed, 0)
                .map_err(|error| failed(maps::ARMED, &error));
            found.push(fixed(Attempt::MAP_WRITE, maps::ARMED, done));
        }
        self.armed |= armed_now;
        Ok(())
    }

    fn look_at_standing(
        &mut self,
        maps: &mut Maps,
        found: &mut Vec<Finding>,
    ) -> Result<(), KernelError> {
        let state = standing::state(maps)?;
        if state != self.state {
            let done = maps
                .agent
                .set(0, Wire(self.state), 0)
                .map_err(|error| failed(maps::AGENT, &error));
            found.push(fixed(Attempt::MAP_WRITE, maps::AGENT, done));
        }
        let stance = maps.stance.get(&0, 0);
        if !matches!(stance, Ok(stance) if stance == self.stance) {
            let done = maps
                .stance
                .set(0, self.stance, 0)
                .map_err(|error| failed(maps::STANCE, &error));
            let was = match stance {
                Ok(Stance::HOLD) => "hold",
                Ok(Stance::DENY) => "deny",
                Ok(Stance::WATCH) => "watch",
                _ => "unknown",
            };
            let target = format!("{}: {was}", maps::STANCE);
            found.push(fixed(Attempt::MAP_WRITE, target, done));
        }
        let glass = standing::glass(maps)?;
        if glass != self.glass {
            let done = standing::set_glass(maps, self.glass);
            found.push(fixed(Attempt::MAP_WRITE, maps::GLASS, done));
        }
        Ok(())
    }
}

fn groups(maps: &Maps) -> Result<BTreeMap<GroupId, Group>, KernelError> {
    let ids: Vec<GroupId> = reap::keys(maps::GROUPS, maps.groups.keys())?;
    let entry = |id| Some((id, maps.groups.get(&id, 0).ok()?.0));
    Ok(ids.into_iter().filter_map(entry).collect())
}

fn grants(maps: &Maps) -> Result<BTreeMap<u32, Grant>, KernelError> {
    let read = |place| {
        let found = maps.grants.get(&place, 0);
        let Wire(grant) = found.map_err(|error| failed(maps::GRANTS, &error))?;
        Ok((place, grant))
    };
    (0..MAX_GRANTS).map(read).collect()
}

fn selectors(maps: &Maps) -> Result<BTreeMap<[u8; SELECTOR_BYTES], [u16; 4]>, KernelError> {
    let keys: Vec<[u8; SELECTOR_BYTES]> = reap::keys(maps::SELECTORS, maps.selectors.keys())?;
    let entry = |key| Some((key, maps.selectors.get(&key, 0).ok()?));
    Ok(keys.into_iter().filter_map(entry).collect())
}

fn armed(maps: &Maps) -> u64 {
    let element = |index| maps.armed.get(&index, 0).unwrap_or(0);
    element(Armed::KERNEL) | element(Armed::AGENT)
}
