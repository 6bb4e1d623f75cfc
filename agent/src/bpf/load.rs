//! From the object's bytes to attached and pinned programs.

use super::boundary::{self, Tables};
use super::error::innermost;
use super::home::Home;
use super::hooks::{self, HOOKS, Hook, TierKind};
use super::layout::Layout;
use super::log::Lines;
use super::maps::{self, Maps, failed};
use super::pins::{self, Pins};
use super::standing::{self, Fixed, Making, OnLoss};
use super::watch::Shadow;
use super::watched::Watched;
use super::wire::Wire;
use super::{DeviceRule, EventStream, Kernel, KernelError, Tier};
use super::{cgroups, coverage, devices, host, left, links, names, object, own, reap, scan};
use aya::maps::Array;
use aya::{Btf, Ebpf, EbpfLoader};
use merestone_abi::ABI_VERSION;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How the kernel part is to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to attach; empty for the cgroup v2 root.
    pub cgroup_root: PathBuf,
    /// Where links and maps are pinned, on bpffs.
    pub pin_dir: PathBuf,
    /// Tiers without which not to start.
    pub require: Vec<String>,
    /// Devices beyond the known ones.
    pub devices: Vec<DeviceRule>,
    /// Cgroups at level 1 below which only process trees are guarded. One that
    /// does not exist is passed over.
    pub tree_roots: Vec<PathBuf>,
    /// How long a group must have been empty before it is let go.
    pub release_after: Duration,
    /// Whether a guarded process is killed for a socket of a forbidden family
    /// where BPF LSM cannot refuse it.
    pub kill_families: bool,
    /// Map sizes.
    pub limits: Limits,
    /// What becomes of guarded groups when the agent is gone.
    pub on_loss: OnLoss,
    /// How long the agent may be silent before it counts as gone; of no effect
    /// with [`OnLoss::Hold`].
    pub patience: Duration,
    /// Whether to keep root from taking enforcement away, where BPF LSM loads.
    pub tamper: bool,
    /// Whether requests and answers of guarded servers are followed.
    pub records: bool,
    /// Places that nothing may be mounted over then, beside the pins: where the
    /// agent keeps what it knows, and what it is configured by.
    pub places: Vec<PathBuf>,
}

impl Options {
    /// The usual: the cgroup v2 root, and trees in login sessions only.
    #[must_use]
    pub fn new(pin_dir: PathBuf) -> Self {
        Self {
            cgroup_root: PathBuf::new(),
            pin_dir,
            require: Vec::new(),
            devices: Vec::new(),
            tree_roots: vec![PathBuf::from("user.slice")],
            release_after: reap::RELEASE_AFTER,
            kill_families: false,
            limits: Limits::default(),
            on_loss: OnLoss::default(),
            patience: standing::PATIENCE,
            tamper: false,
            records: false,
            places: Vec::new(),
        }
    }
}

/// Sizes of maps; they take effect when the pins are made.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the ring buffer: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Guarded cgroups.
    pub groups: u32,
    /// Guarded processes.
    pub tasks: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ring_bytes: merestone_abi::maps::RING_BYTES,
            groups: merestone_abi::maps::MAX_GROUPS,
            tasks: merestone_abi::maps::MAX_TASKS,
        }
    }
}

/// A program as the kernel holds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Program {
    /// Its hook.
    pub name: &'static str,
    /// The kernel's number for it.
    pub id: u32,
    /// The kernel's digest of its instructions as loaded (SHA-1 or SHA-256,
    /// cut to 8 bytes).
    pub tag: u64,
    /// Instructions the kernel's verifier walked; none on old kernels.
    pub verified: Option<u32>,
}

/// What this host can do, found without changing it.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// Where the programs would be attached.
    pub cgroup_root: PathBuf,
    /// Each hook, by trial load.
    pub hooks: Vec<Hook>,
}

impl Preflight {
    /// What could be enforced.
    pub fn tiers(&self) -> Vec<Tier> {
        coverage::tiers(&self.hooks)
    }

    /// Which ways out would not be covered.
    pub fn uncovered(&self) -> Vec<String> {
        coverage::uncovered(&self.hooks)
    }
}

/// Where the unified cgroup hierarchy is mounted, for whoever is root as the
/// programs need. Unlike [`probe`] it loads nothing.
pub fn hierarchy() -> Result<PathBuf, KernelError> {
    host::require_root()?;
    host::cgroup_root(Path::new(""))
}

