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
        /// `lsm/socket_connect`, and `inet_conn_request` for whoever connects in.
        LSM_CONNECT = 13,
        /// `lsm/socket_sendmsg`.
        LSM_SENDMSG = 14,
        /// The agent's own scan of processes that held a GPU before it.
        SCAN = 15,
        /// `cgroup/setsockopt`.
        SETSOCKOPT = 16,
        /// `cgroup_skb/ingress`.
        INGRESS = 17,
        /// `tcx/egress` or `tc/egress` of a link of the host.
        TCX = 18,
        /// `tp_btf/sys_enter`: a forbidden family, killed before it sends.
        SYS_ENTER = 19,
        /// `lsm/file_open`, `file_permission`, `inode_permission`.
        LSM_OPEN = 20,
        /// `lsm/file_receive`.
        LSM_RECEIVE = 21,
        /// `lsm/unix_stream_connect`.
        LSM_UNIX_CONNECT = 22,
        /// `lsm/unix_may_send`.
        LSM_UNIX_SEND = 23,
        /// `lsm/bpf`, `lsm/bpf_map`, `lsm/bpf_prog`.
        LSM_BPF = 24,
        /// `lsm/task_kill`.
        LSM_KILL = 25,
        /// `lsm/ptrace_access_check`, `file_ioctl`.
        LSM_PTRACE = 26,
        /// `lsm/inode_permission`, `inode_rename`, `locked_down`.
        LSM_INODE = 27,
        /// `lsm/sb_umount`, `sb_mount`, `move_mount`, `fs_context_parse_param`.
        LSM_MOUNT = 28,
        /// The agent's own watch over its programs, pins and maps.
        WATCH = 29,
        /// `lsm/capable`, `key_alloc`: what the kernel is asked to do.
        LSM_KERNEL = 30,
        /// `cgroup/sysctl`.
        SYSCTL = 31,
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
        /// A socket option that a guarded process may not set.
        SOCKET_OPTION = 10,
        /// Somebody outside the group is asked, over loopback or a Unix socket.
        DEPUTY = 11,
        /// An RDMA device: its traffic passes no hook.
        RDMA = 12,
        /// A tunnel device: what is written to it is another socket's packet.
        TUNNEL = 13,
        /// A frame that is not IP.
        NOT_IP = 14,
        /// A DNS question for a name that no rule lists.
        NAME = 15,
        /// DNS in a form that cannot be judged: TCP, TLS, several questions.
        NAME_FORM = 16,
        /// Let through by a grant.
        GRANT = 17,
        /// A grant matches, but its bytes or its time are used up.
        GRANT_SPENT = 18,
        /// An attempt on the agent, its programs, pins or maps.
        TAMPER = 19,
        /// A socket or a GPU that was handed over.
        PASSED = 20,
        /// A file on a network file system: the kernel would send for it.
        FILESYSTEM = 21,
        /// The agent is gone and the boundary says to deny everything then.
        AGENT_LOST = 22,
        /// A power over the network or the kernel: a capability, a program of
        /// its own in the kernel.
        PRIVILEGE = 23,
        /// The kernel would run a program, or act by a setting, outside the
        /// group.
        KERNEL = 24,
        /// It reaches into a process outside the group.
        INTRUSION = 25,
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
        /// Somebody tried to take enforcement away.
        TAMPER = 8,
        /// A guarded process asked somebody outside its group.
        DEPUTY = 9,
        /// A resolver inside the boundary answered for a listed name.
        ANSWER = 10,
        /// A grant was used up or ran out.
        GRANT = 11,
    }
}

code! {
    /// What was tried on enforcement, for TAMPER.
    Attempt {
        /// To detach a link.
        DETACH = 1,
        /// To put another program behind a link.
        REPLACE = 2,
        /// To get hold of a link by its id.
        LINK_FD = 3,
        /// To get hold of a program.
        PROGRAM_FD = 4,
        /// To get hold of a map, to write it.
        MAP_FD = 5,
        /// To remove or rename a pin, or to put one beside it.
        UNPIN = 6,
        /// To open a pin.
        PIN_OPEN = 7,
        /// To end or stop the agent by a signal.
        KILL = 8,
        /// To debug the agent, or to write its memory.
        TRACE = 9,
        /// To unmount what the pins are reached through.
        UNMOUNT = 10,
        /// To mount over the pins.
        MOUNT_OVER = 11,
        /// To change the agent's resource limits.
        LIMIT = 12,
        /// To write the agent's executable.
        EXECUTABLE = 13,
        /// The agent ended: found by the kernel, refused by nobody.
        AGENT_ENDED = 14,
        /// A map holds something else than the agent wrote.
        MAP_WRITE = 15,
        /// The boundary in the kernel is not the one installed.
        BOUNDARY = 16,
        /// To load a program that would decide in a hook's place.
        OVERRIDE = 17,
        /// To change the kernel, or memory, under what holds.
        KERNEL = 18,
        /// To freeze, kill or starve the agent through its cgroup.
        CGROUP = 19,
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
    /// The socket's cookie, 0 where there is none; for DEPUTY the cgroup of
    /// whoever would answer.
    pub cookie: u64,
    /// Destination address.
    pub address: [u8; 16],
    /// Thread group id in the initial PID namespace; 0 where the hook has no
    /// task at hand (`cgroup_skb`).
    pub tgid: u32,
    /// Thread id.
    pub pid: u32,
    /// For FORK the child's tgid; for LEFT the process that moved; for DEPUTY
    /// who would answer, 0 where that is not known; for TAMPER the process it
    /// was aimed at; for ANSWER the seconds an address lives.
    pub other: u32,
    /// Device major, for GUARD, CONTROL and refused devices; the level of a
    /// refused socket option; a refused capability, or bpf(2) command; for TAMPER the [`Attempt`]; for NAME and ANSWER
    /// the high half of the name's digest, the key of [`crate::maps::ASKED`].
    pub major: u32,
    /// Device minor, likewise; the name of a refused socket option; for TAMPER
    /// the number of the object, inode, mount or signal; the low half of that
    /// digest.
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
    /// Device class, for GUARD, CONTROL and refused devices.
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
