//! Somebody unguarded sends for the guarded process: over a Unix socket as
//! docker.sock is, over loopback as a proxy does, over a pipe, or through an
//! `io_uring` that two processes share.

use super::asked::has_ended;
use super::options::datagram;
use super::{Probe, become_child, enter};
use crate::sys::{self, Fork};
use crate::wire;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// Sends what it was asked to.
fn pass_on(probe: &Probe, v6: bool, request: &mut impl io::Read) -> io::Result<()> {
    let mut word = Vec::new();
    request.read_to_end(&mut word)?;
    let target = wire::sockaddr(probe.job.target(v6));
    if word.is_empty() {
        return Ok(());
    }
    // Its own attempt: in a tree the scan may have found it, and it is held.
    let socket = datagram(v6)?;
    probe.attempt("forward", || sys::send(&socket, &word, 0, &target));
    Ok(())
}

/// Forks the deputy into the unguarded cgroup; it ends by itself when nobody
/// asks, since its probe's end closes what it waits for or a signal comes.
fn with_deputy(
    probe: &Probe,
    deputy: impl FnOnce() -> io::Result<()>,
    ask: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let (entered, entering) = rustix::pipe::pipe()?;
    match sys::fork()? {
        Fork::Child => become_child(|| {
            enter(&probe.job.elsewhere)?;
            drop(entering);
            deputy()
        }),
        Fork::Parent(pid) => {
            drop(entering);
            outside(entered)?;
            probe.open_gpu()?;
            probe.attempt("ask", ask);
            // Where asking was refused it still waits.
            let deadline = Instant::now() + Duration::from_millis(500);
            while Instant::now() < deadline && !has_ended(pid) {
                std::thread::sleep(Duration::from_millis(10));
            }
            drop(sys::kill(pid, libc::SIGKILL));
            sys::wait(pid).map(drop)
        }
    }
}

/// Waits until the other process is outside: one that is still in the cgroup when
/// the GPU is opened is guarded for good.
fn outside(entered: OwnedFd) -> io::Result<()> {
    File::from(entered).read_to_end(&mut Vec::new()).map(drop)
}

/// A daemon on a Unix socket.
pub fn unix(probe: &Probe, v6: bool) -> io::Result<()> {
    // Made by the deputy, so that the listener is nobody else's.
    let (reader, writer) = rustix::pipe::pipe()?;
    let serve = move || {
        let name = SocketAddr::from_abstract_name(probe.marker())?;
        let listener = UnixListener::bind_addr(&name)?;
        File::from(writer).write_all(b"!")?;
        pass_on(probe, v6, &mut listener.accept()?.0)
    };
    with_deputy(probe, serve, move || {
        File::from(reader).read_exact(&mut [0])?;
        let name = SocketAddr::from_abstract_name(probe.marker())?;
        UnixStream::connect_addr(&name)?.write_all(probe.marker())
    })
}

/// A daemon on a Unix socket that was asked for before the GPU was opened; and
/// no less the group's own connections, which must go on.
pub fn older_unix(probe: &Probe, v6: bool) -> io::Result<()> {
    let (ours, mut theirs) = UnixStream::pair()?;
    let own_name = SocketAddr::from_abstract_name([probe.marker(), b"-own"].concat())?;
    let own = UnixListener::bind_addr(&own_name)?;
    match sys::fork()? {
        Fork::Child => become_child(|| {
            drop((ours, own));
            enter(&probe.job.elsewhere)?;
            // Its own listener, so that the socket is nobody else's.
            let name = SocketAddr::from_abstract_name(probe.marker())?;
            let listener = UnixListener::bind_addr(&name)?;
            let _client = UnixStream::connect_addr(&own_name)?;
            theirs.write_all(b"!")?;
            pass_on(probe, v6, &mut listener.accept()?.0)
        }),
        Fork::Parent(pid) => {
            drop(theirs);
            (&ours).read_exact(&mut [0])?;
            let name = SocketAddr::from_abstract_name(probe.marker())?;
            let older = UnixStream::connect_addr(&name)?;
            let inherited = heir(probe, v6)?;
            let inner = UnixStream::connect_addr(&own_name)?;
            let pair = UnixStream::pair()?;
            let unasked = [own.accept()?.0, own.accept()?.0, inner, pair.0];
            probe.open_gpu()?;
            // Neither the group itself nor who asks it is a deputy.
            for mut stream in &unasked {
                stream.write_all(b"own")?;
            }
            probe.attempt("write", || (&older).write_all(probe.marker()));
            probe.attempt("splice", || splice(probe.marker(), &older));
            probe.attempt("sendfile", || send_file(probe.marker(), &older));
            probe.attempt("write", || (&inherited).write_all(probe.marker()));
            drop((older, inherited));
            std::thread::sleep(Duration::from_millis(50));
            drop(sys::kill(pid, libc::SIGKILL));
            sys::wait(pid).map(drop)
        }
    }
}