/// Loads every program and lets it go again.
pub fn probe(cgroup_root: &Path) -> Result<Preflight, KernelError> {
    host::require_root()?;
    let cgroup_root = host::cgroup_root(cgroup_root)?;
    let host = Host::read()?;
    let mut ebpf = host.load_object(None, &Limits::default())?;
    Ok(Preflight {
        cgroup_root,
        hooks: host.load_hooks(&mut ebpf, true, true),
    })
}

/// Removes every pin, and with them enforcement: the operator's explicit wish.
pub fn unload(pin_dir: &Path) -> Result<(), KernelError> {
    host::require_root()?;
    links::detach(pin_dir);
    fs::remove_dir_all(pin_dir).map_err(|source| KernelError::Io {
        action: "cannot remove",
        path: pin_dir.to_owned(),
        source,
    })
}

/// A start that fails takes back what it made; what was pinned before it stays.
pub(super) fn start(
    options: &Options,
    tables: &Tables,
) -> Result<(Kernel, EventStream), KernelError> {
    let is_first = !options.pin_dir.exists();
    let started = try_start(options, tables);
    if started.is_err() && is_first && options.pin_dir.exists() {
        // The first error says more than one about the tidying up would.
        fs::remove_dir_all(&options.pin_dir).ok();
    }
    started
}

fn try_start(options: &Options, tables: &Tables) -> Result<(Kernel, EventStream), KernelError> {
    host::require_root()?;
    known_tiers(&options.require)?;
    let hierarchy = host::cgroup_root(Path::new(""))?;
    let cgroup_root = host::cgroup_root(&options.cgroup_root)?;
    let cgroup = File::open(&cgroup_root).map_err(|source| KernelError::Io {
        action: "cannot open",
        path: cgroup_root.clone(),
        source,
    })?;
    let pins = &options.pin_dir;
    let left = left::look(pins);
    host::pin_dir(pins)?;
    host::pin_dir(&pins.join("links"))?;
    same_abi(pins)?;
    let is_first = !pins.join(merestone_abi::maps::ABI).exists();

    let host = Host::read()?;
    let mut ebpf = host.load_object(Some(pins), &options.limits)?;
    let mut maps = Maps::open(pins)?;
    host::require_host_pids(options)?;
    standing::take_over(&mut maps, options)?;
    let mut hooks = host.load_hooks(&mut ebpf, options.tamper, options.records);
    hooks::leave_out(&mut hooks, options.kill_families);
    require(&options.require, &hooks)?;
    names::require(tables, &hooks)?;
    claim_abi(pins)?;

    let device_rules = fill_devices(&mut maps, &options.devices)?;
    let roots_changed = fill_tree_roots(&mut maps, &hierarchy, &options.tree_roots)?;
    own::refresh(&mut maps)?;
    let generation = boundary::install(&mut maps, &hierarchy, tables)?;
    // A scan may have been cut short.
    if (roots_changed && !is_first) || scan::is_armed(&maps)? {
        scan::changed(&mut maps)?;
    }
    let fixed = Fixed::of(host.layout.functions(), &options.places);
    let network = attach_all(&mut ebpf, &mut hooks, &cgroup, pins, &fixed)?;
    // What only attaching could tell.
    require(&options.require, &hooks)?;
    let found = scan::guard_holders(&mut maps, &hierarchy)?;
    scan::adopt_trees(&mut maps)?;
    let events = EventStream::open(pins, found)?;
    let programs = programs(&ebpf, &hooks);
    let pins = Pins::hold(pins, cgroup, attached(&ebpf, &hooks)?)?;
    standing::protect(&mut maps, &pins, &programs, &fixed, &hierarchy)?;
    let protects = hooks
        .iter()
        .all(|hook| hook.tier != TierKind::Tamper.name() || hook.refused.is_none());
    standing::settle(&mut maps, options.on_loss, protects)?;
    let mut shadow = Shadow::of(&maps, tables, options.on_loss)?;
    shadow.devices(&device_rules);
    let kernel = Kernel {
        programs,
        maps,
        hooks,
        cgroup_root,
        hierarchy,
        devices: options.devices.clone(),
        release_after: options.release_after,
        rounds: reap::Rounds::default(),
        pins,
        lost: BTreeSet::new(),
        shadow,
        left,
        lines: Lines::of(&mut ebpf),
        selects: tables.selects.clone(),
        named: names::boundaries(tables),
        network,
        ends: super::turns::Ends::open(&options.pin_dir)?,
        fixed,
        home: Home::here(),
        watched: Watched::of(tables, generation),
    };
    Ok((kernel, events))
}

