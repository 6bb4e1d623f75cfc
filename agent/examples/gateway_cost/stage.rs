//! Two servers and two gateways, one pair of them guarded where this may load
//! programs.

use crate::{agent, say};
use anyhow::{Context as _, Result, ensure};
use merestone_agent::bpf::{self, DeviceRule, Kernel, Options};
use merestone_agent::policy::{self, Sources};
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// A number that stands for no driver: the hook decides before open(2) fails.
const NODE: (u32, u32) = (60, 211);

/// One way to the same answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arm {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
}

/// A child that ends with this.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Everything that runs while it is measured.
pub(crate) struct Stage {
    /// The first is without anything.
    pub(crate) arms: Vec<Arm>,
    pub(crate) records: Arc<AtomicU64>,
    /// Why R1 is not measured.
    pub(crate) without_r1: Option<String>,
    // In the order in which they must go.
    _processes: Vec<Process>,
    _guarded: Option<Guarded>,
    _folder: Folder,
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// A cgroup with the programs on it, and the node that guards.
struct Guarded {
    kernel: Option<Kernel>,
    cgroup: PathBuf,
    pins: PathBuf,
    node: PathBuf,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kernel = None;
        bpf::unload(&self.pins).ok();
        let until = Instant::now() + Duration::from_secs(5);
        while self.cgroup.exists() && Instant::now() < until {
            std::fs::remove_dir(&self.cgroup).ok();
        }
    }
}

impl Stage {
    pub(crate) fn set() -> Result<Self> {
        let folder =
            std::env::temp_dir().join(format!("merestone-gateway-cost-{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        let folder = Folder(folder);
        let socket = folder.0.join("records.sock");
        let records = agent::start(&socket)?;
        let mut processes = Vec::new();
        let mut arms = Vec::new();
        let mut pair = |direct, through, guarded: Option<&Guarded>| -> Result<()> {
            let (server, port) = server(guarded)?;
            processes.push(server);
            arms.push(Arm { name: direct, port });
            let (gateway, port) = gateway(&folder.0, &socket, port, guarded)?;
            processes.push(gateway);
            arms.push(Arm {
                name: through,
                port,
            });
            Ok(())
        };
        pair("nothing", "gateway", None)?;
        let guarded = Guarded::new(&folder.0);
        if let Ok(guarded) = &guarded {
            pair("R1", "R1 and gateway", Some(guarded))?;
        }
        let (guarded, without_r1) = match guarded {
            Ok(guarded) => (Some(guarded), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        if let Some(why) = &without_r1 {
            say(&format!("without R1: {why}"));
        }
        Ok(Self {
            arms,
            records,
            without_r1,
            _processes: processes,
            _guarded: guarded,
            _folder: folder,
        })
    }
}

impl Guarded {
    fn new(folder: &Path) -> Result<Self> {
        bpf::object()?;
        let root = bpf::probe(Path::new(""))?.cgroup_root;
        let id = std::process::id();
        let mut this = Self {
            kernel: None,
            cgroup: root.join(format!("merestone-gateway-cost-{id}")),
            pins: format!("/sys/fs/bpf/merestone-gateway-cost-{id}").into(),
            node: folder.join("gpu"),
        };
        std::fs::create_dir(&this.cgroup)?;
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &this.node,
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::RUSR,
            rustix::fs::makedev(NODE.0, NODE.1),
        )?;
        let mut options = Options::new(this.pins.clone());
        options.cgroup_root.clone_from(&this.cgroup);
        options.records = true;
        options.require = vec!["records".to_owned()];
        options.devices = vec![DeviceRule {
            major: NODE.0,
            minor: Some(NODE.1),
            class: merestone_abi::DeviceClass::CONFIGURED,
        }];
        let boundary = folder.join("boundary.toml");
        std::fs::write(&boundary, "name = \"loopback\"\n")?;
        let compiled = policy::load_with(&boundary, &Sources::default())?;
        let (kernel, mut events) =
            Kernel::start(&options, &merestone_agent::run::tables(&compiled))?;
        this.kernel = Some(kernel);
        // As the agent does, so that the ring is never full.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::spawn(move || {
            runtime.block_on(async { while events.next().await.is_ok() {} });
        });
        Ok(this)
    }
}

/// A command, in the guarded cgroup where there is one.
fn command(program: &Path, guarded: Option<&Guarded>) -> Command {
    let Some(Guarded { cgroup, node, .. }) = guarded else {
        return Command::new(program);
    };
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "echo $$ > \"$1\" || exit 1; cat \"$2\" >/dev/null 2>&1; shift 2; exec \"$@\"",
        "sh",
    ]);
    command
        .arg(cgroup.join("cgroup.procs"))
        .arg(node)
        .arg(program);
    command
}

fn server(guarded: Option<&Guarded>) -> Result<(Process, u16)> {
    let mut command = command(&std::env::current_exe()?, guarded);
    let mut child = command
        .arg("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
    let port = line.trim().parse().context("the server said no port")?;
    Ok((Process(child), port))
}

fn gateway(
    folder: &Path,
    socket: &Path,
    to: u16,
    guarded: Option<&Guarded>,
) -> Result<(Process, u16)> {
    let program = std::env::current_exe()?;
    // target/PROFILE/examples/gateway_cost
    let profile = program
        .parent()
        .and_then(Path::parent)
        .context("no profile directory")?;
    let program = profile.join("merestone");
    ensure!(program.exists(), "{} is not built", program.display());
    let config = folder.join("empty.toml");
    std::fs::write(&config, "")?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = command(&program, guarded);
    command
        .arg("gateway")
        .arg("--config")
        .arg(&config)
        .arg("--records")
        .arg(socket);
    command
        .arg("--require-receipts")
        .args(["--listen", &format!("127.0.0.1:{port}")]);
    command
        .args(["--to", &format!("http://127.0.0.1:{to}")])
        .env("MERESTONE_LOG", "error");
    let child = Process(command.stdin(Stdio::null()).spawn()?);
    let until = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(Instant::now() < until, "the gateway does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Until it has asked the agent.
    std::thread::sleep(Duration::from_secs(1));
    Ok((child, port))
}
