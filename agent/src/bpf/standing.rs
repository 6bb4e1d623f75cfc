//! Who the agent is, as the kernel is told: the stance when it is lost, what
//! is protected from others, and until when an operator is let in.
//!
//! It writes what the kernel's own programs then act on, also when this
//! process has ended. It decides no attempt itself.

use super::maps::{Maps, failed, open};
use super::pins::Pins;
use super::wire::Wire;
use super::{KernelError, Options, Program, cgroups, host, sys};
use merestone_abi::{AgentState, GENERATION_SLOTS, Glass, Protected, Stance, maps};
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the agent may be silent before [`Stance::WATCH`] takes it for
/// hung. Its loop beats every second; a reload of a large boundary takes some.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// What becomes of guarded groups when the agent is gone.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnLoss {
    /// The boundary goes on deciding.
    #[default]
    Hold,
    /// Everything is refused until an agent is back.
    DenyAll,
}

/// Nanoseconds of the clock that the programs compare heartbeats with.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// Says that the agent lives.
pub(super) fn beat(maps: &mut Maps) -> Result<(), KernelError> {
    maps.heartbeat
        .set(0, monotonic_ns(), 0)
        .map_err(|error| failed(maps::HEARTBEAT, &error))
}

/// How long ago the agent last said that it lives; none where it never did.
pub(super) fn silence(maps: &Maps) -> Option<Duration> {
    let beat = maps.heartbeat.get(&0, 0).ok().filter(|beat| *beat != 0)?;
    Some(Duration::from_nanos(monotonic_ns().saturating_sub(beat)))
}

/// The agent's entry as it is now.
pub(super) fn state(maps: &Maps) -> Result<AgentState, KernelError> {
    let Wire(state) = maps
        .agent
        .get(&0, 0)
        .map_err(|error| failed(maps::AGENT, &error))?;
    Ok(state)
}

fn write(maps: &mut Maps, state: AgentState) -> Result<(), KernelError> {
    maps.agent
        .set(0, Wire(state), 0)
        .map_err(|error| failed(maps::AGENT, &error))
}

/// What the stance is while an agent lives.
pub(super) fn living_stance(on_loss: OnLoss) -> u32 {
    match on_loss {
        OnLoss::Hold => Stance::HOLD,
        OnLoss::DenyAll => Stance::WATCH,
    }
}

/// Takes the place of an agent that has ended, before anything is changed: from
/// here on this process's end is noticed. What was protected stays so.
pub(super) fn take_over(maps: &mut Maps, options: &Options) -> Result<(), KernelError> {
    let before = state(maps)?;
    let claim = AgentState {
        patience_ns: u64::try_from(options.patience.as_nanos()).unwrap_or(u64::MAX),
        exe_ino: 0,
        exe_dev: 0,
        pin_dev: host::kernel_dev(&options.pin_dir)?,
        tgid: std::process::id(),
        deny_on_loss: u32::from(options.on_loss == OnLoss::DenyAll),
        armed: before.armed,
        reserved: 0,
    };
    write(maps, claim)?;
    beat(maps)?;
    // Before the new boundary is there: under any stance but HOLD no verdict
    // is remembered, and those of the boundary before end with it. What denies
    // everything goes on doing so until all is attached.
    let stance = maps.stance.get(&0, 0).unwrap_or(Stance::HOLD);
    if stance == Stance::HOLD {
        set_stance(maps, living_stance(options.on_loss))?;
    }
    Ok(())
}

fn set_stance(maps: &mut Maps, stance: u32) -> Result<(), KernelError> {
    maps.stance
        .set(0, stance, 0)
        .map_err(|error| failed(maps::STANCE, &error))
}

/// What holds from now on: the agent is there, and all is attached.
pub(super) fn settle(maps: &mut Maps, on_loss: OnLoss, protects: bool) -> Result<(), KernelError> {
    beat(maps)?;
    let mut now = state(maps)?;
    now.armed = u32::from(protects);
    write(maps, now)?;
    set_stance(maps, living_stance(on_loss))
}

/// Makes links whose ids nobody else can get hold of in between: they are
/// protected before they are pinned, and until their id is known no id is
/// handed out to others.
pub(super) struct Making {
    protected: ProtectedMap,
    turn: Turn,
}

type ProtectedMap = aya::maps::HashMap<aya::maps::MapData, Wire<Protected>, u32>;

/// Who writes [`maps::PROTECTED`]: one at a time, so that what the thread of the
/// links has just added is not taken for something left over.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn(Arc<Mutex<()>>);

