//! The maps by name, what they hold and how much.
//!
//! A map is pinned under its name, so a name here is part of the contract.

/// [`crate::Settings`], one element.
pub const SETTINGS: &str = "SETTINGS";
/// By generation slot, a map of its own: longest-prefix match, `Key<Prefix>` to
/// [`crate::PrefixValue`].
pub const PREFIXES: &str = "PREFIXES";
/// Array of [`crate::RuleSet`].
pub const RULE_SETS: &str = "RULE_SETS";
/// [`crate::Device`] to [`crate::DeviceClass`] (one byte).
pub const DEVICES: &str = "DEVICES";
/// [`crate::GroupId`] of a cgroup to [`crate::Group`].
pub const GROUPS: &str = "GROUPS";
/// Thread group id (`u32`) to [`crate::Task`].
pub const TASKS: &str = "TASKS";
/// Level-1 cgroup ids (`u64`) under which only a process tree is guarded.
pub const TREE_ROOTS: &str = "TREE_ROOTS";
/// Socket storage: [`crate::SocketMark`].
pub const SOCKETS: &str = "SOCKETS";
/// What is guarded at all, five `u64`; see [`crate::Armed`].
pub const ARMED: &str = "ARMED";
/// Entries of [`TASKS`], two `u64`: added by the kernel, removed by the agent.
pub const TASK_COUNT: &str = "TASK_COUNT";
/// Per-CPU `u64` by [`crate::counter_slot`].
pub const COUNTERS: &str = "COUNTERS";
/// Per-CPU [`crate::GroupCount`] by [`crate::GroupId`].
pub const GROUP_COUNTS: &str = "GROUP_COUNTS";
/// [`crate::GroupId`] to its place in [`FAST_COUNTS`] (`u32`).
pub const FAST_SLOTS: &str = "FAST_SLOTS";
/// Per-CPU [`crate::FastCount`] by place.
pub const FAST_COUNTS: &str = "FAST_COUNTS";
/// Cgroups known not to be guarded: a cache, one `u64` a place.
pub const CLEAR_CGROUPS: &str = "CLEAR_CGROUPS";
/// Processes known to have no entry in [`TASKS`]: a cache like the other.
pub const CLEAR_TASKS: &str = "CLEAR_TASKS";
/// Per-CPU `u64` by [`crate::LostReason`].
pub const LOST: &str = "LOST";
/// The ring buffer of [`crate::Event`].
pub const EVENTS: &str = "EVENTS";
/// [`crate::GroupId`], or the id of any selected cgroup, to [`crate::Selected`].
pub const SELECTED: &str = "SELECTED";
/// A path or a unit's name ([`crate::SELECTOR_BYTES`]) to the boundary's
/// number in each slot (`[u16; 2]` and four zero bytes).
pub const SELECTORS: &str = "SELECTORS";
/// Array of [`crate::Grant`].
pub const GRANTS: &str = "GRANTS";
/// Array of [`crate::GrantUse`], by the grant's place.
pub const GRANT_USES: &str = "GRANT_USES";
/// One `u32`, a value of [`crate::Stance`].
pub const STANCE: &str = "STANCE";
/// When the agent last showed that it lives: one `u64`, nanoseconds of the
/// monotonic clock.
pub const HEARTBEAT: &str = "HEARTBEAT";
/// [`crate::AgentState`], one element.
pub const AGENT: &str = "AGENT";
/// [`crate::Protected`] to one `u32`, always 1.
pub const PROTECTED: &str = "PROTECTED";
/// [`crate::Glass`], one element.
pub const GLASS: &str = "GLASS";
/// Longest-prefix match: `Key<NamePrefix>` to an index into [`RULE_SETS`].
pub const NAMES: &str = "NAMES";
/// Longest-prefix match: `Key<ResolverPrefix>` to [`crate::Resolver`] (`u32`).
pub const RESOLVERS: &str = "RESOLVERS";
/// [`crate::Question`] to [`crate::Pending`].
pub const QUESTIONS: &str = "QUESTIONS";
/// [`crate::LearnedKey`] to [`crate::Learned`].
pub const LEARNED: &str = "LEARNED";
/// Digest (`u64`) of a name that was asked for to the name backwards.
pub const ASKED: &str = "ASKED";
/// Socket cookie (`u64`) to the [`crate::Turn`] under way.
pub const TURNS: &str = "TURNS";
/// The ring buffer of finished [`crate::Turn`]s.
pub const TURN_ENDS: &str = "TURN_ENDS";
/// Socket cookie (`u64`) to [`crate::Frames`], where HTTP/2 is followed.
pub const FRAMES: &str = "FRAMES";
/// [`crate::StreamKey`] to the [`crate::Turn`] under way.
pub const STREAMS: &str = "STREAMS";
/// An address of this host's own (16 bytes) to one `u32`, always 1.
pub const OWN: &str = "OWN";
/// [`crate::ABI_VERSION`] of whoever made the pins, one `u32`.
pub const ABI: &str = "ABI";

/// Every map that is pinned, [`ABI`] first: it is what a newcomer reads.
pub const PINNED: [&str; 38] = [
    ABI,
    SETTINGS,
    PREFIXES,
    RULE_SETS,
    DEVICES,
    GROUPS,
    TASKS,
    TREE_ROOTS,
    SOCKETS,
    ARMED,
    TASK_COUNT,
    COUNTERS,
    GROUP_COUNTS,
    FAST_SLOTS,
    FAST_COUNTS,
    CLEAR_CGROUPS,
    CLEAR_TASKS,
    LOST,
    EVENTS,
    SELECTED,
    SELECTORS,
    GRANTS,
    GRANT_USES,
    STANCE,
    HEARTBEAT,
    AGENT,
    PROTECTED,
    GLASS,
    NAMES,
    RESOLVERS,
    QUESTIONS,
    LEARNED,
    ASKED,
    TURNS,
    TURN_ENDS,
    FRAMES,
    STREAMS,
    OWN,
];

/// Guarded cgroups at once.
pub const MAX_GROUPS: u32 = 4096;
/// Entries of [`SELECTED`]: groups and selected cgroups.
pub const MAX_SELECTED: u32 = 16_384;
/// Guarded processes at once.
pub const MAX_TASKS: u32 = 65_536;
/// Entries of [`TASKS`] kept for processes that fork while it is full: the
/// child still gets its entry, its parent is killed.
pub const TASK_HEADROOM: u32 = 1024;
/// Device numbers.
pub const MAX_DEVICES: u32 = 1024;
/// Level-1 cgroups in [`TREE_ROOTS`].
pub const MAX_TREE_ROOTS: u32 = 64;
/// Groups, cgroups and trees, that are counted by name.
pub const MAX_COUNTED: u32 = 8192;
/// Objects in [`PROTECTED`]: maps, programs, links, pins and mounts.
pub const MAX_PROTECTED: u32 = 2048;
/// Groups whose packets a remembered verdict may let through.
pub const MAX_FAST: u32 = 4096;
/// Places in [`CLEAR_CGROUPS`]; a power of two.
pub const CLEAR_CGROUP_PLACES: u32 = 1024;
/// Places in [`CLEAR_TASKS`]; a power of two.
pub const CLEAR_TASK_PLACES: u32 = 4096;
/// Bytes of the ring buffer; a power of two times the page size.
pub const RING_BYTES: u32 = 4 << 20;
