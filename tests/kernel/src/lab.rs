//! Two network namespaces and a wire between them, a third with a wire of its
//! own, and the servers beyond the boundary.
//!
//! The namespaces have no names: they live as long as this process, so that
//! nothing is left behind even when it is killed.

use crate::job::{HOME4, HOME6, INSIDE_MAC, INTERFACE, OUTSIDE_MAC, PORT};
use crate::sys;
use anyhow::{Context as _, Result, anyhow, ensure};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A network namespace without a name.
#[derive(Debug)]
pub struct Network {
    handle: File,
}

impl Network {
    fn new() -> Result<Self> {
        let made = std::thread::spawn(|| -> Result<File> {
            sys::leave_network().context("cannot make a network namespace")?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        let handle = made.join().map_err(|_panic| anyhow!("panicked"))??;
        Ok(Self { handle })
    }

    /// Runs `work` on a thread inside; a process it starts is inside too.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                sys::enter_network(self.handle.as_fd())?;
                work()
            });
            inside.join().map_err(|_panic| anyhow!("panicked"))?
        })
    }

    /// Starts a thread inside that lives on.
    fn keep<F: FnOnce() + Send + 'static>(&self, work: F) -> Result<()> {
        let handle = self.handle.try_clone()?;
        let (ready, entered) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let outcome = sys::enter_network(handle.as_fd());
            let inside = outcome.is_ok();
            if ready.send(outcome).is_ok() && inside {
                work();
            }
        });
        Ok(entered.recv()??)
    }

    /// A path by which any process can open this namespace.
    pub fn path(&self) -> PathBuf {
        let (pid, fd) = (std::process::id(), self.handle.as_raw_fd());
        format!("/proc/{pid}/fd/{fd}").into()
    }
}

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

fn set(key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{key}");
    std::fs::write(&path, value).with_context(|| format!("cannot set {path}"))
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// Networks whose every address is the outside host.
const OUTSIDE: [&str; 7] = [
    "192.0.2.0/24",
    "198.19.0.0/24",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "2001:db8:66::/48",
    "64:ff9b::/96",
    "2002::/16",
];
/// The alternate namespace's addresses and the outside end of its wire.
const ALTERNATE: (&str, &str, &str) = ("198.18.1.2/24", "fd00:6d65:0:1::2/64", "mre2");

/// The whole lab.
#[derive(Debug)]
pub struct Lab {
    /// Where the probes live.
    pub inside: Network,
    /// Where the sniffer and the servers live.
    pub outside: Network,
    /// Where a probe may flee to.
    pub alternate: Network,
}

impl Lab {
    /// Builds it and starts the servers.
    pub fn new() -> Result<Self> {
        let (inside, outside, alternate) = (Network::new()?, Network::new()?, Network::new()?);
        let lab = Self {
            inside,
            outside,
            alternate,
        };
        let beyond = lab.outside.path();
        lab.inside.within(|| set_up_inside(&beyond))?;
        lab.alternate.within(|| {
            let (v4, v6, wire) = ALTERNATE;
            near(
                wire,
                &beyond.display().to_string(),
                v4,
                v6,
                [2, 0x6d, 0x65, 0, 1, 2],
            )?;
            route_out("198.18.1.9", "fd00:6d65:0:1::9", [2, 0x6d, 0x65, 0, 1, 9])
        })?;
        lab.outside.within(set_up_outside)?;
        lab.start_servers()?;
        Ok(lab)
    }

    fn start_servers(&self) -> Result<()> {
        for port in [PORT, 53] {
            self.outside.keep(move || serve_datagrams(port))?;
            self.outside.keep(move || serve_streams(port))?;
        }
        let word = b"are the servers up?";
        self.inside.within(|| {
            for _ in 0..100 {
                if ask(word).is_ok() {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(anyhow!("the servers beyond the boundary do not answer"))
        })
    }
}

fn ask(word: &[u8]) -> std::io::Result<()> {
    let target = SocketAddr::new(crate::job::ALLOWED4.into(), PORT);
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    socket.send_to(word, target)?;
    socket.recv(&mut [0; 64])?;
    let mut stream = std::net::TcpStream::connect(target)?;
    stream.write_all(word)
}

/// A wire from here to `beyond`, where its end is called `far`.
fn near(far: &str, beyond: &str, v4: &str, v6: &str, address: [u8; 6]) -> Result<()> {
    let here = INTERFACE;
    ip("link set lo up")?;
    ip(&format!(
        "link add {here} address {} type veth peer name {far} netns {beyond}",
        mac(address)
    ))?;
    ip(&format!("addr add {v4} dev {here}"))?;
    ip(&format!("link set {here} up"))?;
    ip(&format!("addr add {v6} dev {here} nodad"))
}

/// Routes everything to the outside host; neighbours are fixed so that no
/// question about them is ever on the wire.
fn route_out(v4: &str, v6: &str, address: [u8; 6]) -> Result<()> {
    let (address, here) = (mac(address), INTERFACE);
    for gateway in [v4, v6] {
        ip(&format!(
            "neigh replace {gateway} lladdr {address} nud permanent dev {here}"
        ))?;
    }
    // Beyond the link's own addresses lies the same host, by the same wire.
    ip(&format!("route replace default via {v4} dev {here}"))?;
    ip(&format!("-6 route replace default via {v6} dev {here}"))
}

fn set_up_inside(beyond: &std::path::Path) -> Result<()> {
    let (v4, v6) = (format!("{HOME4}/24"), format!("{HOME6}/64"));
    near("mre1", &beyond.display().to_string(), &v4, &v6, INSIDE_MAC)?;
    set("ipv4/ping_group_range", "0 2147483647")?;
    // A host that forwards, as one with containers does, and believes any source.
    set("ipv4/ip_forward", "1")?;
    for scope in ["all", "default"] {
        set(&format!("ipv4/conf/{scope}/rp_filter"), "0")?;
    }
    // Data in the first SYN, without a cookie: the sharpest fast open.
    set("ipv4/tcp_fastopen", "1543")?;
    route_out("198.18.0.9", "fd00:6d65::9", OUTSIDE_MAC)
}

fn set_up_outside() -> Result<()> {
    ip("link set lo up")?;
    let far = |name: &str, v4: &str, v6: &str, own: [u8; 6], peer: [u8; 6]| -> Result<()> {
        ip(&format!("link set {name} address {}", mac(own)))?;
        ip(&format!("addr add {v4}.9/24 dev {name}"))?;
        ip(&format!("link set {name} up"))?;
        ip(&format!("addr add {v6}::9/64 dev {name} nodad"))?;
        let peer = mac(peer);
        ip(&format!(
            "neigh replace {v4}.2 lladdr {peer} nud permanent dev {name}"
        ))?;
        ip(&format!(
            "neigh replace {v6}::2 lladdr {peer} nud permanent dev {name}"
        ))
    };
    far("mre1", "198.18.0", "fd00:6d65", OUTSIDE_MAC, INSIDE_MAC)?;
    let (alt_far, alt_near) = ([2, 0x6d, 0x65, 0, 1, 9], [2, 0x6d, 0x65, 0, 1, 2]);
    far(ALTERNATE.2, "198.18.1", "fd00:6d65:0:1", alt_far, alt_near)?;
    for network in OUTSIDE {
        ip(&format!("route replace local {network} dev lo"))?;
    }
    // Gives cookies to who asks for one.
    set("ipv4/tcp_fastopen", "1027")?;
    set("ipv6/ip_nonlocal_bind", "1")
}

fn serve_datagrams(port: u16) {
    let Ok(socket) = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)) else {
        return;
    };
    let mut data = vec![0; 65536];
    loop {
        if let Ok((size, peer)) = socket.recv_from(&mut data) {
            let answer = data.get(..size).unwrap_or_default();
            // Nobody may listen any more: that is the peer's affair.
            drop(socket.send_to(answer, peer));
        }
    }
}

fn serve_streams(port: u16) {
    let Ok(listener) = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)) else {
        return;
    };
    for mut stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let mut data = [0; 4096];
            while let Ok(size @ 1..) = stream.read(&mut data) {
                if stream
                    .write_all(data.get(..size).unwrap_or_default())
                    .is_err()
                {
                    return;
                }
            }
        });
    }
}

