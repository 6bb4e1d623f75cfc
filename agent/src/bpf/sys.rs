//! The two calls of bpf(2) that aya 0.14 has no way to make: it attaches
//! device and socket option programs by a link but never hands that link out
//! to be pinned, and finds network links by a name, which may change.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

// include/uapi/linux/bpf.h
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_F_BEFORE: u32 = 1 << 3;

/// `enum bpf_attach_type`, include/uapi/linux/bpf.h.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum AttachType {
    /// `BPF_CGROUP_DEVICE`
    Device = 6,
    /// `BPF_CGROUP_SETSOCKOPT`
    SetSockopt = 22,
    /// `BPF_TCX_EGRESS`
    LinkEgress = 47,
}

/// The head of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    program: RawFd,
    target: RawFd,
    attach_type: u32,
    flags: u32,
}

/// The head of `union bpf_attr` for `BPF_OBJ_PIN`.
#[repr(C)]
struct ObjectPin {
    path: u64,
    object: RawFd,
    flags: u32,
}

/// Attaches a program to a cgroup.
pub(super) fn link_cgroup(
    program: impl AsFd,
    cgroup: impl AsFd,
    at: AttachType,
) -> io::Result<OwnedFd> {
    link(program, cgroup.as_fd().as_raw_fd(), at, 0)
}

/// Attaches a program to a network link of the calling thread's namespace,
/// before every program that is there.
pub(super) fn link_network(
    program: impl AsFd,
    index: u32,
    at: AttachType,
) -> io::Result<OwnedFd> {
    let index = i32::try_from(index).map_err(io::Error::other)?;
    link(program, index, at, BPF_F_BEFORE)
}

fn link(program: impl AsFd, target: i32, at: AttachType, flags: u32) -> io::Result<OwnedFd> {
    let attr = LinkCreate {
        program: program.as_fd().as_raw_fd(),
        target,
        attach_type: at as u32,
        flags,
    };
    let link = bpf(BPF_LINK_CREATE, &attr)?;
    // SAFETY: the call succeeded, so this is a new descriptor nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// Pins an object at a path on bpffs.
pub(super) fn pin(object: impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = ObjectPin {
        path: path.as_ptr() as u64,
        object: object.as_fd().as_raw_fd(),
        flags: 0,
    };
    bpf(BPF_OBJ_PIN, &attr).map(|_zero| ())
}

fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<RawFd> {
    // SAFETY: `attr` is the head of `union bpf_attr` for `command`, its size is
    // given, and the kernel takes the rest for zero (kernel/bpf/syscall.c
    // `__sys_bpf`). It reads, and does not keep, what `attr` points at.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}
