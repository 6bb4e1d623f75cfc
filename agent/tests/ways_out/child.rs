//! What a child process is told to do.
#![expect(unsafe_code, reason = "some calls have no wrapper")]

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes integers only.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set(socket: &OwnedFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let size = u32::try_from(value.len()).unwrap();
    // SAFETY: `value` has `size` bytes.
    let failed =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), size) };
    if failed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn option(family: i32, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    set(&socket(family, libc::SOCK_DGRAM, 0)?, level, name, value)
}

fn open(path: &Path) -> io::Result<()> {
    fs::File::open(path).map(drop)
}

fn take(channel: &UnixStream) -> io::Result<OwnedFd> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(channel, &mut data, &mut control, RecvFlags::empty())?;
    let mut messages = control.drain();
    messages
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        })
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EPERM))
}

pub(crate) fn give(channel: &UnixStream, file: &OwnedFd) -> io::Result<()> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let files = [file.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
    rustix::net::sendmsg(
        channel,
        &[IoSlice::new(b"!")],
        &mut control,
        SendFlags::empty(),
    )?;
    Ok(())
}

/// `include/uapi/linux`: the options that are tried.
const IPV6_RTHDR: i32 = 57;
const SOL_XDP: i32 = 283;

pub(crate) fn obey(order: &str, home: &Path) -> io::Result<()> {
    match order {
        "gpu" | "rdma" | "tun" | "vhost" | "full" => open(&home.join(order)),
        "send" => UdpSocket::bind("127.0.0.1:0")?
            .send_to(b"x", "127.0.0.1:9")
            .map(drop),
        "mark" => option(
            libc::AF_INET,
            libc::SOL_SOCKET,
            libc::SO_MARK,
            &7_u32.to_ne_bytes(),
        ),
        "long" | "rthdr" | "no-rthdr" | "lsrr" | "stamp" => set_option(order),
        "xdp" => {
            let socket = socket(libc::AF_XDP, libc::SOCK_RAW, 0)?;
            set(&socket, SOL_XDP, 3, &64_u32.to_ne_bytes())
        }
        "raw" => socket(libc::AF_INET, libc::SOCK_RAW, 253).map(drop),
        "rawudp" => socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_UDP).map(drop),
        "icmp" => socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP).map(drop),
        "tcp" => socket(libc::AF_INET, libc::SOCK_STREAM, 0).map(drop),
        "udp" => socket(libc::AF_INET6, libc::SOCK_DGRAM, 0).map(drop),
        "vsock" => socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0).map(drop),
        "ask" => {
            let port = fs::read_to_string(home.join("port"))?;
            let to = format!("127.0.0.1:{}", port.trim());
            let to = to.parse().map_err(io::Error::other)?;
            TcpStream::connect_timeout(&to, Duration::from_millis(500)).map(drop)
        }
        "askudp" => {
            let port = fs::read_to_string(home.join("udp"))?;
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            let to = format!("127.0.0.1:{}", port.trim());
            socket.send_to(b"x", &to)?;
            socket.send_to(b"y", &to).map(drop)
        }
        "own" => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            TcpStream::connect(listener.local_addr()?).map(drop)
        }
        "unix" => UnixStream::connect(home.join("deputy")).map(drop),
        "ownunix" => {
            let path = home.join(format!("own{}", std::process::id()));
            let _listener = UnixListener::bind(&path)?;
            UnixStream::connect(&path).map(drop)
        }
        "records" | "control" => UnixStream::connect(home.join(order))?.write_all(b"x"),
        "take" => take(&UnixStream::connect(home.join("giver"))?).map(drop),
        "relisten" => listen_again(home),
        "stdin" => rustix::io::write(io::stdin(), b"x")
            .map(drop)
            .map_err(Into::into),
        "use" => {
            let file = take(&UnixStream::connect(home.join("giver"))?)?;
            fs::File::from(file).write_all(b"x")
        }
        other => panic!("{other}"),
    }
}

fn set_option(order: &str) -> io::Result<()> {
    match order {
        // Longer than a page: the kernel reads four bytes of it.
        "long" => {
            let mut value = vec![0; 3 * 4096];
            value[1] = 1;
            option(libc::AF_INET, libc::SOL_SOCKET, libc::SO_RCVBUF, &value)
        }
        "rthdr" => {
            let header = [&[0, 4, 4, 1, 1, 0, 0, 0][..], &[0; 32]].concat();
            option(libc::AF_INET6, libc::IPPROTO_IPV6, IPV6_RTHDR, &header)
        }
        "no-rthdr" => option(libc::AF_INET6, libc::IPPROTO_IPV6, IPV6_RTHDR, &[]),
        "lsrr" => {
            let route = [1, 131, 7, 4, 198, 18, 77, 7];
            option(libc::AF_INET, libc::IPPROTO_IP, libc::IP_OPTIONS, &route)
        }
        "stamp" => {
            let stamp = [68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            option(libc::AF_INET, libc::IPPROTO_IP, libc::IP_OPTIONS, &stamp)
        }
        other => panic!("{other}"),
    }
}

/// Listens on what it is handed, until it is told to end.
fn listen_again(home: &Path) -> io::Result<()> {
    let listener = take(&UnixStream::connect(home.join("giver"))?)?;
    rustix::net::listen(&listener, 8)?;
    fs::write(home.join("listens"), "")?;
    for _ in 0..1000 {
        if !home.join("listens").exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
