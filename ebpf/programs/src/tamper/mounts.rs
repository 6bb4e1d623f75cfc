//! Mounts that the pins are reached through, and places that nothing may be
//! mounted over.

use super::{Try, armed, is_protected, judge, place};
use crate::layout::{
    DENTRY_INODE, MOUNT_GROUP, MOUNT_ID, MOUNT_MNT, PATH_DENTRY, PATH_MNT, SB_DEV, VFSMOUNT_SB,
    field,
};
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use merestone_abi::{Attempt, Glass, Hook, Protected};

/// The id of a mount that the pins are reached through; 0 for any other.
#[inline(always)]
fn protected_mount(mount: *const u8) -> u32 {
    let outer = (mount as u64).wrapping_sub(u64::from(MOUNT_MNT.load()));
    let read = |offset: u32| -> u32 {
        let at = outer.wrapping_add(u64::from(offset)) as *const u32;
        // SAFETY: the helper survives any address.
        unsafe { bpf_probe_read_kernel(at) }.unwrap_or(0)
    };
    let id = read(MOUNT_ID.load());
    let peers = read(MOUNT_GROUP.load());
    let by_peers = peers != 0 && is_protected(Protected::PEERS, u64::from(peers));
    if by_peers || is_protected(Protected::MOUNT, u64::from(id)) {
        id
    } else {
        0
    }
}

/// `sb_umount(mnt, flags)`: the last mount of a bpf file system takes the pins
/// with it (kernel/bpf/inode.c `bpf_free_inode`).
#[lsm(hook = "sb_umount")]
pub(crate) fn tamper_umount(ctx: LsmContext) -> i32 {
    if armed().is_none() {
        return 0;
    }
    let id = protected_mount(ctx.arg(0));
    if id == 0 {
        return 0;
    }
    judge(&Try {
        hook: Hook::LSM_MOUNT,
        attempt: Attempt::UNMOUNT,
        action: Glass::MOUNT,
        id,
        target: 0,
    })
}

/// `sb_mount(dev_name, path, type, flags, data)`.
#[lsm(hook = "sb_mount")]
pub(crate) fn tamper_mount(ctx: LsmContext) -> i32 {
    mount_over(ctx.arg(1))
}

/// `move_mount(from_path, to_path)`, of the new mount interface.
#[lsm(hook = "move_mount")]
pub(crate) fn tamper_move(ctx: LsmContext) -> i32 {
    if armed().is_none() {
        return 0;
    }
    let from: *const u8 = ctx.arg(0);
    // SAFETY: a path.
    let id = protected_mount(unsafe { field(from, &PATH_MNT) });
    if id != 0 {
        return judge(&Try {
            hook: Hook::LSM_MOUNT,
            attempt: Attempt::UNMOUNT,
            action: Glass::MOUNT,
            id,
            target: 0,
        });
    }
    mount_over(ctx.arg(1))
}

#[inline(always)]
fn mount_over(path: *const u8) -> i32 {
    let Some(agent) = armed() else {
        return 0;
    };
    // SAFETY: a path.
    let mount: *const u8 = unsafe { field(path, &PATH_MNT) };
    // SAFETY: its vfsmount.
    let sb: *const u8 = unsafe { field(mount, &VFSMOUNT_SB) };
    // SAFETY: its super_block.
    let dev: u32 = unsafe { field(sb, &SB_DEV) };
    // SAFETY: a path.
    let dentry: *const u8 = unsafe { field(path, &PATH_DENTRY) };
    // SAFETY: a dentry.
    let (_, ino) = place(unsafe { field(dentry, &DENTRY_INODE) });
    let is_cover = if dev == agent.pin_dev {
        is_protected(Protected::COVER, ino)
    } else {
        is_protected(Protected::PLACE, Protected::place(dev, ino))
    };
    if !is_cover {
        return 0;
    }
    judge(&Try {
        hook: Hook::LSM_MOUNT,
        attempt: Attempt::MOUNT_OVER,
        action: Glass::MOUNT,
        id: ino as u32,
        target: 0,
    })
}
