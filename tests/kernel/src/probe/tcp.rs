//! Streams: new ones by every call that connects, and ones that were there
//! before the GPU was opened.

use super::{PATIENCE, Probe, hear, mapped, say};
use crate::job::{self, Line};
use crate::sys;
use crate::wire;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// `IPPROTO_MPTCP`, include/uapi/linux/in.h.
const MPTCP: i32 = 262;
/// `IPPROTO_SMC`, include/uapi/linux/in.h.
const SMC: i32 = 256;
/// `IPPROTO_SCTP`, include/uapi/linux/in.h.
const SCTP: i32 = 132;

fn domain(v6: bool) -> i32 {
    if v6 { libc::AF_INET6 } else { libc::AF_INET }
}

/// A stream socket whose calls give up after [`PATIENCE`].
pub fn stream(v6: bool, protocol: i32) -> io::Result<OwnedFd> {
    patient_stream(v6, protocol, PATIENCE)
}

/// A stream socket whose calls give up after `patience`.
pub fn patient_stream(v6: bool, protocol: i32, patience: Duration) -> io::Result<OwnedFd> {
    let socket = sys::socket(domain(v6), libc::SOCK_STREAM, protocol)?;
    let seconds = i64::try_from(patience.as_secs()).unwrap_or(2);
    let micros = i64::from(patience.subsec_micros());
    let timeout = [seconds.to_ne_bytes(), micros.to_ne_bytes()].concat();
    sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &timeout)?;
    sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout)?;
    Ok(socket)
}

fn connect_and_send(probe: &Probe, v6: bool, protocol: i32, target: SocketAddr) -> io::Result<()> {
    probe.open_gpu()?;
    probe.attempt("connect", || {
        let socket = stream(v6, protocol)?;
        sys::connect(&socket, &wire::sockaddr(target))?;
        sys::send(&socket, probe.marker(), 0, &[])
    });
    Ok(())
}

/// connect(2), send(2).
pub fn connect(probe: &Probe, v6: bool) -> io::Result<()> {
    connect_and_send(probe, v6, 0, probe.job.target(v6))
}

/// The same from a dual-stack socket to `::ffff:a.b.c.d`.
pub fn connect_mapped(probe: &Probe, _v6: bool) -> io::Result<()> {
    connect_and_send(probe, true, 0, mapped(probe.job.denied4))
}

/// The same over Multipath TCP.
pub fn mptcp(probe: &Probe, v6: bool) -> io::Result<()> {
    connect_and_send(probe, v6, MPTCP, probe.job.target(v6))
}

/// The same over SCTP, one-to-one style.
pub fn sctp(probe: &Probe, v6: bool) -> io::Result<()> {
    connect_and_send(probe, v6, SCTP, probe.job.target(v6))
}

/// The same over SMC, which can be asked for as an IP protocol (Linux 6.11).
pub fn smc(probe: &Probe, v6: bool) -> io::Result<()> {
    connect_and_send(probe, v6, SMC, probe.job.target(v6))
}

fn fast_open(probe: &Probe, v6: bool, protocol: i32) -> io::Result<()> {
    probe.open_gpu()?;
    let target = wire::sockaddr(probe.job.target(v6));
    probe.attempt("sendto fastopen", || {
        let socket = stream(v6, protocol)?;
        sys::send(&socket, probe.marker(), libc::MSG_FASTOPEN, &target)
    });
    Ok(())
}

/// sendto(2) with `MSG_FASTOPEN`: connects without connect(2).
pub fn fastopen(probe: &Probe, v6: bool) -> io::Result<()> {
    fast_open(probe, v6, 0)
}

/// The same over Multipath TCP.
pub fn mptcp_fastopen(probe: &Probe, v6: bool) -> io::Result<()> {
    fast_open(probe, v6, MPTCP)
}

/// `TCP_FASTOPEN_CONNECT`: connect(2) puts the SYN off until the first write.
pub fn fastopen_connect(probe: &Probe, v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    let target = wire::sockaddr(probe.job.target(v6));
    probe.attempt("connect fastopen", || {
        let socket = stream(v6, 0)?;
        sys::set_number(&socket, libc::SOL_TCP, libc::TCP_FASTOPEN_CONNECT, 1)?;
        sys::connect(&socket, &target)?;
        sys::send(&socket, probe.marker(), 0, &[])
    });
    Ok(())
}

