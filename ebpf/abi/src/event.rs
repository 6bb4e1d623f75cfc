//! What the kernel programs report through the ring buffer.
#![expect(
    missing_debug_implementations,
    reason = "of hidden types that zerocopy's derives make; inside a macro the lint sees them"
)]

use crate::GroupId;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! code {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Default, Eq, FromBytes, Immutable, IntoBytes, PartialEq,
        )]
        #[repr(transparent)]
        pub struct $name(pub u8);

        impl $name {
            $($(#[$vdoc])* pub const $variant: Self = Self($value);)*
            /// Every code this build knows, with the name users see.
            pub const NAMES: &'static [(Self, &'static str)] =
                &[$((Self::$variant, stringify!($variant)),)*];

            /// The name users see; none for a code this build does not know.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                Self::NAMES.iter().find(|(code, _)| *code == self).map(|(_, name)| *name)
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, concat!(stringify!($name), "({})"), self.0),
                }
            }
        }
    };
}

code! {
    /// What was decided.
    Verdict {
        /// Let through by a rule.
        ALLOW = 1,
        /// Refused.
        DENY = 2,
        /// Would have been refused; the boundary only audits.
        AUDIT = 3,
    }
}

code! {
    /// Where it was decided.
    Hook {
        /// `cgroup/device`.
        DEVICE = 1,
        /// `cgroup/connect4`.
        CONNECT4 = 2,
        /// `cgroup/connect6`.
        CONNECT6 = 3,
        /// `cgroup/sendmsg4`.
        SENDMSG4 = 4,
        /// `cgroup/sendmsg6`.
        SENDMSG6 = 5,
        /// `cgroup_skb/egress`.
        EGRESS = 6,
        /// `cgroup/sock_create`.
        SOCK_CREATE = 7,
        /// `tp_btf/sched_process_fork`.
        FORK = 8,
        /// `tp_btf/sched_process_exec`.
        EXEC = 9,
        /// `tp_btf/sched_process_exit`.
        EXIT = 10,
        /// `tp_btf/cgroup_attach_task`.
        ATTACH = 11,
        /// `lsm/socket_create`.
        LSM_CREATE = 12,
        /// `lsm/socket_connect`.
        LSM_CONNECT = 13,
        /// `lsm/socket_sendmsg`.
        LSM_SENDMSG = 14,
        /// The agent's own scan of processes that held a GPU before it.
        SCAN = 15,
    }
}

code! {
    /// Why it was decided so.
    Reason {
        /// A rule of the boundary matched.
        RULE = 1,
        /// No rule matched: denied by default.
        NO_RULE = 2,
        /// The packet could not be parsed as far as a verdict needs.
        UNPARSABLE = 3,
        /// An IPv6 routing header (RFC 8200 §4.4).
        ROUTING_HEADER = 4,
        /// An IPv4 source-route option (RFC 791 §3.1).
        SOURCE_ROUTE = 5,
        /// A next header that is not walked.
        UNKNOWN_HEADER = 6,
        /// A socket family that is not on the allow list.
        FAMILY = 7,
        /// The IPv4 address inside the IPv6 one is outside.
        EMBEDDED = 8,
        /// A map had no room; refused because it could not be recorded.
        NO_ROOM = 9,
    }
}

code! {
    /// What happened.
    EventKind {
        /// A flow was judged.
        FLOW = 1,
        /// A group became guarded.
        GUARD = 2,
        /// A guarded process forked.
        FORK = 3,
        /// A guarded process executed another program.
        EXEC = 4,
        /// A guarded process ended.
        EXIT = 5,
        /// A guarded process left its cgroup.
        LEFT = 6,
        /// A device of class control was opened; nothing is guarded for it.
        CONTROL = 7,
    }
}

/// One report. Fields that a kind has no use for are zero.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Event {
    /// Nanoseconds since boot.
    pub boot_ns: u64,
    /// The guarded group concerned.
    pub group: GroupId,
    /// The cgroup the task was in.
    pub cgroup: u64,
    /// The socket's cookie, 0 where there is none.
    pub cookie: u64,
    /// Destination address.
    pub address: [u8; 16],
    /// Thread group id in the initial PID namespace; 0 where the hook has no
    /// task at hand (`cgroup_skb`).
    pub tgid: u32,
    /// Thread id.
    pub pid: u32,
    /// For FORK the child's tgid; for LEFT the process that moved.
    pub other: u32,
    /// Device major, for GUARD and CONTROL.
    pub major: u32,
    /// Device minor, for GUARD and CONTROL.
    pub minor: u32,
    /// The boundary generation it was judged under.
    pub generation: u32,
    /// Packet or message length in bytes, where the hook knows it.
    pub length: u32,
    /// Destination port, 0 where the protocol has none.
    pub port: u16,
    /// The rule that decided, 0 for none.
    pub rule: u16,
    /// Socket address family, for FAMILY refusals.
    pub family: u16,
    /// [`EventKind`].
    pub kind: EventKind,
    /// [`Hook`].
    pub hook: Hook,
    /// [`Verdict`].
    pub verdict: Verdict,
    /// [`Reason`].
    pub reason: Reason,
    /// IP protocol number.
    pub protocol: u8,
    /// Device class, for GUARD and CONTROL.
    pub class: crate::DeviceClass,
    /// The task's command name, NUL padded (`TASK_COMM_LEN`).
    pub comm: [u8; 16],
    /// Always zero.
    pub reserved: [u8; 8],
}

const _: () = {
    assert!(size_of::<Event>() == 112);
    assert!(core::mem::offset_of!(Event, address) == 32);
    assert!(core::mem::offset_of!(Event, comm) == 88);
};
