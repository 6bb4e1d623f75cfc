//! The kernel part against the running kernel: what the larger egress suite,
//! which looks from outside, cannot see. Needs root, cgroup v2, bpffs and an
//! agent built with the object; each test says so and passes where they are
//! not there.
//!
//! A child process is this executable again, told by its environment what to
//! do; nothing is allowed, not even loopback, so that it needs no network.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a failing helper is a failing test; a skipped one says so"
)]

mod support;

use merestone_abi::{Attempt, Hook, RULE_ENTRIES, RuleEntry, RuleSet, TREE_GROUP, Verdict};
use merestone_agent::bpf::{Kernel, KernelError, Limits, Options, TablePrefix, Tables, unload};
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::said;

/// What the child is to do; see [`child`].
const ORDERS: &str = "MERESTONE_TEST_ORDERS";
const NVIDIA: u32 = 195;

/// A cgroup, a pin directory and a GPU node of a test's own.
struct Stage {
    cgroup: PathBuf,
    pins: PathBuf,
    node: PathBuf,
}

/// What emulated processors are spared; the host runs it.
const HOST_ONLY: [&str; 5] = ["after", "million", "plain", "tasks", "tree"];

impl Stage {
    /// None, and a word on why, where the test cannot run.
    fn set(name: &str) -> Option<Self> {
        if HOST_ONLY.contains(&name) && support::is_quick() {
            println!("SKIPPED: {name}: takes minutes on an emulated processor");
            return None;
        }
        let root = support::place(name)?;
        let stage = Self {
            cgroup: root.join(format!("merestone-test-{name}")),
            pins: PathBuf::from(format!("/sys/fs/bpf/merestone-test-{name}")),
            node: std::env::temp_dir().join(format!("merestone-test-{name}")),
        };
        stage.clear();
        fs::create_dir(&stage.cgroup).unwrap();
        let device = rustix::fs::makedev(NVIDIA, 0);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &stage.node,
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::RUSR,
            device,
        )
        .unwrap();
        Some(stage)
    }

    fn options(&self) -> Options {
        let mut options = Options::new(self.pins.clone());
        options.cgroup_root.clone_from(&self.cgroup);
        options
    }

    /// None where the test cannot run after all.
    fn start(options: &Options) -> Option<Kernel> {
        match Kernel::start(options, &Tables::default()) {
            Ok((kernel, _events)) => Some(kernel),
            Err(KernelError::NotBpffs { path }) => {
                println!("SKIPPED: bpf_kernel: {} is not on bpffs", path.display());
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn below(&self, name: &str) -> PathBuf {
        let cgroup = self.cgroup.join(name);
        fs::create_dir_all(&cgroup).unwrap();
        cgroup
    }

    fn spawn(&self, cgroup: &Path, orders: &str) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(ORDERS, orders)
            .env("MERESTONE_TEST_CGROUP", cgroup)
            .env("MERESTONE_TEST_NODE", &self.node)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn run(&self, cgroup: &Path, orders: &str) -> String {
        said(&self.spawn(cgroup, orders).wait_with_output().unwrap())
    }

    fn clear(&self) {
        if self.pins.exists() {
            unload(&self.pins).ok();
        }
        fs::remove_file(&self.node).ok();
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.cgroup.exists() && Instant::now() < deadline {
            remove_cgroups(&self.cgroup);
        }
    }
}

/// Removes what is empty; a process that is just ending keeps its cgroup.
fn remove_cgroups(path: &Path) {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.path().is_dir()) {
        remove_cgroups(&entry.path());
    }
    fs::remove_dir(path).ok();
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Not a test: what a child process runs.
#[test]
fn child() {
    let Ok(orders) = std::env::var(ORDERS) else {
        return;
    };
    let cgroup = PathBuf::from(std::env::var("MERESTONE_TEST_CGROUP").unwrap());
    let node = std::env::var("MERESTONE_TEST_NODE").unwrap();
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    let mut kept = Kept::default();
    for order in orders.split(' ') {
        let outcome = match order {
            "open" => fs::File::open(&node).map(|_| ()),
            "send" => UdpSocket::bind("127.0.0.1:0")
                .and_then(|socket| socket.send_to(b"x", "127.0.0.1:9"))
                .map(|_| ()),
            "fork" => Command::new("sleep").arg("2").spawn().map(|_| ()),
            "warm" => kept.warm(),
            "again" => kept.again(),
            "stray" => kept.stray(),
            "raw" => {
                raw();
                Ok(())
            }
            "wait" => {
                let deadline = Instant::now() + Duration::from_secs(20);
                while !Path::new(&format!("{node}.go")).exists() && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Ok(())
            }
            other => panic!("{other}"),
        };
        println!("child: {order}={}", answer(outcome));
    }
}

/// A socket that is used again and again, and who listens to it.
#[derive(Default)]
struct Kept(Option<(UdpSocket, UdpSocket)>);

impl Kept {
    fn warm(&mut self) -> std::io::Result<()> {
        let listener = UdpSocket::bind("127.0.0.1:0")?;
        let sender = UdpSocket::bind("127.0.0.1:0")?;
        sender.connect(listener.local_addr()?)?;
        self.0 = Some((sender, listener));
        (0..8).try_for_each(|_| self.again())
    }

    fn again(&self) -> std::io::Result<()> {
        let (sender, _) = self.0.as_ref().unwrap();
        sender.send(b"x").map(|_| ())
    }

    /// The same socket to another address of this host.
    fn stray(&self) -> std::io::Result<()> {
        let (sender, listener) = self.0.as_ref().unwrap();
        let port = listener.local_addr()?.port();
        sender.send_to(b"x", ("127.0.0.2", port)).map(|_| ())
    }
}

/// Packets by hand on one socket that remembers a verdict on the first.
fn raw() {
    use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
    let raw = match socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW)) {
        Ok(raw) => raw,
        Err(error) => return println!("child: raw={error}"),
    };
    // RFC 791 §3.1: version and length, then flags and offset, then protocol.
    let packet = |to: [u8; 4], port: u16, protocol: u8, fragment: u16, options: &[u8]| {
        let words = u8::try_from(5 + options.len() / 4).unwrap();
        let mut bytes = vec![0x40 | words, 0, 0, 0, 0, 1];
        bytes.extend(fragment.to_be_bytes());
        bytes.extend([64, protocol, 0, 0, 127, 0, 0, 1]);
        bytes.extend(to);
        bytes.extend(options);
        bytes.extend([0x30, 0x39]);
        bytes.extend(port.to_be_bytes());
        bytes.extend([0, 9, 0, 0, 0]);
        bytes
    };
    let (here, there) = ([127, 0, 0, 1], [127, 0, 0, 2]);
    let route = [131, 7, 4, 127, 0, 0, 2, 0];
    for (name, bytes) in [
        ("plain", packet(here, 9, 17, 0, &[])),
        ("same", packet(here, 9, 17, 0, &[])),
        ("padded", packet(here, 9, 17, 0, &[1, 1, 1, 1])),
        ("routed", packet(here, 9, 17, 0, &route)),
        ("elsewhere", packet(there, 9, 17, 0, &[])),
        ("port", packet(here, 10, 17, 0, &[])),
        ("protocol", packet(here, 9, 132, 0, &[])),
        ("first", packet(here, 10, 17, 0x2000, &[])),
        ("later", packet(there, 9, 17, 0x0001, &[])),
        ("still", packet(here, 9, 17, 0, &[])),
    ] {
        let to = std::net::SocketAddrV4::new(here.into(), 0);
        let sent = sendto(&raw, &bytes, SendFlags::empty(), &to);
        println!(
            "child: {name}={}",
            answer(sent.map(|_| ()).map_err(Into::into))
        );
    }
}

