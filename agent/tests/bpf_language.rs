//! Selected boundaries and grants against the running kernel: which boundary
//! judges a group, at once and after a reload, and that no byte beyond a grant
//! passes. Needs root, cgroup v2, bpffs, `unshare` and `ip`, and an agent built
//! with the object; each test says so and passes where they are not there.
//!
//! A child process is this executable again, in a network namespace of its own
//! where 198.18.77.1 is an address of loopback that no rule allows.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a failing helper is a failing test; a skipped one says so"
)]

mod support;

use merestone_agent::bpf::{Kernel, KernelError, Options, Tables, unload};
use merestone_agent::grant::{Grants, Terms};
use merestone_agent::policy::{self, Sources};
use merestone_agent::run;
use merestone_agent::signed::{self, Kind, Signers};
use merestone_evidence::Body;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const ORDERS: &str = "MERESTONE_LANGUAGE_ORDERS";
const OUTSIDE: &str = "198.18.77.1:9";
/// IPv4 and UDP headers.
const HEADERS: usize = 28;

struct Stage {
    cgroup: PathBuf,
    hierarchy: PathBuf,
    pins: PathBuf,
    node: PathBuf,
    files: tempfile::TempDir,
}

impl Stage {
    fn set(name: &str) -> Option<Self> {
        let hierarchy = support::place(name)?;
        if Command::new("unshare")
            .args(["-n", "ip", "link"])
            .output()
            .is_err()
        {
            println!("SKIPPED: {name}: there is no unshare or no ip");
            return None;
        }
        let files = tempfile::tempdir().unwrap();
        let stage = Self {
            // A slice, so that units may lie in it.
            cgroup: hierarchy.join(format!("merestone-language-{name}.slice")),
            hierarchy,
            pins: PathBuf::from(format!("/sys/fs/bpf/merestone-language-{name}")),
            node: files.path().join("gpu"),
            files,
        };
        stage.clear();
        fs::create_dir(&stage.cgroup).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &stage.node,
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::RUSR,
            rustix::fs::makedev(195, 0),
        )
        .unwrap();
        Some(stage)
    }

    fn options(&self) -> Options {
        let mut options = Options::new(self.pins.clone());
        options.cgroup_root.clone_from(&self.cgroup);
        options
    }

    fn start(&self, tables: &Tables) -> Option<Kernel> {
        match Kernel::start(&self.options(), tables) {
            Ok((kernel, _events)) => Some(kernel),
            Err(KernelError::NotBpffs { path }) => {
                println!("SKIPPED: bpf_language: {} is not on bpffs", path.display());
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// The boundary of these files, the first being the main one.
    fn tables(&self, files: &[(&str, String)]) -> Tables {
        for (name, text) in files {
            fs::write(self.files.path().join(name), text).unwrap();
        }
        let main = self.files.path().join(files.first().unwrap().0);
        run::tables(&policy::load_with(&main, &Sources::default()).unwrap())
    }

    fn below(&self, name: &str) -> PathBuf {
        let cgroup = self.cgroup.join(name);
        fs::create_dir_all(&cgroup).unwrap();
        cgroup
    }

    /// A cgroup's path below the root.
    fn path(&self, cgroup: &Path) -> String {
        let below = cgroup.strip_prefix(&self.hierarchy).unwrap();
        format!("/{}", below.display())
    }

    /// What a child in `cgroup` says of `orders`.
    fn run(&self, cgroup: &Path, orders: &str) -> String {
        let script = "ip link set lo up && ip addr add 198.18.77.1/32 dev lo && exec \"$0\" \"$@\"";
        let output = Command::new("unshare")
            .args(["-n", "sh", "-c", script])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(ORDERS, orders)
            .env("MERESTONE_TEST_CGROUP", cgroup)
            .env("MERESTONE_TEST_NODE", &self.node)
            .output()
            .unwrap();
        support::said(&output)
    }

    fn clear(&self) {
        if self.pins.exists() {
            unload(&self.pins).ok();
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.cgroup.exists() && Instant::now() < deadline {
            remove(&self.cgroup);
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clear();
    }
}

fn remove(path: &Path) {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.path().is_dir()) {
        remove(&entry.path());
    }
    fs::remove_dir(path).ok();
}

/// Not a test: what a child process runs. `send=N` sends a packet of N bytes
/// with its headers; `flood=N` sends as many of 100 bytes, from four threads.
#[test]
fn child() {
    let Ok(orders) = std::env::var(ORDERS) else {
        return;
    };
    let cgroup = PathBuf::from(std::env::var("MERESTONE_TEST_CGROUP").unwrap());
    let node = std::env::var("MERESTONE_TEST_NODE").unwrap();
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    let send = |to: &str, length: usize| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(&vec![0; length - HEADERS], to).is_ok()
    };
    let word = |passed: bool| if passed { "ok" } else { "held" };
    for order in orders.split(' ') {
        match order.split_once('=') {
            None if order == "open" => drop(fs::File::open(&node)),
            None => println!("child: {}", word(send("127.0.0.1:9", 100))),
            Some(("send", length)) => {
                println!("child: {}", word(send(OUTSIDE, length.parse().unwrap())));
            }
            Some((_, count)) => {
                let count: usize = count.parse().unwrap();
                let flood = move || (0..count / 4).filter(|_| send(OUTSIDE, 100)).count();
                let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(flood)).collect();
                let passed: usize = threads.into_iter().map(|one| one.join().unwrap()).sum();
                println!("child: {passed}");
            }
        }
    }
}

/// Loopback is refused by the main boundary and not by the other.
fn files(select: &str) -> Vec<(&'static str, String)> {
    let sealed = "name = \"sealed\"\n[[deny]]\ncidr = [\"127.0.0.0/8\"]\n";
    vec![
        ("main.toml", format!("{sealed}{select}")),
        ("wide.toml", "name = \"wide\"\n".to_owned()),
    ]
}

fn select(key: &str, value: &str) -> String {
    format!("[[select]]\n{key} = \"{value}\"\nboundary = \"wide\"\n")
}

#[test]
fn a_selected_group_is_judged_by_its_own_boundary_from_its_first_packet_and_after_a_reload() {
    let Some(stage) = Stage::set("select") else {
        return;
    };
    let before = stage.below("before");
    let after = stage.cgroup.join("after");
    let both = select("cgroup", &stage.path(&before)) + &select("cgroup", &stage.path(&after));
    let selecting = stage.tables(&files(&both));
    let Some(mut kernel) = stage.start(&selecting) else {
        return;
    };
    assert_eq!(
        stage.run(&before, "open loopback"),
        "ok",
        "there at the start"
    );
    fs::create_dir(&after).unwrap();
    let nested = stage.below("after/nested");
    assert_eq!(
        stage.run(&nested, "open loopback"),
        "ok",
        "made since, by the kernel alone"
    );
    assert_eq!(stage.run(&stage.below("other"), "open loopback"), "held");

    let none = stage.tables(&files(""));
    kernel.install(&none).unwrap();
    assert_eq!(stage.run(&before, "loopback"), "held", "selected no longer");
    assert_eq!(stage.run(&nested, "loopback"), "held");
    kernel.install(&selecting).unwrap();
    assert_eq!(stage.run(&before, "loopback"), "ok", "selected again");
    assert_eq!(stage.run(&nested, "loopback"), "ok");
    let more = both + &select("cgroup", &stage.path(&stage.below("other")));
    kernel.install(&stage.tables(&files(&more))).unwrap();
    assert_eq!(
        stage.run(&stage.below("other"), "loopback"),
        "ok",
        "guarded before"
    );
    drop(kernel);
    assert_eq!(stage.run(&nested, "loopback"), "ok", "without the agent");
    let kernel = stage.start(&selecting).unwrap();
    assert_eq!(stage.run(&nested, "loopback"), "ok", "after a restart");
    assert_eq!(stage.run(&stage.below("other"), "loopback"), "held");
    drop(kernel);
}

#[test]
fn a_unit_is_selected_in_its_slice_and_not_where_a_workload_named_a_cgroup_like_it() {
    let Some(stage) = Stage::set("unit") else {
        return;
    };
    let tables = stage.tables(&files(&select("unit", "merestone-language.service")));
    let Some(_kernel) = stage.start(&tables) else {
        return;
    };
    let unit = stage.below("merestone-language.service");
    assert_eq!(stage.run(&unit, "open loopback"), "ok");
    let fake = stage.below("container/merestone-language.service");
    assert_eq!(stage.run(&fake, "open loopback"), "held");
}

#[test]
fn a_tree_is_judged_by_the_boundary_of_the_cgroup_it_began_in() {
    let Some(stage) = Stage::set("tree") else {
        return;
    };
    let chosen = stage.below("chosen");
    let tables = stage.tables(&files(&select("cgroup", &stage.path(&chosen))));
    let mut options = stage.options();
    options.tree_roots.push(stage.cgroup.clone());
    let Ok((_kernel, _events)) = Kernel::start(&options, &tables) else {
        return;
    };
    assert_eq!(stage.run(&chosen, "open loopback"), "ok");
    assert_eq!(stage.run(&stage.below("other"), "open loopback"), "held");
}

fn terms(group: &str, bytes: u64, name: &str) -> String {
    format!(
        "name = \"{name}\"\ngroup = \"{group}\"\nto = \"198.18.77.0/24\"\nprotocols = [\"udp\"]\n\
         ports = [9]\nbytes = {bytes}\nuntil = 2100-01-01T00:00:00Z\nreason = \"a test\"\n"
    )
}

#[test]
fn not_a_byte_beyond_a_grant_passes() {
    let Some(stage) = Stage::set("grant") else {
        return;
    };
    let Some(mut kernel) = stage.start(&Tables::default()) else {
        return;
    };
    let cgroup = stage.below("server");
    assert_eq!(stage.run(&cgroup, "open send=1000"), "held");
    let group = kernel.cgroup_id(&stage.path(&cgroup)).unwrap();
    let text = terms(&stage.path(&cgroup), 2500, "exact");
    let grant = Terms::parse(text.as_bytes()).unwrap();
    kernel.grant(3, &grant.compile(group, 1, 0, 0)).unwrap();
    let told = stage.run(
        &cgroup,
        "send=1000 send=1000 send=1000 send=501 send=500 send=29",
    );
    assert_eq!(told, "ok ok held held ok held");
    let (place, _, used) = kernel.grants().unwrap().remove(0);
    assert_eq!((place, used.bytes, used.packets), (3, 2500, 3));
    assert_eq!(used.refused, 1);
    let other = stage.below("other");
    assert_eq!(stage.run(&other, "open send=100"), "held", "another group");

    let grant = grant.compile(group, 2, 0, 0);
    let flooded = merestone_abi::Grant {
        limit_bytes: 100 * 1000,
        ..grant
    };
    kernel.grant(0, &flooded).unwrap();
    assert_eq!(
        stage.run(&cgroup, "flood=4000"),
        "1000",
        "four threads at once"
    );
    let over = merestone_abi::Grant {
        until_boot_ns: 1,
        ..flooded
    };
    kernel.grant(0, &over).unwrap();
    assert_eq!(stage.run(&cgroup, "send=100"), "held", "its time is over");
}

fn state(body: &Body) -> (&str, u64) {
    match body {
        Body::Grant { state, bytes, .. } => (state, *bytes),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_grant_counts_on_through_a_restart_and_never_begins_anew() {
    let Some(stage) = Stage::set("books") else {
        return;
    };
    let Some(mut kernel) = stage.start(&Tables::default()) else {
        return;
    };
    let cgroup = stage.below("server");
    let state_dir = stage.files.path().join("state");
    let (private, public, inline) = signed::generate().unwrap();
    let key = stage.files.path().join("key.pem");
    fs::write(&key, private).unwrap();
    drop(public);
    let key = signed::signing_key(&key).unwrap();
    let signers = Signers::load(&[inline]).unwrap();
    let text = terms(&stage.path(&cgroup), 2000, "books");
    let message = signed::sign(Kind::Grant, &key, text.as_bytes()).unwrap();

    let (mut grants, _) = Grants::open(&state_dir, signers.clone(), &mut kernel).unwrap();
    let (outcome, body) = grants.apply(&mut kernel, &message);
    outcome.unwrap();
    assert_eq!(state(&body), ("accepted", 0));
    assert_eq!(stage.run(&cgroup, "open send=1500"), "ok");
    drop((kernel, grants));

    let mut kernel = stage.start(&Tables::default()).unwrap();
    let (mut grants, _) = Grants::open(&state_dir, signers.clone(), &mut kernel).unwrap();
    assert_eq!(stage.run(&cgroup, "send=600 send=500"), "held ok");
    let told = grants.round(&mut kernel).unwrap();
    assert_eq!(
        told.iter().map(state).collect::<Vec<_>>(),
        [("spent", 2000)]
    );
    let (outcome, body) = grants.apply(&mut kernel, &message);
    outcome.unwrap_err();
    assert_eq!(state(&body), ("refused", 0));
    let ended = grants.revoke(&mut kernel, "books").unwrap();
    assert_eq!(state(&ended), ("revoked", 2000));
    let (outcome, _) = grants.apply(&mut kernel, &message);
    outcome.unwrap_err();

    let text = terms(&stage.path(&cgroup), 2000, "lost");
    let message = signed::sign(Kind::Grant, &key, text.as_bytes()).unwrap();
    grants.apply(&mut kernel, &message).0.unwrap();
    drop((kernel, grants));
    unload(&stage.pins).unwrap();
    let mut kernel = stage.start(&Tables::default()).unwrap();
    let (_, told) = Grants::open(&state_dir, signers, &mut kernel).unwrap();
    assert_eq!(told.iter().map(state).collect::<Vec<_>>(), [("revoked", 0)]);
    assert!(kernel.grants().unwrap().is_empty());
}
