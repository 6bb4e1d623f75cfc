//! What the kernel, or a process outside, is made to do without being asked by
//! a socket: programs it runs, settings it acts by, file systems that connect,
//! frames it takes for another host's, memory that is written from afar.

use super::families::foreign;
use super::options::datagram;
use super::{Probe, become_child, enter};
use crate::job::{INSIDE_MAC, INTERFACE, OUTSIDE_MAC, PORT};
use crate::sys::{self, Fork};
use crate::wire;
use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the process outside waits for. It has this address there too, since it
/// was forked.
static WORD: AtomicU64 = AtomicU64::new(0);
/// What is written there.
const GO: u64 = 0x6d65_7265;

/// Writes into a process outside, which then sends: by `process_vm_writev(2)`,
/// that asks the same of the kernel as ptrace(2) and /proc/PID/mem.
pub fn intruded(probe: &Probe, v6: bool) -> io::Result<()> {
    let (ours, mut theirs) = UnixStream::pair()?;
    match sys::fork()? {
        Fork::Child => become_child(|| {
            drop(ours);
            enter(&probe.job.elsewhere)?;
            theirs.write_all(b"!")?;
            let deadline = Instant::now() + Duration::from_secs(20);
            while WORD.load(Ordering::Acquire) != GO {
                if Instant::now() > deadline {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            let target = wire::sockaddr(probe.job.target(v6));
            let socket = datagram(v6)?;
            probe.attempt("send", || sys::send(&socket, probe.marker(), 0, &target));
            theirs.write_all(b"!")
        }),
        Fork::Parent(pid) => {
            drop(theirs);
            (&ours).read_exact(&mut [0])?;
            probe.open_gpu()?;
            let mut wrote = false;
            probe.attempt("process_vm_writev", || {
                let outcome = sys::write_into(pid, &WORD, GO);
                wrote = outcome.is_ok();
                outcome
            });
            if wrote {
                (&ours).read_exact(&mut [0])?;
            }
            drop(sys::kill(pid, libc::SIGKILL));
            sys::wait(pid).map(drop)
        }
    }
}

/// Types into a terminal that a process outside reads, as an operator's shell
/// does, and which then sends.
pub fn typed(probe: &Probe, v6: bool) -> io::Result<()> {
    let Ok((master, slave)) = terminal() else {
        probe.open_gpu()?;
        let none = io::Error::from_raw_os_error(libc::ENOSYS);
        probe.attempt("terminal", || Err::<(), _>(none));
        return Ok(());
    };
    match sys::fork()? {
        Fork::Child => become_child(|| {
            enter(&probe.job.elsewhere)?;
            let mut word = [0; 128];
            let size = (&slave).read(&mut word)?;
            let word = word.get(..size).unwrap_or_default().trim_ascii_end();
            let target = wire::sockaddr(probe.job.target(v6));
            let socket = datagram(v6)?;
            probe.attempt("send", || sys::send(&socket, word, 0, &target));
            drop(master);
            Ok(())
        }),
        Fork::Parent(pid) => {
            probe.open_gpu()?;
            probe.attempt("type", || {
                let line = [probe.marker(), b"\n"].concat();
                line.iter()
                    .try_for_each(|byte| sys::control(slave.as_fd(), TIOCSTI, &mut [*byte]))
            });
            let deadline = Instant::now() + Duration::from_secs(1);
            while Instant::now() < deadline && !has_ended(pid) {
                std::thread::sleep(Duration::from_millis(10));
            }
            drop(sys::kill(pid, libc::SIGKILL));
            sys::wait(pid).map(drop)
        }
    }
}

/// `TIOCSTI`, include/uapi/asm-generic/ioctls.h.
const TIOCSTI: u64 = 0x5412;

/// A new terminal: the side that shows it, and the side that is typed into.
fn terminal() -> io::Result<(File, File)> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let slave = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(name.to_string_lossy().as_ref())?;
    Ok((master.into(), slave))
}

/// A frame that the kernel takes for one that came in, and forwards: no socket
/// is behind it.
pub fn injected(probe: &Probe, _v6: bool) -> io::Result<()> {
    let index = sys::interface(INTERFACE)?;
    let frame = [
        &INSIDE_MAC[..],
        &OUTSIDE_MAC,
        &0x0800_u16.to_be_bytes(),
        &foreign(probe),
    ]
    .concat();
    probe.open_gpu()?;
    probe.attempt("inject", || sys::inject_frame(index, &frame));
    std::thread::sleep(Duration::from_millis(20));
    Ok(())
}

/// The program that the kernel runs, as root and outside every group, when a
/// process dumps core. It is written as it was.
pub fn core_pattern(probe: &Probe, _v6: bool) -> io::Result<()> {
    let path = "/proc/sys/kernel/core_pattern";
    let before = fs::read(path)?;
    probe.open_gpu()?;
    probe.attempt("write", || fs::write(path, &before));
    Ok(())
}

/// A setting of the kernel's in sysfs, opened to be written and left alone.
pub fn sysfs(probe: &Probe, _v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    probe.attempt("open", || {
        OpenOptions::new()
            .write(true)
            .open("/sys/kernel/rcu_expedited")
    });
    Ok(())
}

/// Where the test machine is a guest, so that the kernel's own root directory
/// is the probe's.
const GUEST: &str = "/merestone/bin";
/// What the kernel runs (`call_sbin_request_key`, `security/keys/request_key.c`).
const UPCALL: &str = "/sbin/request-key";

/// Asks for a key that is not there: the kernel runs a program to make it.
pub fn key(probe: &Probe, _v6: bool) -> io::Result<()> {
    let told = PathBuf::from(format!("/tmp/{}", probe.job.marker));
    if Path::new(GUEST).is_dir() && !Path::new(UPCALL).exists() {
        let script = format!("#!/bin/sh\n: > {}\n", told.display());
        fs::create_dir_all("/sbin")?;
        fs::create_dir_all("/tmp")?;
        fs::write(UPCALL, script)?;
        fs::set_permissions(UPCALL, fs::Permissions::from_mode(0o755))?;
    }
    let name = CString::new(probe.job.marker.clone()).map_err(io::Error::other)?;
    probe.open_gpu()?;
    probe.attempt("request_key", || {
        let answer = sys::request_key(c"user", &name, c"make it");
        match answer {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(error),
            // The program was run; that it made no key is no matter.
            _ if told.exists() => Ok(()),
            // The kernel's root directory is not ours to put a program in.
            _ => Err(io::Error::from_raw_os_error(libc::ENOSYS)),
        }
    });
    if told.exists() {
        fs::remove_file(&told)?;
        fs::remove_file(UPCALL)?;
    }
    Ok(())
}

/// Mounts a network file system: the kernel connects, by a socket of its own.
pub fn mounted(probe: &Probe, _v6: bool) -> io::Result<()> {
    let known = fs::read_to_string("/proc/filesystems")?;
    let is_known = known.lines().any(|line| line.ends_with("\tnfs"));
    let place = std::env::temp_dir().join(format!("{}-nfs", probe.job.marker));
    fs::create_dir_all(&place)?;
    let target = CString::new(place.as_os_str().as_encoded_bytes()).map_err(io::Error::other)?;
    let denied: Ipv4Addr = probe.job.denied4;
    let source =
        CString::new(format!("{denied}:/{}", probe.job.marker)).map_err(io::Error::other)?;
    let options = CString::new(format!(
        "addr={denied},vers=3,proto=tcp,nolock,soft,timeo=5,retrans=0,port={PORT},\
         mountaddr={denied},mountport={PORT},mountproto=tcp"
    ))
    .map_err(io::Error::other)?;
    probe.open_gpu()?;
    if is_known {
        mount_or_give_up(probe, &source, &target, &options)?;
    } else {
        let none = io::Error::from_raw_os_error(libc::ENOSYS);
        probe.attempt("mount", || Err::<(), _>(none));
    }
    drop(fs::remove_dir(&place));
    Ok(())
}

/// What answers there is no file server, and the kernel is patient: by then it
/// has long connected.
fn mount_or_give_up(probe: &Probe, source: &CStr, target: &CStr, options: &CStr) -> io::Result<()> {
    match sys::fork()? {
        Fork::Child => become_child(|| {
            probe.attempt("mount", || sys::mount(source, target, c"nfs", options));
            Ok(())
        }),
        Fork::Parent(pid) => {
            let deadline = Instant::now() + Duration::from_secs(6);
            while Instant::now() < deadline && !has_ended(pid) {
                std::thread::sleep(Duration::from_millis(50));
            }
            drop(sys::kill(pid, libc::SIGKILL));
            drop(sys::wait(pid));
            Ok(())
        }
    }
}

/// Whether a child waits to be waited for.
pub(super) fn has_ended(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_none_or(|(_, rest)| rest.starts_with('Z'))
}
