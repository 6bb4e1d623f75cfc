//! SCTP's own connect, through setsockopt(2) (B04).

use super::Probe;
use crate::sys;
use crate::wire;
use std::io;

/// `IPPROTO_SCTP`, its level, and `SCTP_SOCKOPT_CONNECTX`
/// (include/uapi/linux/sctp.h).
const SCTP: i32 = 132;
const CONNECTX: i32 = 110;

/// `sctp_connectx(3)` to the denied address.
pub fn connectx(probe: &Probe, v6: bool) -> io::Result<()> {
    let target = wire::sockaddr(probe.job.target(v6));
    let domain = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    probe.open_gpu()?;
    probe.attempt("connectx", || {
        let socket = sys::socket(domain, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, SCTP)?;
        sys::set_option(&socket, SCTP, CONNECTX, &target)
    });
    // A handshake that was begun goes out by itself.
    std::thread::sleep(std::time::Duration::from_millis(50));
    Ok(())
}