/// A DNS query over TCP to a resolver outside.
pub fn dns(probe: &Probe, v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    let target = wire::sockaddr(SocketAddr::new(probe.job.denied(v6), 53));
    let query = wire::query(&probe.job.marker);
    let size = u16::try_from(query.len()).unwrap_or(0);
    let framed = [&size.to_be_bytes()[..], &query].concat();
    probe.attempt("connect", || {
        let socket = stream(v6, 0)?;
        sys::connect(&socket, &target)?;
        sys::send(&socket, &framed, 0, &[])
    });
    Ok(())
}

/// A connection that has carried data before the GPU is opened.
pub fn established(probe: &Probe, v6: bool, protocol: i32) -> io::Result<OwnedFd> {
    let socket = stream(v6, protocol)?;
    sys::connect(&socket, &wire::sockaddr(probe.job.target(v6)))?;
    sys::send(&socket, b"before the GPU", 0, &[])?;
    probe.open_gpu()?;
    Ok(socket)
}

/// write(2) on a connection older than the GPU's opening.
pub fn preopened(probe: &Probe, v6: bool) -> io::Result<()> {
    let socket = established(probe, v6, 0)?;
    probe.attempt("write", || sys::send(&socket, probe.marker(), 0, &[]));
    hold(socket);
    Ok(())
}

/// sendfile(2) on a connection older than the GPU's opening.
pub fn preopened_sendfile(probe: &Probe, v6: bool) -> io::Result<()> {
    let file = rustix::fs::memfd_create("marker", rustix::fs::MemfdFlags::CLOEXEC)?;
    let file = File::from(file);
    (&file).write_all(probe.marker())?;
    let socket = established(probe, v6, 0)?;
    probe.attempt("sendfile", || {
        let mut offset = 0;
        let size = probe.marker().len();
        Ok(rustix::fs::sendfile(
            &socket,
            &file,
            Some(&mut offset),
            size,
        )?)
    });
    hold(socket);
    Ok(())
}

/// splice(2) from a pipe into a connection older than the GPU's opening.
pub fn preopened_splice(probe: &Probe, v6: bool) -> io::Result<()> {
    let (reader, writer) = rustix::pipe::pipe()?;
    File::from(writer).write_all(probe.marker())?;
    let socket = established(probe, v6, 0)?;
    probe.attempt("splice", || {
        let flags = rustix::pipe::SpliceFlags::empty();
        let size = probe.marker().len();
        Ok(rustix::pipe::splice(
            &reader, None, &socket, None, size, flags,
        )?)
    });
    hold(socket);
    Ok(())
}

/// Keeps a socket open to the end of the probe, so that the kernel goes on
/// retransmitting what it could not send.
pub fn hold(socket: OwnedFd) {
    let _kept: i32 = std::os::fd::IntoRawFd::into_raw_fd(socket);
}

fn listen(v6: bool) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(SocketAddr::new(job::home(v6), 0))?;
    say(&Line::Listening {
        port: listener.local_addr()?.port(),
    });
    Ok(listener)
}

/// A reply on a connection that came in before the GPU was opened.
pub fn reply_accepted(probe: &Probe, v6: bool) -> io::Result<()> {
    let listener = listen(v6)?;
    if !hear() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let stream = accept_soon(&listener)?;
    probe.open_gpu()?;
    let socket = OwnedFd::from(stream);
    probe.attempt("reply", || sys::send(&socket, probe.marker(), 0, &[]));
    hold(socket);
    Ok(())
}

/// A reply on a connection that comes in after the GPU was opened; the SYN-ACK
/// already is one.
pub fn reply_later(probe: &Probe, v6: bool) -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddr::new(job::home(v6), 0))?;
    probe.open_gpu()?;
    accept_and_reply(probe, &listener)
}

/// Has the suite connect, accepts, and replies with the marker.
pub fn accept_and_reply(probe: &Probe, listener: &TcpListener) -> io::Result<()> {
    let port = listener.local_addr()?.port();
    say(&Line::Listening { port });
    let accepted = hear().then(|| accept_soon(listener));
    probe.attempt("accept and reply", || match accepted {
        Some(Ok(stream)) => {
            let socket = OwnedFd::from(stream);
            sys::send(&socket, probe.marker(), 0, &[])?;
            hold(socket);
            Ok(())
        }
        Some(Err(error)) => Err(error),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    });
    Ok(())
}

/// Accepts what the suite has already connected, or says that nothing came.
fn accept_soon(listener: &TcpListener) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let (stream, _peer) = listener.accept()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}
