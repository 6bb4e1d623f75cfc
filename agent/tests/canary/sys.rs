//! Calls that no safe wrapper offers.
#![expect(unsafe_code, reason = "raw system calls")]

use std::ffi::CString;
use std::io;
use std::path::Path;

// include/uapi/linux/bpf.h, enum bpf_cmd
const OBJ_GET: i64 = 7;
const LINK_DETACH: i64 = 34;

fn check(result: i64) -> io::Result<i64> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn bpf(command: i64, words: &mut [u32]) -> io::Result<i64> {
    let size = size_of_val(words);
    // SAFETY: `words` is valid for its size; the pointer in it is the caller's
    // live string.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, words.as_mut_ptr(), size) })
}

/// Takes the program behind a pinned link away.
pub(super) fn detach(pin: &Path) -> io::Result<()> {
    let path = CString::new(pin.to_string_lossy().into_owned()).map_err(io::Error::other)?;
    let address = path.as_ptr() as u64;
    let halves =
        [address & 0xffff_ffff, address >> 32].map(|half| u32::try_from(half).unwrap_or(0));
    let [low, high] = halves;
    let link = bpf(OBJ_GET, &mut [low, high, 0, 0])?;
    let link = u32::try_from(link).unwrap_or(u32::MAX);
    let detached = bpf(LINK_DETACH, &mut [link]);
    // SAFETY: the descriptor is ours, and nobody uses it after this.
    unsafe {
        libc::close(i32::try_from(link).unwrap_or(-1));
    }
    detached.map(drop)
}

/// Gives this thread, and what it starts, mounts and a network of its own.
pub(super) fn apart() -> io::Result<()> {
    let flags = libc::CLONE_NEWNS | libc::CLONE_NEWNET;
    // SAFETY: takes no pointers; only this thread's view changes.
    check(i64::from(unsafe { libc::unshare(flags) })).map(drop)
}

/// `kill(2)` with SIGKILL or SIGTERM.
pub(super) fn kill(pid: u32, signal: i32) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: takes integers only.
    check(i64::from(unsafe { libc::kill(pid, signal) })).map(drop)
}
