//! The child process: enters its cgroup, opens the GPU node when its vector
//! says so, tries to get out, and reports what the kernel answered.
//!
//! It judges nothing. Whether a marker got out is the sniffer's to say, and
//! what that means is the suite's.

pub mod asked;
pub mod connectx;
pub mod deputy;
pub mod families;
pub mod headers;
pub mod icmp;
pub mod lineage;
pub mod links;
pub mod made;
pub mod nodes;
pub mod older;
pub mod options;
pub mod passing;
pub mod repeat;
pub mod ring;
pub mod tcp;
pub mod udp;

use crate::catalog;
use crate::job::{self, Job, Line, PORT};
use crate::sys::{self, Fork};
use std::fs::OpenOptions;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

/// No probe lives longer, whatever happens to the suite.
const LIFETIME_SECONDS: u32 = 900;
/// How long a call that nobody refuses at once may hang.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// How long the allowed host may take to answer: an emulated machine may be
/// busy with the agent's start, and waiting longer excuses no refusal.
const ANSWER: Duration = Duration::from_secs(15);

/// What a vector works with.
#[derive(Debug)]
pub struct Probe {
    /// The orders.
    pub job: Job,
}

/// Runs the job given as JSON; the exit code.
pub fn main(orders: &str) -> i32 {
    sys::alarm(LIFETIME_SECONDS);
    let outcome = serde_json::from_str(orders)
        .map_err(io::Error::from)
        .and_then(|job| Probe { job }.run());
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            say(&Line::Broken {
                why: error.to_string(),
            });
            1
        }
    }
}

/// Writes one line in one system call, so that forked processes do not mix.
pub fn say(line: &Line) {
    if let Ok(mut text) = serde_json::to_string(line) {
        text.push('\n');
        // The suite is gone when this fails, and so is the reason to report.
        drop(io::stdout().lock().write_all(text.as_bytes()));
    }
}

/// Waits for a line of the suite; false at the end of its input.
pub fn hear() -> bool {
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .is_ok_and(|size| size > 0)
}

impl Probe {
    fn run(&self) -> io::Result<()> {
        enter(&self.job.cgroup)?;
        match self.job.vector.as_str() {
            "storm" => return repeat::storm(self),
            "sender" => return repeat::sender(self),
            "streamer" => return repeat::streamer(self),
            "flood" => return repeat::flood(self),
            "shell" => return repeat::shell(self),
            "soaker" => return repeat::soaker(self),
            _ => {}
        }
        let vector =
            catalog::find(&self.job.vector).ok_or_else(|| io::Error::other("no such vector"))?;
        (vector.run)(self, vector.v6)?;
        self.finish()
    }

    /// The allowed destination, then wait to be let go.
    pub fn finish(&self) -> io::Result<()> {
        let errors = inside(&self.job.marker);
        say(&Line::Inside { errors });
        say(&Line::Done);
        io::stdin().lock().read_to_end(&mut Vec::new()).map(drop)
    }

    /// Tells the suite, waits for its go, and opens the node, if there is one
    /// to open. No driver behind it (ENXIO) is as good: the kernel's device
    /// check comes first.
    pub fn open_gpu(&self) -> io::Result<()> {
        say(&Line::Ready);
        if !hear() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.open_now()
    }

    /// Opens the node without asking.
    pub fn open_now(&self) -> io::Result<()> {
        let Some(node) = &self.job.gpu else {
            return Ok(());
        };
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(node);
        match opened {
            // Kept open to the end, as an inference server does.
            Ok(file) => {
                let _kept: i32 = std::os::fd::IntoRawFd::into_raw_fd(file);
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(()),
            Err(error) => Err(io::Error::other(format!(
                "cannot open {}: {error}; is the file system mounted nodev?",
                node.display()
            ))),
        }
    }

    /// Tries to get out, and reports the answer.
    #[expect(clippy::unused_self, reason = "only a probe may try")]
    pub fn attempt<T>(&self, what: &str, out: impl FnOnce() -> io::Result<T>) {
        let begin = Instant::now();
        let outcome = out();
        let elapsed_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        say(&Line::Attempt {
            pid: std::process::id(),
            what: what.to_owned(),
            errno: outcome.err().map(|error| error.raw_os_error().unwrap_or(0)),
            elapsed_us,
        });
    }

    /// The marker as bytes.
    pub fn marker(&self) -> &[u8] {
        self.job.marker.as_bytes()
    }
}

/// Runs `body` in a child process and waits for it.
pub fn fork(body: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    match sys::fork()? {
        Fork::Child => become_child(body),
        Fork::Parent(pid) => joined(pid),
    }
}

/// What a forked process does, and its end.
pub fn become_child(body: impl FnOnce() -> io::Result<()>) -> ! {
    sys::alarm(LIFETIME_SECONDS);
    let code = match body() {
        Ok(()) => 0,
        Err(error) => {
            say(&Line::Broken {
                why: error.to_string(),
            });
            1
        }
    };
    sys::leave(code)
}

/// Waits for a forked process to end well.
pub fn joined(pid: i32) -> io::Result<()> {
    match sys::wait(pid)? {
        0 => Ok(()),
        code => Err(io::Error::other(format!(
            "a forked process ended with {code}"
        ))),
    }
}

/// Moves this process into a cgroup directory.
pub fn enter(cgroup: &std::path::Path) -> io::Result<()> {
    let procs = cgroup.join("cgroup.procs");
    std::fs::write(&procs, "0")
        .map_err(|error| io::Error::other(format!("cannot enter {}: {error}", cgroup.display())))
}

/// An IPv4 address in the form a dual-stack socket takes.
pub fn mapped(address: Ipv4Addr) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(address.to_ipv6_mapped()), PORT)
}

/// Talks to the allowed destination over UDP and TCP, both families, and
/// demands the echo. What it says is no marker: that must not be on the wire.
fn inside(marker: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let word = format!("inside {}", marker.trim_start_matches("mrst"));
    for v6 in [false, true] {
        let target = SocketAddr::new(job::allowed(v6), PORT);
        if let Err(error) = ask_udp(target, word.as_bytes()) {
            errors.push(format!("udp {target}: {error}"));
        }
        if let Err(error) = ask_tcp(target, word.as_bytes()) {
            errors.push(format!("tcp {target}: {error}"));
        }
    }
    errors
}

fn ask_udp(target: SocketAddr, word: &[u8]) -> io::Result<()> {
    let any: SocketAddr = if target.is_ipv6() {
        "[::]:0".parse().map_err(io::Error::other)?
    } else {
        "0.0.0.0:0".parse().map_err(io::Error::other)?
    };
    let socket = UdpSocket::bind(any)?;
    let mut answer = vec![0; word.len()];
    socket.set_read_timeout(Some(ANSWER / 2))?;
    // Twice: a datagram may be lost where a vector has just sent thousands.
    for _ in 0..2 {
        socket.send_to(word, target)?;
        if socket.recv(&mut answer).is_ok() {
            return same(&answer, word);
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn ask_tcp(target: SocketAddr, word: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(word)?;
    let mut answer = vec![0; word.len()];
    stream.read_exact(&mut answer)?;
    same(&answer, word)
}

fn same(answer: &[u8], word: &[u8]) -> io::Result<()> {
    if answer == word {
        Ok(())
    } else {
        Err(io::Error::other("the echo is not what was sent"))
    }
}
