//! Handles on the pinned maps, by type.

use super::KernelError;
use super::error::innermost;
use super::wire::Wire;
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, SkStorage};
use merestone_abi::{
    AgentState, Device, DeviceClass, FastCount, Frames, Glass, Grant, GrantUse, Group, GroupCount,
    Learned, LearnedKey, NAME_BYTES, NamePrefix, Protected, ResolverPrefix, RuleSet,
    SELECTOR_BYTES, Selected, Settings, SocketMark, StreamKey, Task, Turn, maps,
};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Every map the agent reads or writes, but the ring buffer.
pub(super) struct Maps {
    pub(super) settings: Array<MapData, Wire<Settings>>,
    /// An array of tries, written by `sys`.
    pub(super) prefixes: MapData,
    /// The trie of the generation that this agent installed.
    pub(super) trie: Option<OwnedFd>,
    pub(super) rule_sets: Array<MapData, Wire<RuleSet>>,
    pub(super) devices: HashMap<MapData, Wire<Device>, Wire<DeviceClass>>,
    pub(super) groups: HashMap<MapData, u64, Wire<Group>>,
    pub(super) tasks: HashMap<MapData, u32, Wire<Task>>,
    pub(super) tree_roots: HashMap<MapData, u64, u32>,
    pub(super) sockets: SkStorage<MapData, Wire<SocketMark>>,
    pub(super) armed: Array<MapData, u64>,
    pub(super) task_count: Array<MapData, u64>,
    pub(super) counters: PerCpuArray<MapData, u64>,
    pub(super) group_counts: PerCpuHashMap<MapData, u64, Wire<GroupCount>>,
    pub(super) fast_slots: HashMap<MapData, u64, u32>,
    pub(super) fast_counts: PerCpuArray<MapData, Wire<FastCount>>,
    pub(super) lost: PerCpuArray<MapData, u64>,
    pub(super) selected: HashMap<MapData, u64, Wire<Selected>>,
    pub(super) selectors: HashMap<MapData, [u8; SELECTOR_BYTES], [u16; 4]>,
    pub(super) grants: Array<MapData, Wire<Grant>>,
    pub(super) grant_uses: Array<MapData, Wire<GrantUse>>,
    pub(super) stance: Array<MapData, u32>,
    pub(super) heartbeat: Array<MapData, u64>,
    pub(super) agent: Array<MapData, Wire<AgentState>>,
    pub(super) protected: HashMap<MapData, Wire<Protected>, u32>,
    pub(super) glass: Array<MapData, Wire<Glass>>,
    pub(super) names: LpmTrie<MapData, Wire<NamePrefix>, u32>,
    pub(super) resolvers: LpmTrie<MapData, Wire<ResolverPrefix>, u32>,
    pub(super) learned: HashMap<MapData, Wire<LearnedKey>, Wire<Learned>>,
    pub(super) asked: HashMap<MapData, u64, [u8; NAME_BYTES]>,
    pub(super) turns: HashMap<MapData, u64, Wire<Turn>>,
    pub(super) frames: HashMap<MapData, u64, Wire<Frames>>,
    pub(super) streams: HashMap<MapData, Wire<StreamKey>, Wire<Turn>>,
    pub(super) own: HashMap<MapData, [u8; 16], u32>,
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Maps")
    }
}

impl Maps {
    /// Opens them where they are pinned.
    pub(super) fn open(pins: &Path) -> Result<Self, KernelError> {
        Ok(Self {
            settings: open(pins, maps::SETTINGS)?,
            prefixes: open_data(pins, maps::PREFIXES)?,
            trie: None,
            rule_sets: open(pins, maps::RULE_SETS)?,
            devices: open(pins, maps::DEVICES)?,
            groups: open(pins, maps::GROUPS)?,
            tasks: open(pins, maps::TASKS)?,
            tree_roots: open(pins, maps::TREE_ROOTS)?,
            sockets: open(pins, maps::SOCKETS)?,
            armed: open(pins, maps::ARMED)?,
            task_count: open(pins, maps::TASK_COUNT)?,
            counters: open(pins, maps::COUNTERS)?,
            group_counts: open(pins, maps::GROUP_COUNTS)?,
            fast_slots: open(pins, maps::FAST_SLOTS)?,
            fast_counts: open(pins, maps::FAST_COUNTS)?,
            lost: open(pins, maps::LOST)?,
            selected: open(pins, maps::SELECTED)?,
            selectors: open(pins, maps::SELECTORS)?,
            grants: open(pins, maps::GRANTS)?,
            grant_uses: open(pins, maps::GRANT_USES)?,
            stance: open(pins, maps::STANCE)?,
            heartbeat: open(pins, maps::HEARTBEAT)?,
            agent: open(pins, maps::AGENT)?,
            protected: open(pins, maps::PROTECTED)?,
            glass: open(pins, maps::GLASS)?,
            names: open(pins, maps::NAMES)?,
            resolvers: open(pins, maps::RESOLVERS)?,
            learned: open(pins, maps::LEARNED)?,
            asked: open(pins, maps::ASKED)?,
            turns: open(pins, maps::TURNS)?,
            frames: open(pins, maps::FRAMES)?,
            streams: open(pins, maps::STREAMS)?,
            own: open(pins, maps::OWN)?,
        })
    }
}

/// Opens one pinned map that aya has no type for.
fn open_data(pins: &Path, name: &'static str) -> Result<MapData, KernelError> {
    MapData::from_pin(pins.join(name)).map_err(|error| failed(name, &error))
}

/// Opens one pinned map as a type.
pub(super) fn open<T>(pins: &Path, name: &'static str) -> Result<T, KernelError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = || {
        let data = MapData::from_pin(pins.join(name))?;
        T::try_from(Map::from_map_data(data)?)
    };
    map().map_err(|error| failed(name, &error))
}

/// A failed operation on the map `name`.
pub(super) fn failed(name: &'static str, error: &MapError) -> KernelError {
    KernelError::Map {
        name,
        detail: innermost(error),
    }
}

/// Whether an error says that there was no such key.
pub(super) fn is_absent(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(call) => call.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}

/// What a removal from the map `name` came to: a key that was gone already is no error.
pub(super) fn gone(name: &'static str, removed: Result<(), MapError>) -> Result<(), KernelError> {
    match removed {
        Err(error) if !is_absent(&error) => Err(failed(name, &error)),
        _ => Ok(()),
    }
}
