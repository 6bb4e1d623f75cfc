//! Streams that were there before the GPU was opened, or that come into being
//! without a handshake the hooks would see.

use super::Probe;
use super::tcp::{established, hold, stream};
use crate::sys;
use crate::wire;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;

/// `IPPROTO_MPTCP`, include/uapi/linux/in.h.
const MPTCP: i32 = 262;
/// include/uapi/asm-generic/socket.h
const SO_ZEROCOPY: i32 = 60;
/// include/linux/socket.h
const MSG_ZEROCOPY: i32 = 0x0400_0000;
// include/uapi/linux/tcp.h
const TCP_REPAIR: i32 = 19;
const TCP_REPAIR_OFF_NO_WP: i32 = -1;
const TCP_REPAIR_WINDOW: i32 = 29;
const TCP_ULP: i32 = 31;
// include/uapi/linux/tls.h
const SOL_TLS: i32 = 282;
const TLS_TX: i32 = 1;

/// `MSG_ZEROCOPY` on an older connection.
pub fn zero_copy(probe: &Probe, v6: bool) -> io::Result<()> {
    let socket = established(probe, v6, 0)?;
    sys::set_number(&socket, libc::SOL_SOCKET, SO_ZEROCOPY, 1)?;
    probe.attempt("send", || {
        sys::send(&socket, probe.marker(), MSG_ZEROCOPY, &[])
    });
    hold(socket);
    Ok(())
}

/// Urgent data on an older connection.
pub fn urgent(probe: &Probe, v6: bool) -> io::Result<()> {
    let socket = established(probe, v6, 0)?;
    probe.attempt("send", || {
        sys::send(&socket, probe.marker(), libc::MSG_OOB, &[])
    });
    hold(socket);
    Ok(())
}

/// An older connection that has been closed in the other direction.
pub fn half_closed(probe: &Probe, v6: bool) -> io::Result<()> {
    let socket = established(probe, v6, 0)?;
    rustix::net::shutdown(&socket, rustix::net::Shutdown::Read)?;
    probe.attempt("send", || sys::send(&socket, probe.marker(), 0, &[]));
    hold(socket);
    Ok(())
}

/// Encrypted by the kernel on an older connection: the sniffer knows it by its
/// address.
pub fn tls(probe: &Probe, v6: bool) -> io::Result<()> {
    let socket = established(probe, v6, 0)?;
    probe.attempt("send", || {
        // ENOENT: no such protocol, or no such cipher, in this kernel.
        let absent = |error: io::Error| match error.raw_os_error() {
            Some(libc::ENOENT) => io::Error::from_raw_os_error(libc::ENOPROTOOPT),
            _ => error,
        };
        sys::set_option(&socket, libc::SOL_TCP, TCP_ULP, b"tls").map_err(absent)?;
        // tls12_crypto_info_aes_gcm_128: TLS 1.2, cipher 51, iv, key, salt, sequence.
        let info = [&[3, 3][..], &51_u16.to_ne_bytes(), &[7; 36]].concat();
        sys::set_option(&socket, SOL_TLS, TLS_TX, &info).map_err(absent)?;
        sys::send(&socket, probe.marker(), 0, &[])
    });
    hold(socket);
    Ok(())
}

/// A Multipath TCP connection opened before the GPU was.
pub fn mptcp(probe: &Probe, v6: bool) -> io::Result<()> {
    // An error here is the kernel's "no such protocol": report it as an answer.
    let socket = match stream(v6, MPTCP) {
        Ok(socket) => socket,
        Err(error) => {
            probe.open_gpu()?;
            probe.attempt("socket mptcp", || Err::<(), _>(error));
            return Ok(());
        }
    };
    sys::connect(&socket, &wire::sockaddr(probe.job.target(v6)))?;
    sys::send(&socket, b"before the GPU", 0, &[])?;
    probe.open_gpu()?;
    probe.attempt("write", || sys::send(&socket, probe.marker(), 0, &[]));
    hold(socket);
    Ok(())
}

/// `TCP_REPAIR`: established by decree, without a packet.
pub fn repaired(probe: &Probe, v6: bool) -> io::Result<()> {
    let target = wire::sockaddr(probe.job.target(v6));
    let own = wire::sockaddr(SocketAddr::new(crate::job::home(v6), 0));
    probe.open_gpu()?;
    probe.attempt("connect in repair", || {
        let socket = stream(v6, 0)?;
        sys::set_number(&socket, libc::SOL_TCP, TCP_REPAIR, 1)?;
        sys::bind(&socket, &own)?;
        sys::connect(&socket, &target)?;
        // struct tcp_repair_window: the peer's window must be decreed as well.
        let window = [0_u32, 0xffff, 0xffff, 0xffff, 0].map(u32::to_ne_bytes);
        sys::set_option(&socket, libc::SOL_TCP, TCP_REPAIR_WINDOW, &window.concat())?;
        sys::set_number(&socket, libc::SOL_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP)?;
        sys::send(&socket, probe.marker(), 0, &[])?;
        hold(socket);
        Ok(())
    });
    Ok(())
}

/// Fast open with a cookie from an earlier connection: data in the first SYN.
pub fn fastopen_cookie(probe: &Probe, v6: bool) -> io::Result<()> {
    // There cookies are asked for and kept (net.ipv4.tcp_fastopen).
    let network = File::open(&probe.job.alternate)?;
    sys::enter_network(network.as_fd())?;
    let target = wire::sockaddr(probe.job.target(v6));
    let first = stream(v6, 0)?;
    sys::send(&first, b"for a cookie", libc::MSG_FASTOPEN, &target)?;
    // The cookie comes with the SYN-ACK; the echo after it.
    rustix::net::recv(&first, &mut [0_u8; 16], rustix::net::RecvFlags::empty())?;
    drop(first);
    probe.open_gpu()?;
    probe.attempt("sendto fastopen", || {
        let socket = stream(v6, 0)?;
        sys::send(&socket, probe.marker(), libc::MSG_FASTOPEN, &target)
    });
    Ok(())
}
