//! bpf(2), as far as measuring needs it: maps, small programs made of
//! instructions, and runs of a program with the kernel's own clock.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

// include/uapi/linux/bpf.h
const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const MAP_UPDATE_BATCH: libc::c_long = 26;
const LINK_CREATE: libc::c_long = 28;

/// Kinds of maps.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum MapKind {
    /// `BPF_MAP_TYPE_HASH`
    Hash = 1,
    /// `BPF_MAP_TYPE_ARRAY`
    Array = 2,
    /// `BPF_MAP_TYPE_LPM_TRIE`
    Trie = 11,
}

/// Where a program of a cgroup attaches.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum AttachType {
    /// `BPF_CGROUP_INET_INGRESS`
    Ingress = 0,
    /// `BPF_CGROUP_INET_EGRESS`
    Egress = 1,
    /// `BPF_CGROUP_INET_SOCK_CREATE`
    Create = 2,
    /// `BPF_CGROUP_INET4_CONNECT`
    Connect = 10,
    /// `BPF_CGROUP_UDP4_SENDMSG`
    Send = 14,
}

impl AttachType {
    /// `enum bpf_prog_type`
    fn program_type(self) -> u32 {
        match self {
            Self::Ingress | Self::Egress => 8,
            Self::Create => 9,
            Self::Connect | Self::Send => 18,
        }
    }
}

/// One instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Insn {
    pub(crate) code: u8,
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
}

pub(crate) fn call<T>(command: libc::c_long, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is the head of `union bpf_attr` for `command`; what it
    // points at outlives the call and is as large as it says.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

pub(crate) fn owned(fd: i32) -> OwnedFd {
    // SAFETY: a descriptor the kernel has just handed out.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Makes a map.
pub(crate) fn map(kind: MapKind, key: u32, value: u32, max: u32) -> Result<OwnedFd> {
    let flags = u32::from(matches!(kind, MapKind::Trie)); // BPF_F_NO_PREALLOC
    let mut attr = [kind as u32, key, value, max, flags];
    Ok(owned(
        call(MAP_CREATE, &mut attr).context("cannot make a map")?,
    ))
}

#[repr(C)]
struct Element {
    map: i32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Writes one element.
pub(crate) fn update(map: &OwnedFd, key: &[u8], value: &[u8]) -> Result<()> {
    let mut attr = Element {
        map: map.as_raw_fd(),
        padding: 0,
        key: key.as_ptr() as u64,
        value: value.as_ptr() as u64,
        flags: 0,
    };
    call(MAP_UPDATE, &mut attr).context("cannot write a map")?;
    Ok(())
}

#[repr(C)]
struct Batch {
    from: u64,
    until: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: i32,
    element_flags: u64,
    flags: u64,
}

/// Writes many elements at once.
pub(crate) fn update_all(map: &OwnedFd, keys: &[u8], values: &[u8], count: usize) -> Result<()> {
    let mut attr = Batch {
        from: 0,
        until: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: u32::try_from(count)?,
        map: map.as_raw_fd(),
        element_flags: 0,
        flags: 0,
    };
    call(MAP_UPDATE_BATCH, &mut attr).context("cannot write a map in a batch")?;
    Ok(())
}

#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected: u32,
}

/// Loads a program of a cgroup.
pub(crate) fn load(instructions: &[Insn], at: AttachType) -> Result<OwnedFd> {
    let mut log = vec![0_u8; 1 << 16];
    let mut attr = Load {
        kind: at.program_type(),
        count: u32::try_from(instructions.len())?,
        instructions: instructions.as_ptr() as u64,
        licence: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: u32::try_from(log.len())?,
        log: log.as_mut_ptr() as u64,
        version: 0,
        flags: 0,
        name: [0; 16],
        ifindex: 0,
        expected: at as u32,
    };
    match call(PROG_LOAD, &mut attr) {
        Ok(fd) => Ok(owned(fd)),
        Err(error) => {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(0);
            bail!("{error}: {}", String::from_utf8_lossy(&log[..end]))
        }
    }
}

/// Attaches to a cgroup until the answer is dropped.
pub(crate) fn attach(program: &OwnedFd, cgroup: BorrowedFd<'_>, at: AttachType) -> Result<OwnedFd> {
    let mut attr = [program.as_raw_fd(), cgroup.as_raw_fd(), at as i32, 0];
    Ok(owned(
        call(LINK_CREATE, &mut attr).context("cannot attach")?,
    ))
}

/// A loaded program by the kernel's number.
pub(crate) fn program(id: u32) -> Result<OwnedFd> {
    let mut attr = [id, 0, 0];
    Ok(owned(
        call(PROG_GET_FD_BY_ID, &mut attr).context("no such program")?,
    ))
}

#[repr(C)]
struct TestRun {
    program: i32,
    answer: u32,
    in_size: u32,
    out_size: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration_ns: u32,
    context_in_size: u32,
    context_out_size: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    padding: u32,
}

/// What a program answers for a packet, and the mean time of `repeat` runs. The
/// packet's socket is new, of the calling process, and the same in each run.
pub(crate) fn test_run(program: &OwnedFd, packet: &[u8], repeat: u32) -> Result<(u32, u32)> {
    let mut attr = TestRun {
        program: program.as_raw_fd(),
        answer: 0,
        in_size: u32::try_from(packet.len())?,
        out_size: 0,
        data_in: packet.as_ptr() as u64,
        data_out: 0,
        repeat,
        duration_ns: 0,
        context_in_size: 0,
        context_out_size: 0,
        context_in: 0,
        context_out: 0,
        flags: 0,
        cpu: 0,
        batch: 0,
        padding: 0,
    };
    call(PROG_TEST_RUN, &mut attr).context("cannot run a program")?;
    Ok((attr.answer, attr.duration_ns))
}

/// What the kernel says a map takes.
pub(crate) fn memory_bytes(map: &OwnedFd) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", map.as_raw_fd());
    let text = fs::read_to_string(path)?;
    let found = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    let bytes = found.context("the kernel does not say")?.trim().parse()?;
    ensure!(bytes > 0, "the kernel says 0");
    Ok(bytes)
}
