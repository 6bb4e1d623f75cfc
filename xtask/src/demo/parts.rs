//! The processes of the demo; dropping one ends it and takes its traces away.

use super::net::{self, Net};
use super::python;
use crate::leftovers;
use crate::shell::{self, Running};
use crate::swtpm;
use crate::undo::Undo;
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// The cgroup that the server is a service in.
pub(crate) const SERVICE: &str = "merestone-demo.service";
/// NVIDIA's character devices (Documentation/admin-guide/devices.txt).
const GPU_MAJOR: u32 = 195;

/// A program of this workspace.
pub(crate) fn binary(name: &str) -> PathBuf {
    shell::target().join("debug").join(name)
}

/// `target/demo`, emptied; the bundle and the trust file stay in it.
#[derive(Debug)]
pub(crate) struct Workplace {
    folder: PathBuf,
    began: String,
}

impl Workplace {
    /// Makes it, and writes boundary and configuration.
    pub(crate) fn make() -> Result<Self> {
        let folder = shell::target().join("demo");
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let folder = folder.canonicalize()?;
        let began = shell::read(shell::command("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]))?;
        Ok(Self {
            folder,
            began: began.trim().to_owned(),
        })
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// When the demo began, RFC 3339.
    pub(crate) fn began(&self) -> &str {
        &self.began
    }
}

/// The software TPM.
#[derive(Debug)]
pub(crate) struct Swtpm {
    _running: Running,
    port: u16,
}

impl Swtpm {
    /// Starts it on free ports, its state in the workplace.
    pub(crate) fn start(place: &Workplace) -> Result<Self> {
        let state = place.file("swtpm");
        fs::create_dir_all(&state)?;
        let (running, port) = swtpm::start_on_free_ports(&state)?;
        Ok(Self {
            _running: running,
            port,
        })
    }
}

/// The agent, enforcing on this host's own kernel.
#[derive(Debug)]
pub(crate) struct Agent {
    _running: Running,
    _pins: Undo,
    config: String,
}

impl Agent {
    /// Starts it and waits until it says that it enforces.
    pub(crate) fn start(place: &Workplace, swtpm: &Swtpm) -> Result<Self> {
        let config = place.file("merestone.toml");
        fs::write(place.file("boundary.toml"), BOUNDARY)?;
        fs::write(&config, configuration(place, swtpm.port)?)?;
        let config = config.to_string_lossy().into_owned();
        let pins = Undo::new({
            let config = config.clone();
            move || {
                let mut unload = shell::command(binary("merestone"));
                unload.args(["--config", &config, "unload", "--yes"]);
                if !shell::succeeds(&mut unload) {
                    crate::progress::line("could not unload; run `cargo xtask cleanup`");
                }
            }
        });
        let log = place.file("agent.log");
        let out = fs::File::create(&log)?;
        let mut command = shell::command(binary("merestone"));
        command.args(["--config", &config, "run"]);
        // libtss2 writes to stderr by itself; the agent says what matters.
        command.env("TSS2_LOG", "all+none");
        command.stdout(out.try_clone()?).stderr(out);
        let mut running = Running::start(&mut command)?;
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            if let Some(status) = running.ended()? {
                let said = fs::read_to_string(&log).unwrap_or_default();
                bail!("the agent ended ({status}):\n{said}");
            }
            let mut status = shell::command(binary("merestone"));
            if shell::succeeds(status.args(["--config", &config, "status"])) {
                break;
            }
            if Instant::now() > deadline {
                bail!(
                    "the agent does not enforce after 90 s; see {}",
                    log.display()
                );
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(Self {
            _running: running,
            _pins: pins,
            config,
        })
    }

    /// Runs an operator's command.
    pub(crate) fn ask(&self, words: &[&str]) -> Result<String> {
        let mut command = shell::command(binary("merestone"));
        shell::read(command.args(["--config", &self.config]).args(words))
    }

    /// The alert line that contains `needle`; it may take a moment to be told.
    pub(crate) fn alert(&self, needle: &str) -> Result<String> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let flows = self.ask(&["flows", "--denied"])?;
            if let Some(line) = flows.lines().find(|line| line.contains(needle)) {
                return Ok(line.to_owned());
            }
            if Instant::now() > deadline {
                bail!("held, but no alert names `{needle}`; the alerts are:\n{flows}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

const BOUNDARY: &str = r#"# The demo's boundary: its own small network, nothing else.
name = "demo"

[[allow]]
cidr = ["198.18.0.0/24", "fd00:6d65::/64"]
comment = "the demo's network; the client is here"
"#;

fn configuration(place: &Workplace, port: u16) -> Result<String> {
    let at = |name: &str| -> Result<String> {
        let path = place.file(name);
        let path = path
            .to_str()
            .context("the path of the workspace is not UTF-8")?;
        Ok(format!("{path:?}"))
    };
    Ok(format!(
        r#"node = "demo"
boundary = {boundary}
state_dir = {state}

[api]
socket = {socket}

[metrics]
listen = ""

[records]
socket = {records}
idle = "500ms"

[enforcement]
pin_dir = "/sys/fs/bpf/merestone-demo"
tamper = false

[tpm]
tcti = "swtpm:host=127.0.0.1,port={port}"

[evidence]
epoch = "1s"
heartbeat = "5s"

[site]
region = "demo"

[events]
jsonl = {events}
"#,
        boundary = at("boundary.toml")?,
        state = at("state")?,
        socket = at("agent.sock")?,
        records = at("records.sock")?,
        events = at("events.jsonl")?,
    ))
}

/// Where the gateway says whether the agent takes its records.
const GATEWAY_METRICS: &str = "127.0.0.1:8002";

/// The inference server, a service in its own cgroup.
#[derive(Debug)]
pub(crate) struct Server {
    _running: Running,
    _cgroup: Undo,
    _node: Option<Undo>,
    opened: String,
}

impl Server {
    /// Starts it and waits until it listens.
    pub(crate) fn start(place: &Workplace) -> Result<Self> {
        let root = leftovers::cgroup_root()
            .context("no cgroup v2 is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup")?;
        let cgroup = root.join(SERVICE);
        fs::create_dir_all(&cgroup).with_context(|| format!("cannot make {}", cgroup.display()))?;
        let undo = Undo::new({
            let cgroup = cgroup.clone();
            move || {
                let gone =
                    shell::within(Duration::from_secs(5), || fs::remove_dir(&cgroup).is_ok());
                if !gone {
                    crate::progress::line(format_args!("could not remove {}", cgroup.display()));
                }
            }
        });
        let (node, node_undo) = gpu_node(place)?;
        let mut command = shell::command("/bin/sh");
        // The service is in its cgroup before its first own instruction.
        command.args([
            "-c",
            r#"echo $$ > "$1/cgroup.procs" && shift && exec "$@""#,
            "sh",
        ]);
        command
            .arg(&cgroup)
            .args(["ip", "netns", "exec", net::INSIDE]);
        // The gateway in front; the server is its child, and so of its cgroup.
        command.arg(binary("merestone")).arg("gateway");
        command.arg("--config").arg(place.file("merestone.toml"));
        command.args(["--listen", &format!("{}:8000", net::SERVER)]);
        command.args(["--to", "http://127.0.0.1:8001", "--require-receipts"]);
        command.args(["--metrics", GATEWAY_METRICS]);
        command.arg("--records").arg(place.file("records.sock"));
        command.arg("--").arg(python::interpreter());
        command.arg(python::server());
        command.args(["--listen", "127.0.0.1:8001", "--gpu"]);
        command.arg(&node);
        let mut running = Running::start(command.stdout(Stdio::piped()))?;
        let mut opened = String::new();
        for line in running.lines()? {
            if line.starts_with("opened") {
                opened = line;
            } else if line.starts_with("listening") {
                Self::await_records()?;
                return Ok(Self {
                    _running: running,
                    _cgroup: undo,
                    _node: node_undo,
                    opened,
                });
            }
        }
        bail!("the inference server did not start")
    }

    /// Waits until the agent takes the gateway's records: it asks again each
    /// half second while its group is not guarded yet.
    fn await_records() -> Result<()> {
        let ready = format!("http://{GATEWAY_METRICS}/-/ready");
        let mut command = shell::command("ip");
        command.args(["netns", "exec", net::INSIDE]);
        command.arg(python::interpreter()).arg(python::peer());
        command.args(["ready", &ready]);
        if shell::within(Duration::from_secs(20), || {
            shell::read(&mut command).is_ok()
        }) {
            return Ok(());
        }
        bail!("the agent does not take the gateway's records");
    }

    /// What it said when it opened the GPU node.
    pub(crate) fn opened(&self) -> &str {
        &self.opened
    }

    /// An address of it.
    pub(crate) fn url(path: &str) -> String {
        format!("http://{}:8000{path}", net::SERVER)
    }

    /// Asks it as a client inside the boundary does.
    pub(crate) fn ask(how: &str, url: &str, words: &[&str]) -> Result<Value> {
        Self::ask_from(net::OUTSIDE, how, url, words)
    }

    /// Asks the server itself, past the gateway, as somebody on its host can.
    pub(crate) fn ask_past_gateway(path: &str) -> Result<Value> {
        let url = format!("http://127.0.0.1:8001{path}");
        Self::ask_from(net::INSIDE, "get", &url, &[])
    }

    fn ask_from(from: &str, how: &str, url: &str, words: &[&str]) -> Result<Value> {
        let mut command = shell::command("ip");
        command.args(["netns", "exec", from]);
        command.arg(python::interpreter()).arg(python::peer());
        let said = shell::read(command.args([how, url]).args(words))?;
        serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))
    }
}

/// The real GPU's node, or one made with its major number: the open then fails
/// with ENXIO, and the kernel has seen it all the same.
fn gpu_node(place: &Workplace) -> Result<(PathBuf, Option<Undo>)> {
    let real = Path::new("/dev/nvidia0");
    if real.exists() {
        return Ok((real.to_owned(), None));
    }
    // A build folder may be on a file system mounted `nodev`; /dev never is.
    let node = PathBuf::from(format!("/dev/merestone-demo-{}", std::process::id()));
    let undo = Undo::new({
        let node = node.clone();
        move || {
            if fs::remove_file(&node).is_err() {
                crate::progress::line(format_args!("could not remove {}", node.display()));
            }
        }
    });
    let made =
        shell::run(
            shell::command("mknod")
                .arg(&node)
                .args(["c", &GPU_MAJOR.to_string(), "0"]),
        );
    made.with_context(|| {
        format!(
            "no GPU here, and no node can be made for {}",
            place.folder.display()
        )
    })?;
    Ok((node, Some(undo)))
}

/// What arrives beyond the boundary.
#[derive(Debug)]
pub(crate) struct Sniffer {
    _running: Running,
    seen: Receiver<Value>,
}

impl Sniffer {
    /// Starts it in the namespace outside and waits until it listens.
    pub(crate) fn start(_net: &Net) -> Result<Self> {
        let mut command = shell::command("ip");
        command.args(["netns", "exec", net::OUTSIDE]);
        command.arg(python::interpreter()).arg(python::peer());
        command.args(["sniff", net::OUTSIDE_V4, net::OUTSIDE_V6]);
        let mut running = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let lines = running.lines()?;
        let (tell, seen) = mpsc::channel();
        thread::spawn(move || {
            for line in lines {
                if let Ok(packet) = serde_json::from_str(&line)
                    && tell.send(packet).is_err()
                {
                    break;
                }
            }
        });
        let sniffer = Self {
            _running: running,
            seen,
        };
        let first = sniffer.seen.recv_timeout(Duration::from_secs(10));
        first.context("the sniffer did not start")?;
        Ok(sniffer)
    }

    /// What arrived, waiting until `enough` or 5 s, and then for stragglers.
    pub(crate) fn take(&self, enough: impl Fn(&[Value]) -> bool) -> Result<Vec<Value>> {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut seen = Vec::new();
        while !enough(&seen) && Instant::now() < deadline {
            seen.extend(self.next(Duration::from_millis(100))?);
        }
        seen.extend(self.settle()?);
        Ok(seen)
    }

    /// What arrives until nothing has for a second and a half: longer than a
    /// TCP retransmission takes to come.
    pub(crate) fn settle(&self) -> Result<Vec<Value>> {
        let mut seen = Vec::new();
        while let Some(packet) = self.next(Duration::from_millis(1500))? {
            seen.push(packet);
        }
        Ok(seen)
    }

    fn next(&self, patience: Duration) -> Result<Option<Value>> {
        match self.seen.recv_timeout(patience) {
            Ok(packet) => Ok(Some(packet)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the sniffer ended: nothing can be proved")
            }
        }
    }
}