/// A connection to a daemon whose parent called listen(2) and has ended: nobody
/// can tell any more who serves.
fn heir(probe: &Probe, v6: bool) -> io::Result<UnixStream> {
    let name = SocketAddr::from_abstract_name([probe.marker(), b"-heir"].concat())?;
    match sys::fork()? {
        Fork::Child => become_child(|| {
            enter(&probe.job.elsewhere)?;
            let listener = UnixListener::bind_addr(&name)?;
            match sys::fork()? {
                // Ends with the probe's connection.
                Fork::Child => become_child(|| pass_on(probe, v6, &mut listener.accept()?.0)),
                Fork::Parent(_) => Ok(()),
            }
        }),
        Fork::Parent(pid) => {
            sys::wait(pid)?;
            UnixStream::connect_addr(&name)
        }
    }
}

/// Until Linux 6.5 by no hook of sockets.
fn splice(word: &[u8], into: &UnixStream) -> io::Result<usize> {
    let (reader, writer) = rustix::pipe::pipe()?;
    File::from(writer).write_all(word)?;
    let flags = rustix::pipe::SpliceFlags::empty();
    let length = word.len();
    Ok(rustix::pipe::splice(
        &reader, None, into, None, length, flags,
    )?)
}

fn send_file(word: &[u8], into: &UnixStream) -> io::Result<usize> {
    let file = rustix::fs::memfd_create(c"word", rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::io::write(&file, word)?;
    Ok(rustix::fs::sendfile(into, &file, Some(&mut 0), word.len())?)
}

/// A proxy on loopback.
pub fn loopback(probe: &Probe, v6: bool) -> io::Result<()> {
    let host = if v6 { "[::1]:0" } else { "127.0.0.1:0" };
    // Made by the deputy, so that the listener is nobody else's.
    let (reader, writer) = rustix::pipe::pipe()?;
    let serve = move || {
        let listener = TcpListener::bind(host)?;
        let port = listener.local_addr()?.port();
        File::from(writer).write_all(&port.to_ne_bytes())?;
        pass_on(probe, v6, &mut listener.accept()?.0)
    };
    with_deputy(probe, serve, move || {
        let mut port = [0; 2];
        File::from(reader).read_exact(&mut port)?;
        let host = if v6 { "::1" } else { "127.0.0.1" };
        TcpStream::connect((host, u16::from_ne_bytes(port)))?.write_all(probe.marker())
    })
}

/// A pipe to a process outside.
pub fn pipe(probe: &Probe, v6: bool) -> io::Result<()> {
    let (reader, writer) = rustix::pipe::pipe()?;
    let (entered, entering) = rustix::pipe::pipe()?;
    match sys::fork()? {
        Fork::Child => {
            drop(writer);
            become_child(|| {
                enter(&probe.job.elsewhere)?;
                drop(entering);
                pass_on(probe, v6, &mut File::from(reader))
            })
        }
        Fork::Parent(pid) => {
            drop((reader, entering));
            outside(entered)?;
            probe.open_gpu()?;
            probe.attempt("write", || File::from(writer).write_all(probe.marker()));
            super::joined(pid)
        }
    }
}
