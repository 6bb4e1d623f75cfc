//! The process that is measured: in a cgroup and a network namespace, guarded
//! or not. It does what it is told, line by line, and says how long it took.

use crate::bpf;
use crate::packets;
use crate::stage;
use crate::stats::Spread;
use anyhow::{Context as _, Result, bail};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The worker, from the side of who gives orders.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Unless somebody else has started it.
    child: Option<Child>,
    orders: File,
    answers: BufReader<File>,
}

impl Worker {
    /// Starts one; with `node` it opens that device, and is guarded from then.
    pub(crate) fn start(space: &Path, cgroup: &Path, node: Option<&Path>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("worker").args([space, cgroup]);
        command.args(node);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a worker")?;
        let orders = OwnedFd::from(child.stdin.take().context("no input")?);
        let answers = OwnedFd::from(child.stdout.take().context("no output")?);
        Self::greet(Some(child), orders.into(), answers.into())
    }

    /// One that somebody else starts, with these as its input and output.
    pub(crate) fn started(orders: File, answers: File) -> Result<Self> {
        Self::greet(None, orders, answers)
    }

    fn greet(child: Option<Child>, orders: File, answers: File) -> Result<Self> {
        let mut worker = Self {
            child,
            orders,
            answers: BufReader::new(answers),
        };
        worker.answer()?;
        Ok(worker)
    }

    /// Gives an order, returns the numbers of the answer.
    pub(crate) fn ask(&mut self, order: &str) -> Result<Vec<f64>> {
        writeln!(self.orders, "{order}")?;
        self.answer().with_context(|| order.to_owned())
    }

    fn answer(&mut self) -> Result<Vec<f64>> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        match line.strip_prefix("ok") {
            Some(rest) => Ok(rest
                .split_whitespace()
                .map(str::parse)
                .collect::<Result<_, _>>()?),
            None => bail!("a worker said {line:?}"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// What a worker does until its input ends.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let [space, cgroup, rest @ ..] = words else {
        bail!("worker NETNS CGROUP [NODE]");
    };
    let space = File::open(space).context("no such namespace")?;
    let procs = Path::new(cgroup).join("cgroup.procs");
    fs::write(procs, std::process::id().to_string())?;
    stage::enter(&space)?;
    if let Some(node) = rest.first() {
        // ENXIO, where there is no driver: it is guarded all the same.
        File::open(node).ok();
    }
    let mut out = std::io::stdout();
    writeln!(out, "ok")?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match obey(&words) {
            Ok(values) => {
                let values: Vec<String> = values.iter().map(f64::to_string).collect();
                writeln!(out, "ok {}", values.join(" "))?;
            }
            Err(error) => writeln!(out, "error: {error:#}")?,
        }
        out.flush()?;
    }
    Ok(())
}

fn obey(words: &[&str]) -> Result<Vec<f64>> {
    match words {
        ["connect", to, count] => connect(to.parse()?, count.parse()?),
        ["udp", to, count] => send(to.parse()?, count.parse()?),
        ["refused", to] => refused(to.parse()?),
        ["rr", to, count] => ping_pong(to.parse()?, count.parse()?),
        ["stream", to, ms] => stream(to.parse()?, ms.parse()?),
        ["test", id, kind, to, repeat] => test(id.parse()?, kind, to, repeat.parse()?),
        _ => bail!("unknown order"),
    }
}

/// ns of connect(2), and of socket, connect and close; the median of `count`.
fn connect(to: SocketAddr, count: usize) -> Result<Vec<f64>> {
    let address = rustix::net::SocketAddrAny::from(to);
    let (mut alone, mut whole) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        let begun = Instant::now();
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        )?;
        let before = Instant::now();
        rustix::net::connect(&socket, &address)?;
        alone.push(before.elapsed().as_secs_f64() * 1e9);
        // Reset, so that no port waits.
        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        drop(socket);
        whole.push(begun.elapsed().as_secs_f64() * 1e9);
    }
    Ok(vec![Spread::of(alone).median, Spread::of(whole).median])
}

/// Sends at once between two looks at the clock.
const SENDS: usize = 16;

/// ns of sendto(2) on an unconnected socket; the median of `count` / 16.
fn send(to: SocketAddr, count: usize) -> Result<Vec<f64>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let data = [0x5a; 64];
    socket.send_to(&data, to)?;
    let mut times = Vec::with_capacity(count / SENDS);
    for _ in 0..count / SENDS {
        let begun = Instant::now();
        for _ in 0..SENDS {
            socket.send_to(&data, to)?;
        }
        times.push(begun.elapsed().as_secs_f64() * 1e9 / SENDS as f64);
    }
    Ok(vec![Spread::of(times).median])
}

/// Whether a datagram there is refused, as a program of the cgroup refuses it.
fn refused(to: SocketAddr) -> Result<Vec<f64>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    match socket.send_to(&[0x5a; 64], to) {
        Ok(_) => Ok(vec![0.0]),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(vec![1.0]),
        Err(error) => Err(error.into()),
    }
}

/// Median and p99 of a byte there and back, ns.
fn ping_pong(to: SocketAddr, count: usize) -> Result<Vec<f64>> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    let mut times = Vec::with_capacity(count);
    let mut byte = [0];
    for _ in 0..count {
        let begun = Instant::now();
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        times.push(begun.elapsed().as_secs_f64() * 1e9);
    }
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied();
    Ok(vec![
        at(0.5).unwrap_or_default(),
        at(0.99).unwrap_or_default(),
    ])
}

/// Bits a second.
fn stream(to: SocketAddr, ms: u64) -> Result<Vec<f64>> {
    let mut stream = TcpStream::connect(to)?;
    let data = vec![0x5a; 1 << 17];
    let limit = Duration::from_millis(ms);
    let (mut sent, begun) = (0_u64, Instant::now());
    while begun.elapsed() < limit {
        sent += stream.write(&data)? as u64;
    }
    Ok(vec![sent as f64 * 8.0 / begun.elapsed().as_secs_f64()])
}

/// What a program answers, and ns a run.
fn test(id: u32, kind: &str, to: &str, repeat: u32) -> Result<Vec<f64>> {
    let program = bpf::program(id)?;
    let packet = match kind {
        "udp4" => packets::udp4(to.parse::<Ipv4Addr>()?.octets(), 443, 64),
        "icmp4" => packets::icmp4(to.parse::<Ipv4Addr>()?.octets(), 64),
        "udp6" => packets::udp6(to.parse::<std::net::Ipv6Addr>()?.octets(), 443, 64),
        _ => bail!("unknown packet"),
    };
    let (answer, ns) = bpf::test_run(&program, &packet, repeat)?;
    Ok(vec![f64::from(answer), f64::from(ns)])
}
