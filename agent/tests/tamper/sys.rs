//! The calls an attacker makes that no safe wrapper offers.
#![expect(unsafe_code, reason = "raw system calls")]

use std::ffi::CString;
use std::io;

fn check(result: i64) -> io::Result<i64> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// `bpf(2)` with an attr of `words`, each 32 bits.
pub(super) fn bpf(command: i32, words: &mut [u32]) -> io::Result<i64> {
    let size = size_of_val(words);
    // SAFETY: `words` is valid for its size; pointers in it are the caller's
    // live buffers.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, words.as_mut_ptr(), size) })
}

/// The two halves of a pointer, as an attr has them.
pub(super) fn halves<T>(pointer: *const T) -> [u32; 2] {
    let address = pointer as u64;
    [
        u32::try_from(address & 0xffff_ffff).unwrap_or(0),
        u32::try_from(address >> 32).unwrap_or(0),
    ]
}

pub(super) fn kill(pid: u32, signal: i32) -> io::Result<i64> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: takes no pointers.
    check(i64::from(unsafe { libc::kill(pid, signal) }))
}

pub(super) fn attach(pid: u32) -> io::Result<i64> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: PTRACE_SEIZE reads no memory of this process.
    check(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, none, none) })
}

/// Writes one byte of another process, at an address where it has nothing.
pub(super) fn write_memory(pid: u32) -> io::Result<i64> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    let mut byte = 1_u8;
    let local = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let remote = libc::iovec {
        iov_base: std::ptr::without_provenance_mut(4096),
        iov_len: 1,
    };
    // SAFETY: the vectors are valid for the call.
    let wrote =
        unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    check(i64::try_from(wrote).unwrap_or(-1))
}

pub(super) fn take_descriptor(pid: u32) -> io::Result<i64> {
    // SAFETY: takes no pointers.
    let pidfd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd, 0, 0) })
}

pub(super) fn limit_processor_time(pid: u32) -> io::Result<i64> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    let limit = libc::rlimit {
        rlim_cur: 1_000_000,
        rlim_max: 1_000_000,
    };
    let none = std::ptr::null_mut();
    // SAFETY: `limit` is valid for the call.
    check(i64::from(unsafe {
        libc::prlimit(pid, libc::RLIMIT_CPU, &raw const limit, none)
    }))
}

pub(super) fn unmount(path: &str, flags: i32) -> io::Result<i64> {
    let path = CString::new(path)?;
    // SAFETY: a C string.
    check(i64::from(unsafe { libc::umount2(path.as_ptr(), flags) }))
}

pub(super) fn mount(kind: &str, at: &str, flags: u64) -> io::Result<i64> {
    let (kind, at) = (CString::new(kind)?, CString::new(at)?);
    let none = std::ptr::null();
    // SAFETY: C strings.
    check(i64::from(unsafe {
        libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), flags, none)
    }))
}

pub(super) fn bind(from: &str, at: &str) -> io::Result<i64> {
    let (from, at) = (CString::new(from)?, CString::new(at)?);
    let none = std::ptr::null();
    let data = std::ptr::null();
    // SAFETY: C strings.
    check(i64::from(unsafe {
        libc::mount(from.as_ptr(), at.as_ptr(), none, libc::MS_BIND, data)
    }))
}

/// Takes a kernel that is loaded for kexec away, where there is none.
pub(super) fn kexec_nothing() -> io::Result<i64> {
    // SAFETY: of no segments nothing is read.
    check(unsafe { libc::syscall(libc::SYS_kexec_load, 0, 0, 0, 0) })
}

/// Gives this thread, and what it starts, mounts of its own.
pub(super) fn own_mounts() -> io::Result<()> {
    // SAFETY: takes no pointers; only this thread's view changes.
    check(i64::from(unsafe { libc::unshare(libc::CLONE_NEWNS) }))?;
    mount("none", "/", libc::MS_REC | libc::MS_PRIVATE).map(drop)
}
