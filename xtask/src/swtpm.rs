//! Software TPMs: made with an endorsement key certificate of our own test
//! authority, and started for a virtual machine or on a TCP port.
//!
//! Nothing is written outside the directory given and `target/vm/tpm-authority`;
//! the machine's own swtpm authority is not touched.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Result, bail};

use crate::{
    listens::listens,
    shell::{self, Running},
};

const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// Makes a TPM's state in `state`, as its factory would.
pub(crate) fn manufacture(state: &Path) -> Result<()> {
    fs::create_dir_all(state)?;
    let config = write_configuration(state)?;
    let mut setup = shell::command("swtpm_setup");
    setup.args([
        "--tpm2",
        "--createek",
        "--create-ek-cert",
        "--create-platform-cert",
    ]);
    setup.args(["--pcr-banks", "sha256"]);
    setup
        .arg("--tpmstate")
        .arg(state)
        .arg("--config")
        .arg(config);
    shell::read(&mut setup)?;
    Ok(())
}

/// The certificate authority's directory: kept, because its keys take seconds.
pub(crate) fn authority() -> PathBuf {
    shell::target().join("vm/tpm-authority")
}

fn write_configuration(state: &Path) -> Result<PathBuf> {
    let authority = authority();
    fs::create_dir_all(&authority)?;
    let authority = authority.canonicalize()?;
    let at = authority.display();
    let local = state.join("localca.conf");
    let options = state.join("localca.options");
    let config = state.join("setup.conf");
    fs::write(
        &local,
        format!(
            "statedir = {at}\nsigningkey = {at}/signing-key.pem\n\
             issuercert = {at}/issuer.pem\ncertserial = {at}/serial\n"
        ),
    )?;
    fs::write(
        &options,
        "--platform-manufacturer Merestone\n--platform-version 1\n--platform-model test\n",
    )?;
    fs::write(
        &config,
        format!(
            "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {}\n\
             create_certs_tool_options = {}\n",
            local.display(),
            options.display()
        ),
    )?;
    Ok(config)
}

/// Starts the TPM for QEMU; it ends with the machine.
pub(crate) fn start_for_machine(state: &Path) -> Result<(Running, PathBuf)> {
    let socket = state.join("control.sock");
    let mut swtpm = dies_with_us("swtpm");
    swtpm.args(["socket", "--tpm2", "--terminate", "--tpmstate"]);
    swtpm.arg(format!("dir={}", state.display())).arg("--ctrl");
    swtpm.arg(format!("type=unixio,path={}", socket.display()));
    let mut running = Running::start(&mut swtpm)?;
    wait_until_up(&mut running, || socket.exists())?;
    Ok((running, socket))
}

/// Starts the TPM on a TCP port, and its control channel on the next one.
pub(crate) fn start_on_port(state: &Path, port: u16) -> Result<Running> {
    let mut swtpm = dies_with_us("swtpm");
    swtpm.args([
        "socket",
        "--tpm2",
        "--flags",
        "not-need-init,startup-clear",
        "--tpmstate",
    ]);
    swtpm.arg(format!("dir={}", state.display()));
    let address = "bindaddr=127.0.0.1";
    swtpm
        .arg("--server")
        .arg(format!("type=tcp,port={port},{address}"));
    swtpm
        .arg("--ctrl")
        .arg(format!("type=tcp,port={},{address}", port + 1));
    let mut running = Running::start(swtpm.stdout(Stdio::null()))?;
    let pid = running.id();
    wait_until_up(&mut running, || listens(pid, [port, port + 1]))?;
    Ok(running)
}

/// Starts a TPM on two free ports of loopback; the first is the one to talk to.
pub(crate) fn start_on_free_ports(state: &Path) -> Result<(Running, u16)> {
    fs::create_dir_all(state)?;
    for _ in 0..100 {
        let first = TcpListener::bind(("127.0.0.1", 0))?;
        let port = first.local_addr()?.port();
        let both = port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok();
        drop(first);
        if both && let Ok(running) = start_on_port(state, port) {
            return Ok((running, port));
        }
    }
    bail!("no two free ports side by side on 127.0.0.1")
}

fn wait_until_up(running: &mut Running, up: impl Fn() -> bool) -> Result<()> {
    let mut ended = false;
    let came = shell::within(STARTS_WITHIN, || {
        ended = !matches!(running.ended(), Ok(None));
        ended || up()
    });
    if ended || !came {
        bail!("swtpm did not start; is its port free and its directory writable?");
    }
    Ok(())
}

/// A program that the kernel ends when we end, even by SIGKILL.
pub(crate) fn dies_with_us(program: &str) -> std::process::Command {
    let mut command = shell::command("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}
