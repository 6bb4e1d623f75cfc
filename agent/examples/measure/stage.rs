//! Where it is measured: cgroups and network namespaces of its own, the servers
//! there, and what each scenario has attached. All of it goes when this is
//! dropped, and the namespaces with the process.

use crate::asm::{self, Program};
use crate::bpf::{self, AttachType, MapKind};
use crate::sets;
use anyhow::{Context as _, Result, anyhow, ensure};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The far end of each wire.
pub(crate) const FAR: &str = "198.18.0.9";
/// Accepts only when it is told to; not read until it is told to.
pub(crate) const QUIET: u16 = 9001;
/// Answers each byte.
pub(crate) const ECHO: u16 = 9003;
/// Swallows everything.
pub(crate) const SINK: u16 = 9004;

/// Runs `ip` with words split at spaces.
fn ip(words: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(words.split_whitespace())
        .output()
        .context("cannot run ip; install iproute2")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {words}: {}", said.trim());
    Ok(())
}

/// A network namespace without a name.
#[derive(Debug)]
struct Space(File);

impl Space {
    fn new() -> Result<Self> {
        let made = thread::spawn(|| -> Result<File> {
            leave_network().context("cannot make a network namespace")?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        Ok(Self(made.join().map_err(|_panic| anyhow!("panicked"))??))
    }

    fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                enter(&self.0)?;
                work()
            });
            inside.join().map_err(|_panic| anyhow!("panicked"))?
        })
    }
}

/// Puts the calling thread into a network namespace of its own.
#[expect(
    unsafe_code,
    reason = "unshare(2) of some things is unsound; not of this"
)]
fn leave_network() -> std::io::Result<()> {
    let what = rustix::thread::UnshareFlags::NEWNET;
    // SAFETY: the descriptors stay shared; only the network is another.
    Ok(unsafe { rustix::thread::unshare_unsafe(what) }?)
}

/// Puts the calling thread into a network namespace.
pub(crate) fn enter(space: &File) -> Result<()> {
    let kind = rustix::thread::LinkNameSpaceType::Network;
    rustix::thread::move_into_link_name_space(space.as_fd(), Some(kind))
        .context("cannot enter a network namespace")
}

/// What listens in one namespace.
#[derive(Debug)]
struct Servers {
    streams: TcpListener,
    datagrams: UdpSocket,
}

impl Servers {
    fn start() -> Result<Self> {
        let streams = TcpListener::bind(("0.0.0.0", QUIET))?;
        // The standard library's backlog is 128.
        rustix::net::listen(&streams, 4096)?;
        streams.set_nonblocking(true)?;
        let datagrams = UdpSocket::bind(("0.0.0.0", QUIET))?;
        datagrams.set_nonblocking(true)?;
        rustix::net::sockopt::set_socket_recv_buffer_size(&datagrams, 4 << 20).ok();
        let (echo, sink) = (
            TcpListener::bind(("0.0.0.0", ECHO))?,
            TcpListener::bind(("0.0.0.0", SINK))?,
        );
        thread::spawn(move || {
            for stream in echo.incoming().flatten() {
                thread::spawn(move || answer(stream));
            }
        });
        thread::spawn(move || {
            for stream in sink.incoming().flatten() {
                thread::spawn(move || swallow(stream));
            }
        });
        Ok(Self { streams, datagrams })
    }

    /// Takes what has come since the last time.
    fn drain(&self) {
        while self.streams.accept().is_ok() {}
        let mut data = [0; 2048];
        while self.datagrams.recv(&mut data).is_ok() {}
    }
}

fn answer(mut stream: TcpStream) {
    stream.set_nodelay(true).ok();
    let mut data = [0; 64];
    while let Ok(size @ 1..) = stream.read(&mut data) {
        if stream
            .write_all(data.get(..size).unwrap_or_default())
            .is_err()
        {
            return;
        }
    }
}

fn swallow(mut stream: TcpStream) {
    let mut data = vec![0; 1 << 18];
    while matches!(stream.read(&mut data), Ok(1..)) {}
}

/// Two namespaces with a wire between them.
#[derive(Debug)]
pub(crate) struct Wire {
    near: Space,
    _far: Space,
    servers: [Servers; 2],
}

impl Wire {
    pub(crate) fn new() -> Result<Self> {
        let (near, far) = (Space::new()?, Space::new()?);
        let beyond = far.path();
        near.within(|| {
            ip("link set lo up")?;
            let beyond = beyond.display();
            ip(&format!(
                "link add wire0 type veth peer name wire1 netns {beyond}"
            ))?;
            ip("addr add 198.18.0.1/24 dev wire0")?;
            ip("link set wire0 up")
        })?;
        far.within(|| {
            ip("link set lo up")?;
            ip(&format!("addr add {FAR}/24 dev wire1"))?;
            ip("link set wire1 up")
        })?;
        let servers = [near.within(Servers::start)?, far.within(Servers::start)?];
        Ok(Self {
            near,
            _far: far,
            servers,
        })
    }

