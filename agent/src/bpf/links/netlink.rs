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
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const REQUEST_DUMP: u16 = 0x301;
/// `NLM_F_DUMP_INTR`: links came or went meanwhile, so one may be missing.
const INTERRUPTED: u16 = 0x10;
/// How often a dump is begun again for that.
const MOST_DUMPS: usize = 16;
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

/// What became of a namespace's links.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct News {
    /// Whether there was any.
    pub(super) any: bool,
    /// Some were lost: any link may be another than it was.
    pub(super) lost: bool,
    /// Links that went. One that has such a number now is another.
    pub(super) gone: Vec<u32>,
}

/// Takes the news in.
pub(super) fn drain(socket: BorrowedFd<'_>) -> News {
    let mut room = vec![0_u8; ROOM];
    let mut news = News::default();
    // Bounded: somebody who makes links without end must not hold this up.
    for _ in 0..1024 {
        match rustix::net::recv(socket, &mut room, RecvFlags::DONTWAIT) {
            Ok((_, size)) => {
                news.any = true;
                let went = read(room.get(..size).unwrap_or_default(), RTM_DELLINK);
                match went {
                    Ok(went) => news.gone.extend(went.links),
                    Err(_unreadable) => news.lost = true,
                }
            }
            Err(rustix::io::Errno::NOBUFS) => (news.any, news.lost) = (true, true),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    news
}

/// The numbers of the links in the calling thread's namespace.
pub(super) fn links() -> io::Result<Vec<u32>> {
    for _ in 0..MOST_DUMPS {
        if let Some(found) = dump()? {
            return Ok(found);
        }
    }
    Err(io::Error::other(
        "its links come and go faster than they can be listed",
    ))
}

/// None where the list may not be whole.
fn dump() -> io::Result<Option<Vec<u32>>> {
    let socket = open(SocketFlags::CLOEXEC)?;
    let mut request = Vec::with_capacity(2 * HEADER);
    request.extend_from_slice(&32_u32.to_ne_bytes());
    request.extend_from_slice(&RTM_GETLINK.to_ne_bytes());
    request.extend_from_slice(&REQUEST_DUMP.to_ne_bytes());
    request.resize(2 * HEADER, 0); // sequence, port; a struct ifinfomsg of zeros
    rustix::net::send(&socket, &request, SendFlags::empty())?;
    let mut found = Vec::new();
    let mut is_whole = true;
    let mut room = vec![0_u8; ROOM];
    loop {
        let (_, size) = rustix::net::recv(&socket, &mut room, RecvFlags::empty())?;
        let part = read(room.get(..size).unwrap_or_default(), RTM_NEWLINK)?;
        found.extend(part.links);
        is_whole &= !part.is_interrupted;
        if part.is_last {
            return Ok(is_whole.then_some(found));
        }
    }
}

/// What is in one answer.
#[derive(Debug, Default)]
struct Part {
    links: Vec<u32>,
    is_last: bool,
    is_interrupted: bool,
}

/// Reads one answer: the links that its messages of a kind name.
fn read(mut answer: &[u8], wanted: u16) -> io::Result<Part> {
    let mut part = Part::default();
    while let Some((length, kind, flags)) = head(answer) {
        if length < HEADER || length > answer.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        part.is_interrupted |= flags & INTERRUPTED != 0;
        match kind {
            NLMSG_DONE => {
                part.is_last = true;
                break;
            }
            NLMSG_ERROR => {
                let code = number(answer, HEADER).unwrap_or(0);
                return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
            }
            // struct ifinfomsg: family, pad, type, index.
            kind if kind == wanted => {
                let index = number(answer, HEADER + 4).map(i32::cast_unsigned);
                part.links.extend(index);
            }
            _ => {}
        }
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(part)
}

fn head(answer: &[u8]) -> Option<(usize, u16, u16)> {
    let length = number(answer, 0)?;
    let half = |at: usize| {
        let bytes: [u8; 2] = answer.get(at..at + 2)?.try_into().ok()?;
        Some(u16::from_ne_bytes(bytes))
    };
    Some((usize::try_from(length).ok()?, half(4)?, half(6)?))
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
        assert!(read(&message, RTM_NEWLINK).is_err());
        assert!(!read(&[1, 2, 3], RTM_NEWLINK).unwrap().is_last);
    }

    #[test]
    fn a_list_that_was_interrupted_is_told_from_a_whole_one() {
        let message = |kind: u16, flags: u16, index: u32| {
            let mut message = vec![0; 2 * HEADER];
            message[..4].copy_from_slice(&32_u32.to_ne_bytes());
            message[4..6].copy_from_slice(&kind.to_ne_bytes());
            message[6..8].copy_from_slice(&flags.to_ne_bytes());
            message[20..24].copy_from_slice(&index.to_ne_bytes());
            message
        };
        let whole = [message(RTM_NEWLINK, 2, 7), message(RTM_DELLINK, 0, 8)].concat();
        let part = read(&whole, RTM_NEWLINK).unwrap();
        assert_eq!((part.links, part.is_interrupted), (vec![7], false));
        assert_eq!(read(&whole, RTM_DELLINK).unwrap().links, [8]);
        let cut = [
            message(RTM_NEWLINK, 2, 7),
            message(NLMSG_DONE, INTERRUPTED, 0),
        ]
        .concat();
        let part = read(&cut, RTM_NEWLINK).unwrap();
        assert!(part.is_last && part.is_interrupted);
    }
}