impl Turn {
    fn take(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Making {
    pub(super) fn new(pins: &Path, turn: &Turn) -> Result<Self, KernelError> {
        Ok(Self {
            protected: open(pins, maps::PROTECTED)?,
            turn: turn.clone(),
        })
    }

    /// Calls `make` for a link, the place it is pinned at first, and the place
    /// it is to have.
    pub(super) fn link(
        &mut self,
        make: impl FnOnce() -> io::Result<(OwnedFd, PathBuf, PathBuf)>,
    ) -> io::Result<()> {
        let turn = self.turn.clone();
        let _turn = turn.take();
        self.add(Protected::LINK, Protected::ANY)?;
        let made = make().and_then(|(link, new, pin)| {
            let info = sys::link_info(link.as_fd())?;
            self.add(Protected::LINK, u64::from(info.id))?;
            sys::pin(link, &new)?;
            if let Some(ino) = inode(&new) {
                self.add(Protected::PIN, ino)?;
            }
            fs::rename(new, pin)
        });
        let key = Wire(Protected::new(Protected::LINK, Protected::ANY));
        self.protected.remove(&key).map_err(io::Error::other)?;
        made
    }

    fn add(&mut self, kind: u32, id: u64) -> io::Result<()> {
        let key = Wire(Protected::new(kind, id));
        self.protected.insert(key, 1, 0).map_err(io::Error::other)
    }
}

/// What is protected beside the pins, and does not change.
#[derive(Clone, Debug, Default)]
pub(super) struct Fixed {
    wanted: BTreeSet<(u32, u64)>,
    pub(super) turn: Turn,
}

impl Fixed {
    /// Functions of the kernel, and places that nothing may be mounted over.
    pub(super) fn of(functions: &[(u32, u64)], places: &[PathBuf]) -> Self {
        let mut wanted: BTreeSet<(u32, u64)> = functions.iter().copied().collect();
        wanted.extend(places.iter().filter_map(|place| {
            let dev = host::kernel_dev(place).ok()?;
            Some((Protected::PLACE, Protected::place(dev, inode(place)?)))
        }));
        let sysrq = inode(Path::new("/proc/sysrq-trigger"));
        wanted.extend(sysrq.map(|ino| (Protected::PROC_FILE, ino)));
        Self {
            wanted,
            turn: Turn::default(),
        }
    }
}

/// Of this process's own cgroup, what would starve it: memory, processor,
/// threads, and the disk that its evidence goes to.
const LIMITS: [&str; 11] = [
    "memory.max",
    "memory.high",
    "memory.swap.max",
    "cpu.max",
    "cpu.weight",
    "cpu.weight.nice",
    "cpu.idle",
    "cpu.uclamp.max",
    "cpuset.cpus",
    "pids.max",
    "io.max",
];

/// What would freeze, kill or starve this process through its cgroup; above
/// it, what would freeze or kill it. Limits above are other people's business.
pub(super) fn control_files(hierarchy: &Path) -> Vec<(u32, u64)> {
    let Some(own) = cgroups::of_process(std::process::id()) else {
        return Vec::new();
    };
    let own = cgroups::at(hierarchy, &own);
    let mut found = Vec::new();
    for folder in own.ancestors().take_while(|folder| *folder != hierarchy) {
        for name in ["cgroup.freeze", "cgroup.kill"] {
            found.extend(inode(&folder.join(name)).map(|ino| (Protected::CGROUP_FILE, ino)));
        }
    }
    if own != hierarchy {
        for name in LIMITS {
            found.extend(inode(&own.join(name)).map(|ino| (Protected::CGROUP_LIMIT, ino)));
        }
    }
    found
}

/// Tells the programs on which file system the pins are, where that is another
/// one than they know. Its number; none where there is nothing to look at.
pub(super) fn place_pins(maps: &mut Maps, pins: &Pins) -> Result<Option<u32>, KernelError> {
    let Ok(here) = host::kernel_dev(pins.directory()) else {
        return Ok(None);
    };
    let mut now = state(maps)?;
    if now.pin_dev != here {
        now.pin_dev = here;
        write(maps, now)?;
    }
    Ok(Some(here))
}

/// Writes down everything that is protected, and nothing else. To be called
/// again when pins were made anew.
pub(super) fn protect(
    maps: &mut Maps,
    pins: &Pins,
    programs: &[Program],
    fixed: &Fixed,
    hierarchy: &Path,
) -> Result<(), KernelError> {
    let _turn = fixed.turn.take();
    let mut wanted: BTreeSet<(u32, u64)> = programs
        .iter()
        .map(|program| (Protected::PROGRAM, u64::from(program.id)))
        .collect();
    wanted.extend(&fixed.wanted);
    wanted.extend(control_files(hierarchy));
    let directory = pins.directory();
    for (folder, kind) in [
        (directory.to_owned(), Protected::MAP),
        (directory.join("links"), Protected::LINK),
        (directory.join("net"), Protected::LINK),
    ] {
        wanted.extend(inode(&folder).map(|ino| (Protected::FOLDER, ino)));
        wanted.extend(inode(&folder).map(|ino| (Protected::COVER, ino)));
        wanted.extend(pinned_in(&folder, kind));
    }
    // The tries of the generations have no pin of their own.
    for slot in 0..GENERATION_SLOTS {
        let outer = maps.prefixes.fd().as_fd();
        let trie: Option<[u8; 4]> = sys::lookup(outer, &slot.to_ne_bytes()).ok().flatten();
        wanted.extend(trie.map(|id| (Protected::MAP, u64::from(u32::from_ne_bytes(id)))));
    }
    for folder in directory.ancestors().skip(1) {
        if folder.starts_with(pins.mount_point()) {
            wanted.extend(inode(folder).map(|ino| (Protected::COVER, ino)));
        }
    }
    for (id, peers) in host::mounts_above(pins.mount_point()) {
        wanted.insert((Protected::MOUNT, id));
        wanted.extend(peers.map(|peers| (Protected::PEERS, peers)));
    }
    replace(maps, &wanted)
}

fn inode(path: &Path) -> Option<u64> {
    Some(fs::symlink_metadata(path).ok()?.ino())
}

/// The pins in a folder, and what they hold.
fn pinned_in(folder: &Path, kind: u32) -> Vec<(u32, u64)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())) {
        found.extend(inode(&entry.path()).map(|ino| (Protected::PIN, ino)));
        let Ok(object) = sys::get(&entry.path()) else {
            continue;
        };
        if kind == Protected::MAP {
            let id = sys::map_id(object.as_fd()).ok();
            found.extend(id.map(|id| (kind, u64::from(id))));
        } else if let Ok(info) = sys::link_info(object.as_fd()) {
            found.push((kind, u64::from(info.id)));
            found.push((Protected::PROGRAM, u64::from(info.program)));
        }
    }
    found
}

