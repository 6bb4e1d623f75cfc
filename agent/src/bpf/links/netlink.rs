//! The two questions asked of rtnetlink: which links are there, and is there
//! news of any. Nothing is changed through it.

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

// include/uapi/linux/netlink.h, rtnetlink.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const REQUEST_DUMP: u16 = 0x301;
const RTMGRP_LINK: u32 = 1;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// More than the kernel puts into one answer (`netlink_dump`,
/// `net/netlink/af_netlink.c`).
const ROOM: usize = 64 << 10;

/// A socket of the calling thread's namespace that hears of its links.
pub(super) fn listen() -> io::Result<OwnedFd> {
    let socket = open(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, RTMGRP_LINK))?;
    Ok(socket)
}

fn open(flags: SocketFlags) -> io::Result<OwnedFd> {
    // No protocol is protocol 0: NETLINK_ROUTE.
    let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
    Ok(rustix::net::socket_with(family, kind, flags, None)?)
}

/// Takes the news in; whether there was any. Lost news are news.
pub(super) fn drain(socket: BorrowedFd<'_>) -> bool {
    let mut room = vec![0_u8; ROOM];
    let mut any = false;
    // Bounded: somebody who makes links without end must not hold this up.
    for _ in 0..1024 {
        match rustix::net::recv(socket, &mut room, RecvFlags::DONTWAIT) {
            Ok(_) | Err(rustix::io::Errno::NOBUFS) => any = true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    any
}

/// The numbers of the links in the calling thread's namespace.
pub(super) fn links() -> io::Result<Vec<u32>> {
    let socket = open(SocketFlags::CLOEXEC)?;
    let mut request = Vec::with_capacity(2 * HEADER);
    request.extend_from_slice(&32_u32.to_ne_bytes());
    request.extend_from_slice(&RTM_GETLINK.to_ne_bytes());
    request.extend_from_slice(&REQUEST_DUMP.to_ne_bytes());
    request.resize(2 * HEADER, 0); // sequence, port; a struct ifinfomsg of zeros
    rustix::net::send(&socket, &request, SendFlags::empty())?;
    let mut found = Vec::new();
    let mut room = vec![0_u8; ROOM];
    loop {
        let (_, size) = rustix::net::recv(&socket, &mut room, RecvFlags::empty())?;
        if read(room.get(..size).unwrap_or_default(), &mut found)? {
            return Ok(found);
        }
    }
}

/// Reads one answer; true at the end of the dump.
fn read(mut answer: &[u8], found: &mut Vec<u32>) -> io::Result<bool> {
    while let Some((length, kind)) = head(answer) {
        if length < HEADER || length > answer.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = number(answer, HEADER).unwrap_or(0);
                return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
            }
            // struct ifinfomsg: family, pad, type, index.
            RTM_NEWLINK => found.extend(number(answer, HEADER + 4).map(i32::cast_unsigned)),
            _ => {}
        }
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn head(answer: &[u8]) -> Option<(usize, u16)> {
    let length = number(answer, 0)?;
    let kind: [u8; 2] = answer.get(4..6)?.try_into().ok()?;
    Some((usize::try_from(length).ok()?, u16::from_ne_bytes(kind)))
}

fn number(answer: &[u8], at: usize) -> Option<i32> {
    let bytes: [u8; 4] = answer.get(at..at + 4)?.try_into().ok()?;
    Some(i32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_its_loopback_link() {
        assert!(links().is_ok_and(|found| found.contains(&1)));
    }

    #[test]
    fn a_message_longer_than_its_answer_is_refused() {
        let mut message = vec![0; HEADER];
        message[..4].copy_from_slice(&64_u32.to_ne_bytes());
        assert!(read(&message, &mut Vec::new()).is_err());
        assert!(!read(&[1, 2, 3], &mut Vec::new()).unwrap());
    }
}
