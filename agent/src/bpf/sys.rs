//! The calls of bpf(2) that aya 0.14 has no way to make: it attaches device and
//! socket option programs by a link but never hands that link out to be pinned,
//! finds network links by a name, which may change, and writes maps one element
//! at a time.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

// include/uapi/linux/bpf.h
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_F_BEFORE: u32 = 1 << 3;
const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_MAP_TYPE_LPM_TRIE: u32 = 11;

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

/// The head of `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map: RawFd,
    numa_node: u32,
    name: [u8; 16],
}

/// The head of `union bpf_attr` for one element of a map.
#[repr(C)]
struct Element {
    map: RawFd,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The head of `union bpf_attr` for many elements.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: RawFd,
    element_flags: u64,
    flags: u64,
}

/// Makes a longest-prefix trie.
pub(super) fn create_trie(key_size: u32, value_size: u32, max: u32) -> io::Result<OwnedFd> {
    let attr = MapCreate {
        map_type: BPF_MAP_TYPE_LPM_TRIE,
        key_size,
        value_size,
        max_entries: max,
        map_flags: BPF_F_NO_PREALLOC,
        inner_map: 0,
        numa_node: 0,
        name: *b"PREFIXES\0\0\0\0\0\0\0\0",
    };
    let map = bpf(BPF_MAP_CREATE, &attr)?;
    // SAFETY: the call succeeded, so this is a new descriptor nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(map) })
}

/// Writes elements, `keys.len() / key_size` of them, with one call; where the
/// kernel has no such call for the map, with one call each. The sizes must be
/// the map's.
pub(super) fn update_all(
    map: impl AsFd,
    (keys, key_size): (&[u8], usize),
    (values, value_size): (&[u8], usize),
) -> io::Result<()> {
    let count = keys.len().checked_div(key_size).unwrap_or(0);
    if count.checked_mul(value_size) != Some(values.len()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut attr = Batch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: u32::try_from(count).map_err(io::Error::other)?,
        map: map.as_fd().as_raw_fd(),
        element_flags: 0,
        flags: 0,
    };
    if bpf_mut(BPF_MAP_UPDATE_BATCH, &mut attr).is_ok() {
        return Ok(());
    }
    for (key, value) in keys
        .chunks_exact(key_size)
        .zip(values.chunks_exact(value_size))
    {
        element(BPF_MAP_UPDATE_ELEM, &map, key, value)?;
    }
    Ok(())
}

/// Puts a map into an element of an array of maps. When it returns, no program
/// uses what was there before (kernel/bpf/syscall.c `maybe_wait_bpf_programs`).
pub(super) fn put_inner(outer: impl AsFd, index: u32, inner: impl AsFd) -> io::Result<()> {
    let inner = inner.as_fd().as_raw_fd().to_ne_bytes();
    element(BPF_MAP_UPDATE_ELEM, &outer, &index.to_ne_bytes(), &inner)
}

/// Empties an element of an array of maps; it may be empty. When it returns,
/// no program uses what was there.
pub(super) fn take_inner(outer: impl AsFd, index: u32) -> io::Result<()> {
    match element(BPF_MAP_DELETE_ELEM, &outer, &index.to_ne_bytes(), &[]) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn element(command: libc::c_long, map: &impl AsFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    let attr = Element {
        map: map.as_fd().as_raw_fd(),
        padding: 0,
        key: key.as_ptr() as u64,
        value: if value.is_empty() {
            0
        } else {
            value.as_ptr() as u64
        },
        flags: 0,
    };
    bpf(command, &attr).map(|_zero| ())
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
pub(super) fn link_network(program: impl AsFd, index: u32, at: AttachType) -> io::Result<OwnedFd> {
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

/// For commands that only read `attr`.
fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<RawFd> {
    // SAFETY: as in `call`; the command writes nothing.
    unsafe { call(command, std::ptr::from_ref(attr).cast_mut()) }
}

/// For commands that answer in `attr`.
fn bpf_mut<T>(command: libc::c_long, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: as in `call`.
    unsafe { call(command, attr) }
}

/// # Safety
///
/// `attr` is the head of `union bpf_attr` for `command`, what it points at is
/// as large as it says, and it may be written where the command does so.
unsafe fn call<T>(command: libc::c_long, attr: *mut T) -> io::Result<RawFd> {
    // SAFETY: the caller's; the kernel takes what lies past the size for zero
    // (kernel/bpf/syscall.c `__sys_bpf`) and keeps nothing.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}
