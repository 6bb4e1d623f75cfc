//! What the end-to-end tests share: a software TPM, an agent on this host's
//! kernel with pins of its own, a guarded child. Dropping them takes all away.
#![allow(dead_code, unused_macros, reason = "each test uses a part of it")]
#![allow(clippy::expect_used, reason = "a test says what it needs by panicking")]

pub(crate) mod client;
pub(crate) mod landmarks;
pub(crate) mod service;
#[path = "../../../../attest/tpm/tests/support/start.rs"]
mod start;
pub(crate) mod talker;
pub(crate) mod wire;

use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Says why a test did not run, in the form the test runner counts.
#[macro_export]
macro_rules! skip_unless {
    ($condition:expr, $why:expr) => {
        if !$condition {
            println!("SKIPPED: {}", $why);
            return;
        }
    };
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a software TPM is installed.
pub(crate) fn has_swtpm() -> bool {
    Command::new("swtpm").arg("--version").output().is_ok()
}

/// A program built beside this test: `target/<profile>/<name>`.
pub(crate) fn binary(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("XTASK_BIN_DIR") {
        return Path::new(&folder).join(name);
    }
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test
        .ancestors()
        .nth(2)
        .expect("target/<profile>/deps/<test>");
    let program = folder.join(name);
    assert!(
        program.is_file(),
        "{} is not built; run `cargo xtask build` first",
        program.display()
    );
    program
}

/// A child that is killed when dropped.
pub(crate) struct Kept(pub(crate) Child);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A software TPM with its state in `folder`.
pub(crate) fn swtpm(folder: &Path) -> (Kept, String) {
    let (child, port) = start::start(&folder.join("swtpm")).expect("swtpm starts");
    (Kept(child), format!("swtpm:host=127.0.0.1,port={port}"))
}

/// The mount of cgroup v2.
pub(crate) fn cgroup_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, path, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

/// One host's worth of files, an agent's configuration and its pins.
pub(crate) struct Host {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) name: String,
    pub(crate) config: PathBuf,
    began: String,
}

pub(crate) const BOUNDARY: &str =
    "name = \"test\"\n[[allow]]\ncidr = [\"198.51.100.0/24\"]\nports = [443]\n";

impl Host {
    /// Makes the files; nothing runs yet.
    pub(crate) fn new(name: &str, tcti: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let name = format!("merestone-e2e-{name}-{}", std::process::id());
        let config = folder.path().join("merestone.toml");
        let host = Self {
            folder,
            name,
            config,
            began: now(),
        };
        fs::write(host.boundary(), BOUNDARY).expect("writes the boundary");
        let metrics = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
        let metrics = metrics.local_addr().expect("has one");
        let text = format!(
            r#"node = "{name}"
boundary = "{folder}/boundary.toml"
state_dir = "{folder}/state"
[api]
socket = "{folder}/api.sock"
[metrics]
listen = "{metrics}"
[enforcement]
pin_dir = "/sys/fs/bpf/{name}"
tamper = false
[canary]
enabled = false # the tests count what their own workload is refused
[tpm]
tcti = "{tcti}"
[evidence]
epoch = "500ms"
heartbeat = "2s"
[site]
country = "DE"
[events]
jsonl = "{folder}/events.jsonl"
"#,
            name = host.name,
            folder = host.folder.path().display(),
        );
        fs::write(&host.config, text).expect("writes the configuration");
        host
    }

