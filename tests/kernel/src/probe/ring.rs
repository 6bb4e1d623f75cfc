//! `io_uring`: the same operations without the system calls, in line, by a
//! worker thread, and by the kernel's polling thread.
#![expect(
    unsafe_code,
    reason = "a submission entry holds raw pointers; each outlives its completion here"
)]

use super::{PATIENCE, Probe, become_child, enter, joined};
use crate::job::Job;
use crate::sys::{self, Fork};
use crate::wire;
use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// Who carries an operation out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Inline,
    Async,
    Poll,
}

struct Ring {
    ring: IoUring,
    mode: Mode,
}

impl Ring {
    fn new(mode: Mode) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        if mode == Mode::Poll {
            builder.setup_sqpoll(100);
        }
        let ring = builder.build(4)?;
        Ok(Self { ring, mode })
    }

    /// Submits one entry and waits for it.
    ///
    /// Callers keep what `entry` points at alive until this returns; on a
    /// timeout the error is final and the probe drops the ring, which cancels.
    fn run(&mut self, entry: Entry) -> io::Result<i32> {
        let entry = if self.mode == Mode::Async {
            entry.flags(Flags::ASYNC)
        } else {
            entry
        };
        // SAFETY: the caller keeps the entry's buffers alive, see above.
        unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)?;
        let patience = types::Timespec::from(PATIENCE);
        let arguments = types::SubmitArgs::new().timespec(&patience);
        self.ring.submitter().submit_with_args(1, &arguments)?;
        let result = self
            .ring
            .completion()
            .next()
            .map(|done| done.result())
            .ok_or(io::ErrorKind::TimedOut)?;
        if result < 0 {
            Err(io::Error::from_raw_os_error(-result))
        } else {
            Ok(result)
        }
    }

    /// `IORING_OP_SOCKET`.
    fn socket(&mut self, v6: bool, kind: i32) -> io::Result<OwnedFd> {
        let domain = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        let fd = self.run(opcode::Socket::new(domain, kind, 0).build())?;
        // SAFETY: the completion handed this descriptor to us alone.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn connect(&mut self, socket: &OwnedFd, address: &[u8]) -> io::Result<i32> {
        let length = libc::socklen_t::try_from(address.len()).unwrap_or(0);
        let fd = types::Fd(socket.as_raw_fd());
        self.run(opcode::Connect::new(fd, address.as_ptr().cast(), length).build())
    }

    fn send(&mut self, socket: &OwnedFd, data: &[u8], address: &[u8]) -> io::Result<i32> {
        let fd = types::Fd(socket.as_raw_fd());
        let size = u32::try_from(data.len()).unwrap_or(0);
        let mut operation = opcode::Send::new(fd, data.as_ptr(), size);
        if !address.is_empty() {
            let length = libc::socklen_t::try_from(address.len()).unwrap_or(0);
            operation = operation
                .dest_addr(address.as_ptr().cast())
                .dest_addr_len(length);
        }
        self.run(operation.build())
    }

    fn send_zero_copy(&mut self, socket: &OwnedFd, data: &[u8]) -> io::Result<i32> {
        let fd = types::Fd(socket.as_raw_fd());
        let size = u32::try_from(data.len()).unwrap_or(0);
        self.run(opcode::SendZc::new(fd, data.as_ptr(), size).build())
    }
}

fn target(job: &Job, v6: bool) -> Vec<u8> {
    wire::sockaddr(job.target(v6))
}

fn stream(probe: &Probe, v6: bool, mode: Mode) -> io::Result<()> {
    // Made before the GPU is opened: the polling thread is then older too.
    let mut ring = Ring::new(mode)?;
    probe.open_gpu()?;
    let target = target(&probe.job, v6);
    probe.attempt("ring connect", || {
        let socket = ring.socket(v6, libc::SOCK_STREAM)?;
        ring.connect(&socket, &target)?;
        ring.send(&socket, probe.marker(), &[])
    });
    Ok(())
}

fn datagram(probe: &Probe, v6: bool, mode: Mode) -> io::Result<()> {
    let mut ring = Ring::new(mode)?;
    probe.open_gpu()?;
    let target = target(&probe.job, v6);
    probe.attempt("ring send", || {
        let socket = ring.socket(v6, libc::SOCK_DGRAM)?;
        ring.send(&socket, probe.marker(), &target)
    });
    Ok(())
}

/// SOCKET, CONNECT, SEND of a stream, in line.
pub fn tcp_inline(probe: &Probe, v6: bool) -> io::Result<()> {
    stream(probe, v6, Mode::Inline)
}

/// The same by a worker thread (`IOSQE_ASYNC`).
pub fn tcp_async(probe: &Probe, v6: bool) -> io::Result<()> {
    stream(probe, v6, Mode::Async)
}

/// The same by the polling thread (`IORING_SETUP_SQPOLL`).
pub fn tcp_poll(probe: &Probe, v6: bool) -> io::Result<()> {
    stream(probe, v6, Mode::Poll)
}

/// SOCKET, SEND of a datagram, in line.
pub fn udp_inline(probe: &Probe, v6: bool) -> io::Result<()> {
    datagram(probe, v6, Mode::Inline)
}

