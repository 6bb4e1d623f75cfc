//! System calls the standard library does not offer, each behind a safe
//! function that takes integers, byte slices and owned descriptors.
//!
//! A socket address is its bytes (see [`crate::wire`]): the vectors send ones
//! the standard library would refuse to build.
#![expect(
    unsafe_code,
    reason = "the vectors need system calls with flags and families no safe wrapper takes"
)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::AtomicU32;

fn check(value: libc::c_int) -> io::Result<libc::c_int> {
    if value < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(value)
    }
}

fn check_size(value: isize) -> io::Result<usize> {
    usize::try_from(value).map_err(|_negative| io::Error::last_os_error())
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    let fd = check(fd)?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn length(bytes: &[u8]) -> libc::socklen_t {
    libc::socklen_t::try_from(bytes.len()).unwrap_or(libc::socklen_t::MAX)
}

/// `socket(2)`, close-on-exec.
pub fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes integers only.
    owned(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) })
}

/// `bind(2)`.
pub fn bind(socket: &OwnedFd, address: &[u8]) -> io::Result<()> {
    let pointer = address.as_ptr().cast();
    // SAFETY: pointer and length describe `address`, which outlives the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), pointer, length(address)) }).map(drop)
}

/// `connect(2)`.
pub fn connect(socket: &OwnedFd, address: &[u8]) -> io::Result<()> {
    let pointer = address.as_ptr().cast();
    // SAFETY: pointer and length describe `address`, which outlives the call.
    check(unsafe { libc::connect(socket.as_raw_fd(), pointer, length(address)) }).map(drop)
}

/// `sendto(2)`; an empty address means none.
pub fn send(socket: &OwnedFd, data: &[u8], flags: i32, address: &[u8]) -> io::Result<usize> {
    let name = if address.is_empty() {
        std::ptr::null()
    } else {
        address.as_ptr().cast()
    };
    let fd = socket.as_raw_fd();
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: both pointers describe slices that outlive the call; a null name
    // goes with length zero.
    check_size(unsafe {
        libc::sendto(
            fd,
            data.as_ptr().cast(),
            data.len(),
            flags,
            name,
            length(address),
        )
    })
}

/// An IPv4 socket address another thread rewrites while the kernel reads it.
#[derive(Debug)]
#[repr(C)]
pub struct SharedAddress {
    /// `AF_INET`.
    pub family: u16,
    /// Network order.
    pub port: u16,
    /// Network order.
    pub address: AtomicU32,
    /// Padding of `sockaddr_in`.
    pub zero: [u8; 8],
}

/// `sendto(2)` from an address that changes underneath.
pub fn send_shared(socket: &OwnedFd, data: &[u8], address: &SharedAddress) -> io::Result<usize> {
    let name: *const SharedAddress = address;
    let size = libc::socklen_t::try_from(size_of::<SharedAddress>()).unwrap_or(0);
    let fd = socket.as_raw_fd();
    // SAFETY: both pointers stay valid for the call; the kernel copies the
    // address once, and any value of the atomic field is a valid address.
    check_size(unsafe {
        libc::sendto(
            fd,
            data.as_ptr().cast(),
            data.len(),
            libc::MSG_NOSIGNAL,
            name.cast(),
            size,
        )
    })
}

fn header(name: &[u8], parts: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: msghdr is plain integers and pointers; all zero is its empty value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    if !name.is_empty() {
        header.msg_name = name.as_ptr().cast_mut().cast();
        header.msg_namelen = length(name);
    }
    header.msg_iov = parts.as_mut_ptr();
    header.msg_iovlen = parts.len();
    header
}

fn part(data: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: data.as_ptr().cast_mut().cast(),
        iov_len: data.len(),
    }
}

/// `sendmsg(2)` of several parts.
pub fn send_message(socket: &OwnedFd, data: &[&[u8]], address: &[u8]) -> io::Result<usize> {
    let mut parts: Vec<_> = data.iter().map(|data| part(data)).collect();
    let header = header(address, &mut parts);
    // SAFETY: the header points at slices that outlive the call; sendmsg only
    // reads them.
    check_size(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, 0) })
}

