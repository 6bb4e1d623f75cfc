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
    reason = "a failing helper is a failing test; a skipped one says so"
)]

mod child;
mod stage;
#[path = "../support/mod.rs"]
mod support;

use child::{give, obey};
use merestone_abi::{Deputies, EventKind, Hook, Reason, Verdict, protocol};
use merestone_agent::bpf::{DeviceRule, EventStream, Kernel, Options, Tables};
use stage::{STAND_IN, Stage, events, has, tables};
use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::time::Duration;
use support::said;

const ORDERS: &str = "MERESTONE_TEST_ORDERS";

type Body = fn(&Stage, &mut Kernel, &mut EventStream);

/// What is tried, each on a stage of its own or all on one.
const BODIES: [(&str, Body); 7] = [
    ("options", on_options),
    ("nodes", on_nodes),
    ("create", on_create),
    ("loopback", on_loopback),
    ("unix", on_unix),
    ("records", on_records),
    ("passed", on_passed),
];
/// What wants options of its own, which the others shall not have.
const OTHERS: [(&str, Body); 2] = [("kill", on_kill), ("handed", on_handed)];

/// The options of [`OTHERS`].
fn other(mut options: Options) -> Options {
    options.kill_families = true;
    let (major, minor) = STAND_IN;
    options.devices = vec![DeviceRule::configured(major, Some(minor))];
    options
}

fn alone(name: &str, body: Body) {
    if support::is_done_by("all_of_it_on_two_stages", name) {
        return;
    }
    let is_other = OTHERS.iter().any(|(other, _)| *other == name);
    on_one_stage(name, is_other, &[(name, body)]);
}

fn on_one_stage(name: &str, is_other: bool, bodies: &[(&str, Body)]) {
    let Some(stage) = Stage::set(name) else {
        return;
    };
    let mut options = stage.options();
    if is_other {
        options = other(options);
    }
    let Some((mut kernel, mut stream)) = Stage::start(&options, &Tables::default()) else {
        return;
    };
    for (name, body) in bodies {
        println!("ways out: {name}");
        body(&stage, &mut kernel, &mut stream);
        // What one did shall not be taken for what the next does.
        events(&mut stream);
    }
}

#[test]
fn all_of_it_on_two_stages() {
    if support::is_quick() {
        on_one_stage("one", false, &BODIES);
        on_one_stage("other", true, &OTHERS);
    } else {
        println!("SKIPPED: two stages: each test has its own, without MERESTONE_QUICK");
    }
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
    alone("options", on_options);
}

fn on_options(stage: &Stage, kernel: &mut Kernel, stream: &mut EventStream) {
    kernel.install(&tables(protocol::ANY, 0)).unwrap();
    let told = stage.run("free", "mark long rthdr lsrr stamp");
    assert_eq!(told, "mark=ok long=ok rthdr=ok lsrr=ok stamp=ok");
    let told = stage.run("held", "gpu mark long rthdr no-rthdr lsrr stamp");
    assert_eq!(
        told,
        "gpu=ENXIO mark=EPERM long=ok rthdr=EPERM no-rthdr=ok lsrr=EPERM stamp=ok"
    );
    let refused = events(stream);
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
    alone("nodes", on_nodes);
}

fn on_nodes(stage: &Stage, kernel: &mut Kernel, stream: &mut EventStream) {
    kernel.install(&tables(protocol::ANY, 0)).unwrap();
    let before = kernel.groups().unwrap();
    let free = stage.run("free", "rdma tun vhost");
    assert!(!free.contains("EPERM"), "{free}");
    assert_eq!(kernel.groups().unwrap(), before, "they guard nobody");
    let told = stage.run("held", "gpu rdma tun vhost full");
    assert_eq!(told, "gpu=ENXIO rdma=EPERM tun=EPERM vhost=EPERM full=ok");
    let refused = events(stream);
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
    alone("create", on_create);
}

