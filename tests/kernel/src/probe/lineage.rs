//! Somebody else sends: a child, a parent, a sibling, another program, a
//! thread, from another cgroup, from another network namespace.

use super::{Probe, become_child, enter, joined};
use crate::sys::{self, Fork};
use crate::wire;
use std::fs::File;
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// sendto(2) on a socket of this process' own.
fn send(probe: &Probe, v6: bool) {
    let target = wire::sockaddr(probe.job.target(v6));
    let domain = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    probe.attempt("sendto", || {
        let socket = sys::socket(domain, libc::SOCK_DGRAM, 0)?;
        sys::send(&socket, probe.marker(), 0, &target)
    });
}

/// A child forked after the GPU was opened.
pub fn child(probe: &Probe, v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    super::fork(|| {
        send(probe, v6);
        Ok(())
    })
}

/// A grandchild whose parent is gone.
pub fn orphan(probe: &Probe, v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    let (reader, writer) = rustix::pipe::pipe()?;
    beget_orphan(probe, v6)?;
    // The orphan holds the other copy until it has ended.
    drop(writer);
    wait_for(reader).map(drop)
}

fn beget_orphan(probe: &Probe, v6: bool) -> io::Result<()> {
    super::fork(|| {
        if sys::fork()? == Fork::Child {
            // Its parent leaves at once; ours waits for the pipe to close.
            become_child(|| {
                std::thread::sleep(std::time::Duration::from_millis(20));
                send(probe, v6);
                Ok(())
            });
        }
        Ok(())
    })
}

/// A child forked before the GPU was opened, in the same cgroup.
pub fn older_child(probe: &Probe, v6: bool) -> io::Result<()> {
    let (reader, writer) = rustix::pipe::pipe()?;
    match sys::fork()? {
        Fork::Child => {
            drop(writer);
            become_child(|| {
                wait_for(reader)?;
                send(probe, v6);
                Ok(())
            })
        }
        Fork::Parent(pid) => {
            drop(reader);
            probe.open_gpu()?;
            drop(writer);
            joined(pid)
        }
    }
}

/// One child opens the GPU, the other, which never did, sends.
pub fn sibling(probe: &Probe, v6: bool) -> io::Result<()> {
    super::fork(|| probe.open_gpu())?;
    super::fork(|| {
        send(probe, v6);
        Ok(())
    })
}

/// A child opens the GPU; the parent, which never did, sends.
pub fn parent(probe: &Probe, v6: bool) -> io::Result<()> {
    super::fork(|| probe.open_gpu())?;
    send(probe, v6);
    Ok(())
}

/// `CLONE_PARENT`: a child that is a brother by name.
pub fn clone_parent(probe: &Probe, v6: bool) -> io::Result<()> {
    let (reader, writer) = rustix::pipe::pipe()?;
    super::fork(|| {
        probe.open_gpu()?;
        // Reaped by the probe's end: the kernel makes it the probe's child.
        if sys::clone3(libc::CLONE_PARENT as u64, None)? == Fork::Child {
            become_child(|| {
                send(probe, v6);
                Ok(())
            });
        }
        Ok(())
    })?;
    drop(writer);
    wait_for(reader).map(drop)
}

/// execve(2) after opening; the new program sends.
pub fn executed(probe: &Probe, v6: bool) -> io::Result<()> {
    if probe.job.workers == 1 {
        // The second life, see below.
        send(probe, v6);
        return Ok(());
    }
    probe.open_gpu()?;
    let mut job = probe.job.clone();
    job.workers = 1;
    // It enters the cgroup it is in already.
    Err(Command::new("/proc/self/exe")
        .arg(serde_json::to_string(&job)?)
        .exec())
}

/// One thread opens, another sends.
pub fn thread(probe: &Probe, v6: bool) -> io::Result<()> {
    std::thread::scope(|scope| scope.spawn(|| probe.open_gpu()).join())
        .map_err(|_panic| io::Error::other("the opening thread panicked"))??;
    send(probe, v6);
    Ok(())
}

/// Moves to a cgroup nobody guards, then sends.
pub fn left_cgroup(probe: &Probe, v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    enter(&probe.job.elsewhere)?;
    send(probe, v6);
    Ok(())
}

/// A child that moves away sends.
pub fn child_left_cgroup(probe: &Probe, v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    super::fork(|| {
        enter(&probe.job.elsewhere)?;
        send(probe, v6);
        Ok(())
    })
}

/// `CLONE_INTO_CGROUP`: a child born in a cgroup nobody guards.
pub fn born_elsewhere(probe: &Probe, v6: bool) -> io::Result<()> {
    let elsewhere = File::open(&probe.job.elsewhere)?;
    probe.open_gpu()?;
    match sys::clone3(0, Some(elsewhere.as_fd()))? {
        Fork::Child => become_child(|| {
            send(probe, v6);
            Ok(())
        }),
        Fork::Parent(pid) => joined(pid),
    }
}

/// setns(2) into another network namespace, then sends from there.
pub fn other_network(probe: &Probe, v6: bool) -> io::Result<()> {
    let network = File::open(&probe.job.alternate)?;
    probe.open_gpu()?;
    sys::enter_network(network.as_fd())?;
    send(probe, v6);
    Ok(())
}

/// setuid to nobody after opening: no privilege is needed for what is tried.
pub fn unprivileged(probe: &Probe, v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    super::fork(|| {
        sys::become_user(65534)?;
        send(probe, v6);
        Ok(())
    })
}

/// Everything that comes through a pipe until it is closed.
pub fn wait_for(reader: OwnedFd) -> io::Result<Vec<u8>> {
    BufReader::new(File::from(reader)).bytes().collect()
}

/// Writes to a pipe and closes it.
pub fn tell(writer: OwnedFd, word: &[u8]) -> io::Result<()> {
    File::from(writer).write_all(word)
}
