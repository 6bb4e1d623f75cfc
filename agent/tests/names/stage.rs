//! Two network namespaces, a cgroup, the kernel programs, and the two children.

use super::resolver::{OTHER, OWN, TRUSTED, TRUSTED_V6};
use merestone_agent::bpf::{EventStream, Kernel, KernelError, Options, Tables, unload};
use merestone_agent::{policy, run};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const NVIDIA: u32 = 195;

pub(crate) struct Stage {
    name: String,
    cgroup: PathBuf,
    pins: PathBuf,
    node: PathBuf,
    children: Vec<Child>,
    pub(crate) kernel: Kernel,
    pub(crate) events: EventStream,
    guarded: Talker,
    resolver: Talker,
}

struct Talker {
    input: ChildStdin,
    lines: Receiver<String>,
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {said}");
}

impl Stage {
    /// None, and a word on why, where the test cannot run.
    pub(crate) fn set(name: &str) -> Option<Self> {
        let skip = |why: String| super::skipped(name, &why);
        let hierarchy = super::support::place(name)?;
        if Command::new("ip").arg("-V").output().is_err() {
            return skip("there is no ip; install iproute2".to_owned());
        }
        let cgroup = hierarchy.join(format!("merestone-names-{name}"));
        let pins = PathBuf::from(format!("/sys/fs/bpf/merestone-names-{name}"));
        let node = std::env::temp_dir().join(format!("merestone-names-{name}"));
        clear(name, &cgroup, &pins, &node);
        fs::create_dir_all(cgroup.join("server")).unwrap();
        let device = rustix::fs::makedev(NVIDIA, 0);
        let (kind, mode) = (
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::RUSR,
        );
        rustix::fs::mknodat(rustix::fs::CWD, &node, kind, mode, device).unwrap();
        wire_up(name);
        let mut options = Options::new(pins.clone());
        options.cgroup_root.clone_from(&cgroup);
        let (kernel, events) = match Kernel::start(&options, &tables(true)) {
            Ok(started) => started,
            Err(KernelError::NotBpffs { path }) => {
                clear(name, &cgroup, &pins, &node);
                return skip(format!("{} is not on bpffs", path.display()));
            }
            Err(error) => panic!("{error}"),
        };
        let missing = kernel.tiers().into_iter().find(|tier| tier.name == "names");
        let missing = missing.filter(|tier| !tier.active);
        assert_eq!(missing, None, "the tier is there on every kernel from 6.1");
        let (outside, resolver) = start(&format!("names-{name}-b"), "resolve", &cgroup, &node);
        assert_eq!(resolver.heard(), "ready");
        let (inside, guarded) = start(&format!("names-{name}-a"), "obey", &cgroup, &node);
        Some(Self {
            name: name.to_owned(),
            cgroup,
            pins,
            node,
            children: vec![outside, inside],
            kernel,
            events,
            guarded,
            resolver,
        })
    }

    /// Gives the guarded process an order; what came of it.
    pub(crate) fn order(&mut self, order: &str) -> String {
        writeln!(self.guarded.input, "{order}").unwrap();
        self.guarded.heard()
    }

    /// Gives this process's network namespace the address [`OWN`].
    pub(crate) fn own_address() {
        ip(&format!("addr add {OWN}/32 dev lo"));
    }

    /// Forgets what was learned and what was heard.
    pub(crate) fn renew(&mut self) {
        self.kernel.install(&Tables::default()).unwrap();
        self.kernel.install(&tables(true)).unwrap();
        self.reached();
    }

    /// What has reached the resolver since this was last asked.
    pub(crate) fn reached(&self) -> Vec<String> {
        std::thread::sleep(Duration::from_millis(50));
        self.resolver.lines.try_iter().collect()
    }
}

impl Talker {
    fn heard(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(60)).unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
        clear(&self.name, &self.cgroup, &self.pins, &self.node);
    }
}

