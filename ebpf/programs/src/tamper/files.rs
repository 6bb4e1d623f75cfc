//! Files by which the agent or its hooks are taken away: pins, the executable,
//! the agent's cgroup, the kernel's own switches.

use super::{Try, armed, is_agents, is_protected, judge, place};
use crate::guarded;
use crate::layout::{DENTRY_INODE, INODE_SB, PROC_INODE, PROC_SYSCTL, SB_MAGIC, TABLE_NAME, field};
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use merestone_abi::{Attempt, Glass, Hook, Protected};

/// include/linux/fs.h
const MAY_WRITE: i32 = 2;
// include/uapi/linux/magic.h
const CGROUP2_MAGIC: u64 = 0x6367_7270;
const PROC_MAGIC: u64 = 0x9fa0;

/// `inode_permission(inode, mask)`: to open a pin, to change what lies in its
/// directory, to write the agent's executable in place, and to write the few
/// files through which the kernel would take the agent or its hooks away.
#[lsm(hook = "inode_permission")]
pub(crate) fn tamper_inode(ctx: LsmContext) -> i32 {
    let mask: i32 = ctx.arg(1);
    if mask & MAY_WRITE == 0 {
        return 0;
    }
    let Some(agent) = armed() else {
        return 0;
    };
    let inode: *const u8 = ctx.arg(0);
    let at = place(inode);
    let (attempt, action) = if is_agents(agent, at) {
        (Attempt::EXECUTABLE, Glass::SUCCEED)
    } else if at.0 != agent.pin_dev {
        match control_file(inode, at.1) {
            Some(known) => known,
            None => return 0,
        }
    } else if is_protected(Protected::FOLDER, at.1) {
        (Attempt::UNPIN, Glass::PINS)
    } else if is_protected(Protected::PIN, at.1) {
        (Attempt::PIN_OPEN, Glass::PINS)
    } else {
        return 0;
    };
    judge(&Try {
        hook: Hook::LSM_INODE,
        attempt,
        action,
        id: at.1 as u32,
        target: 0,
    })
}

/// Whether it is a file that controls the agent's cgroup or the kernel's hooks.
/// Which mount it is reached through does not matter.
#[inline(always)]
fn control_file(inode: *const u8, ino: u64) -> Option<(Attempt, u32)> {
    // SAFETY: an inode.
    let sb: *const u8 = unsafe { field(inode, &INODE_SB) };
    if sb.is_null() {
        return None;
    }
    // SAFETY: a super_block.
    let magic: u64 = unsafe { field(sb, &SB_MAGIC) };
    if magic == CGROUP2_MAGIC {
        let is_limit = is_protected(Protected::CGROUP_LIMIT, ino) && guarded::current_tgid() != 1;
        if is_limit || is_protected(Protected::CGROUP_FILE, ino) {
            return Some((Attempt::CGROUP, Glass::SIGNAL));
        }
    } else if magic == PROC_MAGIC
        && (is_protected(Protected::PROC_FILE, ino) || is_ftrace_switch(inode))
    {
        return Some((Attempt::KERNEL, Glass::KERNEL));
    }
    None
}

/// Whether a file of procfs is `kernel.ftrace_enabled`, which takes every
/// program off LSM hooks (kernel/trace/ftrace.c `ftrace_enable_sysctl`).
#[inline(always)]
fn is_ftrace_switch(inode: *const u8) -> bool {
    const NAME: [u8; 15] = *b"ftrace_enabled\0";
    let read = |at: u64| -> u64 {
        // SAFETY: the helper survives any address.
        unsafe { bpf_probe_read_kernel(at as *const u64) }.unwrap_or(0)
    };
    let outer = (inode as u64).wrapping_sub(u64::from(PROC_INODE.load()));
    let table = read(outer.wrapping_add(u64::from(PROC_SYSCTL.load())));
    if table == 0 {
        return false;
    }
    let name = read(table.wrapping_add(u64::from(TABLE_NAME.load())));
    // SAFETY: as above.
    let name = unsafe { bpf_probe_read_kernel(name as *const [u8; 15]) };
    name.is_ok_and(|name| name == NAME)
}

/// `locked_down(what)`: what the kernel itself calls a way to change it.
#[lsm(hook = "locked_down")]
pub(crate) fn tamper_lockdown(ctx: LsmContext) -> i32 {
    if armed().is_none() {
        return 0;
    }
    let what: u32 = ctx.arg(0);
    if !is_protected(Protected::REASON, u64::from(what)) {
        return 0;
    }
    judge(&Try {
        hook: Hook::LSM_INODE,
        attempt: Attempt::KERNEL,
        action: Glass::KERNEL,
        id: what,
        target: 0,
    })
}

/// `inode_rename(old_dir, old_dentry, new_dir, new_dentry)`: the directory of
/// pins itself, whose parent is not the agent's.
#[lsm(hook = "inode_rename")]
pub(crate) fn tamper_rename(ctx: LsmContext) -> i32 {
    let Some(agent) = armed() else {
        return 0;
    };
    let dentry: *const u8 = ctx.arg(1);
    // SAFETY: a dentry.
    let (dev, ino) = place(unsafe { field(dentry, &DENTRY_INODE) });
    if dev != agent.pin_dev || !is_protected(Protected::FOLDER, ino) {
        return 0;
    }
    judge(&Try {
        hook: Hook::LSM_INODE,
        attempt: Attempt::UNPIN,
        action: Glass::PINS,
        id: ino as u32,
        target: 0,
    })
}