    pub(crate) fn boundary(&self) -> PathBuf {
        self.folder.path().join("boundary.toml")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An operator's command.
    pub(crate) fn merestone(&self, words: &[&str]) -> Output {
        Command::new(binary("merestone"))
            .arg("--config")
            .arg(&self.config)
            .args(words)
            .output()
            .expect("merestone runs")
    }

    /// The same, which must succeed.
    pub(crate) fn ask(&self, words: &[&str]) -> String {
        let output = self.merestone(words);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "merestone {words:?}: {}\n{said}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        said
    }

    /// Starts the agent and waits until it enforces.
    pub(crate) fn start(&self) -> Kept {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.file("agent.log"))
            .expect("opens the log");
        let child = Command::new(binary("merestone"))
            .arg("--config")
            .arg(&self.config)
            .arg("run")
            .stdout(log.try_clone().expect("clones"))
            .stderr(log)
            .spawn()
            .expect("the agent starts");
        let mut kept = Kept(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.merestone(&["status"]).status.success() {
            let ended = kept.0.try_wait().expect("can be waited for");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        kept
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.file("agent.log")).unwrap_or_default()
    }

    pub(crate) fn status(&self) -> Value {
        let said = self.merestone(&["status", "--json"]);
        serde_json::from_slice(&said.stdout).expect("status --json is JSON")
    }

    /// Whether a tier is in force.
    pub(crate) fn is_active(&self, tier: &str) -> bool {
        let status = self.status();
        let tiers = status["tiers"].as_array().cloned().unwrap_or_default();
        tiers
            .iter()
            .any(|found| found["name"] == tier && found["active"] == true)
    }

    /// The refused flows so far.
    pub(crate) fn denied(&self) -> Vec<Value> {
        let said = self.ask(&["flows", "--denied", "--json"]);
        said.lines()
            .map(|line| serde_json::from_str(line).expect("one JSON object a line"))
            .collect()
    }

    /// Writes report and trust file and has them verified.
    pub(crate) fn verify(&self, name: &str) -> (PathBuf, Output) {
        let bundle = self.file(&format!("{name}.merestone"));
        let bundle_file = bundle.to_string_lossy();
        self.ask(&[
            "report",
            "--from",
            &self.began,
            "--out",
            &bundle_file,
            "--force",
        ]);
        let second = self.file("second.toml").to_string_lossy().into_owned();
        let trust = if Path::new(&second).exists() {
            self.trust(&["--boundary", &second])
        } else {
            self.trust(&[])
        };
        let output = verify(&bundle, &trust);
        (bundle, output)
    }

    /// Writes the trust file that pins this host's attestation key.
    pub(crate) fn trust(&self, more: &[&str]) -> PathBuf {
        let trust = self.file("trust.toml");
        let file = trust.to_string_lossy();
        let enroll = ["enroll", "trust", "--out", &file, "--force"];
        self.ask(&[&enroll[..], more].concat());
        trust
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let pins = Path::new("/sys/fs/bpf").join(&self.name);
        if !is_root() || !pins.exists() {
            return;
        }
        let unloaded = self.merestone(&["unload", "--yes"]);
        // What stays would guard, by this test's boundary, whatever opens a GPU next.
        assert!(
            !pins.exists() || std::thread::panicking(),
            "pins are left: {}",
            String::from_utf8_lossy(&unloaded.stderr)
        );
    }
}

/// Now, RFC 3339.
fn now() -> String {
    let output = Command::new("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])
        .output();
    let said = output.expect("date runs").stdout;
    String::from_utf8_lossy(&said).trim().to_owned()
}

/// Runs the verifier.
pub(crate) fn verify(bundle: &Path, trust: &Path) -> Output {
    Command::new(binary("merestone-verify"))
        .arg("bundle")
        .arg(bundle)
        .arg("--trust")
        .arg(trust)
        .arg("--json")
        .output()
        .expect("merestone-verify runs")
}

/// A cgroup of a test's own, removed when dropped.
pub(crate) struct Cgroup(pub(crate) PathBuf);

impl Cgroup {
    pub(crate) fn new(name: &str) -> Self {
        let root = cgroup_root().expect("cgroup v2 is mounted");
        let path = root.join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("makes the cgroup");
        Self(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..50 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A GPU node by its number, removed when dropped.
pub(crate) struct Node(pub(crate) PathBuf);

impl Node {
    pub(crate) fn new(name: &str) -> Self {
        let path = PathBuf::from(format!("/dev/{name}-{}", std::process::id()));
        let made = Command::new("mknod")
            .arg(&path)
            .args(["c", "195", "0"])
            .status();
        assert!(made.expect("mknod runs").success());
        Self(path)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// A workload: a shell in a cgroup that opens the GPU node (where one is
/// given) and then tries what it is told, one line at a time.
pub(crate) struct Workload(Kept);

impl Workload {
    pub(crate) fn start(cgroup: &Cgroup, node: Option<&Node>) -> Self {
        Self::within(None, &cgroup.0, node)
    }

    /// In a network namespace that has a name.
    pub(crate) fn within(network: Option<&str>, cgroup: &Path, node: Option<&Node>) -> Self {
        let script = r#"
import os, socket, sys
open(os.path.join(sys.argv[1], "cgroup.procs"), "w").write(str(os.getpid()))
if len(sys.argv) > 2:
    try: os.open(sys.argv[2], os.O_RDWR)
    except OSError: pass
def ask(name, server):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(2)
    s.connect((server, 53))
    labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
    s.send(os.urandom(2) + b"\x01\x00\x00\x01" + bytes(6) + labels + b"\x00\x00\x01\x00\x01")
    return socket.inet_ntoa(s.recv(2048)[-4:])
for line in sys.stdin:
    kind, address, port = line.split()
    try:
        if kind == "ask":
            print(ask(address, port), flush=True)
            continue
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        s = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
        s.settimeout(1)
        s.sendto(b"text", (address, int(port))) if kind == "udp" else s.connect((address, int(port)))
        print("sent", flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"#;
        // Without a network of its own a test would send to the world: here a
        // send that is not refused finds no route.
        let mut command = match network {
            None => Command::new("unshare"),
            // Not `ip netns exec`: it hides the cgroups behind a /sys of its own.
            Some(_) => Command::new("nsenter"),
        };
        match network {
            None => command.arg("--net"),
            Some(network) => command.arg(format!("--net=/run/netns/{network}")),
        };
        command.args(["/usr/bin/python3", "-c", script]).arg(cgroup);
        if let Some(node) = node {
            command.arg(&node.0);
        }
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        Self(Kept(child))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.0.id()
    }

    /// Tries, and gives `sent` or the error number.
    pub(crate) fn send(&mut self, kind: &str, address: &str, port: u16) -> String {
        self.say(&format!("{kind} {address} {port}"))
    }

    /// Says a line to it, and gives its answer.
    pub(crate) fn say(&mut self, line: &str) -> String {
        let child = &mut self.0.0;
        let input = child.stdin.as_mut().expect("piped");
        writeln!(input, "{line}").expect("writes");
        let output = child.stdout.as_mut().expect("piped");
        let mut line = Vec::new();
        let mut byte = [0];
        while std::io::Read::read(output, &mut byte).expect("reads") == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        String::from_utf8(line).expect("is text")
    }
}

/// Waits until `wanted` says yes.
pub(crate) fn eventually(what: &str, mut wanted: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !wanted() {
        assert!(Instant::now() < deadline, "not within 15 s: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
