//! Ways out past the packet hooks, against the running kernel: socket options,
//! RDMA and tunnel nodes, sockets that no rule names, deputies, kills, and
//! descriptors that are handed over. Needs what `bpf_kernel` needs; what asks
//! for BPF LSM says that it was skipped where it does not load.
//!
//! A child process is this executable again, told by its environment what to
//! do.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::panic_in_result_fn,
    clippy::print_stdout,
    clippy::unwrap_in_result,
    clippy::unwrap_used,
    unsafe_code,
    reason = "a failing helper is a failing test; a skipped one says so; some calls have no wrapper"
)]

use merestone_abi::{
    Deputies, Event, EventKind, Hook, LOOPBACK_RULE, RULE_ENTRIES, Reason, RuleEntry, RuleSet,
    Verdict, protocol,
};
use merestone_agent::bpf::{
    DeviceRule, EventStream, Kernel, Options, TablePrefix, Tables, object, probe, unload,
};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::fs;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

const ORDERS: &str = "MERESTONE_TEST_ORDERS";
const NVIDIA: u32 = 195;
/// `/dev/full`: opens without a driver of its own, and nobody else opens it.
const STAND_IN: (u32, u32) = (1, 7);

struct Stage {
    cgroup: PathBuf,
    pins: PathBuf,
    home: PathBuf,
}

/// Where cgroups are made; found once, since it loads every program to tell.
static ROOT: OnceLock<Result<PathBuf, String>> = OnceLock::new();

fn root() -> Result<PathBuf, String> {
    let found = probe(Path::new("")).map_err(|error| error.to_string())?;
    Ok(found.cgroup_root)
}

impl Stage {
    /// None, and a word on why, where the test cannot run.
    fn set(name: &str) -> Option<Self> {
        if let Err(error) = object() {
            println!("SKIPPED: {name}: {error}");
            return None;
        }
        let root = match ROOT.get_or_init(root) {
            Ok(root) => root,
            Err(error) => {
                println!("SKIPPED: {name}: {error}");
                return None;
            }
        };
        let name = format!("merestone-ways-{name}");
        let stage = Self {
            cgroup: root.join(&name),
            pins: Path::new("/sys/fs/bpf").join(&name),
            home: std::env::temp_dir().join(&name),
        };
        stage.clear();
        fs::create_dir(&stage.cgroup).unwrap();
        fs::create_dir(&stage.home).unwrap();
        stage.node("gpu", NVIDIA, 0);
        stage.node("rdma", 231, 192);
        stage.node("tun", 10, 200);
        stage.node("vhost", 10, 241);
        stage.node("full", STAND_IN.0, STAND_IN.1);
        Some(stage)
    }

    fn node(&self, name: &str, major: u32, minor: u32) {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            self.home.join(name),
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            rustix::fs::makedev(major, minor),
        )
        .unwrap();
    }

    fn options(&self) -> Options {
        let mut options = Options::new(self.pins.clone());
        options.cgroup_root.clone_from(&self.cgroup);
        options
    }

    fn start(options: &Options, tables: &Tables) -> Option<(Kernel, EventStream)> {
        match Kernel::start(options, tables) {
            Ok(started) => Some(started),
            Err(error) if error.to_string().contains("bpf file system") => {
                println!("SKIPPED: ways_out: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn run(&self, cgroup: &str, orders: &str) -> String {
        said(&self.output(cgroup, orders))
    }

    fn output(&self, cgroup: &str, orders: &str) -> Output {
        self.command(cgroup, orders).output().unwrap()
    }

    fn command(&self, cgroup: &str, orders: &str) -> Command {
        let cgroup = self.cgroup.join(cgroup);
        fs::create_dir_all(&cgroup).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(ORDERS, orders)
            .env("MERESTONE_TEST_CGROUP", cgroup)
            .env("MERESTONE_TEST_HOME", &self.home)
            .stdout(Stdio::piped());
        command
    }

    fn clear(&self) {
        if self.pins.exists() {
            unload(&self.pins).ok();
        }
        fs::remove_dir_all(&self.home).ok();
        for _ in 0..100 {
            if !self.cgroup.exists() {
                return;
            }
            for below in fs::read_dir(&self.cgroup).into_iter().flatten().flatten() {
                fs::remove_dir(below.path()).ok();
            }
            fs::remove_dir(&self.cgroup).ok();
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clear();
    }
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let words: Vec<_> = text
        .lines()
        .filter_map(|line| Some(line.split_once("child: ")?.1))
        .collect();
    words.join(" ")
}

/// The events that have come by now.
fn events(stream: &mut EventStream) -> Vec<Event> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut found = Vec::new();
        let patience = Duration::from_millis(300);
        while let Ok(Ok(event)) = tokio::time::timeout(patience, stream.next()).await {
            found.push(event);
        }
        found
    })
}

