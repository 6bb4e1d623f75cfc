//! BPF LSM, files: what a guarded process opens or is handed.
//!
//! A descriptor that is handed over passes `file_receive`, by SCM_RIGHTS as by
//! pidfd_getfd(2) (fs/file.c `receive_fd`), so a GPU that is passed guards its
//! receiver at that moment, as an open would. A descriptor that is older than
//! the guard is judged when it is read or written, a network file system also
//! when a name in it is looked up: the name itself is sent. It does not look
//! into what a file holds, and sees no memory that was mapped before.

use crate::decide::{self, EPERM};
use crate::device;
use crate::emit;
use crate::guarded::{self, Subject};
use crate::layout::{
    DENTRY_NAME, FILE_INODE, FILE_MODE, FILE_PATH, INODE_MODE, INODE_RDEV, INODE_SB, OPS_SENDPAGE,
    PATH_DENTRY, QSTR_NAME, SB_MAGIC, SOCKET_SK, field,
};
use crate::lsm;
use crate::power;
use crate::unix;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::bpf_sock_from_file;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use merestone_abi::{Device, EventKind, Hook, Reason, Verdict};

// include/uapi/linux/stat.h
const S_IFMT: u16 = 0o170_000;
const S_IFCHR: u16 = 0o020_000;
const S_IFSOCK: u16 = 0o140_000;
/// include/linux/fs.h
const MAY_WRITE: i32 = 2;
/// include/linux/kdev_t.h: the minor is the low 20 bits.
const MINOR_BITS: u32 = 20;

/// File systems whose every access is a message to somewhere else:
/// include/uapi/linux/magic.h, fs/ceph/super.h, fs/orangefs/orangefs-kernel.h.
const NETWORKED: [u64; 11] = [
    0x6969,      // NFS
    0x517b,      // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x0102_1997, // 9P
    0x00c3_6400, // Ceph
    0x5346_414f, // AFS, OpenAFS
    0x6b41_4653, // AFS, the kernel's
    0x7375_7245, // Coda
    0x0bd0_0bd0, // Lustre
    0x2003_0528, // OrangeFS
];

/// include/linux/fs.h
const FMODE_WRITE: u32 = 2;
/// Written, they have the kernel drive devices, connect, or run programs:
/// include/uapi/linux/magic.h.
const SYSFS: u64 = 0x6265_6572;
const CONFIGFS: u64 = 0x6265_6570;
const BINFMT_MISC: u64 = 0x4249_4e4d;
const CGROUP_V1: u64 = 0x0027_e0eb;

/// `file_open(file)`.
#[lsm(hook = "file_open")]
pub(crate) fn file_open(ctx: LsmContext) -> i32 {
    let before: i32 = ctx.arg(1);
    if before != 0 {
        return before;
    }
    let Some(subject) = guarded::current(guarded::armed()) else {
        return 0;
    };
    let file: *const u8 = ctx.arg(0);
    if is_kernel_setting(file)
        && power::refuse(Hook::LSM_OPEN, Reason::KERNEL, &subject, 0) == Verdict::DENY
    {
        return EPERM;
    }
    judge(Hook::LSM_OPEN, &subject, file)
}

/// `file_permission(file, mask)`: at each read and write. Everybody's pass
/// here, so the file is looked at before the process.
#[lsm(hook = "file_permission")]
pub(crate) fn file_permission(ctx: LsmContext) -> i32 {
    let mask = guarded::armed();
    if mask == 0 {
        return 0;
    }
    let before: i32 = ctx.arg(2);
    if before != 0 {
        return before;
    }
    let file: *const u8 = ctx.arg(0);
    if OPS_SENDPAGE.load() != 0 && kind(file) == S_IFSOCK {
        let permission: i32 = ctx.arg(1);
        return spliced(file, permission, mask);
    }
    if character_device(file).is_none() && !is_networked(file) {
        return 0;
    }
    match guarded::current(mask) {
        Some(subject) => judge(Hook::LSM_OPEN, &subject, file),
        None => 0,
    }
}

/// Until Linux 6.5 what is spliced to a socket passes no hook of sockets
/// (net/unix/af_unix.c `unix_stream_sendpage`), but this one (fs/splice.c
/// `do_splice`, fs/read_write.c `do_sendfile`). Packets are judged as such.
#[inline(always)]
fn spliced(file: *const u8, permission: i32, mask: u64) -> i32 {
    if permission & MAY_WRITE == 0 || !unix::is_refused() {
        return 0;
    }
    let Some(subject) = guarded::current(mask) else {
        return 0;
    };
    // SAFETY: the argument is a file; the helper returns its socket or null.
    let socket: *const u8 = unsafe { bpf_sock_from_file(file.cast_mut().cast()) }.cast();
    if socket.is_null() {
        return 0;
    }
    // SAFETY: a socket.
    let sk: *const u8 = unsafe { field(socket, &SOCKET_SK) };
    if sk.is_null() {
        return 0;
    }
    unix::connected(Hook::LSM_SENDMSG, &subject, sk)
}

/// `inode_permission(inode, mask)`: at each component of a path that is walked.
#[lsm(hook = "inode_permission")]
pub(crate) fn inode_lookup(ctx: LsmContext) -> i32 {
    let mask = guarded::armed();
    if mask == 0 {
        return 0;
    }
    let before: i32 = ctx.arg(2);
    if before != 0 {
        return before;
    }
    let inode: *const u8 = ctx.arg(0);
    if !is_networked_inode(inode) {
        return 0;
    }
    match guarded::current(mask) {
        Some(subject) if refuse_file_system(Hook::LSM_OPEN, &subject) == Verdict::DENY => EPERM,
        _ => 0,
    }
}