fn on_create(stage: &Stage, kernel: &mut Kernel, stream: &mut EventStream) {
    kernel.install(&tables(protocol::TCP, 0)).unwrap();
    assert_eq!(stage.run("free", "raw icmp"), "raw=ok icmp=ok");
    let told = stage.run("held", "gpu raw rawudp icmp tcp udp");
    assert_eq!(
        told,
        "gpu=ENXIO raw=EPERM rawudp=EPERM icmp=EPERM tcp=ok udp=ok"
    );
    let refused = events(stream);
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
    alone("loopback", on_loopback);
}

fn on_loopback(stage: &Stage, kernel: &mut Kernel, stream: &mut EventStream) {
    kernel.install(&tables(protocol::ANY, 0)).unwrap();
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
    let seen = events(stream);
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
    let seen = events(stream);
    assert!(
        seen.iter().any(|event| event.reason == Reason::DEPUTY
            && event.verdict == Verdict::DENY
            && event.hook == Hook::CONNECT4),
        "{seen:?}"
    );
}

#[test]
fn without_lsm_a_forbidden_family_is_killed_before_it_sends_b14_b18() {
    alone("kill", on_kill);
}

fn on_kill(stage: &Stage, kernel: &mut Kernel, stream: &mut EventStream) {
    kernel.install(&tables(protocol::ANY, 0)).unwrap();
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
    let seen = events(stream);
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
    alone("unix", on_unix);
}

fn on_unix(stage: &Stage, kernel: &mut Kernel, stream: &mut EventStream) {
    kernel.install(&tables(protocol::ANY, 0)).unwrap();
    if !has_lsm(kernel, "unix") {
        return;
    }
    let _listener = UnixListener::bind(stage.home.join("deputy")).unwrap();
    let told = stage.run("held", "gpu unix ownunix");
    assert_eq!(told, "gpu=ENXIO unix=ok ownunix=ok");
    let seen = events(stream);
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
    alone("records", on_records);
}

fn on_records(stage: &Stage, kernel: &mut Kernel, stream: &mut EventStream) {
    kernel
        .install(&tables(protocol::ANY, Deputies::DENY_UNIX))
        .unwrap();
    if !has_lsm(kernel, "records") {
        return;
    }
    let _control = UnixListener::bind(stage.home.join("control")).unwrap();
    let records = UnixListener::bind(stage.home.join("records")).unwrap();
    assert_eq!(stage.run("held", "gpu records"), "gpu=ENXIO records=EPERM");
    events(stream);
    kernel.admit_records(&records).unwrap();
    let told = stage.run("held", "records control");
    assert_eq!(told, "records=ok control=EPERM", "only what was marked");
    let seen = events(stream);
    let deputies = seen.iter().filter(|event| event.kind == EventKind::DEPUTY);
    assert_eq!(deputies.count(), 1, "{seen:?}");

    // Another process listens on it: it lives, and has ended.
    let shared: OwnedFd = records.try_clone().unwrap().into();
    hand(stage, shared, || {
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
    alone("handed", on_handed);
}

fn on_handed(stage: &Stage, kernel: &mut Kernel, stream: &mut EventStream) {
    kernel.install(&Tables::default()).unwrap();
    if !has_lsm(kernel, "handed") {
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
    let seen = events(stream);
    assert!(
        seen.iter()
            .any(|event| event.kind == EventKind::GUARD && event.hook == Hook::LSM_RECEIVE),
        "{seen:?}"
    );
}

#[test]
fn a_connection_to_outside_cannot_be_handed_to_the_guarded_b30() {
    alone("passed", on_passed);
}

fn on_passed(stage: &Stage, kernel: &mut Kernel, stream: &mut EventStream) {
    kernel.install(&Tables::default()).unwrap();
    if !has_lsm(kernel, "passed") {
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
    let seen = events(stream);
    let (flow, deny) = (EventKind::FLOW, Verdict::DENY);
    assert!(
        has(&seen, flow, Hook::LSM_RECEIVE, deny, Reason::NO_RULE),
        "{seen:?}"
    );
}
