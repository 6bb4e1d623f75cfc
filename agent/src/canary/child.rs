//! The canary's own processes: a keeper, the canary, and one for each try.
//!
//! The canary enters its cgroup, waits for the order, opens its device node,
//! gives up every capability but `CAP_NET_RAW`, and starts a process for each
//! try. It ends with the agent, however that ends: the socket between them is
//! then at its end. The keeper waits for that and removes the cgroup, which
//! takes `CAP_DAC_OVERRIDE` (the hierarchy's root is nobody's to write) and a
//! process that is not inside; it does nothing else.

use super::words::{Answer, Order, Outcome};
use super::{DEVICE, sys, tries};
use crate::privilege::{self, Capability};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Mode, OFlags, makedev, mknodat, openat};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::process::{Signal, set_parent_process_death_signal};
use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a try may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// The nodes in the canary's own file system.
const GPU: &str = "gpu";
pub(super) const TUN: &str = "tun";
/// `/dev/net/tun`: misc, `TUN_MINOR` (include/linux/miscdevice.h).
const TUN_NODE: (u32, u32) = (10, 200);

/// Where a try is made.
pub(super) struct Place {
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
    /// The root of the cgroup hierarchy.
    pub(super) root: PathBuf,
    /// A descriptor that was handed on, where the way out needs one.
    pub(super) fd: Option<i32>,
}

/// What is run for [`super::CHILD`]; the exit status.
#[must_use]
pub fn main(arguments: &[OsString]) -> u8 {
    // It was executed as /proc/self/exe. A name is for people: no failure.
    rustix::thread::set_name(c"mrst-canary").ok();
    let words: Vec<&str> = arguments.iter().filter_map(|one| one.to_str()).collect();
    match words.as_slice() {
        ["keep", cgroup] => u8::from(keep(Path::new(cgroup)).is_err()),
        ["sit", cgroup] => u8::from(sit(Path::new(cgroup)).is_err()),
        ["try", vector, v4, v6, root, rest @ ..] => {
            let fd = rest.first().and_then(|fd| fd.parse().ok());
            let (Ok(v4), Ok(v6)) = (v4.parse(), v6.parse()) else {
                return 2;
            };
            let root = PathBuf::from(root);
            try_one(vector, &Place { v4, v6, root, fd })
        }
        _ => 2,
    }
}

/// Tries, and says what became of it.
fn try_one(vector: &str, place: &Place) -> u8 {
    // Nothing outlives the canary, not even a try that hangs.
    if set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
        return 1;
    }
    let outcome = tries::attempt(vector, place);
    let line = serde_json::to_vec(&outcome).unwrap_or_default();
    u8::from(io::stdout().write_all(&line).is_err())
}

impl Place {
    /// The same program, to try `vector` from here.
    pub(super) fn command(&self, vector: &str) -> Command {
        let mut command = itself();
        command.args([super::CHILD, "try", vector]);
        command.args([self.v4.to_string(), self.v6.to_string()]);
        command.arg(&self.root);
        if let Some(fd) = self.fd {
            command.arg(fd.to_string());
        }
        command
    }
}

/// This very program, wherever its file is now.
pub(super) fn itself() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("merestone").env_clear();
    command
}

/// What the canary holds once it has opened its node.
struct Kept {
    folder: OwnedFd,
    older4: io::Result<OwnedFd>,
    older6: io::Result<OwnedFd>,
}

/// How long a try may take to end after the canary.
const LAST_TRY: Duration = Duration::from_secs(5);