fn has(events: &[Event], kind: EventKind, hook: Hook, verdict: Verdict, reason: Reason) -> bool {
    events.iter().any(|event| {
        event.kind == kind
            && event.hook == hook
            && event.verdict == verdict
            && event.reason == reason
    })
}

/// Everything over one protocol, and loopback.
fn tables(allowed: u8, deputies: u8) -> Tables {
    let mut tables = Tables {
        deputies,
        ..Tables::default()
    };
    let nets = [
        ([0; 16], 0, allowed, 1),
        (mapped([127, 0, 0, 0]), 104, protocol::ANY, LOOPBACK_RULE),
    ];
    for (address, bits, protocol, rule) in nets {
        let mut entries = [RuleEntry::default(); RULE_ENTRIES];
        entries[0] = RuleEntry {
            port_low: 0,
            port_high: u16::MAX,
            rule,
            protocol,
            action: Verdict::ALLOW.0,
        };
        let set = u32::try_from(tables.sets.len()).unwrap();
        tables.sets.push(RuleSet {
            length: 1,
            reserved: 0,
            entries,
        });
        tables.prefixes.push(TablePrefix {
            boundary: 0,
            address,
            bits,
            set,
        });
    }
    tables
}

fn mapped(v4: [u8; 4]) -> [u8; 16] {
    std::net::Ipv4Addr::from(v4).to_ipv6_mapped().octets()
}

fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes integers only.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set(socket: &OwnedFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let size = u32::try_from(value.len()).unwrap();
    // SAFETY: `value` has `size` bytes.
    let failed =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), size) };
    if failed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn option(family: i32, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    set(&socket(family, libc::SOCK_DGRAM, 0)?, level, name, value)
}

fn open(path: &Path) -> io::Result<()> {
    fs::File::open(path).map(drop)
}

fn take(channel: &UnixStream) -> io::Result<OwnedFd> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(channel, &mut data, &mut control, RecvFlags::empty())?;
    let mut messages = control.drain();
    messages
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        })
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EPERM))
}

fn give(channel: &UnixStream, file: &OwnedFd) -> io::Result<()> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let files = [file.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
    rustix::net::sendmsg(
        channel,
        &[IoSlice::new(b"!")],
        &mut control,
        SendFlags::empty(),
    )?;
    Ok(())
}

/// `include/uapi/linux`: the options that are tried.
const IPV6_RTHDR: i32 = 57;
const SOL_XDP: i32 = 283;

fn obey(order: &str, home: &Path) -> io::Result<()> {
    match order {
        "gpu" | "rdma" | "tun" | "vhost" | "full" => open(&home.join(order)),
        "send" => UdpSocket::bind("127.0.0.1:0")?
            .send_to(b"x", "127.0.0.1:9")
            .map(drop),
        "mark" => option(
            libc::AF_INET,
            libc::SOL_SOCKET,
            libc::SO_MARK,
            &7_u32.to_ne_bytes(),
        ),
        "long" | "rthdr" | "no-rthdr" | "lsrr" | "stamp" => set_option(order),
        "xdp" => {
            let socket = socket(libc::AF_XDP, libc::SOCK_RAW, 0)?;
            set(&socket, SOL_XDP, 3, &64_u32.to_ne_bytes())
        }
        "raw" => socket(libc::AF_INET, libc::SOCK_RAW, 253).map(drop),
        "rawudp" => socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_UDP).map(drop),
        "icmp" => socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP).map(drop),
        "tcp" => socket(libc::AF_INET, libc::SOCK_STREAM, 0).map(drop),
        "udp" => socket(libc::AF_INET6, libc::SOCK_DGRAM, 0).map(drop),
        "vsock" => socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0).map(drop),
        "ask" => {
            let port = fs::read_to_string(home.join("port"))?;
            let to = format!("127.0.0.1:{}", port.trim());
            let to = to.parse().map_err(io::Error::other)?;
            TcpStream::connect_timeout(&to, Duration::from_millis(500)).map(drop)
        }
        "askudp" => {
            let port = fs::read_to_string(home.join("udp"))?;
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            let to = format!("127.0.0.1:{}", port.trim());
            socket.send_to(b"x", &to)?;
            socket.send_to(b"y", &to).map(drop)
        }
        "own" => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            TcpStream::connect(listener.local_addr()?).map(drop)
        }
        "unix" => UnixStream::connect(home.join("deputy")).map(drop),
        "ownunix" => {
            let path = home.join(format!("own{}", std::process::id()));
            let _listener = UnixListener::bind(&path)?;
            UnixStream::connect(&path).map(drop)
        }
        "records" | "control" => UnixStream::connect(home.join(order))?.write_all(b"x"),
        "take" => take(&UnixStream::connect(home.join("giver"))?).map(drop),
        "relisten" => listen_again(home),
        "stdin" => rustix::io::write(io::stdin(), b"x")
            .map(drop)
            .map_err(Into::into),
        "use" => {
            let file = take(&UnixStream::connect(home.join("giver"))?)?;
            fs::File::from(file).write_all(b"x")
        }
        other => panic!("{other}"),
    }
}