/// Attaches what loaded, in order.
fn attach_all(
    ebpf: &mut Ebpf,
    hooks: &mut [Hook],
    cgroup: &File,
    pins: &Path,
    fixed: &Fixed,
) -> Result<Option<links::Links>, KernelError> {
    let links = pins.join("links");
    let mut network = None;
    for (kind, hook) in HOOKS.iter().zip(hooks) {
        if hook.refused.is_some() {
            continue;
        }
        if kind.tier == TierKind::Link {
            let making = Making::new(pins, &fixed.turn)?;
            let links = links::Links::start(ebpf, pins, making)?;
            hook.refused = links.fault();
            network = Some(links);
        } else {
            hooks::attach(ebpf, kind, cgroup, &links)?;
        }
    }
    Ok(network)
}

/// A descriptor of each attached program, to attach it again with.
fn attached(ebpf: &Ebpf, hooks: &[Hook]) -> Result<Vec<pins::Attached>, KernelError> {
    // The link program has a pin for each link, which `links` looks after.
    let attached = HOOKS
        .iter()
        .zip(hooks)
        .filter(|(kind, hook)| hook.refused.is_none() && kind.tier != TierKind::Link);
    attached
        .map(|(kind, _)| {
            let refused = |detail: String| KernelError::Refused {
                name: kind.shown.to_owned(),
                detail,
            };
            let program = ebpf
                .program(kind.program)
                .ok_or_else(|| KernelError::Missing {
                    name: kind.program.to_owned(),
                })?;
            let info = program.info().map_err(|error| refused(innermost(&error)))?;
            let fd = program.fd().map_err(|error| refused(innermost(&error)))?;
            let fd = fd.as_fd().try_clone_to_owned();
            let fd = fd.map_err(|error| refused(error.to_string()))?;
            Ok((kind, fd, info.id()))
        })
        .collect()
}

/// What loading needs to know of the kernel.
struct Host {
    btf: Btf,
    layout: Layout,
}

impl Host {
    fn read() -> Result<Self, KernelError> {
        Ok(Self {
            btf: Btf::from_sys_fs().map_err(|_source| KernelError::NoBtf)?,
            layout: Layout::of_this_kernel()?,
        })
    }

    /// Makes the maps, or takes the pinned ones.
    fn load_object(&self, pins: Option<&Path>, limits: &Limits) -> Result<Ebpf, KernelError> {
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&self.btf));
        for (global, offset) in self.layout.found() {
            loader.override_global(global, offset, true);
        }
        loader.map_max_entries(merestone_abi::maps::EVENTS, limits.ring_bytes);
        loader.map_max_entries(merestone_abi::maps::GROUPS, limits.groups);
        let tasks = limits
            .tasks
            .saturating_add(merestone_abi::maps::TASK_HEADROOM);
        loader.map_max_entries(merestone_abi::maps::TASKS, tasks);
        loader.override_global("TASK_LIMIT", &limits.tasks, true);
        if let Some(pins) = pins {
            boundary::prepare(pins)?;
            for name in merestone_abi::maps::PINNED {
                loader.map_pin_path(name, pins.join(name));
            }
        }
        loader
            .load(object()?)
            .map_err(|error| KernelError::Refused {
                name: "object".to_owned(),
                detail: innermost(&error),
            })
    }

    fn load_hooks(&self, ebpf: &mut Ebpf, tamper: bool, records: bool) -> Vec<Hook> {
        let mut load = |kind: &hooks::HookKind| {
            let refused = if kind.tier == TierKind::Tamper && !tamper {
                Some("not asked for: `[enforcement] tamper` is false".to_owned())
            } else if kind.tier == TierKind::Records && !records {
                Some("not asked for: `[records] enabled` is false".to_owned())
            } else {
                hooks::load(ebpf, kind, &self.layout, &self.btf).err()
            };
            Hook {
                name: kind.shown,
                tier: kind.tier.name(),
                refused,
            }
        };
        HOOKS.iter().map(&mut load).collect()
    }
}

