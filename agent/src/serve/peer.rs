//! Who is at the other end of a Unix connection: a process, and no other that has its number
//! later.
//!
//! The kernel keeps the peer's id from the moment it connects (`SO_PEERCRED`), and since Linux
//! 6.5 also a handle on that very process (`SO_PEERPIDFD`). Where there is none, the process that
//! has the number now is the one that connected only if it is older than the connection; when a
//! connection was made is not known, but not before the queue was last seen empty. A process
//! that cannot be told apart from an earlier one is refused.
#![expect(
    unsafe_code,
    reason = "SO_PEERPIDFD has no safe wrapper among our dependencies"
)]

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

/// A process at the other end, held so that its number cannot become another's unnoticed.
#[derive(Debug)]
pub struct Peer {
    pid: u32,
    handle: OwnedFd,
}

impl Peer {
    /// The process that connected `stream`, which it did after `empty_ns` (nanoseconds since
    /// boot).
    pub fn of(stream: &tokio::net::UnixStream, empty_ns: u64) -> io::Result<Self> {
        let pid = stream.peer_cred()?.pid().filter(|pid| *pid > 0);
        let pid = pid.ok_or_else(|| io::Error::other("the kernel does not tell its process"))?;
        let number = u32::try_from(pid).map_err(io::Error::other)?;
        match handle_of(stream.as_raw_fd()) {
            Ok(handle) => Ok(Self {
                pid: number,
                handle,
            }),
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
                Self::by_age(number, empty_ns)
            }
            Err(error) => Err(error),
        }
    }

    /// Without a handle from the kernel.
    fn by_age(pid: u32, empty_ns: u64) -> io::Result<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or(io::ErrorKind::InvalidInput)?;
        let handle = pidfd_open(number, PidfdFlags::empty())?;
        let peer = Self { pid, handle };
        let started_ns = crate::workload::started_before_ns(pid);
        if started_ns.is_none_or(|started_ns| started_ns > empty_ns) || !peer.is_alive() {
            return Err(io::Error::other(
                "the process is too young to be told from an earlier one of its number; connect again",
            ));
        }
        Ok(peer)
    }

    /// This process itself; for tests.
    pub fn own() -> io::Result<Self> {
        let handle = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
        Ok(Self {
            pid: std::process::id(),
            handle,
        })
    }

    /// Its id: only meant while it lives.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it still runs: what was read of its id before this is then its own.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let mut ended = [PollFd::new(&self.handle, PollFlags::IN)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // A pidfd is readable once its process has ended (pidfd_poll, fs/pidfs.c).
        matches!(poll(&mut ended, Some(&at_once)), Ok(0))
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

fn handle_of(socket: RawFd) -> io::Result<OwnedFd> {
    let mut handle: RawFd = -1;
    let mut length = libc::socklen_t::try_from(size_of::<RawFd>()).map_err(io::Error::other)?;
    // SAFETY: `handle` and `length` are valid for writes, and `length` says how large `handle` is.
    let done = unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut handle).cast(),
            &raw mut length,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    if handle < 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    // SAFETY: the call gave a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(handle) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[tokio::test]
    async fn the_peer_is_this_process_and_a_process_that_ended_is_not_alive() {
        let (one, _other) = tokio::net::UnixStream::pair().unwrap();
        let peer = Peer::of(&one, crate::clock::boot_ns()).unwrap();
        assert_eq!(peer.pid(), std::process::id());
        assert!(peer.is_alive());
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let held = Peer::by_age(child.id(), u64::MAX).unwrap();
        assert!(held.is_alive());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!held.is_alive());
    }

    #[test]
    fn without_a_handle_a_process_younger_than_the_connection_may_be_is_refused() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let before = crate::clock::boot_ns() - 1_000_000_000;
        let refused = Peer::by_age(child.id(), before).unwrap_err().to_string();
        assert!(refused.contains("too young"), "{refused}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
