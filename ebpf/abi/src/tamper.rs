//! Who the agent is, what of it is protected, and what holds when it is gone.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Values of the map [`crate::maps::STANCE`].
#[derive(Clone, Copy, Debug)]
pub struct Stance;

impl Stance {
    /// The boundary decides, whether or not the agent lives.
    pub const HOLD: u32 = 0;
    /// Everything of a guarded group is refused: the agent is gone.
    pub const DENY: u32 = 1;
    /// As [`Self::HOLD`] while the agent's heartbeat is younger than
    /// [`AgentState::patience_ns`], as [`Self::DENY`] when it is not.
    pub const WATCH: u32 = 2;
}

/// The agent as the kernel knows it; one array element. Only a program that
/// takes over writes it; the kernel sets `tgid` to 0 when that process ends.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct AgentState {
    /// How old a heartbeat may be, nanoseconds.
    pub patience_ns: u64,
    /// Inode number of the agent's executable; the kernel fills it in, at the
    /// agent's first `bpf(2)` after it wrote 0.
    pub exe_ino: u64,
    /// The kernel's number (`s_dev`) of the file system it lies on, likewise.
    pub exe_dev: u32,
    /// `s_dev` of the bpf file system the pins are on.
    pub pin_dev: u32,
    /// The agent's thread group; 0 when it has ended.
    pub tgid: u32,
    /// 1 where the end of the agent sets [`Stance::DENY`].
    pub deny_on_loss: u32,
    /// 1 where attempts on what is protected are refused.
    pub armed: u32,
    /// Always zero.
    pub reserved: u32,
}

/// What is protected, by kind and number; the key of [`crate::maps::PROTECTED`].
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct Protected {
    /// The object's number.
    pub id: u64,
    /// One of the constants here.
    pub kind: u32,
    /// Always zero.
    pub reserved: u32,
}

impl Protected {
    /// A map, by its id.
    pub const MAP: u32 = 1;
    /// A program, by its id.
    pub const PROGRAM: u32 = 2;
    /// A link, by its id.
    pub const LINK: u32 = 3;
    /// A pin, by its inode on [`AgentState::pin_dev`].
    pub const PIN: u32 = 4;
    /// A directory of pins, likewise.
    pub const FOLDER: u32 = 5;
    /// A place on [`AgentState::pin_dev`] that nothing may be mounted over.
    pub const COVER: u32 = 6;
    /// A mount that the pins are reached through, by its `mnt_id`.
    pub const MOUNT: u32 = 7;
    /// The peer group of such a mount, by its `mnt_group_id`.
    pub const PEERS: u32 = 8;
    /// A function of the kernel whose result nobody may change, by its BTF id.
    pub const FUNCTION: u32 = 9;
    /// An LSM hook that no other program may be put on, likewise: where a
    /// program's positive result would pass for none (before Linux 6.12).
    pub const LSM_FUNCTION: u32 = 10;
    /// A file of a cgroup2 file system, by its inode: freezing and killing.
    pub const CGROUP_FILE: u32 = 11;
    /// Likewise, one that pid 1 may write: limits.
    pub const CGROUP_LIMIT: u32 = 12;
    /// A file of procfs, by its inode, on whichever mount.
    pub const PROC_FILE: u32 = 13;
    /// A place that nothing may be mounted over; see [`Protected::place`].
    pub const PLACE: u32 = 14;
    /// A `lockdown_reason` that is refused.
    pub const REASON: u32 = 15;
    /// As the id of a [`Protected::LINK`]: a link is being made, whose id is
    /// not known yet.
    pub const ANY: u64 = 0;

    /// The key of an object.
    #[must_use]
    pub const fn new(kind: u32, id: u64) -> Self {
        Self {
            id,
            kind,
            reserved: 0,
        }
    }

    /// The number of a [`Protected::PLACE`], by file system and inode.
    #[must_use]
    pub const fn place(dev: u32, ino: u64) -> u64 {
        ((dev as u64) << 32) ^ ino
    }
}

/// Until when protection is open for an operator; one array element.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Glass {
    /// Nanoseconds since boot; 0 for closed.
    pub until_boot_ns: u64,
    /// SHA-256 of the token that opened it; zero where there was none.
    pub token: [u8; 32],
    /// Bits of [`Glass::NAMES`].
    pub actions: u32,
    /// Always zero.
    pub reserved: u32,
}

impl Glass {
    /// Descriptors of programs, maps and links; detaching and replacing.
    pub const BPF: u32 = 1;
    /// Opening, removing and renaming pins.
    pub const PINS: u32 = 2;
    /// Signals and limits for the agent.
    pub const SIGNAL: u32 = 4;
    /// Debugging the agent.
    pub const TRACE: u32 = 8;
    /// Unmounting the bpf file system, and mounting over it.
    pub const MOUNT: u32 = 16;
    /// Another executable may take over when the agent has ended.
    pub const SUCCEED: u32 = 32;
    /// Changing the kernel under it: kexec, `/dev/mem`, ftrace, `SysRq`.
    pub const KERNEL: u32 = 64;
    /// Each action's bit, with the name users write.
    pub const NAMES: [(u32, &'static str); 7] = [
        (Self::BPF, "bpf"),
        (Self::PINS, "pins"),
        (Self::SIGNAL, "signal"),
        (Self::TRACE, "trace"),
        (Self::MOUNT, "mount"),
        (Self::SUCCEED, "succeed"),
        (Self::KERNEL, "kernel"),
    ];
}

const _: () = {
    assert!(size_of::<AgentState>() == 40);
    assert!(size_of::<Protected>() == 16);
    assert!(size_of::<Glass>() == 48);
};