    /// Where a worker is to be.
    pub(crate) fn near(&self) -> PathBuf {
        self.near.path()
    }

    pub(crate) fn drain(&self) {
        self.servers.iter().for_each(Servers::drain);
    }

    /// Addresses that are beyond this wire, where nobody answers.
    pub(crate) fn route(&self, network: &str) -> Result<()> {
        self.near
            .within(|| ip(&format!("route add {network} dev wire0")))
    }

    /// Loads a rule set of nftables there. Returns the seconds it took.
    pub(crate) fn nftables(&self, rules: &str) -> Result<f64> {
        self.near.within(|| {
            let begun = Instant::now();
            let mut nft = Command::new("nft")
                .args(["-f", "-"])
                .stdin(Stdio::piped())
                .spawn()
                .context("cannot run nft; install nftables")?;
            if let Some(mut input) = nft.stdin.take() {
                input.write_all(rules.as_bytes())?;
            }
            ensure!(nft.wait()?.success(), "nft refused the rules");
            Ok(begun.elapsed().as_secs_f64())
        })
    }
}

/// A corner of the cgroup hierarchy.
#[derive(Debug)]
pub(crate) struct Corner {
    root: PathBuf,
    pub(crate) path: PathBuf,
}

impl Corner {
    pub(crate) fn new() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let root = mounts
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find_map(|words| match words.as_slice() {
                [_, place, "cgroup2", ..] => Some(PathBuf::from(place)),
                _ => None,
            })
            .context("cgroup v2 is not mounted")?;
        let path = root.join(format!("merestone-bench-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self { root, path })
    }

    pub(crate) fn below(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

impl Drop for Corner {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.path.exists() && Instant::now() < deadline {
            // Whoever is still inside goes back to where it came from.
            evict(&self.path, &self.root);
            remove(&self.path);
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn evict(path: &Path, to: &Path) {
    let members = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    for member in members.lines() {
        fs::write(to.join("cgroup.procs"), member).ok();
    }
}

fn remove(path: &Path) {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.path().is_dir()) {
        remove(&entry.path());
    }
    fs::remove_dir(path).ok();
}

/// Programs that hold until this is dropped.
#[derive(Debug)]
pub(crate) struct Attached {
    _links: Vec<OwnedFd>,
}

/// Programs that only return, where Merestone has its own: the floor.
pub(crate) fn floor(cgroup: &Path) -> Result<Attached> {
    let directory = File::open(cgroup)?;
    let places = [
        AttachType::Create,
        AttachType::Connect,
        AttachType::Send,
        AttachType::Egress,
    ];
    let attach = |at: AttachType| {
        let program = bpf::load(&asm::pass().0, at)?;
        bpf::attach(&program, directory.as_fd(), at)
    };
    let links: Result<Vec<_>> = places.into_iter().map(attach).collect();
    Ok(Attached { _links: links? })
}

/// What systemd 252 loads for `IPAddressAllow=` with `IPAddressDeny=any`
/// (src/core/bpf-firewall.c): for each family a trie of what is allowed, asked
/// for every packet of the cgroup, on its way in and on its way out. "any" is no
/// element of a trie there, but a bit that is always set.
pub(crate) fn systemd(cgroup: &Path, count: u32) -> Result<Attached> {
    let (four, six) = sets::networks(count);
    let trie = |networks: &[(Vec<u8>, u32)], size: u32| -> Result<OwnedFd> {
        let map = bpf::map(MapKind::Trie, 4 + size, 8, u32::try_from(networks.len())?)?;
        for (address, bits) in networks {
            let mut key = bits.to_ne_bytes().to_vec();
            key.extend(address);
            bpf::update(&map, &key, &1_u64.to_ne_bytes())?;
        }
        Ok(map)
    };
    let (four, six) = (trie(&four, 4)?, trie(&six, 16)?);
    let directory = File::open(cgroup)?;
    let mut links = Vec::new();
    for (at, from4, from6) in [(AttachType::Egress, 16, 24), (AttachType::Ingress, 12, 8)] {
        let program = Program::default()
            .copy(6, 1)
            .load(7, 6, 16)
            .set_short(8, 0)
            .ask(0x0800, from4, 4, &four, 1)
            .ask(0x86dd, from6, 16, &six, 1)
            .or_short(8, 2)
            .set(0, 1)
            .skip_unless(8, 2, 1)
            .set(0, 0)
            .exit();
        let program = bpf::load(&program.0, at)?;
        links.push(bpf::attach(&program, directory.as_fd(), at)?);
    }
    Ok(Attached { _links: links })
}
