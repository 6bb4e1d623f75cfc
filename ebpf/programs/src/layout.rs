//! Where fields lie in the running kernel's structs.
//!
//! There is no CO-RE in Rust: the agent looks each offset up in the kernel's
//! BTF and writes it here before the object is loaded. A program whose offsets
//! are not all known is not loaded at all. The verifier, which knows the
//! struct types, checks every typed load against them once more.

use aya_ebpf::Global;

macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        $(
            $(#[$doc])*
            #[unsafe(no_mangle)]
            pub(crate) static $name: Global<u32> = Global::new(0);
        )*
    };
}

offsets! {
    /// `task_struct.tgid`
    TASK_TGID,
    /// `task_struct.pid`
    TASK_PID,
    /// `task_struct.signal`
    TASK_SIGNAL,
    /// `signal_struct.live`
    SIGNAL_LIVE,
    /// `cgroup.kn`
    CGROUP_KN,
    /// `cgroup.root`
    CGROUP_ROOT,
    /// `cgroup.ancestors`
    CGROUP_ANCESTORS,
    /// `cgroup_root.hierarchy_id`
    ROOT_HIERARCHY,
    /// `kernfs_node.id`
    KN_ID,
    /// `kernfs_node.name`
    KN_NAME,
    /// `socket.sk`
    SOCKET_SK,
    /// `msghdr.msg_name`
    MSG_NAME,
    /// `msghdr.msg_namelen`
    MSG_NAMELEN,
    /// `sock_common.skc_family`
    SKC_FAMILY,
    /// `sock_common.skc_daddr`
    SKC_DADDR,
    /// `sock_common.skc_dport`
    SKC_DPORT,
    /// `sock_common.skc_v6_daddr`
    SKC_V6_DADDR,
    /// `sock.sk_protocol`
    SK_PROTOCOL,
    /// `sock.sk_type`
    SK_TYPE,
    /// `sock.sk_cgrp_data`
    SK_CGROUP_DATA,
    /// `sock.sk_peer_pid`
    SK_PEER_PID,
    /// `unix_sock.peer`
    UNIX_PEER,
    /// `unix_sock.addr`
    UNIX_ADDR,
    /// `unix_address.refcnt`
    UNIX_ADDRESS_REFS,
    /// `proto_ops.sendpage`; 0 since Linux 6.5, where there is none
    OPS_SENDPAGE,
    /// `pid.tasks`
    PID_TASKS,
    /// `task_struct.pid_links`
    TASK_PID_LINKS,
    /// `pid.numbers`
    PID_NUMBERS,
    /// `upid.nr`
    UPID_NR,
    /// `file.f_inode`
    FILE_INODE,
    /// `inode.i_mode`
    INODE_MODE,
    /// `inode.i_rdev`
    INODE_RDEV,
    /// `inode.i_sb`
    INODE_SB,
    /// `super_block.s_magic`
    SB_MAGIC,
    /// `task_struct.files`
    TASK_FILES,
    /// `task_struct.mm`
    TASK_MM,
    /// `task_struct.ptrace`
    TASK_PTRACE,
    /// `task_struct.real_parent`
    TASK_REAL_PARENT,
    /// `mm_struct.exe_file`
    MM_EXE_FILE,
    /// `files_struct.fdt`
    FILES_FDT,
    /// `fdtable.fd`
    FDT_FD,
    /// `fdtable.max_fds`
    FDT_MAX_FDS,
    /// `task_struct.thread_info`
    TASK_THREAD_INFO,
    /// `thread_info.status`
    THREAD_INFO_STATUS,
    /// `pt_regs.di`, of x86-64
    REGS_ARG_0,
    /// `pt_regs.bx`, of x86-64
    REGS_ARG_0_COMPAT,
    /// `pt_regs.dx`, of x86-64
    REGS_ARG_2,
    /// `file.private_data`
    FILE_PRIVATE,
    /// `file.f_mode`
    FILE_MODE,
    /// `file.f_path`
    FILE_PATH,
    /// `dentry.d_name`
    DENTRY_NAME,
    /// `qstr.name`
    QSTR_NAME,
    /// `task_struct.cgroups`
    TASK_CGROUPS,
    /// `css_set.dfl_cgrp`
    CSS_SET_CGROUP,
    /// `key.type`
    KEY_TYPE,
    /// `key_type.name`
    KEY_TYPE_NAME,
    /// `fs_context.fs_type`
    FC_TYPE,
    /// `file_system_type.name`
    FS_NAME,
    /// `file_system_type.fs_flags`
    FS_FLAGS,
    /// `inode.i_ino`
    INODE_INO,
    /// `super_block.s_dev`
    SB_DEV,
    /// `dentry.d_inode`
    DENTRY_INODE,
    /// `path.mnt`
    PATH_MNT,
    /// `path.dentry`
    PATH_DENTRY,
    /// `vfsmount.mnt_sb`
    VFSMOUNT_SB,
    /// `mount.mnt`
    MOUNT_MNT,
    /// `mount.mnt_id`
    MOUNT_ID,
    /// `mount.mnt_group_id`
    MOUNT_GROUP,
    /// `linux_binprm.file`
    BPRM_FILE,
    /// `bpf_map.id`
    MAP_ID,
    /// `bpf_prog.aux`
    PROG_AUX,
    /// `bpf_prog_aux.id`
    AUX_ID,
    /// `bpf_link.id`
    LINK_ID,
    /// `proc_inode.vfs_inode`
    PROC_INODE,
    /// `proc_inode.sysctl_entry`
    PROC_SYSCTL,
    /// `ctl_table.procname`
    TABLE_NAME,
}

/// Reads a field through a pointer whose type the verifier knows.
///
/// # Safety
///
/// `base` comes from the context or from another typed read; the verifier
/// checks that the field lies in its struct, and turns a fault into zero.
#[inline(always)]
pub(crate) unsafe fn field<T: Copy>(base: *const u8, offset: &Global<u32>) -> T {
    // SAFETY: as the caller says.
    let at = unsafe { base.add(offset.load() as usize) };
    // SAFETY: as the caller says; volatile, so that the load keeps its size.
    unsafe { at.cast::<T>().read_volatile() }
}
