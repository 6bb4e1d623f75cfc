//! System calls with families, options and flags that no safe wrapper takes,
//! each behind a function of integers, slices and owned descriptors.
#![expect(
    unsafe_code,
    reason = "the ways out need calls that rustix does not offer for any family and option"
)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

fn check(value: libc::c_int) -> io::Result<libc::c_int> {
    if value < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value)
}

fn length(bytes: &[u8]) -> libc::socklen_t {
    libc::socklen_t::try_from(bytes.len()).unwrap_or(libc::socklen_t::MAX)
}

/// `socket(2)`, close-on-exec, and never waiting for a peer.
pub(super) fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes integers only.
    let fd = check(unsafe { libc::socket(domain, kind, protocol) })?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `connect(2)`.
pub(super) fn connect(socket: &OwnedFd, address: &[u8]) -> io::Result<()> {
    let pointer = address.as_ptr().cast();
    // SAFETY: pointer and length describe `address`, which outlives the call.
    check(unsafe { libc::connect(socket.as_raw_fd(), pointer, length(address)) }).map(drop)
}

/// `sendto(2)`; an empty address means none.
pub(super) fn send(fd: i32, data: &[u8], flags: i32, address: &[u8]) -> io::Result<()> {
    let name = if address.is_empty() {
        std::ptr::null()
    } else {
        address.as_ptr().cast()
    };
    let (at, size) = (data.as_ptr().cast(), data.len());
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: both pointers describe slices that outlive the call; a null name
    // goes with length zero. A descriptor that is not there is an error.
    let sent = unsafe { libc::sendto(fd, at, size, flags, name, length(address)) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// `sendmmsg(2)`: `data` twice, to the same address.
pub(super) fn send_twice(socket: &OwnedFd, data: &[u8], address: &[u8]) -> io::Result<()> {
    let mut part = [libc::iovec {
        iov_base: data.as_ptr().cast_mut().cast(),
        iov_len: data.len(),
    }];
    // SAFETY: mmsghdr is plain integers and pointers; all zero is its empty value.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_name = address.as_ptr().cast_mut().cast();
    message.msg_hdr.msg_namelen = length(address);
    message.msg_hdr.msg_iov = part.as_mut_ptr();
    message.msg_hdr.msg_iovlen = part.len();
    let mut messages = [message, message];
    // SAFETY: both headers point at slices that outlive the call, which only
    // reads them.
    check(unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), 2, 0) }).map(drop)
}

/// `setsockopt(2)`.
pub(super) fn set_option(socket: &OwnedFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    // SAFETY: pointer and length describe `value`, which outlives the call.
    let done = unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), length(value)) };
    check(done).map(drop)
}

/// A socket address as the kernel takes it.
pub(super) fn sockaddr(address: SocketAddr) -> Vec<u8> {
    let family = |family: i32| u16::try_from(family).unwrap_or(0).to_ne_bytes();
    match address {
        SocketAddr::V4(address) => [
            &family(libc::AF_INET)[..],
            &address.port().to_be_bytes(),
            &address.ip().octets(),
            &[0; 8],
        ]
        .concat(),
        SocketAddr::V6(address) => [
            &family(libc::AF_INET6)[..],
            &address.port().to_be_bytes(),
            &[0; 4],
            &address.ip().octets(),
            &[0; 4],
        ]
        .concat(),
    }
}
