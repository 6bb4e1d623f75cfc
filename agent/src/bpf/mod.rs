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
mod fields;
mod grants;
mod home;
mod hooks;
mod host;
mod layout;
mod left;
mod links;
mod load;
mod log;
mod maps;
mod names;
mod object;
mod own;
mod pins;
mod protocols;
mod reap;
mod scan;
mod selects;
mod standing;
mod sys;
mod tally;
mod turns;
mod watch;
mod watched;
mod wire;

pub use boundary::{TablePrefix, Tables};
pub use counts::Counter;
pub use coverage::Tier;
pub use devices::DeviceRule;
pub use error::KernelError;
pub use events::EventStream;
pub use hooks::Hook;
pub use left::Left;
pub use load::{Limits, Options, Preflight, Program, hierarchy, probe, unload};
pub use names::{LearnedAddress, TableName, TableResolver};
pub use object::{object, object_sha256};
pub use reap::RELEASE_AFTER;
pub use selects::TableSelect;
pub use standing::{Guard, OnLoss, guard};
pub use watch::Finding;

use maps::Maps;
use merestone_abi::{
    Attempt, Event, EventKind, Glass, Group, GroupCount, GroupId, Settings, SocketMark, Task,
    TaskFlags, Turn,
};
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
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
    pins: pins::Pins,
    /// Programs that were attached and are not; two can be on one hook.
    lost: BTreeSet<&'static str>,
    shadow: watch::Shadow,
    left: Left,
    lines: log::Lines,
    /// The live ones.
    selects: Vec<TableSelect>,
    /// The boundaries that have names.
    named: BTreeSet<u16>,
    network: Option<links::Links>,
    /// Finished turns.
    ends: turns::Ends,
    fixed: standing::Fixed,
    home: home::Home,
    watched: watched::Watched,
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
        names::require(tables, &self.hooks)?;
        let generation = boundary::install(&mut self.maps, &self.hierarchy, tables)?;
        self.selects.clone_from(&tables.selects);
        self.named = names::boundaries(tables);
        self.shadow.installed(&self.maps, tables)?;
        self.watched.installed(tables, generation);
        // The new generation's trie is a map of its own.
        self.protect()?;
        Ok(generation)
    }

    /// Replaces the selects of the boundary that is live, and nothing else.
    pub fn select(&mut self, selects: &[TableSelect]) -> Result<(), KernelError> {
        selects.clone_into(&mut self.selects);
        let done = boundary::select(&mut self.maps, &self.hierarchy, selects);
        // What was half done is not somebody else's doing.
        self.watched.selected();
        self.shadow.selected(&self.maps)?;
        done
    }

    fn protect(&mut self) -> Result<(), KernelError> {
        standing::protect(
            &mut self.maps,
            &self.pins,
            &self.programs,
            &self.fixed,
            &self.hierarchy,
        )?;
        // A bpf file system that was mounted anew is another device.
        if let Some(dev) = standing::place_pins(&mut self.maps, &self.pins)? {
            self.shadow.pinned_on(dev);
        }
        Ok(())
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
        names::name_of(&self.maps, &self.named, event)
    }

    /// To be called every few seconds: forgets addresses whose time is long
    /// over, and learns which addresses are this host's own.
    pub fn expire_names(&mut self) -> Result<(), KernelError> {
        own::refresh(&mut self.maps)?;
        names::expire(&mut self.maps)
    }

    /// To be called with every event: a new group's members get their entries.
    pub fn follow(&mut self, event: &Event) -> Result<(), KernelError> {
        if event.kind == EventKind::GUARD {
            if let Some(network) = &self.network {
                network.look();
            }
            scan::follow(&mut self.maps, &self.hierarchy, event.group, event.tgid)?;
            // The kernel has done so, where it sees cgroups being made.
            if !self.selects.is_empty() {
                let slot = self.settings()?.generation % merestone_abi::GENERATION_SLOTS;
                selects::catch_up(&mut self.maps, &self.hierarchy, &self.selects, slot)?;
            }
        }
        Ok(())
    }

    /// To be called every few seconds: stops claiming hooks that somebody has
    /// detached, forgets processes that ended, and lets go of groups that
    /// stayed empty. Returns the latter.
    pub fn reap(&mut self, now: Instant) -> Result<Vec<GroupId>, KernelError> {
        self.lines.flush();
        self.check_attached();
        let released = reap::round(
            &mut self.maps,
            &self.hierarchy,
            &mut self.rounds,
            now,
            self.release_after,
        )?;
        self.shadow.released(&released);
        Ok(released)
    }

    /// To be called every second: says that the agent lives, and looks whether
    /// all is as it was left. What is not was put back, or is said not to be.
    /// [`Attempt::BOUNDARY`] is for the caller to mend, by [`Kernel::install`].
    pub fn watch(&mut self) -> Result<Vec<Finding>, KernelError> {
        standing::beat(&mut self.maps)?;
        let mut found = self.pins.watch();
        found.extend(self.home.look(&self.hierarchy));
        if self.home.has_new_controls(&self.hierarchy) || !found.is_empty() {
            self.protect()?;
        }
        self.check_attached();
        found.extend(self.shadow.look(&mut self.maps)?);
        self.watched.look_at_uses(&mut self.maps, &mut found)?;
        self.watched.look_at_selected(
            &mut self.maps,
            &self.hierarchy,
            &self.selects,
            &mut found,
        )?;
        let names_differ = self.watched.names_differ(&self.maps)?;
        if self.shadow.boundary_differs(&self.maps)? || names_differ {
            found.push(Finding {
                attempt: Attempt::BOUNDARY,
                target: "prefixes, rule sets or names of the live generation".to_owned(),
                repaired: Err("not installed again yet".to_owned()),
            });
        }
        Ok(found)
    }

    /// What an attempt was aimed at, in words.
    pub fn target_of(&self, attempt: Attempt, event: &Event) -> String {
        self.pins.target_of(attempt, event)
    }

    /// What was there before this start.
    pub fn left(&self) -> &Left {
        &self.left
    }

    /// Lets an operator through, until `glass.until_boot_ns` by the kernel's
    /// clock, or no longer with the default.
    pub fn set_glass(&mut self, glass: Glass) -> Result<(), KernelError> {
        standing::set_glass(&mut self.maps, glass)?;
        self.shadow.glass(glass);
        Ok(())
    }

    /// Until when an operator is let through, and to what.
    pub fn glass(&self) -> Result<Glass, KernelError> {
        standing::glass(&self.maps)
    }

    /// A hook that does not run its program is not claimed, until it does again.
    fn check_attached(&mut self) {
        for (kind, hook) in hooks::HOOKS.iter().zip(&mut self.hooks) {
            if kind.tier == hooks::TierKind::Link {
                if let Some(network) = &self.network {
                    hook.refused = network.fault();
                }
                continue;
            }
            let is_lost = self.lost.contains(kind.program);
            if hook.refused.is_some() && !is_lost {
                continue;
            }
            match self.pins.runs(kind.program) {
                Ok(()) if is_lost => {
                    self.lost.remove(kind.program);
                    hook.refused = None;
                }
                Ok(()) => {}
                Err(detail) => {
                    tracing::error!(hook = hook.name, detail, "a hook was detached");
                    self.lost.insert(kind.program);
                    hook.refused = Some(detail);
                }
            }
        }
    }

    /// Lets a group go at once: the operator's explicit wish. Its processes
    /// keep their own entries.
    pub fn release_group(&mut self, group: GroupId) -> Result<(), KernelError> {
        reap::release(&mut self.maps, group)?;
        self.shadow.released(&[group]);
        Ok(())
    }

    /// Reads `/proc/devices` again: a driver loaded since has a new major.
    pub fn refresh_devices(&mut self) -> Result<(), KernelError> {
        let rules = load::fill_devices(&mut self.maps, &self.devices)?;
        self.shadow.devices(&rules);
        Ok(())
    }

    /// Guards processes that hold a GPU and are not guarded yet, e.g. after
    /// [`Kernel::refresh_devices`].
    pub fn scan(&mut self) -> Result<Vec<Event>, KernelError> {
        scan::guard_holders(&mut self.maps, &self.hierarchy)
    }

    /// Lets guarded groups reach the listener that their records go to, whatever the boundary says
    /// of deputies: as long as it is this process that listens there.
    pub fn admit_records(&mut self, listener: &impl AsRawFd) -> Result<(), KernelError> {
        let mark = SocketMark {
            owner: std::process::id(),
            flags: SocketMark::RECORDS,
            ..SocketMark::default()
        };
        let done = self.maps.sockets.insert(listener, Wire(mark), 0);
        done.map_err(|error| maps::failed(merestone_abi::maps::SOCKETS, &error))
    }

    /// Turns that ended since the last call, in the order they did; before them streams whose
    /// connection [`Kernel::open_turns`] found ended.
    pub fn ended_turns(&mut self) -> Result<Vec<Turn>, KernelError> {
        turns::ended(&mut self.ends)
    }

    /// Turns under way.
    pub fn open_turns(&mut self) -> Result<Vec<Turn>, KernelError> {
        turns::open(&mut self.ends, &mut self.maps)
    }

    /// Stops following connections that nothing has passed on since
    /// `before_ns`.
    pub fn forget_turns(&mut self, before_ns: u64) -> Result<(), KernelError> {
        turns::forget(&mut self.maps, before_ns)
    }

    /// The guarded group that a process is in now: that of its own entry, or of its cgroup, or of
    /// one above it, as the kernel's programs have it.
    pub fn group_of(&self, tgid: u32) -> Option<GroupId> {
        let task = self.task(tgid);
        if let Some(task) = task.filter(|task| task.flags.0 & TaskFlags::ENDED == 0) {
            return Some(task.group);
        }
        let path = cgroups::of_process(tgid)?;
        std::path::Path::new(&path)
            .ancestors()
            .filter_map(|path| cgroups::id(&cgroups::at(&self.hierarchy, path.to_str()?)))
            .find(|id| self.maps.groups.get(id, 0).is_ok())
    }

    /// What is known of one process; none where it is not guarded.
    pub fn task(&self, tgid: u32) -> Option<Task> {
        let Wire(task) = self.maps.tasks.get(&tgid, 0).ok()?;
        Some(task)
    }
}
