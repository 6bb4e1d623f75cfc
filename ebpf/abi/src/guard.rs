//! Who is guarded, and which devices make a task guarded.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A guarded group's id: the cgroup v2 id, or [`TREE_GROUP`] with the process
/// id of the tree's root where only a process tree is guarded.
pub type GroupId = u64;

/// Set in a [`GroupId`] that names a process tree.
pub const TREE_GROUP: GroupId = 1 << 63;

/// What opening a device means.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(transparent)]
pub struct DeviceClass(pub u8);

impl DeviceClass {
    /// The control node alone (195:255); seen, not guarded.
    pub const CONTROL: Self = Self(1);
    /// A graphics or compute node (195:0-247, 226:128-191).
    pub const GRAPHICS: Self = Self(2);
    /// A compute node (nvidia-uvm, kfd, accel).
    pub const COMPUTE: Self = Self(3);
    /// A MIG capability (nvidia-caps).
    pub const MIG: Self = Self(4);
    /// A device the operator named in `[gpu] devices`.
    pub const CONFIGURED: Self = Self(5);
    /// Its traffic passes no hook: RDMA, a NIC driven from user space. Refused
    /// to whoever is guarded; guards nobody.
    pub const DIRECT: Self = Self(16);
    /// What is written to it is another socket's packet: tun, vhost, PPP.
    /// Refused to whoever is guarded; guards nobody.
    pub const TUNNEL: Self = Self(17);

    /// Whether opening such a device guards the opener.
    #[must_use]
    pub const fn guards(self) -> bool {
        !matches!(self, Self::CONTROL | Self::DIRECT | Self::TUNNEL)
    }

    /// Whether such a device is refused to the guarded.
    #[must_use]
    pub const fn is_way_out(self) -> bool {
        matches!(self, Self::DIRECT | Self::TUNNEL)
    }
}

/// A key of the device map: exact, or a whole major with `minor` all ones.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number, or [`Device::ANY_MINOR`].
    pub minor: u32,
}

impl Device {
    /// Stands for every minor of a major.
    pub const ANY_MINOR: u32 = u32::MAX;
}

/// A guarded cgroup.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Group {
    /// When it became guarded, nanoseconds since boot.
    pub since_boot_ns: u64,
    /// The thread group that opened the device.
    pub tgid: u32,
    /// The device's major number.
    pub major: u32,
    /// The device's minor number.
    pub minor: u32,
    /// The boundary that judges it; 0 is the default one.
    pub boundary: u16,
    /// The class of the device.
    pub class: DeviceClass,
    /// How deep the cgroup lies below the root; 0 where it is deeper than
    /// [`MAX_LEVEL`], so that its children are not found by their ancestor.
    pub level: u8,
}

/// Bits of [`Task::flags`].
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(transparent)]
pub struct TaskFlags(pub u32);

impl TaskFlags {
    /// Guarded by its tree alone: its cgroup is not.
    pub const TREE: u32 = 1;
    /// It left the guarded cgroup it belongs to.
    pub const LEFT: u32 = 2;
    /// It ended. The entry stays a while so that what its sockets still hold
    /// is judged; a new process of the same id takes the entry away.
    pub const ENDED: u32 = 4;
}

/// A guarded process (thread group), keyed by its tgid.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Task {
    /// The group it belongs to.
    pub group: GroupId,
    /// When it became guarded, nanoseconds since boot.
    pub since_boot_ns: u64,
    /// The thread group that forked it; 0 where it opened the device itself.
    pub parent: u32,
    /// [`TaskFlags`].
    pub flags: TaskFlags,
    /// The boundary that judges it.
    pub boundary: u16,
    /// Always zero.
    pub reserved: u16,
    /// With [`TaskFlags::ENDED`], when: whole seconds since boot.
    pub ended_boot_s: u32,
}

