//! The calls of bpf(2) that aya 0.14 has no way to make, or makes only on
//! objects it opened itself: the watch asks of every link and map alike. It
//! never hands a device or socket option link out to be pinned, finds network
//! links by a name, which may change, and writes maps one element at a time.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

// include/uapi/linux/bpf.h
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_MAP_FREEZE: libc::c_long = 22;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_F_QUERY_EFFECTIVE: u32 = 1;
const BPF_LINK_TYPE_CGROUP: u32 = 3;
/// Programs on one hook of a cgroup that are looked at.
const MOST_QUERIED: usize = 256;
const BPF_F_BEFORE: u32 = 1 << 3;
const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_F_RDONLY_PROG: u32 = 1 << 7;
const BPF_MAP_TYPE_LPM_TRIE: u32 = 11;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;

/// `enum bpf_attach_type`, include/uapi/linux/bpf.h.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum AttachType {
    /// `BPF_CGROUP_DEVICE`
    Device = 6,
    /// `BPF_CGROUP_SYSCTL`
    Sysctl = 18,
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

/// The head of `union bpf_attr` for `BPF_MAP_*_ELEM` and `_GET_NEXT_KEY`.
#[repr(C)]
struct MapElement {
    map: RawFd,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The head of `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct ObjectInfo {
    object: RawFd,
    length: u32,
    info: u64,
}

/// The head of `union bpf_attr` for `BPF_PROG_QUERY`.
#[repr(C)]
struct ProgramQuery {
    target: RawFd,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    reserved: u32,
}

/// The head of `union bpf_attr` for `BPF_LINK_UPDATE`.
#[repr(C)]
struct LinkUpdate {
    link: RawFd,
    program: RawFd,
    flags: u32,
    old: RawFd,
}

/// The head of `struct bpf_link_info`, of its cgroup variant.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
    cgroup: u64,
    attach_type: u32,
    rest: u32,
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct LinkInfo {
    pub(super) id: u32,
    pub(super) program: u32,
    /// Of a link to a cgroup: its id, 0 once it is detached, and the hook.
    pub(super) cgroup: Option<(u64, u32)>,
}

/// The head of `union bpf_attr` for many elements.
#[repr(C)]
struct Batch {
    from: u64,
    until: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: RawFd,
    element_flags: u64,
    flags: u64,
}

/// Makes a longest-prefix trie that no program may write (kernel/bpf/verifier.c
/// `record_func_map`).
pub(super) fn create_trie(key_size: u32, value_size: u32, max: u32) -> io::Result<OwnedFd> {
    let attr = MapCreate {
        map_type: BPF_MAP_TYPE_LPM_TRIE,
        key_size,
        value_size,
        max_entries: max,
        map_flags: BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG,
        inner_map: 0,
        numa_node: 0,
        name: *b"PREFIXES\0\0\0\0\0\0\0\0",
    };
    let map = bpf(BPF_MAP_CREATE, &attr)?;
    // SAFETY: the call succeeded, so this is a new descriptor nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(map) })
}

/// Makes an array of maps; those put into it must be like `inner`.
pub(super) fn create_array_of(inner: impl AsFd, max: u32, name: [u8; 16]) -> io::Result<OwnedFd> {
    let attr = MapCreate {
        map_type: BPF_MAP_TYPE_ARRAY_OF_MAPS,
        key_size: 4,
        value_size: 4,
        max_entries: max,
        map_flags: 0,
        inner_map: inner.as_fd().as_raw_fd(),
        numa_node: 0,
        name,
    };
    bpf(BPF_MAP_CREATE, &attr).map(owned)
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
        from: 0,
        until: 0,
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

/// Makes a map such that no process can write it from here on, whoever it is
/// and by whatever descriptor (kernel/bpf/syscall.c `map_get_sys_perms`).
pub(super) fn freeze(map: impl AsFd) -> io::Result<()> {
    let map = map.as_fd().as_raw_fd();
    bpf(BPF_MAP_FREEZE, &map).map(|_zero| ())
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
    let attr = MapElement {
        map: map.as_fd().as_raw_fd(),
        reserved: 0,
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

/// Attaches a program to a hook of a cgroup, given by its `enum
/// bpf_attach_type`.
pub(super) fn link_cgroup(
    program: impl AsFd,
    cgroup: impl AsFd,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    link(program, cgroup.as_fd().as_raw_fd(), attach_type, 0)
}

/// Attaches a program to a network link of the calling thread's namespace,
/// before every program that is there.
pub(super) fn link_network(program: impl AsFd, index: u32, at: AttachType) -> io::Result<OwnedFd> {
    let index = i32::try_from(index).map_err(io::Error::other)?;
    link(program, index, at as u32, BPF_F_BEFORE)
}

fn link(program: impl AsFd, target: i32, attach_type: u32, flags: u32) -> io::Result<OwnedFd> {
    let attr = LinkCreate {
        program: program.as_fd().as_raw_fd(),
        target,
        attach_type,
        flags,
    };
    bpf(BPF_LINK_CREATE, &attr).map(owned)
}

/// Puts another program behind a link.
pub(super) fn update_link(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let attr = LinkUpdate {
        link: link.as_fd().as_raw_fd(),
        program: program.as_fd().as_raw_fd(),
        flags: 0,
        old: 0,
    };
    bpf(BPF_LINK_UPDATE, &attr).map(|_zero| ())
}

/// Opens what is pinned at a path.
pub(super) fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = ObjectPin {
        path: path.as_ptr() as u64,
        object: 0,
        flags: 0,
    };
    bpf(BPF_OBJ_GET, &attr).map(owned)
}

