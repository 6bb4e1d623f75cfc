//! Sockets that somebody unguarded made, in guarded hands (B30), or that the
//! process itself made when it was in another cgroup (B29).

use super::{Probe, become_child, enter, joined};
use crate::job;
use crate::probe::tcp;
use crate::sys::{self, Fork};
use crate::wire;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::io::{self, IoSlice, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Room for one descriptor's control message.
const ROOM: usize = rustix::cmsg_space!(ScmRights(1));

fn give(channel: &UnixStream, socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut room = [MaybeUninit::uninit(); ROOM];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let sockets = [socket];
    if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::Error::other("no room for the control message"));
    }
    let data = [IoSlice::new(b"!")];
    rustix::net::sendmsg(channel, &data, &mut control, SendFlags::empty())?;
    Ok(())
}

fn take(channel: &UnixStream) -> io::Result<OwnedFd> {
    let mut room = [MaybeUninit::uninit(); ROOM];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(channel, &mut data, &mut control, RecvFlags::empty())?;
    control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
            _ => None,
        })
        // The kernel leaves out what the receiver may not have (net/core/scm.c
        // `scm_detach_fds`).
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EPERM))
}

/// Forks a helper into the unguarded cgroup that makes a socket and hands it
/// over (or keeps it, for the guarded side to fetch), then runs `main`.
fn with_helper(
    probe: &Probe,
    make: impl FnOnce() -> io::Result<OwnedFd>,
    main: impl FnOnce(&UnixStream, i32) -> io::Result<()>,
) -> io::Result<()> {
    let (ours, theirs) = UnixStream::pair()?;
    match sys::fork()? {
        Fork::Child => {
            drop(ours);
            become_child(|| {
                enter(&probe.job.elsewhere)?;
                let socket = make()?;
                let number = socket.as_raw_fd();
                rustix::io::write(&theirs, &number.to_ne_bytes())?;
                give(&theirs, socket.as_fd())?;
                // Stays until the guarded side has tried, so that its
                // descriptor can be fetched as well; how the channel ends then
                // is no matter.
                drop((&theirs).read_to_end(&mut Vec::new()));
                Ok(())
            })
        }
        Fork::Parent(pid) => {
            drop(theirs);
            main(&ours, pid)?;
            drop(ours);
            joined(pid)
        }
    }
}

fn number(channel: &UnixStream) -> io::Result<i32> {
    let mut bytes = [0; 4];
    let mut channel = channel;
    channel.read_exact(&mut bytes)?;
    Ok(i32::from_ne_bytes(bytes))
}

fn datagram(v6: bool) -> io::Result<OwnedFd> {
    let domain = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    sys::socket(domain, libc::SOCK_DGRAM, 0)
}

/// A connected UDP socket by `SCM_RIGHTS`.
pub fn udp(probe: &Probe, v6: bool) -> io::Result<()> {
    let target = wire::sockaddr(probe.job.target(v6));
    let make = || {
        let socket = datagram(v6)?;
        sys::connect(&socket, &target)?;
        Ok(socket)
    };
    with_helper(probe, make, |channel, _pid| {
        number(channel)?;
        probe.open_gpu()?;
        probe.attempt("send", || {
            let socket = take(channel)?;
            sys::send(&socket, probe.marker(), 0, &[])
        });
        Ok(())
    })
}

/// An unconnected UDP socket by `SCM_RIGHTS`: the address is given by the
/// guarded side, so the `sendmsg` hook has its say.
pub fn udp_unconnected(probe: &Probe, v6: bool) -> io::Result<()> {
    let target = wire::sockaddr(probe.job.target(v6));
    with_helper(
        probe,
        || datagram(v6),
        |channel, _pid| {
            number(channel)?;
            probe.open_gpu()?;
            let socket = take(channel)?;
            probe.attempt("sendto", || sys::send(&socket, probe.marker(), 0, &target));
            Ok(())
        },
    )
}

/// A TCP connection by `SCM_RIGHTS`.
pub fn stream(probe: &Probe, v6: bool) -> io::Result<()> {
    let target = wire::sockaddr(probe.job.target(v6));
    let make = || {
        let socket = tcp::stream(v6, 0)?;
        sys::connect(&socket, &target)?;
        Ok(socket)
    };
    with_helper(probe, make, |channel, _pid| {
        number(channel)?;
        probe.open_gpu()?;
        probe.attempt("send", || {
            let socket = take(channel)?;
            sys::send(&socket, probe.marker(), 0, &[])
        });
        Ok(())
    })
}

/// A connected UDP socket by `pidfd_getfd(2)`.
pub fn fetched(probe: &Probe, v6: bool) -> io::Result<()> {
    let target = wire::sockaddr(probe.job.target(v6));
    let make = || {
        let socket = datagram(v6)?;
        sys::connect(&socket, &target)?;
        Ok(socket)
    };
    with_helper(probe, make, |channel, pid| {
        let number = number(channel)?;
        probe.open_gpu()?;
        let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
        let helper = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        probe.attempt("pidfd_getfd and send", || {
            let flags = rustix::process::PidfdGetfdFlags::empty();
            let socket = rustix::process::pidfd_getfd(&helper, number, flags)?;
            sys::send(&socket, probe.marker(), 0, &[])
        });
        Ok(())
    })
}

/// Makes a socket in the unguarded cgroup, comes back, opens the GPU.
fn in_former_life(
    probe: &Probe,
    make: impl FnOnce() -> io::Result<OwnedFd>,
) -> io::Result<OwnedFd> {
    enter(&probe.job.elsewhere)?;
    let socket = make()?;
    enter(&probe.job.cgroup)?;
    probe.open_gpu()?;
    Ok(socket)
}

/// A connected UDP socket of the process' own, from another cgroup.
pub fn moved(probe: &Probe, v6: bool) -> io::Result<()> {
    let target = wire::sockaddr(probe.job.target(v6));
    let socket = in_former_life(probe, || {
        let socket = datagram(v6)?;
        sys::connect(&socket, &target)?;
        Ok(socket)
    })?;
    probe.attempt("send", || sys::send(&socket, probe.marker(), 0, &[]));
    Ok(())
}

/// An unconnected one.
pub fn moved_unconnected(probe: &Probe, v6: bool) -> io::Result<()> {
    let target = wire::sockaddr(probe.job.target(v6));
    let socket = in_former_life(probe, || datagram(v6))?;
    probe.attempt("sendto", || sys::send(&socket, probe.marker(), 0, &target));
    Ok(())
}

/// A TCP connection.
pub fn moved_stream(probe: &Probe, v6: bool) -> io::Result<()> {
    let target = wire::sockaddr(probe.job.target(v6));
    let socket = in_former_life(probe, || {
        let socket = tcp::stream(v6, 0)?;
        sys::connect(&socket, &target)?;
        Ok(socket)
    })?;
    probe.attempt("send", || sys::send(&socket, probe.marker(), 0, &[]));
    Ok(())
}

/// A listener from another cgroup, as socket activation hands one over: what
/// it accepts has its cgroup (net/core/sock.c, `sk_clone_lock`).
pub fn listener(probe: &Probe, v6: bool) -> io::Result<()> {
    enter(&probe.job.elsewhere)?;
    let listener = TcpListener::bind(SocketAddr::new(job::home(v6), 0))?;
    enter(&probe.job.cgroup)?;
    probe.open_gpu()?;
    tcp::accept_and_reply(probe, &listener)
}
