//! Devices that send past every socket (B13, B44): made by mknod(2) with the
//! numbers of the real ones, so that no driver is needed to be refused.

use super::Probe;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

/// `/dev/infiniband/uverbs0`, and `/dev/net/tun`.
const UVERBS: (u32, u32) = (231, 192);
const TUN: (u32, u32) = (10, 200);
/// `/dev/vhost-vsock`
const VHOST: (u32, u32) = (10, 241);

fn node(probe: &Probe, (major, minor): (u32, u32)) -> io::Result<PathBuf> {
    let name = format!("{}-{major}-{minor}", probe.job.marker);
    let place = if Path::new("/run").is_dir() {
        "/run"
    } else {
        "/dev"
    };
    // Beside the GPU's, where device nodes can be opened.
    let gpu = probe.job.gpu.as_ref().and_then(|gpu| gpu.parent());
    let path = gpu.unwrap_or(Path::new(place)).join(name);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::from_raw_mode(0o600),
        rustix::fs::makedev(major, minor),
    )?;
    Ok(path)
}

fn opens(probe: &Probe, number: (u32, u32)) -> io::Result<()> {
    let path = node(probe, number)?;
    probe.open_gpu()?;
    probe.attempt("open", || {
        match OpenOptions::new().read(true).write(true).open(&path) {
            // No driver is behind it: the kernel's device check came first.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENODEV)) => {
                Ok(())
            }
            opened => opened.map(drop),
        }
    });
    std::fs::remove_file(path)
}

/// RDMA verbs.
pub fn rdma(probe: &Probe, _v6: bool) -> io::Result<()> {
    opens(probe, UVERBS)
}

/// A tunnel device, by a copy of its node.
pub fn tun(probe: &Probe, _v6: bool) -> io::Result<()> {
    opens(probe, TUN)
}

/// A virtual machine's vsock.
pub fn vhost(probe: &Probe, _v6: bool) -> io::Result<()> {
    opens(probe, VHOST)
}