fn start(network: &str, orders: &str, cgroup: &Path, node: &Path) -> (Child, Talker) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(super::ORDERS, orders)
        .env("MERESTONE_TEST_NETWORK", format!("/run/netns/{network}"))
        .env("MERESTONE_TEST_CGROUP", cgroup.join("server"))
        .env("MERESTONE_TEST_NODE", node)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = child.stdin.take().unwrap();
    let output = child.stdout.take().unwrap();
    let (say, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some((_, said)) = line.split_once("child: ")
                && say.send(said.to_owned()).is_err()
            {
                return;
            }
        }
    });
    (child, Talker { input, lines })
}

fn wire_up(name: &str) {
    let (a, b) = (format!("names-{name}-a"), format!("names-{name}-b"));
    ip(&format!("netns add {a}"));
    ip(&format!("netns add {b}"));
    ip(&format!(
        "-n {a} link add wire type veth peer name wire netns {b}"
    ));
    for (network, four, six) in [
        (&a, "198.18.0.2", "2001:db8:18::2"),
        (&b, TRUSTED, TRUSTED_V6),
    ] {
        ip(&format!("-n {network} link set lo up"));
        ip(&format!("-n {network} addr add {four}/24 dev wire"));
        ip(&format!("-n {network} link set wire up"));
        ip(&format!("-n {network} addr add {six}/64 dev wire nodad"));
    }
    ip(&format!("-n {b} addr add {OTHER}/24 dev wire"));
    ip(&format!("-n {a} route add default via {TRUSTED}"));
    ip(&format!("-n {a} -6 route add default via {TRUSTED_V6}"));
    for network in [
        "203.0.113.0/24",
        "192.0.2.0/24",
        "10.0.0.0/8",
        "2001:db8:66::/48",
    ] {
        ip(&format!("-n {b} route add local {network} dev lo"));
    }
}

fn clear(name: &str, cgroup: &Path, pins: &Path, node: &Path) {
    if pins.exists() {
        unload(pins).ok();
    }
    fs::remove_file(node).ok();
    for end in ["a", "b"] {
        let network = format!("names-{name}-{end}");
        Command::new("ip")
            .args(["netns", "del", &network])
            .output()
            .ok();
    }
    if name == "own" {
        let address = format!("{OWN}/32");
        Command::new("ip")
            .args(["addr", "del", &address, "dev", "lo"])
            .output()
            .ok();
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while cgroup.exists() && Instant::now() < deadline {
        fs::remove_dir(cgroup.join("server")).ok();
        fs::remove_dir(cgroup).ok();
    }
}

/// 198.18.0.0/24 and `2001:db8:18::/64` are inside by address, the private
/// network 10.9.0.0/16 for one port; what else, by name.
const BOUNDARY: &str = r#"
name = "names"

[[allow]]
cidr = ["198.18.0.0/24", "2001:db8:18::/64"]

[[allow]]
cidr = ["10.9.0.0/16"]
ports = [1]
protocols = ["tcp"]

[[allow]]
name = ["*.storage.example.eu"]

[[deny]]
name = ["*.bad.storage.example.eu"]

[[deny]]
name = ["half.storage.example.eu"]
ports = [8443]
protocols = ["tcp"]

[resolvers]
trust = ["198.18.0.9", "2001:db8:18::9"]
"#;

/// The rule that [`tables`] leaves out.
const REGISTRY: &str = r#"
[[allow]]
name = ["registry.example.eu"]
ports = [443]
protocols = ["tcp"]
"#;

/// What a boundary file of this text puts into the kernel.
pub(crate) fn compiled(text: &str) -> Tables {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("boundary.toml");
    fs::write(&file, text).unwrap();
    run::tables(&policy::load(&file).unwrap_or_else(|faults| panic!("{faults}")))
}

/// The boundary, with or without the rule for the registry.
pub(crate) fn tables(registry: bool) -> Tables {
    compiled(&format!(
        "{BOUNDARY}{}",
        if registry { REGISTRY } else { "" }
    ))
}