/// Whether a file is opened to be written that the kernel acts on: in sysfs and
/// configfs any, of cgroup v1 the program that is run when a cgroup is empty.
#[inline(always)]
fn is_kernel_setting(file: *const u8) -> bool {
    // SAFETY: a file.
    let mode: u32 = unsafe { field(file, &FILE_MODE) };
    if mode & FMODE_WRITE == 0 {
        return false;
    }
    match magic(file) {
        SYSFS | CONFIGFS | BINFMT_MISC => true,
        CGROUP_V1 => is_release_agent(file),
        _ => false,
    }
}

#[inline(always)]
fn is_release_agent(file: *const u8) -> bool {
    let at = file.wrapping_add(FILE_PATH.load() as usize + PATH_DENTRY.load() as usize);
    // SAFETY: the helper survives any address.
    let Ok(dentry) = (unsafe { bpf_probe_read_kernel(at.cast::<u64>()) }) else {
        return true;
    };
    let offset = u64::from(DENTRY_NAME.load() + QSTR_NAME.load());
    let at = dentry.wrapping_add(offset) as *const u64;
    // SAFETY: as above.
    match unsafe { bpf_probe_read_kernel(at) } {
        Ok(name) => power::head(name) == u64::from_ne_bytes(*b"release_"),
        Err(_) => true,
    }
}

/// `file_receive(file)`.
#[lsm(hook = "file_receive")]
pub(crate) fn file_receive(ctx: LsmContext) -> i32 {
    let before: i32 = ctx.arg(1);
    if before != 0 {
        return before;
    }
    let file: *const u8 = ctx.arg(0);
    if let Some(device) = character_device(file)
        && let Some(class) = device::class_of(device.major, device.minor)
        && class.guards()
        && device::guard(Hook::LSM_RECEIVE, &device, class) == 0
    {
        return EPERM;
    }
    let Some(subject) = guarded::current(guarded::armed()) else {
        return 0;
    };
    // SAFETY: the argument is a file; the helper returns its socket or null.
    let socket = unsafe { bpf_sock_from_file(file.cast_mut().cast()) };
    if !socket.is_null() {
        return lsm::judge(Hook::LSM_RECEIVE, &subject, socket.cast(), 0, 0);
    }
    judge(Hook::LSM_RECEIVE, &subject, file)
}

/// Refuses ways out past every socket.
#[inline(always)]
fn judge(hook: Hook, subject: &Subject, file: *const u8) -> i32 {
    if let Some(device) = character_device(file) {
        let Some(class) = device::class_of(device.major, device.minor) else {
            return 0;
        };
        if class.is_way_out() && device::refuse(hook, subject, &device, class) == Verdict::DENY {
            return EPERM;
        }
        return 0;
    }
    if is_networked(file) && refuse_file_system(hook, subject) == Verdict::DENY {
        return EPERM;
    }
    0
}

/// What kind of file it is, as in `S_IFMT`.
#[inline(always)]
fn kind(file: *const u8) -> u16 {
    // SAFETY: a file.
    let inode: *const u8 = unsafe { field(file, &FILE_INODE) };
    // SAFETY: its inode.
    unsafe { field::<u16>(inode, &INODE_MODE) & S_IFMT }
}

#[inline(always)]
fn character_device(file: *const u8) -> Option<Device> {
    if kind(file) != S_IFCHR {
        return None;
    }
    // SAFETY: a file.
    let inode: *const u8 = unsafe { field(file, &FILE_INODE) };
    // SAFETY: its inode.
    let number: u32 = unsafe { field(inode, &INODE_RDEV) };
    Some(Device {
        major: number >> MINOR_BITS,
        minor: number & ((1 << MINOR_BITS) - 1),
    })
}

/// The number of the file system that a file is on.
#[inline(always)]
fn magic(file: *const u8) -> u64 {
    // SAFETY: a file.
    magic_of(unsafe { field(file, &FILE_INODE) })
}

#[inline(always)]
fn magic_of(inode: *const u8) -> u64 {
    // SAFETY: an inode.
    let sb: *const u8 = unsafe { field(inode, &INODE_SB) };
    // SAFETY: its super block.
    unsafe { field(sb, &SB_MAGIC) }
}

#[inline(always)]
fn is_networked(file: *const u8) -> bool {
    // SAFETY: a file.
    is_networked_inode(unsafe { field(file, &FILE_INODE) })
}

#[inline(always)]
fn is_networked_inode(inode: *const u8) -> bool {
    let magic = magic_of(inode);
    let mut found = false;
    for known in NETWORKED {
        found |= magic == known;
    }
    found
}

#[inline(never)]
fn refuse_file_system(hook: Hook, subject: &Subject) -> Verdict {
    let decision = decide::refuse(Reason::FILESYSTEM);
    emit::count(hook, decision.verdict, 0, subject.group, 0);
    emit::send(EventKind::FLOW, hook, subject, |event| {
        emit::describe_current(event);
        event.verdict = decision.verdict;
        event.reason = decision.reason;
        event.generation = decision.generation;
    });
    decision.verdict
}