fn set_option(order: &str) -> io::Result<()> {
    match order {
        // Longer than a page: the kernel reads four bytes of it.
        "long" => {
            let mut value = vec![0; 3 * 4096];
            value[1] = 1;
            option(libc::AF_INET, libc::SOL_SOCKET, libc::SO_RCVBUF, &value)
        }
        "rthdr" => {
            let header = [&[0, 4, 4, 1, 1, 0, 0, 0][..], &[0; 32]].concat();
            option(libc::AF_INET6, libc::IPPROTO_IPV6, IPV6_RTHDR, &header)
        }
        "no-rthdr" => option(libc::AF_INET6, libc::IPPROTO_IPV6, IPV6_RTHDR, &[]),
        "lsrr" => {
            let route = [1, 131, 7, 4, 198, 18, 77, 7];
            option(libc::AF_INET, libc::IPPROTO_IP, libc::IP_OPTIONS, &route)
        }
        "stamp" => {
            let stamp = [68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            option(libc::AF_INET, libc::IPPROTO_IP, libc::IP_OPTIONS, &stamp)
        }
        other => panic!("{other}"),
    }
}

/// Listens on what it is handed, until it is told to end.
fn listen_again(home: &Path) -> io::Result<()> {
    let listener = take(&UnixStream::connect(home.join("giver"))?)?;
    rustix::net::listen(&listener, 8)?;
    fs::write(home.join("listens"), "")?;
    for _ in 0..1000 {
        if !home.join("listens").exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Not a test: what a child process runs.
#[test]
fn child() {
    let Ok(orders) = std::env::var(ORDERS) else {
        return;
    };
    let cgroup = PathBuf::from(std::env::var("MERESTONE_TEST_CGROUP").unwrap());
    let home = PathBuf::from(std::env::var("MERESTONE_TEST_HOME").unwrap());
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    for order in orders.split(' ') {
        let answer = match obey(order, &home) {
            Ok(()) => "ok".to_owned(),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => "EPERM".to_owned(),
            // No driver, or not for this node: the device hooks come first.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENODEV)) => {
                "ENXIO".to_owned()
            }
            Err(error) => format!("{:?}", error.raw_os_error()),
        };
        println!("child: {order}={answer}");
    }
}

#[test]
fn options_past_the_packet_hooks_are_refused_to_the_guarded_alone_b11_b12_b22_b23_b43() {
    let Some(stage) = Stage::set("options") else {
        return;
    };
    let everything = tables(protocol::ANY, 0);
    let Some((_kernel, mut stream)) = Stage::start(&stage.options(), &everything) else {
        return;
    };
    let told = stage.run("free", "mark long rthdr lsrr stamp");
    assert_eq!(told, "mark=ok long=ok rthdr=ok lsrr=ok stamp=ok");
    let told = stage.run("held", "gpu mark long rthdr no-rthdr lsrr stamp");
    assert_eq!(
        told,
        "gpu=ENXIO mark=EPERM long=ok rthdr=EPERM no-rthdr=ok lsrr=EPERM stamp=ok"
    );
    let refused = events(&mut stream);
    let (flow, deny) = (EventKind::FLOW, Verdict::DENY);
    let option = Reason::SOCKET_OPTION;
    assert!(
        has(&refused, flow, Hook::SETSOCKOPT, deny, option),
        "{refused:?}"
    );
    let xdp = stage.run("free", "xdp");
    if xdp == "xdp=ok" {
        assert_eq!(stage.run("held", "gpu xdp"), "gpu=ENXIO xdp=EPERM");
    } else {
        println!("SKIPPED: AF_XDP: {xdp}");
    }
}

#[test]
fn rdma_and_tunnel_nodes_are_refused_to_the_guarded_alone_b13_b44() {
    let Some(stage) = Stage::set("nodes") else {
        return;
    };
    let everything = tables(protocol::ANY, 0);
    let Some((kernel, mut stream)) = Stage::start(&stage.options(), &everything) else {
        return;
    };
    let free = stage.run("free", "rdma tun vhost");
    assert!(!free.contains("EPERM"), "{free}");
    assert_eq!(kernel.groups().unwrap(), [], "they guard nobody");
    let told = stage.run("held", "gpu rdma tun vhost full");
    assert_eq!(told, "gpu=ENXIO rdma=EPERM tun=EPERM vhost=EPERM full=ok");
    let refused = events(&mut stream);
    for reason in [Reason::RDMA, Reason::TUNNEL] {
        let (flow, deny) = (EventKind::FLOW, Verdict::DENY);
        assert!(
            has(&refused, flow, Hook::DEVICE, deny, reason),
            "{refused:?}"
        );
    }
}

#[test]
fn a_socket_that_no_rule_names_is_refused_at_birth_b07_b09() {
    let Some(stage) = Stage::set("create") else {
        return;
    };
    let tcp = tables(protocol::TCP, 0);
    let Some((mut kernel, mut stream)) = Stage::start(&stage.options(), &tcp) else {
        return;
    };
    assert_eq!(stage.run("free", "raw icmp"), "raw=ok icmp=ok");
    let told = stage.run("held", "gpu raw rawudp icmp tcp udp");
    assert_eq!(
        told,
        "gpu=ENXIO raw=EPERM rawudp=EPERM icmp=EPERM tcp=ok udp=ok"
    );
    let refused = events(&mut stream);
    let (flow, deny) = (EventKind::FLOW, Verdict::DENY);
    assert!(
        has(&refused, flow, Hook::SOCK_CREATE, deny, Reason::FAMILY),
        "{refused:?}"
    );
    kernel.install(&tables(protocol::ICMP, 0)).unwrap();
    assert_eq!(stage.run("held", "raw icmp"), "raw=EPERM icmp=ok");
    kernel.install(&tables(protocol::ANY, 0)).unwrap();
    assert_eq!(stage.run("held", "raw icmp"), "raw=ok icmp=ok");
}

#[test]
fn a_listener_outside_the_group_is_told_of_and_refused_where_asked_b50() {
    let Some(stage) = Stage::set("loopback") else {
        return;
    };
    let Some((mut kernel, mut stream)) = Stage::start(&stage.options(), &tables(protocol::ANY, 0))
    else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = |at: std::net::SocketAddr| at.port().to_string();
    fs::write(
        stage.home.join("port"),
        port(listener.local_addr().unwrap()),
    )
    .unwrap();
    fs::write(
        stage.home.join("udp"),
        port(datagrams.local_addr().unwrap()),
    )
    .unwrap();
    let told = stage.run("held", "gpu ask askudp own");
    assert_eq!(told, "gpu=ENXIO ask=ok askudp=ok own=ok");
    let seen = events(&mut stream);
    let deputies: Vec<_> = seen
        .iter()
        .filter(|event| event.kind == EventKind::DEPUTY)
        .map(|event| (event.protocol, event.verdict, event.port))
        .collect();
    let tcp = listener.local_addr().unwrap().port();
    let udp = datagrams.local_addr().unwrap().port();
    let expected = [
        (protocol::TCP, Verdict::ALLOW, tcp),
        (protocol::UDP, Verdict::ALLOW, udp),
    ];
    assert_eq!(
        deputies, expected,
        "once a connection, and the group's own never"
    );

    kernel
        .install(&tables(protocol::ANY, Deputies::DENY_LOOPBACK))
        .unwrap();
    assert_eq!(stage.run("free", "ask askudp"), "ask=ok askudp=ok");
    let told = stage.run("held", "ask askudp own");
    assert_eq!(told, "ask=EPERM askudp=EPERM own=ok");
    let seen = events(&mut stream);
    assert!(
        seen.iter().any(|event| event.reason == Reason::DEPUTY
            && event.verdict == Verdict::DENY
            && event.hook == Hook::CONNECT4),
        "{seen:?}"
    );
}

#[test]
fn without_lsm_a_forbidden_family_is_killed_before_it_sends_b14_b18() {
    let Some(stage) = Stage::set("kill") else {
        return;
    };
    let mut options = stage.options();
    options.kill_families = true;
    let Some((kernel, mut stream)) = Stage::start(&options, &tables(protocol::ANY, 0)) else {
        return;
    };
    let tiers = kernel.tiers();
    let kill = tiers.iter().find(|tier| tier.name == "kill").unwrap();
    if !kill.active {
        println!("SKIPPED: kill: {}", kill.detail);
        return;
    }
    assert_eq!(stage.run("free", "tcp"), "tcp=ok");
    let output = stage.output("held", "gpu tcp vsock tcp");
    assert_eq!(
        output.status.signal(),
        Some(libc::SIGKILL),
        "{}",
        said(&output)
    );
    assert_eq!(said(&output), "gpu=ENXIO tcp=ok");
    let seen = events(&mut stream);
    let (flow, deny) = (EventKind::FLOW, Verdict::DENY);
    assert!(
        has(&seen, flow, Hook::SYS_ENTER, deny, Reason::FAMILY),
        "{seen:?}"
    );
}

/// Whether the LSM tier is there; a word where it is not.
fn has_lsm(kernel: &Kernel, name: &str) -> bool {
    let tiers = kernel.tiers();
    let lsm = tiers.iter().find(|tier| tier.name == "lsm").unwrap();
    if !lsm.active {
        println!("SKIPPED: {name}: {}", lsm.detail);
    }
    lsm.active
}

#[test]
fn a_unix_socket_outside_the_group_is_told_of_and_refused_where_asked_b49() {
    let Some(stage) = Stage::set("unix") else {
        return;
    };
    let Some((mut kernel, mut stream)) = Stage::start(&stage.options(), &tables(protocol::ANY, 0))
    else {
        return;
    };
    if !has_lsm(&kernel, "unix") {
        return;
    }
    let _listener = UnixListener::bind(stage.home.join("deputy")).unwrap();
    let told = stage.run("held", "gpu unix ownunix");
    assert_eq!(told, "gpu=ENXIO unix=ok ownunix=ok");
    let seen = events(&mut stream);
    let deputies: Vec<_> = seen
        .iter()
        .filter(|event| event.kind == EventKind::DEPUTY)
        .map(|event| (event.hook, event.verdict, event.other))
        .collect();
    let own = std::process::id();
    assert_eq!(deputies, [(Hook::LSM_UNIX_CONNECT, Verdict::ALLOW, own)]);

    kernel
        .install(&tables(protocol::ANY, Deputies::DENY_UNIX))
        .unwrap();
    assert_eq!(stage.run("free", "unix"), "unix=ok");
    assert_eq!(stage.run("held", "unix ownunix"), "unix=EPERM ownunix=ok");
}

#[test]
fn the_agent_s_records_socket_is_no_deputy_and_nothing_in_its_place_is_it_b49() {
    let Some(stage) = Stage::set("records") else {
        return;
    };
    let deny = tables(protocol::ANY, Deputies::DENY_UNIX);
    let Some((mut kernel, mut stream)) = Stage::start(&stage.options(), &deny) else {
        return;
    };
    if !has_lsm(&kernel, "records") {
        return;
    }
    let _control = UnixListener::bind(stage.home.join("control")).unwrap();
    let records = UnixListener::bind(stage.home.join("records")).unwrap();
    assert_eq!(stage.run("held", "gpu records"), "gpu=ENXIO records=EPERM");
    events(&mut stream);
    kernel.admit_records(&records).unwrap();
    let told = stage.run("held", "records control");
    assert_eq!(told, "records=ok control=EPERM", "only what was marked");
    let seen = events(&mut stream);
    let deputies = seen.iter().filter(|event| event.kind == EventKind::DEPUTY);
    assert_eq!(deputies.count(), 1, "{seen:?}");

    // Another process listens on it: it lives, and has ended.
    let shared: OwnedFd = records.try_clone().unwrap().into();
    hand(&stage, shared, || {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| stage.run("free", "relisten"));
            let until = std::time::Instant::now() + Duration::from_secs(20);
            while !stage.home.join("listens").exists() && std::time::Instant::now() < until {
                std::thread::sleep(Duration::from_millis(20));
            }
            assert_eq!(stage.run("held", "records"), "records=EPERM");
            fs::remove_file(stage.home.join("listens")).unwrap();
            assert_eq!(other.join().unwrap(), "relisten=ok");
        });
    });
    assert_eq!(stage.run("held", "records"), "records=EPERM");
    rustix::net::listen(&records, 8).unwrap();
    assert_eq!(stage.run("held", "records"), "records=ok");

    // A connection that somebody outside made.
    let made: OwnedFd = UnixStream::connect(stage.home.join("records"))
        .unwrap()
        .into();
    for (cgroup, answer) in [("free", "stdin=ok"), ("held", "stdin=EPERM")] {
        let mut command = stage.command(cgroup, "stdin");
        let output = command.stdin(made.try_clone().unwrap()).output().unwrap();
        assert_eq!(said(&output), answer);
    }

    // Another socket under its name.
    fs::remove_file(stage.home.join("records")).unwrap();
    let _swapped = UnixListener::bind(stage.home.join("records")).unwrap();
    assert_eq!(stage.run("held", "records"), "records=EPERM");
}

