//! Packets that the kernel makes or remakes for a process: reports of
//! multicast joins, tunnels, transforms, traffic control actions. What has it
//! run programs or connect is in `asked`.
//!
//! What root inside the group configures through netlink is configured with
//! `ip` and `tc`, as a process there would.

use super::options::datagram;
use super::{Probe, become_child, enter, say};
use crate::job::{self, INTERFACE, Line, PORT};
use crate::lab;
use crate::sys::{self, Fork};
use crate::wire;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// `IPV6_JOIN_GROUP`, include/uapi/linux/in6.h.
const IPV6_JOIN_GROUP: i32 = 20;
/// `MCAST_JOIN_GROUP`, include/uapi/linux/in.h.
const MCAST_JOIN_GROUP: i32 = 42;
/// An address inside the boundary that nothing but these vectors talks to.
const DETOUR: Ipv4Addr = Ipv4Addr::new(198, 18, 200, 1);
/// The device these vectors make.
const DEVICE: &str = "mremade";

/// Runs `ip` or `tc`; what went wrong as an answer of the kernel. A refusal is
/// an attempt of its own, since it is that process the agent reports.
pub(super) fn configure(words: &str) -> io::Result<()> {
    let begin = Instant::now();
    let mut words = words.split_whitespace();
    let program = words.next().unwrap_or("ip");
    let child = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let pid = child.id();
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    let refused = said.contains("not permitted") || said.contains("cannot open netlink");
    if refused {
        say(&Line::Attempt {
            pid,
            what: program.to_owned(),
            errno: Some(libc::EPERM),
            elapsed_us: u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX),
        });
    }
    // Anything else: this kernel or this tool has no such thing.
    let code = if refused {
        libc::EPERM
    } else {
        libc::EOPNOTSUPP
    };
    Err(io::Error::from_raw_os_error(code))
}

/// The option that joins this case's group, as (level, name, value).
fn membership(probe: &Probe, v6: bool) -> io::Result<(i32, i32, Vec<u8>)> {
    let index = sys::interface(INTERFACE)?;
    Ok(match lab::group(probe.job.denied(v6)) {
        IpAddr::V4(group) => {
            // struct ip_mreqn: group, own address, interface.
            let request = [&group.octets()[..], &[0; 4], &index.to_ne_bytes()].concat();
            (libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, request)
        }
        IpAddr::V6(group) => {
            let request = [&group.octets()[..], &index.to_ne_bytes()].concat();
            (libc::IPPROTO_IPV6, IPV6_JOIN_GROUP, request)
        }
    })
}

/// The report is sent by a timer, within a few jiffies and then a second.
const REPORTED: Duration = Duration::from_millis(1200);

fn join(probe: &Probe, v6: bool, (level, name, request): (i32, i32, Vec<u8>)) -> io::Result<()> {
    probe.open_gpu()?;
    let mut kept = None;
    probe.attempt("join", || {
        let socket = datagram(v6)?;
        let joined = sys::set_option(&socket, level, name, &request);
        kept = Some(socket);
        joined
    });
    std::thread::sleep(REPORTED);
    drop(kept);
    Ok(())
}

/// IGMP or MLD: the kernel reports the group, and the group is the message.
pub fn joined(probe: &Probe, v6: bool) -> io::Result<()> {
    join(probe, v6, membership(probe, v6)?)
}

/// The same by the option that both families share.
pub fn joined_alike(probe: &Probe, v6: bool) -> io::Result<()> {
    let index = u64::from(sys::interface(INTERFACE)?);
    let group = lab::group(probe.job.denied(v6));
    // struct group_req: the interface, padded, and a sockaddr_storage.
    let mut request = index.to_ne_bytes().to_vec();
    request.extend(wire::sockaddr(SocketAddr::new(group, 0)));
    request.resize(8 + 128, 0);
    let level = if v6 {
        libc::IPPROTO_IPV6
    } else {
        libc::IPPROTO_IP
    };
    join(probe, v6, (level, MCAST_JOIN_GROUP, request))
}

/// The same by `io_uring`, past setsockopt(2).
pub fn joined_by_ring(probe: &Probe, v6: bool) -> io::Result<()> {
    let (level, name, request) = membership(probe, v6)?;
    let socket = datagram(v6)?;
    let set = super::ring::option_setter()?;
    probe.open_gpu()?;
    probe.attempt("ring join", || set(&socket, level, name, &request));
    std::thread::sleep(REPORTED);
    Ok(())
}

/// Sends the marker inside, by a way the `set_up` lines bend; undone after.
fn by_detour(probe: &Probe, set_up: &[String], tear_down: &[&str]) -> io::Result<()> {
    let target = wire::sockaddr(SocketAddr::new(DETOUR.into(), PORT));
    probe.open_gpu()?;
    probe.attempt("configure and send", || {
        for line in set_up {
            configure(line)?;
        }
        let socket = datagram(false)?;
        sys::send(&socket, probe.marker(), 0, &target)
    });
    std::thread::sleep(Duration::from_millis(20));
    for line in tear_down {
        // It may never have been made.
        drop(configure(line));
    }
    Ok(())
}

fn tunnel(probe: &Probe, link: &str) -> io::Result<()> {
    let lines = [
        format!("ip link add {DEVICE} {link}"),
        format!("ip link set {DEVICE} up"),
        format!(
            "ip route replace {DETOUR}/32 dev {DEVICE} src {}",
            job::HOME4
        ),
    ];
    by_detour(probe, &lines, &[&format!("ip link del {DEVICE}")])
}

