//! Links and namespaces that the agent did not find when it came (B44, B59).
//!
//! Each sends a frame below IP through a wire of its own to beyond the
//! boundary. What it waits for is what the agent says of itself: a link is
//! held moments after it appears, a namespace within a second.

use super::families::frame;
use super::{Probe, fork, made};
use crate::job::OUTSIDE_MAC;
use crate::sys;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

/// Longer than the agent may take to find a link, and a namespace.
const LINK: Duration = Duration::from_millis(1500);
const NAMESPACE: Duration = Duration::from_millis(2500);

/// The wire's two ends, of this probe alone: here, and beyond.
fn ends(probe: &Probe) -> (String, String) {
    let marker = &probe.job.marker;
    let own = marker.get(marker.len().saturating_sub(8)..).unwrap_or("0");
    (format!("mrl{own}"), format!("mrm{own}"))
}

fn ip(words: &str) -> io::Result<()> {
    made::configure(&format!("ip {words}"))
}

/// Lays the wire; its other end is beyond, where the sniffer is.
fn wire(probe: &Probe) -> io::Result<()> {
    let (here, far) = ends(probe);
    let beyond = &probe.job.beyond;
    ip(&format!(
        "link add {here} type veth peer name {far} netns {}",
        beyond.display()
    ))?;
    ip(&format!("link set {here} up"))?;
    fork(|| {
        sys::enter_network(File::open(beyond)?.as_fd())?;
        ip(&format!("link set {far} up"))
    })
}

fn send(probe: &Probe) -> io::Result<()> {
    let datagrams = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    let index = rustix::net::netdevice::name_to_index(&datagrams, &ends(probe).0)?;
    let address = [
        &crate::wire::family(libc::AF_PACKET)[..],
        &0x0800_u16.to_be_bytes(),
        &index.to_ne_bytes(),
        &[0, 0, 0, 6],
        &OUTSIDE_MAC,
        &[0, 0],
    ]
    .concat();
    probe.attempt("socket packet", || {
        let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
        sys::send(&socket, &frame(probe, false), 0, &address)
    });
    Ok(())
}

/// A second interface, older than the GPU.
pub fn second(probe: &Probe, _v6: bool) -> io::Result<()> {
    wire(probe)?;
    std::thread::sleep(LINK);
    probe.open_gpu()?;
    let sent = send(probe);
    // Where a guarded process may not, it goes with its namespace.
    drop(ip(&format!("link del {}", ends(probe).0)));
    sent
}

/// An interface that appears after the GPU was opened.
pub fn later(probe: &Probe, _v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    if let Some(refused) = refused(wire(probe))? {
        probe.attempt("make a link", || Err::<(), _>(refused));
        return Ok(());
    }
    std::thread::sleep(LINK);
    let sent = send(probe);
    drop(ip(&format!("link del {}", ends(probe).0)));
    sent
}

/// A refusal to make a link is what holds, where the LSM tier is active.
fn refused(made: io::Result<()>) -> io::Result<Option<io::Error>> {
    match made {
        Ok(()) => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(Some(error)),
        Err(error) => Err(error),
    }
}

/// A network namespace of its own, with a wire out of it.
pub fn namespace(probe: &Probe, _v6: bool) -> io::Result<()> {
    probe.open_gpu()?;
    fork(|| {
        sys::leave_network()?;
        if let Some(refused) = refused(wire(probe))? {
            probe.attempt("make a link", || Err::<(), _>(refused));
            return Ok(());
        }
        std::thread::sleep(NAMESPACE);
        send(probe)
    })
}
