//! Every map, under the name it is pinned by.
//!
//! The statics must carry the names of `merestone_abi::maps`. What is read on
//! the packet path is preallocated, so that guarding never fails for want of
//! memory at the wrong moment; only the prefixes and socket marks allocate.

use aya_ebpf::bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{ArrayOfMaps, LpmTrie};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::lpm_trie::LpmTrie as PlainTrie;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf};
use merestone_abi::{
    AgentState, Armed, COUNTER_SLOTS, Device, DeviceClass, FastCount, GENERATION_SLOTS, Glass,
    Grant, GrantUse, Group, GroupCount, GroupId, LOST_SLOTS, MAX_GRANTS, MAX_PREFIXES,
    MAX_RULE_SETS, MAX_SELECTORS, Prefix, PrefixValue, Protected, RuleSet, SELECTOR_BYTES,
    Selected, Settings, SocketMark, Task, maps,
};
use merestone_abi::{
    Frames, Learned, LearnedKey, MAX_ASKED, MAX_LEARNED, MAX_NAMES, MAX_OWN, MAX_QUESTIONS,
    MAX_RESOLVERS, MAX_TURNS, NAME_BYTES, NamePrefix, Pending, Question, ResolverPrefix, StreamKey,
    TURN_RING_BYTES, Turn,
};

#[map]
pub(crate) static ABI: Array<u32> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
/// By generation slot; a slot may be empty.
#[btf_map]
pub(crate) static PREFIXES: ArrayOfMaps<
    LpmTrie<Prefix, PrefixValue, { MAX_PREFIXES as usize }>,
    { GENERATION_SLOTS as usize },
> = ArrayOfMaps::new();
#[map]
pub(crate) static RULE_SETS: Array<RuleSet> =
    Array::with_max_entries(GENERATION_SLOTS * MAX_RULE_SETS, 0);
#[map]
pub(crate) static DEVICES: HashMap<Device, DeviceClass> =
    HashMap::with_max_entries(maps::MAX_DEVICES, 0);
#[map]
pub(crate) static GROUPS: HashMap<GroupId, Group> = HashMap::with_max_entries(maps::MAX_GROUPS, 0);
#[map]
pub(crate) static TASKS: HashMap<u32, Task> =
    HashMap::with_max_entries(maps::MAX_TASKS + maps::TASK_HEADROOM, 0);
#[map]
pub(crate) static TREE_ROOTS: HashMap<u64, u32> =
    HashMap::with_max_entries(maps::MAX_TREE_ROOTS, 0);
#[map]
pub(crate) static ARMED: Array<u64> = Array::with_max_entries(Armed::ELEMENTS, 0);
#[map]
pub(crate) static TASK_COUNT: Array<u64> = Array::with_max_entries(2, 0);
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_SLOTS, 0);
#[map]
pub(crate) static GROUP_COUNTS: PerCpuHashMap<GroupId, GroupCount> =
    PerCpuHashMap::with_max_entries(maps::MAX_COUNTED, 0);
#[map]
pub(crate) static FAST_SLOTS: HashMap<GroupId, u32> = HashMap::with_max_entries(maps::MAX_FAST, 0);
#[map]
pub(crate) static FAST_COUNTS: PerCpuArray<FastCount> =
    PerCpuArray::with_max_entries(maps::MAX_FAST, 0);
#[map]
pub(crate) static CLEAR_CGROUPS: Array<u64> = Array::with_max_entries(maps::CLEAR_CGROUP_PLACES, 0);
#[map]
pub(crate) static CLEAR_TASKS: Array<u64> = Array::with_max_entries(maps::CLEAR_TASK_PLACES, 0);
#[map]
pub(crate) static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(LOST_SLOTS, 0);
#[map]
pub(crate) static STANCE: Array<u32> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static AGENT: Array<AgentState> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static PROTECTED: HashMap<Protected, u32> =
    HashMap::with_max_entries(maps::MAX_PROTECTED, 0);
#[map]
pub(crate) static GLASS: Array<Glass> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(maps::RING_BYTES, 0);
#[map]
pub(crate) static NAMES: PlainTrie<NamePrefix, u32> =
    PlainTrie::with_max_entries(MAX_NAMES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static RESOLVERS: PlainTrie<ResolverPrefix, u32> =
    PlainTrie::with_max_entries(MAX_RESOLVERS, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static QUESTIONS: LruHashMap<Question, Pending> =
    LruHashMap::with_max_entries(MAX_QUESTIONS, 0);
// Not preallocated: nine megabytes that few boundaries need.
#[map]
pub(crate) static LEARNED: HashMap<LearnedKey, Learned> =
    HashMap::with_max_entries(MAX_LEARNED, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static ASKED: LruHashMap<u64, [u8; NAME_BYTES]> =
    LruHashMap::with_max_entries(MAX_ASKED, 0);
#[map]
pub(crate) static OWN: HashMap<[u8; 16], u32> =
    HashMap::with_max_entries(MAX_OWN, BPF_F_NO_PREALLOC);

// Not preallocated: twelve megabytes that few hosts need.
#[map]
pub(crate) static TURNS: HashMap<u64, Turn> =
    HashMap::with_max_entries(MAX_TURNS, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static TURN_ENDS: RingBuf = RingBuf::with_byte_size(TURN_RING_BYTES, 0);
#[map]
pub(crate) static FRAMES: HashMap<u64, Frames> =
    HashMap::with_max_entries(MAX_TURNS, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static STREAMS: HashMap<StreamKey, Turn> =
    HashMap::with_max_entries(MAX_TURNS, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static SELECTED: HashMap<GroupId, Selected> =
    HashMap::with_max_entries(maps::MAX_SELECTED, 0);
#[map]
pub(crate) static SELECTORS: HashMap<[u8; SELECTOR_BYTES], [u16; 4]> =
    HashMap::with_max_entries(2 * MAX_SELECTORS, 0);
#[map]
pub(crate) static GRANTS: Array<Grant> = Array::with_max_entries(MAX_GRANTS, 0);
#[map]
pub(crate) static GRANT_USES: Array<GrantUse> = Array::with_max_entries(MAX_GRANTS, 0);

/// Socket marks. A socket accepted from a marked listener inherits the mark
/// (`BPF_F_CLONE`, net/core/bpf_sk_storage.c `bpf_sk_storage_clone`), so that a
/// reply on an inbound connection is judged like the listener.
#[btf_map]
pub(crate) static SOCKETS: SocketStorage = SocketStorage::new();

/// A BTF map definition: the loader reads the types, never the values.
#[repr(C)]
pub(crate) struct SocketStorage {
    r#type: *const [i32; aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const SocketMark,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the fields are null and never dereferenced; the loader replaces the
// address of the static by the map.
unsafe impl Sync for SocketStorage {}

impl SocketStorage {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }
}