/// Which run a case's addresses belong to: no two share one, so that a late
/// packet of one can never be taken for a packet of another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Nobody opens the GPU.
    Control,
    /// The GPU is opened in a cgroup of its own.
    Cgroup,
    /// The GPU is opened where only the process tree is guarded.
    Tree,
    /// The GPU is opened and there is no agent: the suite's own teeth.
    Teeth,
}

/// The denied addresses of case `number` in `phase`.
pub fn denied(phase: Phase, number: u8) -> (Ipv4Addr, Ipv6Addr) {
    let (net, word) = match phase {
        Phase::Control => ([198, 51, 100], 1),
        Phase::Cgroup => ([203, 0, 113], 2),
        Phase::Tree => ([192, 0, 2], 3),
        Phase::Teeth => ([198, 19, 0], 4),
    };
    let [a, b, c] = net;
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0x66, word, 0, 0, 0, number.into());
    (Ipv4Addr::new(a, b, c, number), v6)
}

/// A destination inside the boundary to which only the soak sends.
pub fn soaked(v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd00, 0x6d65, 0, 9, 0, 0, 0, 9).into()
    } else {
        Ipv4Addr::new(198, 18, 9, 9).into()
    }
}

/// The multicast group that stands for a denied address: joining it makes the
/// kernel say its name on the link.
pub fn group(denied: IpAddr) -> IpAddr {
    match denied {
        IpAddr::V4(address) => {
            let [_, b, c, d] = address.octets();
            Ipv4Addr::new(239, b, c, d).into()
        }
        IpAddr::V6(address) => {
            let [_, _, _, phase, .., number] = address.segments();
            Ipv6Addr::new(0xff15, 0, 0, 0, 0x6d65, 0, phase, number).into()
        }
    }
}

/// Connects from `source` outside to the probe's `port`, and keeps the
/// connection until the answer is dropped; none if the probe did not answer.
pub fn connect_in(lab: &Lab, source: IpAddr, port: u16) -> Result<Option<File>> {
    let v6 = source.is_ipv6();
    let (from, to) = (
        crate::wire::sockaddr(SocketAddr::new(source, 0)),
        crate::wire::sockaddr(SocketAddr::new(crate::job::home(v6), port)),
    );
    lab.outside.within(|| {
        let patience = Duration::from_millis(700);
        let socket = crate::probe::tcp::patient_stream(v6, 0, patience)?;
        sys::bind(&socket, &from).context("cannot bind to the denied address")?;
        Ok(sys::connect(&socket, &to)
            .is_ok()
            .then(|| File::from(socket)))
    })
}
