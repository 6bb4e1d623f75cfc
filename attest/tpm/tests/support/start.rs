//! Starts a software TPM on two ports of loopback that are its own.

#[path = "listens.rs"]
mod listens;

use listens::listens;
use std::{
    ffi::OsStr,
    fs, io,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

/// How long it may take until it listens.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts one with its state in `state`; the port is the one to talk to. An error where there is
/// no swtpm, or none that listens.
pub(crate) fn start(state: &Path) -> io::Result<(Child, u16)> {
    for _try in 0..20 {
        let port = free_ports()?;
        if let Some(child) = start_on(state, port)? {
            return Ok((child, port));
        }
    }
    Err(io::Error::other("swtpm does not listen"))
}

/// Starts it on this port and the next; none where they are somebody else's by now.
pub(crate) fn start_on(state: &Path, port: u16) -> io::Result<Option<Child>> {
    fs::create_dir_all(state)?;
    let log = fs::File::create(state.join("swtpm.log"))?;
    let mut command = alone("swtpm");
    command
        .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
        .arg("--tpmstate")
        .arg(format!("dir={}", state.display()))
        .arg("--server")
        .arg(format!("type=tcp,port={port},bindaddr=127.0.0.1"))
        .arg("--ctrl")
        .arg(format!("type=tcp,port={},bindaddr=127.0.0.1", port + 1))
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    let mut child = command.spawn()?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if child.try_wait()?.is_some() {
            return Ok(None);
        }
        if listens(child.id(), [port, port + 1]) {
            return Ok(Some(child));
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// Two neighbouring ports that were free a moment ago.
fn free_ports() -> io::Result<u16> {
    loop {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = first.local_addr()?.port();
        if port < u16::MAX && TcpListener::bind((Ipv4Addr::LOCALHOST, port + 1)).is_ok() {
            return Ok(port);
        }
    }
}

/// A program that inherits no file of this process but the standard ones. Between their making and
/// their closing libtss2's connections would go to a child of another test, and a TPM whose one
/// client never hangs up answers nobody else.
pub(crate) fn alone(program: impl AsRef<OsStr>) -> Command {
    const CLOSE: &str = r#"for file in /proc/$$/fd/*; do number=${file##*/}
        if [ "$number" -gt 2 ]; then eval "exec $number>&-"; fi; done; exec "$@""#;
    let mut command = Command::new("bash");
    command.args(["-c", CLOSE, "bash"]).arg(program);
    command
}
