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

use merestone_abi::{Attempt, TREE_GROUP};
use merestone_agent::bpf::{Kernel, KernelError, Limits, Options, Tables, object, probe, unload};
use std::fs;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What the child is to do; see [`child`].
const ORDERS: &str = "MERESTONE_TEST_ORDERS";
const NVIDIA: u32 = 195;

/// A cgroup, a pin directory and a GPU node of a test's own.
struct Stage {
    cgroup: PathBuf,
    pins: PathBuf,
    node: PathBuf,
}

impl Stage {
    /// None, and a word on why, where the test cannot run.
    fn set(name: &str) -> Option<Self> {
        if let Err(error) = object() {
            println!("SKIPPED: {name}: {error}");
            return None;
        }
        let found = match probe(Path::new("")) {
            Ok(found) => found,
            Err(error) => {
                println!("SKIPPED: {name}: {error}");
                return None;
            }
        };
        let stage = Self {
            cgroup: found.cgroup_root.join(format!("merestone-test-{name}")),
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

/// What a child said of itself.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    // The test runner's own words may stand before the first.
    let words: Vec<_> = text
        .lines()
        .filter_map(|line| Some(line.split_once("child: ")?.1))
        .collect();
    words.join(" ")
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
    for order in orders.split(' ') {
        let outcome = match order {
            "open" => fs::File::open(&node).map(|_| ()),
            "send" => UdpSocket::bind("127.0.0.1:0")
                .and_then(|socket| socket.send_to(b"x", "127.0.0.1:9"))
                .map(|_| ()),
            "fork" => Command::new("sleep").arg("2").spawn().map(|_| ()),
            other => panic!("{other}"),
        };
        let answer = match outcome {
            Ok(()) => "ok".to_owned(),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => "EPERM".to_owned(),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => "ENXIO".to_owned(),
            Err(error) => error.to_string(),
        };
        println!("child: {order}={answer}");
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
    let kernel = Stage::start(&stage.options()).unwrap();
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

#[test]
fn an_unpinned_hook_stays_attached_and_is_pinned_again_b58() {
    let Some(stage) = Stage::set("detach") else {
        return;
    };
    let Some(mut kernel) = Stage::start(&stage.options()) else {
        return;
    };
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
    assert!(cgroup_tier(&kernel), "it still runs");
    let found = kernel.watch().unwrap();
    assert!(
        matches!(&found[..], [one] if one.attempt == Attempt::UNPIN && one.repaired.is_ok()),
        "{found:?}"
    );
    assert!(pin.exists());
    assert_eq!(kernel.watch().unwrap(), [], "once");
}
