//! The kernel's fields that programs read beyond the UAPI, by what they are
//! read for. A program names the lists it cannot do without; where a kernel's
//! BTF lacks one of them, that hook is not claimed.

/// Lists of globals of the object, each the offset of a field.
pub(super) type Fields = &'static [List];
type List = &'static [&'static str];

/// A cgroup's id, and those above it.
pub(super) const CGROUP: List = &["CGROUP_KN", "CGROUP_ANCESTORS", "KN_ID"];

const DESTINATION: List = &["SKC_FAMILY", "SKC_DADDR", "SKC_DPORT", "SKC_V6_DADDR"];
const DEVICE: List = &["FILE_INODE", "INODE_MODE", "INODE_RDEV"];
const FILE_SYSTEM: List = &["INODE_SB", "SB_MAGIC"];
/// Who is at the other end of a Unix socket: its cgroup, or the process behind
/// it and that one's cgroup.
const OTHER_END: List = &[
    "SOCKET_SK",
    "SK_TYPE",
    "SK_CGROUP_DATA",
    "SK_PEER_PID",
    "UNIX_PEER",
    "UNIX_ADDR",
    "UNIX_ADDRESS_REFS",
    "PID_TASKS",
    "PID_NUMBERS",
    "UPID_NR",
    "TASK_PID_LINKS",
    "TASK_CGROUPS",
    "CSS_SET_CGROUP",
];
/// How the agent itself, or its successor, is told from others.
const TELLS_AGENT: List = &[
    "TASK_MM",
    "TASK_PTRACE",
    "MM_EXE_FILE",
    "FILE_INODE",
    "INODE_INO",
    "INODE_SB",
    "SB_DEV",
];
/// From a descriptor's number to its file.
const DESCRIPTORS: List = &["TASK_FILES", "FILES_FDT", "FDT_FD", "FILE_PRIVATE"];

/// Where a message or a connection goes.
pub(super) const SOCKET: Fields = &[
    DESTINATION,
    &["SOCKET_SK", "MSG_NAME", "MSG_NAMELEN", "SK_PROTOCOL"],
];

/// What a file is; of a Unix socket, whom it asks.
pub(super) const PASSED: Fields = &[DEVICE, FILE_SYSTEM, OTHER_END, CGROUP];

/// What a file is, and by which name it was opened.
pub(super) const FILE: Fields = &[
    DEVICE,
    FILE_SYSTEM,
    &["FILE_MODE", "FILE_PATH", "PATH_DENTRY"],
    &["DENTRY_NAME", "QSTR_NAME"],
];

/// Where a message goes; of a Unix socket, whom it asks.
pub(super) const SEND: Fields = &[
    DESTINATION,
    OTHER_END,
    CGROUP,
    &["MSG_NAME", "MSG_NAMELEN", "SK_PROTOCOL"],
];

/// Of a listener, its cgroup; of who connects, the address.
pub(super) const REQUEST: Fields = &[DESTINATION, CGROUP, &["SK_CGROUP_DATA"]];

/// The agent alone may.
pub(super) const AGENT: Fields = &[TELLS_AGENT];

/// The same, and what kind of key or of file system is asked for.
pub(super) const POWER: Fields = &[
    TELLS_AGENT,
    &[
        "KEY_TYPE",
        "KEY_TYPE_NAME",
        "FC_TYPE",
        "FS_NAME",
        "FS_FLAGS",
    ],
];

/// The same, and who a process is guarded with.
pub(super) const REACH: Fields = &[
    TELLS_AGENT,
    CGROUP,
    &["TASK_TGID", "TASK_CGROUPS", "CSS_SET_CGROUP"],
];

/// How a Unix socket's peer is told from the group.
pub(super) const PEER: Fields = &[OTHER_END, CGROUP, &["SKC_FAMILY"]];

/// What is handed over: a device, a socket to somewhere, a Unix socket.
pub(super) const RECEIVE: Fields = &[
    DEVICE,
    FILE_SYSTEM,
    DESTINATION,
    OTHER_END,
    CGROUP,
    &["SK_PROTOCOL"],
];

/// What a system call asks for, before the kernel acts on it.
pub(super) const KILL: Fields = &[
    DESCRIPTORS,
    &["REGS_ARG_0", "REGS_ARG_0_COMPAT", "REGS_ARG_2"],
    &["TASK_THREAD_INFO", "THREAD_INFO_STATUS", "FDT_MAX_FDS"],
    &["FILE_INODE", "INODE_MODE"],
    &["SOCKET_SK", "SKC_FAMILY", "SK_PROTOCOL"],
];

/// What an attempt on enforcement is aimed at, and who makes it. The tier is
/// claimed as a whole, so that one list does for all its programs.
pub(super) const TAMPER: Fields = &[
    TELLS_AGENT,
    DESCRIPTORS,
    &["TASK_TGID", "TASK_REAL_PARENT", "BPRM_FILE"],
    &["DENTRY_INODE", "PATH_MNT", "PATH_DENTRY", "VFSMOUNT_SB"],
    &["MOUNT_MNT", "MOUNT_ID", "MOUNT_GROUP"],
    &["MAP_ID", "PROG_AUX", "AUX_ID", "LINK_ID"],
    &["SB_MAGIC", "PROC_INODE", "PROC_SYSCTL", "TABLE_NAME"],
];
