//! Finds fields in the running kernel's structs, through its BTF.
//!
//! The programs have no CO-RE; they read the offsets found here from globals.
//! A field that is not found is left out, never guessed: whoever needs it is
//! not loaded.

use super::fields::Fields;
use super::{KernelError, coverage, hooks};
use btf_rs::{Btf, Struct, Type};
use merestone_abi::Protected;
use std::collections::BTreeMap;

/// Global in the object, struct, field.
const FIELDS: [(&str, &str, &str); 76] = [
    ("TASK_TGID", "task_struct", "tgid"),
    ("TASK_PID", "task_struct", "pid"),
    ("TASK_SIGNAL", "task_struct", "signal"),
    ("SIGNAL_LIVE", "signal_struct", "live"),
    ("CGROUP_KN", "cgroup", "kn"),
    ("CGROUP_ROOT", "cgroup", "root"),
    ("CGROUP_ANCESTORS", "cgroup", "ancestors"),
    ("ROOT_HIERARCHY", "cgroup_root", "hierarchy_id"),
    ("KN_ID", "kernfs_node", "id"),
    ("KN_NAME", "kernfs_node", "name"),
    ("SOCKET_SK", "socket", "sk"),
    ("MSG_NAME", "msghdr", "msg_name"),
    ("MSG_NAMELEN", "msghdr", "msg_namelen"),
    ("SKC_FAMILY", "sock_common", "skc_family"),
    ("SKC_DADDR", "sock_common", "skc_daddr"),
    ("SKC_DPORT", "sock_common", "skc_dport"),
    ("SKC_V6_DADDR", "sock_common", "skc_v6_daddr"),
    ("SK_PROTOCOL", "sock", "sk_protocol"),
    ("SK_TYPE", "sock", "sk_type"),
    ("SK_CGROUP_DATA", "sock", "sk_cgrp_data"),
    ("SK_PEER_PID", "sock", "sk_peer_pid"),
    ("UNIX_PEER", "unix_sock", "peer"),
    ("UNIX_ADDR", "unix_sock", "addr"),
    ("UNIX_ADDRESS_REFS", "unix_address", "refcnt"),
    ("OPS_SENDPAGE", "proto_ops", "sendpage"),
    ("PID_TASKS", "pid", "tasks"),
    ("TASK_PID_LINKS", "task_struct", "pid_links"),
    ("PID_NUMBERS", "pid", "numbers"),
    ("UPID_NR", "upid", "nr"),
    ("FILE_INODE", "file", "f_inode"),
    ("INODE_MODE", "inode", "i_mode"),
    ("INODE_RDEV", "inode", "i_rdev"),
    ("INODE_SB", "inode", "i_sb"),
    ("SB_MAGIC", "super_block", "s_magic"),
    ("TASK_FILES", "task_struct", "files"),
    ("FILES_FDT", "files_struct", "fdt"),
    ("FDT_FD", "fdtable", "fd"),
    ("FDT_MAX_FDS", "fdtable", "max_fds"),
    ("TASK_THREAD_INFO", "task_struct", "thread_info"),
    ("THREAD_INFO_STATUS", "thread_info", "status"),
    ("REGS_ARG_0", "pt_regs", "di"),
    ("REGS_ARG_0_COMPAT", "pt_regs", "bx"),
    ("REGS_ARG_2", "pt_regs", "dx"),
    ("TASK_MM", "task_struct", "mm"),
    ("TASK_PTRACE", "task_struct", "ptrace"),
    ("TASK_REAL_PARENT", "task_struct", "real_parent"),
    ("MM_EXE_FILE", "mm_struct", "exe_file"),
    ("FILE_PRIVATE", "file", "private_data"),
    ("FILE_MODE", "file", "f_mode"),
    ("FILE_PATH", "file", "f_path"),
    ("DENTRY_NAME", "dentry", "d_name"),
    ("QSTR_NAME", "qstr", "name"),
    ("TASK_CGROUPS", "task_struct", "cgroups"),
    ("CSS_SET_CGROUP", "css_set", "dfl_cgrp"),
    ("KEY_TYPE", "key", "type"),
    ("KEY_TYPE_NAME", "key_type", "name"),
    ("FC_TYPE", "fs_context", "fs_type"),
    ("FS_NAME", "file_system_type", "name"),
    ("FS_FLAGS", "file_system_type", "fs_flags"),
    ("INODE_INO", "inode", "i_ino"),
    ("SB_DEV", "super_block", "s_dev"),
    ("DENTRY_INODE", "dentry", "d_inode"),
    ("PATH_MNT", "path", "mnt"),
    ("PATH_DENTRY", "path", "dentry"),
    ("VFSMOUNT_SB", "vfsmount", "mnt_sb"),
    ("MOUNT_MNT", "mount", "mnt"),
    ("MOUNT_ID", "mount", "mnt_id"),
    ("MOUNT_GROUP", "mount", "mnt_group_id"),
    ("BPRM_FILE", "linux_binprm", "file"),
    ("MAP_ID", "bpf_map", "id"),
    ("PROG_AUX", "bpf_prog", "aux"),
    ("AUX_ID", "bpf_prog_aux", "id"),
    ("LINK_ID", "bpf_link", "id"),
    ("PROC_INODE", "proc_inode", "vfs_inode"),
    ("PROC_SYSCTL", "proc_inode", "sysctl_entry"),
    ("TABLE_NAME", "ctl_table", "procname"),
];