/// Gives a descriptor to whoever connects to `giver`, once.
fn hand(stage: &Stage, file: OwnedFd, run: impl FnOnce()) {
    let path = stage.home.join("giver");
    let giver = UnixListener::bind(&path).unwrap();
    let giving = std::thread::spawn(move || {
        let (channel, _) = giver.accept().unwrap();
        give(&channel, &file).unwrap();
    });
    run();
    giving.join().unwrap();
    fs::remove_file(path).unwrap();
}

#[test]
fn whoever_is_handed_a_gpu_is_guarded_from_then_on_b31() {
    let Some(stage) = Stage::set("handed") else {
        return;
    };
    let mut options = stage.options();
    let (major, minor) = STAND_IN;
    options.devices = vec![DeviceRule::configured(major, Some(minor))];
    // The suite itself lies outside this cgroup: what it opens guards nobody.
    let Some((kernel, mut stream)) = Stage::start(&options, &Tables::default()) else {
        return;
    };
    if !has_lsm(&kernel, "handed") {
        return;
    }
    let file: OwnedFd = fs::File::open(stage.home.join("full")).unwrap().into();
    let giver = UnixListener::bind(stage.home.join("giver")).unwrap();
    let giving = std::thread::spawn(move || {
        let (channel, _) = giver.accept().unwrap();
        give(&channel, &file).unwrap();
    });
    assert_eq!(
        stage.run("held", "send take send"),
        "send=ok take=ok send=EPERM"
    );
    giving.join().unwrap();
    let seen = events(&mut stream);
    assert!(
        seen.iter()
            .any(|event| event.kind == EventKind::GUARD && event.hook == Hook::LSM_RECEIVE),
        "{seen:?}"
    );
}

#[test]
fn a_connection_to_outside_cannot_be_handed_to_the_guarded_b30() {
    let Some(stage) = Stage::set("passed") else {
        return;
    };
    let Some((kernel, mut stream)) = Stage::start(&stage.options(), &Tables::default()) else {
        return;
    };
    if !has_lsm(&kernel, "passed") {
        return;
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect("127.0.0.1:9").unwrap();
    let socket: OwnedFd = socket.into();
    let giver = UnixListener::bind(stage.home.join("giver")).unwrap();
    let giving = std::thread::spawn(move || {
        for _ in 0..2 {
            let (channel, _) = giver.accept().unwrap();
            give(&channel, &socket).unwrap();
        }
    });
    assert_eq!(stage.run("free", "use"), "use=ok");
    assert_eq!(stage.run("held", "gpu take"), "gpu=ENXIO take=EPERM");
    giving.join().unwrap();
    let seen = events(&mut stream);
    let (flow, deny) = (EventKind::FLOW, Verdict::DENY);
    assert!(
        has(&seen, flow, Hook::LSM_RECEIVE, deny, Reason::NO_RULE),
        "{seen:?}"
    );
}
