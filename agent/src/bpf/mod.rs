//! The kernel side, from user space: loads the programs, fills their maps,
//! keeps them pinned, and reads what they say.
//!
//! This is the only module that names aya. It decides no packet: a verdict is
//! made in the kernel from what is written here, and stands when the agent
//! dies. It never leaves a hook empty on a restart, never claims a hook that
//! the kernel did not take, and never starts when the cgroup tier, or a tier
//! that was asked for, is not to be had.

mod boundary;
mod cgroups;
mod counts;
mod coverage;
mod devices;
mod error;
mod events;
mod hooks;
mod host;
mod layout;
mod load;
mod log;
mod maps;
mod names;
mod object;
mod reap;
mod scan;
mod sys;
mod wire;

pub use boundary::{TablePrefix, Tables};
pub use counts::Counter;
pub use coverage::Tier;
pub use devices::DeviceRule;
pub use error::KernelError;
pub use events::EventStream;
pub use hooks::Hook;
pub use load::{Limits, Options, Preflight, Program, probe, unload};
pub use names::{LearnedAddress, TableName, TableResolver};
pub use object::{object, object_sha256};
pub use reap::RELEASE_AFTER;

use maps::Maps;
use merestone_abi::{Event, EventKind, Group, GroupCount, GroupId, Settings, Task};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use wire::Wire;

/// The programs, attached, and their maps.
#[derive(Debug)]
pub struct Kernel {
    maps: Maps,
    hooks: Vec<Hook>,
    programs: Vec<Program>,
    cgroup_root: PathBuf,
    /// The hierarchy's own root, whose ids the programs see.
    hierarchy: PathBuf,
    devices: Vec<DeviceRule>,
    release_after: Duration,
    rounds: reap::Rounds,
    links: PathBuf,
    lines: log::Lines,
}

impl Kernel {
    /// Loads, installs the boundary, attaches, pins, then scans for processes
    /// that hold a GPU already.
    pub fn start(options: &Options, tables: &Tables) -> Result<(Self, EventStream), KernelError> {
        load::start(options, tables)
    }

    /// Makes a boundary live, as a whole. Blocks for a tenth of a second.
    /// Returns its generation.
    pub fn install(&mut self, tables: &Tables) -> Result<u32, KernelError> {
        boundary::install(&mut self.maps, tables)
    }

    /// The live generation and the modes.
    pub fn settings(&self) -> Result<Settings, KernelError> {
        boundary::settings(&self.maps)
    }

    /// What is enforced.
    pub fn tiers(&self) -> Vec<Tier> {
        coverage::tiers(&self.hooks)
    }

    /// Which ways out are not covered here.
    pub fn uncovered(&self) -> Vec<String> {
        coverage::uncovered(&self.hooks)
    }

    /// Each hook, and why the kernel refused it where it did.
    pub fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// The programs as the kernel holds them.
    pub fn programs(&self) -> &[Program] {
        &self.programs
    }

    /// Where the programs are attached.
    pub fn cgroup_root(&self) -> &std::path::Path {
        &self.cgroup_root
    }

    /// All counters that are not zero.
    pub fn counters(&self) -> Result<Vec<Counter>, KernelError> {
        counts::counters(&self.maps)
    }

    /// What was lost, by reason.
    pub fn lost(&self) -> Result<Vec<(&'static str, u64)>, KernelError> {
        counts::lost(&self.maps)
    }

    /// What each group sent and was refused.
    pub fn group_counts(&self) -> Result<Vec<(GroupId, GroupCount)>, KernelError> {
        counts::by_group(&self.maps)
    }

    /// The guarded cgroups. Trees have no entry here; see [`Kernel::tasks`].
    pub fn groups(&self) -> Result<Vec<(GroupId, Group)>, KernelError> {
        let ids: Vec<GroupId> = reap::keys(merestone_abi::maps::GROUPS, self.maps.groups.keys())?;
        let entry = |id| Some((id, self.maps.groups.get(&id, 0).ok()?.0));
        Ok(ids.into_iter().filter_map(entry).collect())
    }

    /// The guarded processes, by thread group id.
    pub fn tasks(&self) -> Result<Vec<(u32, Task)>, KernelError> {
        let ids: Vec<u32> = reap::keys(merestone_abi::maps::TASKS, self.maps.tasks.keys())?;
        let entry = |id| Some((id, self.maps.tasks.get(&id, 0).ok()?.0));
        Ok(ids.into_iter().filter_map(entry).collect())
    }

    /// The addresses that names have now, expired ones left out.
    pub fn learned(&self) -> Result<Vec<LearnedAddress>, KernelError> {
        names::learned(&self.maps)
    }

    /// The name that an event speaks of: the one asked for, the one answered
    /// for, or the one that a destination was learned by.
    pub fn name_of(&self, event: &Event) -> Option<String> {
        names::name_of(&self.maps, event)
    }

    /// To be called every few seconds: forgets addresses whose time is over.
    pub fn expire_names(&mut self) -> Result<(), KernelError> {
        names::expire(&mut self.maps)
    }

    /// To be called with every event: a new group's members get their entries.
    pub fn follow(&mut self, event: &Event) -> Result<(), KernelError> {
        if event.kind == EventKind::GUARD {
            scan::follow(&mut self.maps, &self.hierarchy, event.group, event.tgid)?;
        }
        Ok(())
    }

    /// To be called every few seconds: stops claiming hooks that somebody has
    /// detached, forgets processes that ended, and lets go of groups that
    /// stayed empty. Returns the latter.
    pub fn reap(&mut self, now: Instant) -> Result<Vec<GroupId>, KernelError> {
        self.lines.flush();
        self.check_attached();
        reap::round(
            &mut self.maps,
            &self.hierarchy,
            &mut self.rounds,
            now,
            self.release_after,
        )
    }

    /// A hook whose pin is gone, or holds another program, is not claimed.
    fn check_attached(&mut self) {
        for (kind, hook) in hooks::HOOKS.iter().zip(&mut self.hooks) {
            let program = self.programs.iter().find(|known| known.name == hook.name);
            let Some(program) = program.filter(|_| hook.refused.is_none()) else {
                continue;
            };
            if let Err(detail) = hooks::still_attached(kind, &self.links, program.id) {
                tracing::error!(hook = hook.name, detail, "a hook was detached");
                hook.refused = Some(detail);
            }
        }
    }

    /// Lets a group go at once: the operator's explicit wish. Its processes
    /// keep their own entries.
    pub fn release_group(&mut self, group: GroupId) -> Result<(), KernelError> {
        reap::release(&mut self.maps, group)
    }

    /// Reads `/proc/devices` again: a driver loaded since has a new major.
    pub fn refresh_devices(&mut self) -> Result<(), KernelError> {
        load::fill_devices(&mut self.maps, &self.devices)
    }

    /// Guards processes that hold a GPU and are not guarded yet, e.g. after
    /// [`Kernel::refresh_devices`].
    pub fn scan(&mut self) -> Result<Vec<Event>, KernelError> {
        scan::guard_holders(&mut self.maps, &self.hierarchy)
    }

    /// What is known of one process; none where it is not guarded.
    pub fn task(&self, tgid: u32) -> Option<Task> {
        let Wire(task) = self.maps.tasks.get(&tgid, 0).ok()?;
        Some(task)
    }
}
