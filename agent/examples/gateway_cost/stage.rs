//! Two servers and two gateways, one pair of them guarded by the agent where
//! this may load programs.

use crate::real::Real;
use crate::{agent, say};
use anyhow::{Context as _, Result, ensure};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// One way to the same answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arm {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
}

/// A child that ends with this.
pub(crate) struct Process(pub(crate) Child);

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
    /// Records that the stand-in took.
    pub(crate) records: Arc<AtomicU64>,
    /// Why R1 is not measured.
    pub(crate) without_r1: Option<String>,
    /// Where the gateways answer how they are.
    pub(crate) metrics: Vec<u16>,
    // In the order in which they must go.
    _processes: Vec<Process>,
    /// The agent, for the arms from the third on.
    pub(crate) real: Option<Real>,
    _folder: Folder,
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

impl Stage {
    pub(crate) fn set() -> Result<Self> {
        let folder =
            std::env::temp_dir().join(format!("merestone-gateway-cost-{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        let folder = Folder(folder);
        let stand_in = folder.0.join("records.sock");
        let records = agent::start(&stand_in)?;
        let (mut processes, mut arms, mut metrics) = (Vec::new(), Vec::new(), Vec::new());
        let mut pair = |direct, through, socket: &Path, group: Option<&Path>| -> Result<u16> {
            let (server, port) = server(group)?;
            processes.push(server);
            arms.push(Arm { name: direct, port });
            let gateway = gateway(&folder.0, socket, port, group)?;
            processes.push(gateway.process);
            metrics.push(gateway.metrics);
            arms.push(Arm {
                name: through,
                port: gateway.port,
            });
            Ok(gateway.metrics)
        };
        let ready = pair("nothing", "gateway", &stand_in, None)?;
        let real = Real::new(&folder.0);
        let (real, without_r1) = match real {
            Ok(mut real) => {
                let socket = real.socket.clone();
                let port = pair("R1", "R1 and gateway", &socket, Some(&real.cgroup))?;
                real.await_gateway(port);
                (Some(real), None)
            }
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        if let Some(why) = &without_r1 {
            say(&format!("without R1: {why}"));
        }
        let until = Instant::now() + Duration::from_secs(20);
        while !is_ready(ready) {
            ensure!(Instant::now() < until, "the gateway takes no requests");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Self {
            arms,
            records,
            without_r1,
            metrics,
            _processes: processes,
            real,
            _folder: folder,
        })
    }

    /// Has the agent guard, or be off the kernel.
    pub(crate) fn guard(&mut self, is_on: bool) -> Result<()> {
        match &mut self.real {
            Some(real) if is_on => real.begin(),
            Some(real) => real.end(),
            None => Ok(()),
        }
    }

    /// Answers that the gateways could not have recorded.
    pub(crate) fn unrecorded(&self) -> Result<f64> {
        let counts = self.metrics.iter();
        counts
            .map(|port| value(*port, "merestone_gateway_unrecorded_total{"))
            .sum()
    }
}

/// The sum of a gateway's metrics that begin so.
pub(crate) fn value(metrics: u16, begin: &str) -> Result<f64> {
    let text = get(metrics, "/metrics")?;
    let lines = text.lines().filter(|line| line.starts_with(begin));
    let counts = lines.filter_map(|line| line.rsplit_once(' '));
    counts.map(|(_, count)| Ok(count.parse::<f64>()?)).sum()
}

/// The operator's command, beside this example's folder.
pub(crate) fn program() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    // target/PROFILE/examples/gateway_cost
    let profile = program.parent().and_then(Path::parent);
    let program = profile.context("no profile directory")?.join("merestone");
    ensure!(program.exists(), "{} is not built", program.display());
    Ok(program)
}

/// A whole answer, head and body.
fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    // In one piece, so that it is known for what it is and left out.
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Whether a gateway takes requests; one that has to have receipts only with its agent.
pub(crate) fn is_ready(metrics: u16) -> bool {
    get(metrics, "/-/ready").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// A command, in the group's cgroup where there is one.
fn command(program: &Path, group: Option<&Path>) -> Command {
    let Some(group) = group else {
        return Command::new(program);
    };
    let mut command = Command::new("sh");
    command.args(["-c", "echo $$ > \"$1\" || exit 1; shift; exec \"$@\"", "sh"]);
    command.arg(group.join("cgroup.procs")).arg(program);
    command
}

fn server(group: Option<&Path>) -> Result<(Process, u16)> {
    let mut command = command(&std::env::current_exe()?, group);
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

struct Gateway {
    process: Process,
    port: u16,
    metrics: u16,
}

fn gateway(folder: &Path, socket: &Path, to: u16, group: Option<&Path>) -> Result<Gateway> {
    let config = folder.join("empty.toml");
    std::fs::write(&config, "")?;
    let free = || TcpListener::bind("127.0.0.1:0");
    let (first, second) = (free()?, free()?);
    let (port, metrics) = (first.local_addr()?.port(), second.local_addr()?.port());
    drop((first, second));
    let mut command = command(&program()?, group);
    command
        .arg("gateway")
        .arg("--config")
        .arg(&config)
        .arg("--records")
        .arg(socket);
    command
        .arg("--require-receipts")
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .args(["--metrics", &format!("127.0.0.1:{metrics}")]);
    command
        .args(["--to", &format!("http://127.0.0.1:{to}")])
        .env("MERESTONE_LOG", "error");
    let process = Process(command.stdin(Stdio::null()).spawn()?);
    let until = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(Instant::now() < until, "the gateway does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(Gateway {
        process,
        port,
        metrics,
    })
}
