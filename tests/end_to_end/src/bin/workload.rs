//! A stand-in for an inference process: enters a cgroup, opens a GPU node when
//! it is given one, then tries what it is told, one line at a time.
//!
//! `merestone-workload CGROUP [NODE]`; a line is `udp ADDRESS PORT`, `tcp
//! ADDRESS PORT`, `unix PATH` or `socket FAMILY` (a number); the answer is
//! `sent` or the error's number. It keeps the node open and never retries.

use std::{
    env, fs,
    io::{self, BufRead as _, Error, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use rustix::net::{AddressFamily, SocketType, socket};

const PATIENCE: Duration = Duration::from_secs(1);

fn main() -> io::Result<()> {
    let mut words = env::args_os().skip(1);
    let cgroup = words.next().ok_or_else(|| Error::other("name a cgroup"))?;
    let procs = Path::new(&cgroup).join("cgroup.procs");
    fs::write(procs, std::process::id().to_string())?;
    // With no driver the open fails with ENXIO, after the kernel has seen it.
    let _node = words
        .next()
        .and_then(|node| fs::File::options().read(true).write(true).open(node).ok());
    let mut out = io::stdout();
    for line in io::stdin().lock().lines() {
        match attempt(&line?) {
            Ok(()) => writeln!(out, "sent")?,
            Err(error) => writeln!(out, "{}", error.raw_os_error().unwrap_or(-1))?,
        }
        out.flush()?;
    }
    Ok(())
}

fn attempt(line: &str) -> io::Result<()> {
    let not_known = || Error::other("a line is KIND ADDRESS PORT, socket FAMILY or unix PATH");
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["socket", family] => {
            let family = family.parse().map_err(Error::other)?;
            socket(AddressFamily::from_raw(family), SocketType::STREAM, None)?;
            Ok(())
        }
        ["unix", path] => UnixStream::connect(path)?.write_all(b"text"),
        [kind, address, port] => {
            let address: IpAddr = address.parse().map_err(Error::other)?;
            let to = SocketAddr::new(address, port.parse().map_err(Error::other)?);
            match *kind {
                "tcp" => TcpStream::connect_timeout(&to, PATIENCE).map(drop),
                "udp" => {
                    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                    UdpSocket::bind(any)?.send_to(b"text", to).map(drop)
                }
                _ => Err(not_known()),
            }
        }
        _ => Err(not_known()),
    }
}
