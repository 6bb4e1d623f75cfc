//! The guarded process: does what it is told, one order a line, and says what
//! the kernel answered.
#![expect(unsafe_code, reason = "socket options and flags that no library has")]

use super::wire;
use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead as _, ErrorKind, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_millis(400);

/// Reads orders until there are no more.
#[expect(clippy::print_stdout, reason = "the answers are for the test")]
pub(crate) fn obey() {
    let cgroup = std::env::var("MERESTONE_TEST_CGROUP").unwrap();
    let node = std::env::var("MERESTONE_TEST_NODE").unwrap();
    fs::write(
        format!("{cgroup}/cgroup.procs"),
        std::process::id().to_string(),
    )
    .unwrap();
    let mut kept = HashMap::new();
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<_> = line.split(' ').collect();
        let outcome = match words[..] {
            ["guard"] => fs::File::open(&node).map(|_| String::new()),
            ["udp", source, to, hex] => udp(source.parse().unwrap(), to, &wire::unhex(hex), 0),
            ["zerocopy", to, hex] => udp(0, to, &wire::unhex(hex), libc::MSG_ZEROCOPY),
            ["segments", to, hex] => segments(to, &wire::unhex(hex)),
            ["tcp", to] => connect(to).map(|_| String::new()),
            ["keep", name, to] => connect(to)
                .map(|stream| drop(kept.insert(name.to_owned(), stream)))
                .map(|()| String::new()),
            ["write", name] => kept
                .get_mut(name)
                .unwrap()
                .write_all(b"x")
                .map(|()| String::new()),
            _ => panic!("{line}"),
        };
        let answer = match outcome {
            Ok(said) => format!("ok {said}"),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => "EPERM".to_owned(),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => "ENXIO".to_owned(),
            Err(error) => error.to_string(),
        };
        println!("child: {}", answer.trim());
    }
}

fn parsed(to: &str) -> io::Result<SocketAddr> {
    to.parse().map_err(io::Error::other)
}

fn connect(to: &str) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&parsed(to)?, Duration::from_secs(2))
}

fn socket(to: &str, source: u16) -> io::Result<(UdpSocket, SocketAddr)> {
    let to = parsed(to)?;
    let any: IpAddr = if to.is_ipv4() {
        [0; 4].into()
    } else {
        [0_u16; 8].into()
    };
    let socket = UdpSocket::bind((any, source))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok((socket, to))
}

fn set(socket: &UdpSocket, level: i32, name: i32, value: i32) {
    // SAFETY: the value is an int and its size is given.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            4,
        )
    };
    assert_eq!(outcome, 0, "{}", io::Error::last_os_error());
}

fn send(socket: &UdpSocket, data: &[u8], flags: i32) -> io::Result<()> {
    // SAFETY: the buffer is as long as is said.
    let sent = unsafe { libc::send(socket.as_raw_fd(), data.as_ptr().cast(), data.len(), flags) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sends, and waits for as many answers as come.
fn udp(source: u16, to: &str, data: &[u8], flags: i32) -> io::Result<String> {
    let (socket, to) = socket(to, source)?;
    if flags != 0 {
        set(&socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1);
    }
    socket.connect(to)?;
    send(&socket, data, flags)?;
    let mut buffer = [0; 4096];
    let mut answers = 0;
    while socket.recv(&mut buffer).is_ok() {
        answers += 1;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    }
    Ok(format!("{answers}"))
}

/// One send that leaves as several datagrams.
fn segments(to: &str, data: &[u8]) -> io::Result<String> {
    let (socket, to) = socket(to, 0)?;
    socket.connect(to)?;
    set(
        &socket,
        libc::SOL_UDP,
        libc::UDP_SEGMENT,
        i32::try_from(data.len() / 2).map_err(io::Error::other)?,
    );
    send(&socket, data, 0).map(|()| String::new())
}