/// The last verdict on a socket's packets, so that the next one like it costs a
/// comparison.
///
/// It holds while [`Self::epoch`] and [`Self::generation`] are the live ones:
/// who is guarded, and by what, is then as it was. Whoever writes makes
/// [`Self::sequence`] odd first and even again after; whoever reads looks at it
/// before and after, so that no mixture of two verdicts is ever taken for one.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct CachedVerdict {
    /// Odd while it is written.
    pub sequence: u64,
    /// The group it was judged as.
    pub group: GroupId,
    /// Destination address.
    pub address: [u8; 16],
    /// The sum of [`Armed::KERNEL_EPOCH`] and [`Armed::AGENT_EPOCH`].
    pub epoch: u32,
    /// The boundary generation.
    pub generation: u32,
    /// Destination port, in network order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// [`Self::NONE`], [`Self::ALLOW`] or [`Self::UNGUARDED`].
    pub verdict: u8,
    /// Where its packets are counted, in [`crate::maps::FAST_COUNTS`].
    pub counted: u32,
}

impl CachedVerdict {
    /// Nothing is known.
    pub const NONE: u8 = 0;
    /// A rule lets packets to this destination through.
    pub const ALLOW: u8 = 1;
    /// Nobody guarded is behind the socket, whatever the destination.
    pub const UNGUARDED: u8 = 2;
}

/// What a socket remembers of the processes that made or used it.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct SocketMark {
    /// The group that judges the socket, whoever holds it now; 0 for none yet.
    pub group: GroupId,
    /// The thread group that made or last used it.
    pub owner: u32,
    /// The boundary that judges it, where `group` is set.
    pub boundary: u16,
    /// [`Self::RECORDS`] or zero.
    pub flags: u16,
    /// What was decided last.
    pub cached: CachedVerdict,
}

impl SocketMark {
    /// The agent's own listener for records: only the agent writes it.
    pub const RECORDS: u16 = 1;
}

/// What a socket remembers of the last peer it asked on this host.
///
/// Its map is not pinned, so that it may change with each build.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Asked {
    /// Of a datagram to a local address.
    pub address: [u8; 16],
    /// Which peer of a Unix socket: a number, nothing to follow.
    pub peer: u64,
    /// The group whose own that peer is; 0 where it is somebody outside.
    pub own: GroupId,
    /// The port at `address`.
    pub port: u16,
    /// Always zero.
    pub reserved: [u8; 6],
}

/// The deepest cgroup level whose children are found by their ancestor.
pub const MAX_LEVEL: u32 = 15;

/// The map [`crate::maps::ARMED`]: two masks, two epochs, and a count.
///
/// Of a mask, bit 0: something is guarded. Bit `n`: a cgroup at level `n` is.
/// They are only ever set, because a socket that was marked can outlive
/// whatever marked it. An epoch grows after each change of who is guarded, so
/// that "not guarded" may be remembered as long as the sum of the two stays.
/// Two elements each, so that neither side overwrites the other's.
#[derive(Clone, Copy, Debug)]
pub struct Armed;

impl Armed {
    /// The element that the programs set.
    pub const KERNEL: u32 = 0;
    /// The element that the agent sets.
    pub const AGENT: u32 = 1;
    /// The element that the programs add to when somebody became guarded.
    pub const KERNEL_EPOCH: u32 = 2;
    /// The element that the agent adds to.
    pub const AGENT_EPOCH: u32 = 3;
    /// How many places of [`crate::maps::FAST_COUNTS`] are given out.
    pub const COUNTED: u32 = 4;
    /// Elements of the map.
    pub const ELEMENTS: u32 = 5;
    /// Set when anything is guarded.
    pub const ANY: u64 = 1;
    /// Set when a cgroup at `level` is guarded.
    #[must_use]
    pub const fn level(level: u32) -> u64 {
        1 << level
    }
}

const _: () = {
    assert!(size_of::<Group>() == 24);
    assert!(size_of::<Task>() == 32);
    assert!(size_of::<Asked>() == 40);
    assert!(size_of::<CachedVerdict>() == 48);
    assert!(size_of::<SocketMark>() == 64);
};