fn known_tiers(required: &[String]) -> Result<(), KernelError> {
    let known = TierKind::ALL.map(TierKind::name);
    match required.iter().find(|tier| !known.contains(&tier.as_str())) {
        None => Ok(()),
        Some(tier) => Err(KernelError::UnknownTier { tier: tier.clone() }),
    }
}

/// Without the cgroup tier nothing is enforced, so it is always required.
fn require(required: &[String], hooks: &[Hook]) -> Result<(), KernelError> {
    for tier in coverage::tiers(hooks) {
        let is_required =
            tier.name == TierKind::Cgroup.name() || required.iter().any(|name| name == tier.name);
        if is_required && !tier.active {
            return Err(KernelError::Required {
                tier: tier.name.to_owned(),
                detail: tier.detail,
            });
        }
    }
    Ok(())
}

/// Refuses pins whose maps hold something else than this build writes.
fn same_abi(pins: &Path) -> Result<(), KernelError> {
    if !pins.join(merestone_abi::maps::ABI).exists() {
        return Ok(());
    }
    let abi: Array<_, u32> = maps::open(pins, merestone_abi::maps::ABI)?;
    let got = abi
        .get(&0, 0)
        .map_err(|error| failed(merestone_abi::maps::ABI, &error))?;
    // 0: its maker died before it wrote the number, and before it attached.
    if got == ABI_VERSION || got == 0 {
        return Ok(());
    }
    Err(KernelError::OtherAbi {
        path: pins.to_owned(),
        got,
        expected: ABI_VERSION,
    })
}

fn claim_abi(pins: &Path) -> Result<(), KernelError> {
    let mut abi: Array<_, u32> = maps::open(pins, merestone_abi::maps::ABI)?;
    abi.set(0, ABI_VERSION, 0)
        .map_err(|error| failed(merestone_abi::maps::ABI, &error))
}

/// Writes what guards; never takes a device away.
pub(super) fn fill_devices(
    maps: &mut Maps,
    extra: &[DeviceRule],
) -> Result<Vec<DeviceRule>, KernelError> {
    let rules = device_rules(extra)?;
    for rule in &rules {
        maps.devices
            .insert(Wire(rule.key()), Wire(rule.class), 0)
            .map_err(|error| failed(merestone_abi::maps::DEVICES, &error))?;
    }
    Ok(rules)
}

fn device_rules(extra: &[DeviceRule]) -> Result<Vec<DeviceRule>, KernelError> {
    // A kernel without misc devices has no such file, and no tun either.
    let misc = fs::read_to_string("/proc/misc").unwrap_or_default();
    let mut rules = devices::rules(&host::read("/proc/devices")?, &misc);
    rules.extend_from_slice(extra);
    Ok(rules)
}

/// True where others were there before.
fn fill_tree_roots(
    maps: &mut Maps,
    hierarchy: &Path,
    roots: &[PathBuf],
) -> Result<bool, KernelError> {
    let wanted: Vec<u64> = roots
        .iter()
        .filter_map(|root| cgroups::id(&hierarchy.join(root)))
        .collect();
    let before = reap::keys(merestone_abi::maps::TREE_ROOTS, maps.tree_roots.keys())?;
    let is_same =
        before.iter().all(|id| wanted.contains(id)) && wanted.iter().all(|id| before.contains(id));
    for id in before.iter().filter(|id| !wanted.contains(id)) {
        maps.tree_roots
            .remove(id)
            .map_err(|error| failed(merestone_abi::maps::TREE_ROOTS, &error))?;
    }
    for id in wanted {
        maps.tree_roots
            .insert(id, 1, 0)
            .map_err(|error| failed(merestone_abi::maps::TREE_ROOTS, &error))?;
    }
    Ok(!is_same)
}

fn programs(ebpf: &Ebpf, hooks: &[Hook]) -> Vec<Program> {
    let attached = HOOKS
        .iter()
        .zip(hooks)
        .filter(|(kind, hook)| hook.refused.is_none() && kind.tier != TierKind::Link);
    attached
        .filter_map(|(kind, hook)| {
            let info = ebpf.program(kind.program)?.info().ok()?;
            Some(Program {
                name: hook.name,
                id: info.id(),
                tag: info.tag(),
                verified: info.verified_instruction_count(),
            })
        })
        .collect()
}