/// What the kernel says of a link.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut raw = RawLinkInfo::default();
    info(link, &mut raw)?;
    Ok(LinkInfo {
        id: raw.id,
        program: raw.program,
        cgroup: (raw.kind == BPF_LINK_TYPE_CGROUP).then_some((raw.cgroup, raw.attach_type)),
    })
}

/// The id of a map.
pub(super) fn map_id(map: BorrowedFd<'_>) -> io::Result<u32> {
    // Of `struct bpf_map_info`: the type, then the id.
    let mut raw = [0_u32; 2];
    info(map, &mut raw)?;
    let [_kind, id] = raw;
    Ok(id)
}

/// The programs that run on a hook of a cgroup, those of the cgroups above it
/// included.
pub(super) fn effective(cgroup: impl AsFd, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; MOST_QUERIED];
    let mut attr = ProgramQuery {
        target: cgroup.as_fd().as_raw_fd(),
        attach_type,
        query_flags: BPF_F_QUERY_EFFECTIVE,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(MOST_QUERIED).unwrap_or(0),
        reserved: 0,
    };
    bpf_mut(BPF_PROG_QUERY, &mut attr)?;
    ids.truncate(usize::try_from(attr.count).unwrap_or(0));
    Ok(ids)
}

/// The key after another, or the first; none after the last. `N` is the map's
/// key size.
pub(super) fn next_key<const N: usize>(
    map: BorrowedFd<'_>,
    after: Option<&[u8; N]>,
) -> io::Result<Option<[u8; N]>> {
    let mut next = [0; N];
    let attr = MapElement {
        map: map.as_raw_fd(),
        reserved: 0,
        key: after.map_or(0, |key| key.as_ptr() as u64),
        value: next.as_mut_ptr() as u64,
        flags: 0,
    };
    absent_is_none(bpf(BPF_MAP_GET_NEXT_KEY, &attr)).map(|found| found.map(|()| next))
}

/// The value under a key; `V` is the map's value size.
pub(super) fn lookup<const N: usize, const V: usize>(
    map: BorrowedFd<'_>,
    key: &[u8; N],
) -> io::Result<Option<[u8; V]>> {
    let mut value = [0; V];
    let attr = MapElement {
        map: map.as_raw_fd(),
        reserved: 0,
        key: key.as_ptr() as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    absent_is_none(bpf(BPF_MAP_LOOKUP_ELEM, &attr)).map(|found| found.map(|()| value))
}

fn absent_is_none(result: io::Result<RawFd>) -> io::Result<Option<()>> {
    match result {
        Ok(_zero) => Ok(Some(())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn info<T>(object: BorrowedFd<'_>, into: &mut T) -> io::Result<()> {
    let attr = ObjectInfo {
        object: object.as_raw_fd(),
        length: u32::try_from(size_of::<T>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(into) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &attr).map(|_zero| ())
}

fn owned(descriptor: RawFd) -> OwnedFd {
    // SAFETY: only called with what a successful call has just returned: a new
    // descriptor that nobody else has.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
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
    call(command, std::ptr::from_ref(attr).cast_mut())
}

/// For the commands that answer in `attr` itself.
fn bpf_mut<T>(command: libc::c_long, attr: &mut T) -> io::Result<RawFd> {
    call(command, std::ptr::from_mut(attr))
}

fn call<T>(command: libc::c_long, attr: *mut T) -> io::Result<RawFd> {
    // SAFETY: `attr` is the head of `union bpf_attr` for `command`, its size is
    // given, and the kernel takes the rest for zero (kernel/bpf/syscall.c
    // `__sys_bpf`). It reads, and does not keep, what `attr` points at; it
    // writes into `attr` for BPF_PROG_QUERY alone, which passes it mutable, and
    // otherwise only where `attr` says.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}