fn replace(maps: &mut Maps, wanted: &BTreeSet<(u32, u64)>) -> Result<(), KernelError> {
    for &(kind, id) in wanted {
        maps.protected
            .insert(Wire(Protected::new(kind, id)), 1, 0)
            .map_err(|error| failed(maps::PROTECTED, &error))?;
    }
    let limit = usize::try_from(maps::MAX_PROTECTED).unwrap_or(usize::MAX);
    let there: Result<Vec<_>, _> = maps.protected.keys().take(2 * limit).collect();
    for Wire(key) in there.map_err(|error| failed(maps::PROTECTED, &error))? {
        let is_stale = !wanted.contains(&(key.kind, key.id));
        if is_stale && maps.protected.get(&Wire(key), 0).is_ok() {
            maps.protected
                .remove(&Wire(key))
                .map_err(|error| failed(maps::PROTECTED, &error))?;
        }
    }
    Ok(())
}

/// Opens protection until `until_boot_ns`, or closes it with the default.
pub(super) fn set_glass(maps: &mut Maps, glass: Glass) -> Result<(), KernelError> {
    maps.glass
        .set(0, Wire(glass), 0)
        .map_err(|error| failed(maps::GLASS, &error))
}

/// The break-glass as the kernel has it.
pub(super) fn glass(maps: &Maps) -> Result<Glass, KernelError> {
    let Wire(glass) = maps
        .glass
        .get(&0, 0)
        .map_err(|error| failed(maps::GLASS, &error))?;
    Ok(glass)
}

/// What an operator's command must know of pins that no agent holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Guard {
    /// Attempts on them are refused.
    pub is_armed: bool,
    /// A break-glass is open.
    pub glass: Glass,
}

impl Guard {
    /// Whether a break-glass is open for an action at a moment since boot.
    #[must_use]
    pub fn lets_through(&self, action: u32, boot_ns: u64) -> bool {
        self.glass.actions & action != 0 && boot_ns < self.glass.until_boot_ns
    }
}

/// Looks at the pins in a directory; none where there is nothing to protect.
pub fn guard(pins: &Path) -> Option<Guard> {
    let maps = Maps::open(pins).ok()?;
    Some(Guard {
        is_armed: state(&maps).ok()?.armed != 0,
        glass: glass(&maps).ok()?,
    })
}