/// `sendmsg(2)` with one control message, given as `SOL_` level, type and data.
pub fn send_control(
    socket: &OwnedFd,
    data: &[u8],
    address: &[u8],
    control: (i32, i32, &[u8]),
) -> io::Result<usize> {
    let (level, kind, value) = control;
    // struct cmsghdr, include/linux/socket.h: length, level, type, data.
    let size = size_of::<usize>() + 8 + value.len();
    let mut room = [
        &size.to_ne_bytes()[..],
        &level.to_ne_bytes(),
        &kind.to_ne_bytes(),
        value,
    ]
    .concat();
    room.resize(room.len().next_multiple_of(size_of::<usize>()), 0);
    let mut parts = [part(data)];
    let mut header = header(address, &mut parts);
    header.msg_control = room.as_mut_ptr().cast();
    header.msg_controllen = room.len();
    // SAFETY: the header points at slices and a buffer that outlive the call.
    check_size(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, 0) })
}

/// `sendmmsg(2)`: `data` twice, to the same address.
pub fn send_messages(socket: &OwnedFd, data: &[u8], address: &[u8]) -> io::Result<usize> {
    let (mut first, mut second) = ([part(data)], [part(data)]);
    let mut messages =
        [header(address, &mut first), header(address, &mut second)].map(|header| libc::mmsghdr {
            msg_hdr: header,
            msg_len: 0,
        });
    // SAFETY: the two headers point at slices and arrays that outlive the call.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), 2, 0) };
    check(sent).map(|count| usize::try_from(count).unwrap_or(0))
}

/// `setsockopt(2)`.
pub fn set_option(socket: &OwnedFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    // SAFETY: pointer and length describe `value`, which outlives the call.
    let done = unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), length(value)) };
    check(done).map(drop)
}

/// `setsockopt(2)` of an integer.
pub fn set_number(socket: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    set_option(socket, level, name, &value.to_ne_bytes())
}

/// `getsockopt(2)` into `value`; how many bytes the kernel wrote.
pub fn get_option(
    socket: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &mut [u8],
) -> io::Result<usize> {
    let mut size = length(value);
    let fd = socket.as_raw_fd();
    // SAFETY: pointer and length describe `value`, and the kernel writes no more.
    let done =
        unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &raw mut size) };
    check(done).map(|_| size as usize)
}

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one, and the new one's id.
    Parent(i32),
}