/// Offsets by the name of the global that takes them.
#[derive(Debug)]
pub(super) struct Layout {
    offsets: BTreeMap<&'static str, u32>,
    functions: Vec<(u32, u64)>,
}

/// What of `enum lockdown_reason` (include/linux/security.h) would take the
/// hooks away, or write the agent's memory: its numbers differ by kernel.
const REASONS: [&str; 5] = [
    "LOCKDOWN_DEV_MEM",
    "LOCKDOWN_KEXEC",
    "LOCKDOWN_XMON_WR",
    "LOCKDOWN_BPF_WRITE_USER",
    "LOCKDOWN_DBG_WRITE_KERNEL",
];

impl Layout {
    /// Reads the running kernel's.
    pub(super) fn of_this_kernel() -> Result<Self, KernelError> {
        let btf =
            Btf::from_file("/sys/kernel/btf/vmlinux").map_err(|_source| KernelError::NoBtf)?;
        Ok(Self::of(&btf))
    }

    fn of(btf: &Btf) -> Self {
        let offsets = FIELDS
            .iter()
            .filter_map(|&(global, of, field)| Some((global, offset(btf, of, field)?)));
        Self {
            offsets: offsets.collect(),
            functions: functions(btf),
        }
    }

    /// The kernel's own functions that nobody may decide in the place of, as
    /// [`merestone_abi::Protected`] has them.
    pub(super) fn functions(&self) -> &[(u32, u64)] {
        &self.functions
    }

    /// What was found.
    pub(super) fn found(&self) -> impl Iterator<Item = (&'static str, &u32)> {
        self.offsets
            .iter()
            .map(|(global, offset)| (*global, offset))
    }

    /// The first of `fields` that was not found, as `struct.field`.
    pub(super) fn missing(&self, fields: Fields) -> Option<String> {
        let absent = fields
            .iter()
            .copied()
            .flatten()
            .find(|global| !self.offsets.contains_key(*global))?;
        let known = FIELDS.iter().find(|(global, _, _)| global == absent);
        Some(known.map_or_else(
            || (*absent).to_owned(),
            |(_, of, field)| format!("{of}.{field}"),
        ))
    }
}

fn functions(btf: &Btf) -> Vec<(u32, u64)> {
    let number = |name: &str| {
        let ids = btf.resolve_ids_by_name(name).ok()?;
        ids.first().map(|id| u64::from(*id))
    };
    let mut found = Vec::new();
    for hook in hooks::lsm_targets() {
        // `bprm_check_security` is asked by `security_bprm_check`.
        let short = hook.strip_suffix("_security").unwrap_or(hook);
        for name in [
            format!("security_{hook}"),
            format!("security_{short}"),
            format!("bpf_lsm_{hook}"),
        ] {
            found.extend(number(&name).map(|id| (Protected::FUNCTION, id)));
        }
        // Since 6.12 the verifier takes no positive result there.
        if !coverage::kernel_is_at_least((6, 12)) {
            let id = number(&format!("bpf_lsm_{hook}"));
            found.extend(id.map(|id| (Protected::LSM_FUNCTION, id)));
        }
    }
    let reasons = enumerators(btf, "lockdown_reason", &REASONS);
    found.extend(reasons.into_iter().map(|id| (Protected::REASON, id)));
    found
}

/// The values of those of `names` that an enum has.
fn enumerators(btf: &Btf, of: &str, names: &[&str]) -> Vec<u64> {
    let mut found = Vec::new();
    for kind in btf.resolve_types_by_name(of).unwrap_or_default() {
        let Type::Enum(kind) = kind else {
            continue;
        };
        for member in &kind.members {
            let name = btf.resolve_name(member).unwrap_or_default();
            if names.contains(&name.as_str()) {
                found.push(u64::from(member.val()));
            }
        }
    }
    found
}

/// A field's offset in bytes. Two structs of one name (a module's and the
/// kernel's) that disagree count as not found.
fn offset(btf: &Btf, of: &str, field: &str) -> Option<u32> {
    let mut found = None;
    for kind in btf.resolve_types_by_name(of).ok()? {
        let Type::Struct(layout) = kind else {
            continue;
        };
        let Some(here) = offset_in(btf, &layout, field, 0) else {
            continue;
        };
        if found.is_some_and(|other| other != here) {
            return None;
        }
        found = Some(here);
    }
    found
}

/// Looks through unnamed members, which lay their fields into the struct.
fn offset_in(btf: &Btf, layout: &Struct, field: &str, depth: u8) -> Option<u32> {
    for member in &layout.members {
        let bits = member.bit_offset();
        let name = btf.resolve_name(member).unwrap_or_default();
        if name == field {
            let is_whole = member.bitfield_size().unwrap_or(0) == 0 && bits % 8 == 0;
            return is_whole.then_some(bits / 8);
        }
        if !name.is_empty() || depth > 4 {
            continue;
        }
        if let Ok(Type::Struct(inner) | Type::Union(inner)) = btf.resolve_chained_type(member)
            && let Some(within) = offset_in(btf, &inner, field, depth + 1)
        {
            return Some(bits / 8 + within);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_s_task_struct_is_found_or_the_test_is_skipped() {
        let Ok(layout) = Layout::of_this_kernel() else {
            println!("skipped: this kernel has no BTF");
            return;
        };
        assert_eq!(
            layout.missing(&[&["TASK_TGID", "KN_ID"], &["SKC_DADDR"]]),
            None
        );
        assert_eq!(layout.missing(&[&["NO_SUCH"]]).as_deref(), Some("NO_SUCH"));
    }
}