/// IPIP to the denied host.
pub fn ipip(probe: &Probe, _v6: bool) -> io::Result<()> {
    let (local, remote) = (job::HOME4, probe.job.denied4);
    tunnel(probe, &format!("type ipip local {local} remote {remote}"))
}

/// GRE to the denied host.
pub fn gre(probe: &Probe, _v6: bool) -> io::Result<()> {
    let (local, remote) = (job::HOME4, probe.job.denied4);
    tunnel(probe, &format!("type gre local {local} remote {remote}"))
}

/// VXLAN to the denied host.
pub fn vxlan(probe: &Probe, _v6: bool) -> io::Result<()> {
    let (local, remote) = (job::HOME4, probe.job.denied4);
    tunnel(
        probe,
        &format!("type vxlan id 7 local {local} remote {remote} dstport {PORT} dev {INTERFACE}"),
    )
}

/// ESP in tunnel mode to the denied host.
pub fn transform(probe: &Probe, _v6: bool) -> io::Result<()> {
    let (local, remote) = (job::HOME4, probe.job.denied4);
    let lines = [
        format!(
            "ip xfrm state add src {local} dst {remote} proto esp spi 0x4d52 mode tunnel \
             enc cbc(aes) 0x6d6572656d6572656d6572656d657265 auth hmac(sha1) 0x{}",
            "6d".repeat(20)
        ),
        format!(
            "ip xfrm policy add src {local}/32 dst {DETOUR}/32 dir out \
             tmpl src {local} dst {remote} proto esp mode tunnel"
        ),
    ];
    by_detour(
        probe,
        &lines,
        &["ip xfrm policy flush", "ip xfrm state flush"],
    )
}

/// A traffic control action that writes the denied address into the packet
/// after every hook has seen the allowed one.
pub fn rewritten(probe: &Probe, _v6: bool) -> io::Result<()> {
    let denied = probe.job.denied4;
    let lines = [
        format!("tc qdisc add dev {INTERFACE} clsact"),
        format!(
            "tc filter add dev {INTERFACE} egress protocol ip pref 7 u32 match ip dst {DETOUR}/32 \
             action pedit ex munge ip dst set {denied}"
        ),
    ];
    let undo = format!("tc filter del dev {INTERFACE} egress pref 7");
    by_detour(probe, &lines, &[&undo])
}

/// Another program on the cgroup turns a connect to the allowed host into one
/// to the denied host.
pub fn load_balanced(probe: &Probe, _v6: bool) -> io::Result<()> {
    let cgroup = File::open(&probe.job.cgroup)?;
    let program = sys::load_connect_rewriter(probe.job.denied4)?;
    sys::connect_program(cgroup.as_fd(), &program, true)?;
    probe.open_gpu()?;
    let allowed = wire::sockaddr(SocketAddr::new(job::allowed(false), PORT));
    probe.attempt("connect", || {
        let socket = super::tcp::stream(false, 0)?;
        sys::connect(&socket, &allowed)?;
        sys::send(&socket, probe.marker(), 0, &[])
    });
    sys::connect_program(cgroup.as_fd(), &program, false)
}

/// A network namespace whose only way out is a tunnel device that an unguarded
/// process outside reads, as slirp and pasta do.
pub fn helper_outside(probe: &Probe, v6: bool) -> io::Result<()> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let helper = match sys::fork()? {
        Fork::Child => {
            drop(ours);
            become_child(|| forward(probe, theirs))
        }
        Fork::Parent(pid) => pid,
    };
    drop(theirs);
    let mut word = [0];
    let made = ours.read(&mut word)? == 1 && word == *b"y";
    let target = wire::sockaddr(probe.job.target(v6));
    if made {
        let network = File::open(format!("/proc/{helper}/ns/net"))?;
        let own = File::open("/proc/thread-self/ns/net")?;
        probe.open_gpu()?;
        sys::enter_network(network.as_fd())?;
        probe.attempt("sendto", || {
            sys::send(&datagram(v6)?, probe.marker(), 0, &target)
        });
        std::thread::sleep(Duration::from_millis(30));
        sys::enter_network(own.as_fd())?;
    } else {
        probe.open_gpu()?;
        let none = io::Error::from_raw_os_error(libc::ENOSYS);
        probe.attempt("tunnel device", || Err::<(), _>(none));
    }
    drop(ours);
    drop(sys::kill(helper, libc::SIGKILL));
    sys::wait(helper).map(drop)
}

/// The helper: a namespace with a tunnel device, whose packets it sends from
/// the namespace it came from, until it is killed.
fn forward(probe: &Probe, mut channel: UnixStream) -> io::Result<()> {
    enter(&probe.job.elsewhere)?;
    let wire_side = sys::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
    sys::leave_network()?;
    let Ok(mut device) = super::families::tunnel_device("mreslirp") else {
        return channel.write_all(b"n");
    };
    for line in [
        format!("ip addr add {}/24 dev mreslirp", job::HOME4),
        "ip link set mreslirp up".to_owned(),
        "ip route add default dev mreslirp".to_owned(),
    ] {
        configure(&line)?;
    }
    channel.write_all(b"y")?;
    let mut packet = [0; 2048];
    loop {
        let size = device.read(&mut packet)?;
        let packet = packet.get(..size).unwrap_or_default();
        let Some(&[a, b, c, d]) = packet.get(16..20).and_then(|bytes| bytes.first_chunk()) else {
            continue;
        };
        if packet.first().is_some_and(|first| first >> 4 == 4) {
            let target = SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), 0);
            // What cannot be sent on is lost, as with slirp.
            drop(sys::send(&wire_side, packet, 0, &wire::sockaddr(target)));
        }
    }
}