fn answer(outcome: std::io::Result<()>) -> String {
    match outcome {
        Ok(()) => "ok".to_owned(),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => "EPERM".to_owned(),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => "ENXIO".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_group_is_held_from_the_open_through_the_agent_s_end_and_restart() {
    let Some(stage) = Stage::set("restart") else {
        return;
    };
    let Some(kernel) = Stage::start(&stage.options()) else {
        return;
    };
    let cgroup = stage.below("server");
    let nested = stage.below("server/nested");
    let told = stage.run(&cgroup, "send open send");
    assert_eq!(told, "send=ok open=ENXIO send=EPERM");
    assert_eq!(kernel.groups().unwrap().len(), 1);
    assert_eq!(stage.run(&stage.below("other"), "send"), "send=ok");
    drop(kernel);

    assert_eq!(stage.run(&cgroup, "send"), "send=EPERM", "after the agent");
    assert_eq!(stage.run(&nested, "send"), "send=EPERM", "a cgroup below");
    let mut kernel = Stage::start(&stage.options()).unwrap();
    assert_eq!(kernel.groups().unwrap().len(), 1, "the group is kept");
    assert_eq!(kernel.settings().unwrap().generation, 2);
    assert_eq!(stage.run(&cgroup, "send"), "send=EPERM");
    let denied: u64 = kernel
        .group_counts()
        .unwrap()
        .iter()
        .map(|(_, count)| count.denied)
        .sum();
    assert_eq!(denied, 4, "the counters are kept");
    if support::is_quick() {
        on_detach(&stage, &mut kernel);
        on_reload(&stage, &mut kernel);
    }
}

#[test]
fn a_group_that_cannot_be_recorded_cannot_open_the_gpu() {
    let Some(stage) = Stage::set("groups") else {
        return;
    };
    let mut options = stage.options();
    options.limits = Limits {
        groups: 1,
        ..Limits::default()
    };
    let Some(kernel) = Stage::start(&options) else {
        return;
    };
    assert_eq!(stage.run(&stage.below("first"), "open"), "open=ENXIO");
    let told = stage.run(&stage.below("second"), "open send");
    assert_eq!(told, "open=EPERM send=ok");
    let lost = kernel.lost().unwrap();
    assert!(lost.contains(&("groups_full", 1)), "{lost:?}");
}

#[test]
fn in_a_tree_a_process_whose_child_cannot_be_recorded_is_killed() {
    let Some(stage) = Stage::set("tasks") else {
        return;
    };
    let mut options = stage.options();
    options.tree_roots = vec![stage.cgroup.clone()];
    options.limits = Limits {
        tasks: 2,
        ..Limits::default()
    };
    let Some(kernel) = Stage::start(&options) else {
        return;
    };
    let cgroup = stage.below("session");
    let told = stage.run(&cgroup, "open send fork");
    assert_eq!(told, "open=ENXIO send=EPERM fork=ok");
    let tasks = kernel.tasks().unwrap();
    assert!(
        tasks.iter().all(|(_, task)| task.group & TREE_GROUP != 0),
        "{tasks:?}"
    );
    // The sleeping child and the entry of its ended parent fill the map.
    let refused = stage
        .spawn(&cgroup, "open send")
        .wait_with_output()
        .unwrap();
    assert_eq!(said(&refused), "open=EPERM send=ok");
    let lost = kernel.lost().unwrap();
    assert!(
        lost.iter()
            .any(|(why, count)| *why == "tasks_full" && *count > 0),
        "{lost:?}"
    );

    let roomy = Stage::set("fork").unwrap();
    let mut options = roomy.options();
    options.tree_roots = vec![roomy.cgroup.clone()];
    options.limits.tasks = 2;
    let _kernel = Stage::start(&options).unwrap();
    let output = roomy
        .spawn(&roomy.below("session"), "open fork fork fork")
        .wait_with_output()
        .unwrap();
    assert_eq!(
        output.status.signal(),
        Some(libc::SIGKILL),
        "{}",
        said(&output)
    );
}

/// Where a start takes long, the test of restarts does it on what it started.
fn alone(name: &str, body: fn(&Stage, &mut Kernel)) {
    if !support::is_done_by("the test of a restart", name)
        && let Some(stage) = Stage::set(name)
        && let Some(mut kernel) = Stage::start(&stage.options())
    {
        body(&stage, &mut kernel);
    }
}

#[test]
fn an_unpinned_hook_stays_attached_and_is_pinned_again_b58() {
    alone("detach", on_detach);
}

fn on_detach(stage: &Stage, kernel: &mut Kernel) {
    assert_eq!(kernel.watch().unwrap(), [], "nothing was touched yet");
    let cgroup_tier = |kernel: &Kernel| {
        let tiers = kernel.tiers();
        tiers
            .iter()
            .any(|tier| tier.name == "cgroup" && tier.active)
    };
    let pin = stage.pins.join("links/egress");
    fs::remove_file(&pin).unwrap();
    kernel.reap(Instant::now()).unwrap();
    assert!(cgroup_tier(kernel), "it still runs");
    let found = kernel.watch().unwrap();
    assert!(
        matches!(&found[..], [one] if one.attempt == Attempt::UNPIN && one.repaired.is_ok()),
        "{found:?}"
    );
    assert!(pin.exists());
    assert_eq!(kernel.watch().unwrap(), [], "once");
}

/// Allows one address, `ports` of it, by any protocol.
fn allowing(address: [u8; 4], ports: (u16, u16)) -> Tables {
    let mut entries = [RuleEntry::default(); RULE_ENTRIES];
    entries[0] = RuleEntry {
        port_low: ports.0,
        port_high: ports.1,
        rule: 1,
        protocol: 0,
        action: Verdict::ALLOW.0,
    };
    Tables {
        prefixes: vec![TablePrefix {
            boundary: 0,
            address: Ipv4Addr::from(address).to_ipv6_mapped().octets(),
            bits: 128,
            set: 0,
        }],
        sets: vec![RuleSet {
            length: 1,
            reserved: 0,
            entries,
        }],
        ..Tables::default()
    }
}

#[test]
fn a_reload_stops_the_next_packet_of_a_socket_that_remembers_its_verdict() {
    alone("reload", on_reload);
}

fn on_reload(stage: &Stage, kernel: &mut Kernel) {
    kernel
        .install(&allowing([127, 0, 0, 1], (0, u16::MAX)))
        .unwrap();
    let cgroup = stage.below("reload");
    let go = stage.node.with_extension("go");
    fs::remove_file(&go).ok();
    let child = stage.spawn(&cgroup, "open warm stray again wait again");
    // As long as it takes to warm up; the child waits ten times as long.
    std::thread::sleep(Duration::from_secs(2));
    let counts = kernel.group_counts().unwrap();
    let allowed = counts.iter().find(|(_, count)| count.allowed > 0);
    let (_, before) = *allowed.unwrap();
    kernel.install(&Tables::default()).unwrap();
    fs::write(&go, "").unwrap();
    let told = said(&child.wait_with_output().unwrap());
    fs::remove_file(&go).unwrap();
    assert_eq!(
        told,
        "open=ENXIO warm=ok stray=EPERM again=ok wait=ok again=EPERM"
    );
    assert_eq!(
        (before.allowed, before.denied),
        (9, 1),
        "exact to the packet"
    );
    assert_eq!(before.allowed_bytes, 9 * 29);
    let udp = kernel.counters().unwrap();
    let passed = udp.iter().find(|count| {
        count.hook == Hook::EGRESS && count.verdict == Verdict::ALLOW && count.protocol == "udp"
    });
    assert_eq!(passed.map(|count| count.count), Some(9));
}

#[test]
fn a_group_guarded_after_its_socket_was_known_to_be_free_is_held_at_once() {
    let Some(stage) = Stage::set("after") else {
        return;
    };
    let Some(_kernel) = Stage::start(&stage.options()) else {
        return;
    };
    // Somebody is guarded, so that "not guarded" is worth remembering.
    assert_eq!(stage.run(&stage.below("first"), "open"), "open=ENXIO");
    let told = stage.run(&stage.below("second"), "warm again send open again send");
    assert_eq!(
        told,
        "warm=ok again=ok send=ok open=ENXIO again=EPERM send=EPERM"
    );
}

#[test]
fn a_tree_guarded_after_its_socket_was_known_to_be_free_is_held_at_once() {
    let Some(stage) = Stage::set("tree") else {
        return;
    };
    let mut options = stage.options();
    options.tree_roots = vec![stage.cgroup.clone()];
    let Some(_kernel) = Stage::start(&options) else {
        return;
    };
    let cgroup = stage.below("session");
    assert_eq!(stage.run(&cgroup, "open"), "open=ENXIO");
    let told = stage.run(&cgroup, "warm again open again send");
    assert_eq!(told, "warm=ok again=ok open=ENXIO again=EPERM send=EPERM");
}

#[test]
fn a_remembered_verdict_is_for_plain_packets_to_that_destination_alone() {
    let Some(stage) = Stage::set("plain") else {
        return;
    };
    let Some(mut kernel) = Stage::start(&stage.options()) else {
        return;
    };
    kernel.install(&allowing([127, 0, 0, 1], (9, 9))).unwrap();
    let told = stage.run(&stage.below("server"), "open raw");
    assert_eq!(
        told,
        "open=ENXIO plain=ok same=ok padded=ok routed=EPERM elsewhere=EPERM port=EPERM \
         protocol=ok first=EPERM later=EPERM still=ok raw=ok"
    );
}

#[test]
fn a_million_prefixes_become_live_as_one_generation() {
    let Some(stage) = Stage::set("million") else {
        return;
    };
    let Some(mut kernel) = Stage::start(&stage.options()) else {
        return;
    };
    let count: u32 = match std::env::var("MERESTONE_TEST_PREFIXES") {
        Ok(count) => count.parse().unwrap(),
        Err(_) => 100_000, // a million in a debug build is half a minute
    };
    let mut tables = allowing([127, 0, 0, 1], (0, u16::MAX));
    tables.prefixes.extend((0..count).map(|index| {
        TablePrefix {
            boundary: 0,
            address: Ipv4Addr::from_bits(0x8000_0000 | index << 8)
                .to_ipv6_mapped()
                .octets(),
            bits: 120,
            set: 0,
        }
    }));
    let before = kernel.settings().unwrap().generation;
    let begun = Instant::now();
    let generation = kernel.install(&tables).unwrap();
    println!("{count} prefixes in {:?}", begun.elapsed());
    assert_eq!(generation, before + 1);
    assert_eq!(
        stage.run(&stage.below("server"), "open warm"),
        "open=ENXIO warm=ok"
    );
    kernel.install(&Tables::default()).unwrap();
    assert_eq!(stage.run(&stage.below("server"), "warm"), "warm=EPERM");
}