/// The same by a worker thread.
pub fn udp_async(probe: &Probe, v6: bool) -> io::Result<()> {
    datagram(probe, v6, Mode::Async)
}

/// The same by the polling thread.
pub fn udp_poll(probe: &Probe, v6: bool) -> io::Result<()> {
    datagram(probe, v6, Mode::Poll)
}

/// `SEND_ZC` on a socket connected before the GPU was opened.
pub fn zero_copy(probe: &Probe, v6: bool) -> io::Result<()> {
    let mut ring = Ring::new(Mode::Inline)?;
    let socket = ring.socket(v6, libc::SOCK_DGRAM)?;
    ring.connect(&socket, &target(&probe.job, v6))?;
    probe.open_gpu()?;
    probe.attempt("ring send_zc", || {
        ring.send_zero_copy(&socket, probe.marker())
    });
    Ok(())
}

fn older_stream(probe: &Probe, v6: bool, mode: Mode) -> io::Result<()> {
    let mut ring = Ring::new(mode)?;
    let socket = super::tcp::established(probe, v6, 0)?;
    probe.attempt("ring send", || ring.send(&socket, probe.marker(), &[]));
    super::tcp::hold(socket);
    Ok(())
}

/// SEND by a worker thread on a connection older than the GPU's opening.
pub fn older_async(probe: &Probe, v6: bool) -> io::Result<()> {
    older_stream(probe, v6, Mode::Async)
}

/// SEND by the polling thread on a connection older than the GPU's opening.
pub fn older_poll(probe: &Probe, v6: bool) -> io::Result<()> {
    older_stream(probe, v6, Mode::Poll)
}

/// SENDMSG of a datagram, in line: the address is in the kernel's own copy.
pub fn message(probe: &Probe, v6: bool) -> io::Result<()> {
    let mut ring = Ring::new(Mode::Inline)?;
    let target = target(&probe.job, v6);
    probe.open_gpu()?;
    probe.attempt("ring sendmsg", || {
        let socket = ring.socket(v6, libc::SOCK_DGRAM)?;
        let mut part = libc::iovec {
            iov_base: probe.marker().as_ptr().cast_mut().cast(),
            iov_len: probe.marker().len(),
        };
        // SAFETY: msghdr is plain integers and pointers; zero is its empty value.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_name = target.as_ptr().cast_mut().cast();
        header.msg_namelen = libc::socklen_t::try_from(target.len()).unwrap_or(0);
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        let fd = types::Fd(socket.as_raw_fd());
        ring.run(opcode::SendMsg::new(fd, &raw const header).build())
    });
    Ok(())
}

/// A ring of a process outside, with a connected socket registered in it, in
/// the hands of a guarded child. No descriptor is passed: the child has the
/// ring by fork, and the socket is a number in the ring.
fn shared(probe: &Probe, v6: bool, mode: Mode) -> io::Result<()> {
    enter(&probe.job.elsewhere)?;
    let mut ring = Ring::new(mode)?;
    let socket = ring.socket(v6, libc::SOCK_DGRAM)?;
    ring.connect(&socket, &target(&probe.job, v6))?;
    ring.ring
        .submitter()
        .register_files(&[socket.as_raw_fd()])?;
    match sys::fork()? {
        Fork::Child => become_child(|| {
            drop(socket);
            enter(&probe.job.cgroup)?;
            probe.open_gpu()?;
            probe.attempt("ring send", || {
                let size = u32::try_from(probe.marker().len()).unwrap_or(0);
                let send = opcode::Send::new(types::Fixed(0), probe.marker().as_ptr(), size);
                ring.run(send.build())
            });
            Ok(())
        }),
        Fork::Parent(pid) => {
            joined(pid)?;
            enter(&probe.job.cgroup)
        }
    }
}

/// The guarded child enters the ring itself: it is the one that sends.
pub fn registered(probe: &Probe, v6: bool) -> io::Result<()> {
    shared(probe, v6, Mode::Inline)
}

/// The polling thread of the process outside sends; the guarded child only
/// writes to memory that both share. The data lies there too.
pub fn shared_poll(probe: &Probe, v6: bool) -> io::Result<()> {
    shared(probe, v6, Mode::Poll)
}

/// What sets a socket option by a ring that is older than the GPU's opening
/// (`SOCKET_URING_OP_SETSOCKOPT`, Linux 6.7).
pub(super) fn option_setter()
-> io::Result<impl FnOnce(&OwnedFd, i32, i32, &[u8]) -> io::Result<i32>> {
    let mut ring = Ring::new(Mode::Inline)?;
    Ok(move |socket: &OwnedFd, level, name, value: &[u8]| {
        let fd = types::Fd(socket.as_raw_fd());
        let size = u32::try_from(value.len()).unwrap_or(0);
        let (level, name) = (
            u32::try_from(level).unwrap_or(0),
            u32::try_from(name).unwrap_or(0),
        );
        ring.run(opcode::SetSockOpt::new(fd, level, name, value.as_ptr().cast(), size).build())
    })
}