/// `fork(2)`. The probe forks while it has one thread, so the child may do
/// anything the parent could.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: no other thread of the probe holds a lock at this point.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// `CLONE_INTO_CGROUP`, include/uapi/linux/sched.h; libc's does not fit its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `clone3(2)` with flags and a cgroup to be born in.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    // struct clone_args, include/uapi/linux/sched.h: flags, pidfd, child_tid,
    // parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup.
    let mut arguments = [0_u64; 11];
    let [f, _, _, _, signal, .., group] = &mut arguments;
    *f = flags;
    // A CLONE_PARENT child signals as its parent does (kernel/fork.c,
    // clone3_args_valid).
    if flags & libc::CLONE_PARENT as u64 == 0 {
        *signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        *f |= CLONE_INTO_CGROUP;
        *group = u64::try_from(cgroup.as_raw_fd()).unwrap_or(0);
    }
    let size = size_of_val(&arguments);
    // SAFETY: the arguments are valid for the call; without a stack and without
    // CLONE_VM the child gets a copy of this address space, as with fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, arguments.as_mut_ptr(), size) };
    match pid {
        0 => Ok(Fork::Child),
        1.. => Ok(Fork::Parent(i32::try_from(pid).unwrap_or(0))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `waitpid(2)`; the exit code, or 128 plus the signal.
pub fn wait(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the answer.
    check(unsafe { libc::waitpid(pid, &raw mut status, 0) })?;
    Ok(if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        128 + libc::WTERMSIG(status)
    })
}

/// `_exit(2)`: ends a forked child without running the parent's destructors.
pub fn leave(code: i32) -> ! {
    // SAFETY: never returns, touches nothing.
    unsafe { libc::_exit(code) }
}

/// `alarm(2)`: the process is ended by a signal after `seconds`.
pub fn alarm(seconds: u32) {
    // SAFETY: takes an integer; no handler is installed, so it ends the process.
    unsafe {
        libc::alarm(seconds);
    }
}

/// `kill(2)`.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// `setns(2)` into the network namespace of `namespace`, this thread only.
pub fn enter_network(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// `unshare(2)` of the network namespace, this thread only.
pub fn leave_network() -> io::Result<()> {
    // SAFETY: takes an integer only.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// `geteuid(2)`.
pub fn effective_user() -> u32 {
    // SAFETY: has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

/// Gives up root in this thread group: real, effective and saved ids.
pub fn become_user(id: u32) -> io::Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::setresgid(id, id, id) })?;
    // SAFETY: takes integers only.
    check(unsafe { libc::setresuid(id, id, id) }).map(drop)
}

/// `ioctl(2)` with a buffer the kernel reads and writes.
pub fn control(fd: BorrowedFd<'_>, request: u64, buffer: &mut [u8]) -> io::Result<()> {
    let raw = fd.as_raw_fd();
    // SAFETY: callers pass a buffer at least as large as the request's type.
    check(unsafe { libc::ioctl(raw, request, buffer.as_mut_ptr()) }).map(drop)
}

/// bpf(2); the attributes are zero after what is given.
fn bpf(command: i64, attributes: &[u8]) -> io::Result<libc::c_int> {
    let mut room = [0_u8; 128];
    for (to, from) in room.iter_mut().zip(attributes) {
        *to = *from;
    }
    // SAFETY: the attributes are valid for the call and hold pointers to slices
    // that outlive it.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, room.as_mut_ptr(), room.len()) };
    check(libc::c_int::try_from(done).unwrap_or(-1))
}

// include/uapi/linux/bpf.h
const BPF_PROG_LOAD: i64 = 5;
const BPF_PROG_ATTACH: i64 = 8;
const BPF_PROG_DETACH: i64 = 9;
const CGROUP_SOCK_ADDR: u32 = 18;
const CGROUP_INET4_CONNECT: u32 = 10;
const ALLOW_MULTI: u32 = 2;

/// A program that sends every IPv4 connect(2) to `target`, as a service load
/// balancer does.
pub fn load_connect_rewriter(target: std::net::Ipv4Addr) -> io::Result<OwnedFd> {
    // r2 = target; ((struct bpf_sock_addr *)r1)->user_ip4 = r2; return 1.
    let mut code = vec![0xb4, 0x02, 0, 0];
    code.extend(target.octets());
    code.extend([0x63, 0x21, 4, 0, 0, 0, 0, 0]);
    code.extend([0xb7, 0x00, 0, 0, 1, 0, 0, 0]);
    code.extend([0x95, 0x00, 0, 0, 0, 0, 0, 0]);
    let licence = b"GPL\0";
    let attributes = [
        &CGROUP_SOCK_ADDR.to_ne_bytes()[..],
        &4_u32.to_ne_bytes(),
        &(code.as_ptr() as u64).to_ne_bytes(),
        &(licence.as_ptr() as u64).to_ne_bytes(),
        // log_level, log_size, log_buf, kern_version, flags, name, ifindex.
        &[0; 4 + 4 + 8 + 4 + 4 + 16 + 4],
        &CGROUP_INET4_CONNECT.to_ne_bytes(),
    ]
    .concat();
    owned(bpf(BPF_PROG_LOAD, &attributes)?)
}

/// Attaches or detaches a connect program on a cgroup directory.
pub fn connect_program(cgroup: BorrowedFd<'_>, program: &OwnedFd, attach: bool) -> io::Result<()> {
    let number = |fd: RawFd| u32::try_from(fd).unwrap_or(0).to_ne_bytes();
    let attributes = [
        number(cgroup.as_raw_fd()),
        number(program.as_raw_fd()),
        CGROUP_INET4_CONNECT.to_ne_bytes(),
        if attach { ALLOW_MULTI } else { 0 }.to_ne_bytes(),
    ]
    .concat();
    let command = if attach {
        BPF_PROG_ATTACH
    } else {
        BPF_PROG_DETACH
    };
    bpf(command, &attributes).map(drop)
}

const BPF_PROG_TEST_RUN: i64 = 10;
const XDP: u32 = 6;
const XDP_PASS: u8 = 2;
const LIVE_FRAMES: u32 = 2;

/// Has the kernel take a frame for one that came in by a link: a program that
/// lets everything pass, run once on it (Linux 5.18).
pub fn inject_frame(index: u32, frame: &[u8]) -> io::Result<()> {
    // return XDP_PASS.
    let code = [
        0xb7, 0x00, 0, 0, XDP_PASS, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0,
    ];
    let licence = b"GPL\0";
    let load = [
        &XDP.to_ne_bytes()[..],
        &2_u32.to_ne_bytes(),
        &(code.as_ptr() as u64).to_ne_bytes(),
        &(licence.as_ptr() as u64).to_ne_bytes(),
    ]
    .concat();
    let program = owned(bpf(BPF_PROG_LOAD, &load)?)?;
    let size = u32::try_from(frame.len()).unwrap_or(0);
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index,
    // egress_ifindex.
    let context: Vec<u8> = [0, size, 0, index, 0, 0]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let run = [
        &u32::try_from(program.as_raw_fd())
            .unwrap_or(0)
            .to_ne_bytes()[..],
        &0_u32.to_ne_bytes(),
        &size.to_ne_bytes(),
        &0_u32.to_ne_bytes(),
        &(frame.as_ptr() as u64).to_ne_bytes(),
        &0_u64.to_ne_bytes(),
        &1_u32.to_ne_bytes(),
        &0_u32.to_ne_bytes(),
        &u32::try_from(context.len()).unwrap_or(0).to_ne_bytes(),
        &0_u32.to_ne_bytes(),
        &(context.as_ptr() as u64).to_ne_bytes(),
        &0_u64.to_ne_bytes(),
        &LIVE_FRAMES.to_ne_bytes(),
    ]
    .concat();
    bpf(BPF_PROG_TEST_RUN, &run).map(drop)
}

/// `process_vm_writev(2)` of one piece, to the address it has here.
pub fn write_into(pid: i32, at: &std::sync::atomic::AtomicU64, value: u64) -> io::Result<()> {
    let bytes = value.to_ne_bytes();
    let own = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let theirs = libc::iovec {
        iov_base: at.as_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: both pieces are described truly; the kernel checks the address in
    // the other process.
    let written =
        unsafe { libc::process_vm_writev(pid, &raw const own, 1, &raw const theirs, 1, 0) };
    check(libc::c_int::try_from(written).unwrap_or(-1)).map(drop)
}

/// `request_key(2)` of a key that is not there, with what a program is to make
/// it from.
pub fn request_key(kind: &CStr, name: &CStr, callout: &CStr) -> io::Result<()> {
    /// `KEY_SPEC_PROCESS_KEYRING`, include/uapi/linux/keyctl.h.
    const PROCESS_KEYRING: i64 = -2;
    // SAFETY: three strings that outlive the call, and an integer.
    let key = unsafe {
        libc::syscall(
            libc::SYS_request_key,
            kind.as_ptr(),
            name.as_ptr(),
            callout.as_ptr(),
            PROCESS_KEYRING,
        )
    };
    check(libc::c_int::try_from(key).unwrap_or(-1)).map(drop)
}

/// `mount(2)`.
pub fn mount(source: &CStr, target: &CStr, kind: &CStr, options: &CStr) -> io::Result<()> {
    // SAFETY: four strings that outlive the call.
    let mounted = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            0,
            options.as_ptr().cast(),
        )
    };
    check(mounted).map(drop)
}

/// The number of a network interface in this namespace.
pub fn interface(name: &str) -> io::Result<u32> {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    Ok(rustix::net::netdevice::name_to_index(socket, name)?)
}

/// Has SIGINT, SIGTERM and SIGHUP write a byte to `pipe`, and nothing else.
pub fn forward_signals(pipe: OwnedFd) -> io::Result<()> {
    static PIPE: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(-1);
    extern "C" fn handler(signal: libc::c_int) {
        let byte = [u8::try_from(signal).unwrap_or(0)];
        let fd = PIPE.load(std::sync::atomic::Ordering::Relaxed);
        // SAFETY: write(2) is async-signal-safe; the buffer is on this stack.
        unsafe {
            libc::write(fd, byte.as_ptr().cast(), 1);
        }
    }
    use std::os::fd::IntoRawFd as _;
    PIPE.store(pipe.into_raw_fd(), std::sync::atomic::Ordering::Relaxed);
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let entry: extern "C" fn(libc::c_int) = handler;
        let entry = entry as libc::sighandler_t;
        // SAFETY: the handler does nothing but an async-signal-safe call.
        if unsafe { libc::signal(signal, entry) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