/// Starts the canary, and removes its cgroup once it has ended.
fn keep(cgroup: &Path) -> io::Result<()> {
    let mut command = itself();
    command.args([super::CHILD, "sit"]).arg(cgroup);
    let mut canary = command.stdout(Stdio::null()).spawn()?;
    let dropped = give_up_all_but(Capability::DacOverride);
    canary.wait()?;
    let deadline = Instant::now() + LAST_TRY;
    // A try that was under way is killed with the canary, and ends a moment later.
    while let Err(error) = std::fs::remove_dir(cgroup) {
        if error.kind() != io::ErrorKind::ResourceBusy || Instant::now() > deadline {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    dropped.map_err(io::Error::other)
}

/// Gives up every capability but `one`, and that too where it is not held.
fn give_up_all_but(one: Capability) -> Result<(), String> {
    let held = privilege::effective().map_err(|error| error.to_string())?;
    let keep: Vec<_> = held.has(one).then_some(one).into_iter().collect();
    let dropped = privilege::drop_to(&keep);
    dropped.map(drop).map_err(|error| error.to_string())
}

/// Obeys until the agent is gone.
fn sit(cgroup: &Path) -> io::Result<()> {
    std::fs::write(cgroup.join("cgroup.procs"), "0")?;
    let root = cgroup.parent().unwrap_or(Path::new("/")).to_owned();
    let agent = UnixStream::from(fcntl_dupfd_cloexec(io::stdin(), 3)?);
    let mut reader = BufReader::new(agent.try_clone()?);
    let mut kept = None;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        let order: Order = serde_json::from_str(&line)?;
        line.clear();
        let answer = match order {
            Order::Guard { v4, v6 } => match guard(v4, v6) {
                Ok(found) => {
                    kept = Some(found);
                    let pid = std::process::id();
                    Answer::Opened { pid }
                }
                Err(why) => Answer::NotOpened { why },
            },
            Order::Try { vector, v4, v6 } => {
                let (root, fd) = (root.clone(), None);
                let place = Place { v4, v6, root, fd };
                let outcome = from_child(&vector, place, kept.as_ref());
                Answer::Tried { outcome }
            }
        };
        let mut bytes = serde_json::to_vec(&answer)?;
        bytes.push(b'\n');
        (&agent).write_all(&bytes)?;
    }
    Ok(())
}

/// Opens the node that counts as a GPU, then gives up what is not needed.
fn guard(v4: Ipv4Addr, v6: Ipv6Addr) -> Result<Kept, String> {
    let folder = nodes()?;
    // Before the node is opened: the hooks at connect(2) do not know them.
    let kept = Kept {
        older4: older(SocketAddr::new(v4.into(), super::vector::PORT)),
        older6: older(SocketAddr::new(v6.into(), super::vector::PORT)),
        folder,
    };
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match openat(&kept.folder, GPU, flags, Mode::empty()) {
        // No driver has that number, and the hook comes first.
        Ok(_) | Err(rustix::io::Errno::NXIO | rustix::io::Errno::NODEV) => {}
        Err(error) => return Err(format!("its device node cannot be opened: {error}")),
    }
    give_up_all_but(Capability::NetRaw)?;
    Ok(kept)
}

/// A file system of its own, mounted nowhere, with the two nodes.
fn nodes() -> Result<OwnedFd, String> {
    let failed = |what: &str, error| format!("{what} failed with {error}");
    let open = FsOpenFlags::FSOPEN_CLOEXEC;
    let system = fsopen("tmpfs", open).map_err(|error| failed("fsopen", error))?;
    fsconfig_create(&system).map_err(|error| failed("fsconfig", error))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NOSUID;
    // Inherited: a try reaches the tunnel's node through it.
    let folder = fsmount(&system, FsMountFlags::empty(), attributes)
        .map_err(|error| failed("fsmount", error))?;
    let gpu = (DEVICE.major, DEVICE.minor.unwrap_or(0));
    for (name, (major, minor)) in [(GPU, gpu), (TUN, TUN_NODE)] {
        let mode = Mode::RUSR | Mode::WUSR;
        let number = makedev(major, minor);
        mknodat(&folder, name, FileType::CharacterDevice, mode, number).map_err(|error| {
            format!(
                "its device node cannot be made: mknod failed with {error}; CAP_MKNOD is needed"
            )
        })?;
    }
    Ok(folder)
}

fn older(to: SocketAddr) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let socket = sys::socket(family, libc::SOCK_DGRAM, 0)?;
    sys::connect(&socket, &sys::sockaddr(to))?;
    // For the one try that gets it.
    fcntl_setfd(&socket, FdFlags::empty())?;
    Ok(socket)
}

/// What a process that tries `vector` comes to.
fn from_child(vector: &str, mut place: Place, kept: Option<&Kept>) -> Outcome {
    let Some(kept) = kept else {
        let why = "the canary has opened no device node".to_owned();
        return Outcome::Broken { why };
    };
    let older = match vector {
        "udp4_older" => Some(&kept.older4),
        "udp6_older" => Some(&kept.older6),
        _ => None,
    };
    match older {
        Some(Ok(socket)) => place.fd = Some(socket.as_raw_fd()),
        Some(Err(error)) => {
            let why = format!("no such socket could be connected: {error}");
            return Outcome::Absent { why };
        }
        None if vector == "tunnel" => place.fd = Some(kept.folder.as_raw_fd()),
        None => {}
    }
    let mut command = place.command(vector);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    match command.spawn() {
        Ok(child) => wait(child),
        Err(error) => Outcome::Broken {
            why: format!("no process for it: {error}"),
        },
    }
}

fn wait(mut child: Child) -> Outcome {
    let said = child.stdout.take().map(read);
    if said.as_ref().is_none_or(Result::is_err) {
        child.kill().ok();
    }
    let status = child.wait();
    match (said, status) {
        (Some(Ok(said)), Ok(status)) => match (status.signal(), serde_json::from_slice(&said)) {
            (Some(signal), _) => Outcome::Killed { signal },
            (None, Ok(outcome)) => outcome,
            (None, Err(_)) => Outcome::Broken {
                why: format!("it said nothing and ended with {status}"),
            },
        },
        (Some(Err(error)), _) | (_, Err(error)) => Outcome::Broken {
            why: error.to_string(),
        },
        (None, _) => Outcome::Broken {
            why: "its output was not there".to_owned(),
        },
    }
}

/// All that a try says, in time.
fn read(mut from: impl io::Read + std::os::fd::AsFd) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut said = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = rustix::time::Timespec::try_from(left).map_err(io::Error::other)?;
        let mut ready = [PollFd::new(&from, PollFlags::IN)];
        if poll(&mut ready, Some(&left))? == 0 {
            return Err(io::Error::other(format!(
                "it took longer than {PATIENCE:?}"
            )));
        }
        let mut part = [0; 4096];
        match from.read(&mut part)? {
            0 => return Ok(said),
            size => said.extend_from_slice(part.get(..size).unwrap_or_default()),
        }
        if said.len() > 1 << 16 {
            return Err(io::Error::other("it said too much"));
        }
    }
}
