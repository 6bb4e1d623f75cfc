//! A software TPM for a test: its own process, ports and state, gone with the value.

#[path = "listens.rs"]
mod listens;

use listens::listens;
use std::{
    ffi::OsStr,
    fs,
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A running swtpm.
pub(crate) struct Swtpm {
    child: Child,
    port: u16,
    state: tempfile::TempDir,
}

impl Swtpm {
    /// Start one, or say on standard error that `test` is skipped.
    pub(crate) fn start_or_skip(test: &str) -> Option<Self> {
        if Command::new("swtpm")
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_err()
        {
            eprintln!("SKIPPED: {test}: swtpm is not installed");
            return None;
        }
        let state = tempfile::tempdir().unwrap();
        for _try in 0..20 {
            let port = free_ports();
            if let Some(child) = spawn(state.path(), port) {
                return Some(Self { child, port, state });
            }
        }
        panic!("swtpm did not start");
    }

    /// Its TCTI string.
    pub(crate) fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// Power it off without a shutdown and on again: PCRs start at zero.
    pub(crate) fn reset(&mut self) {
        self.kill();
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if let Some(child) = spawn(self.state.path(), self.port) {
                self.child = child;
                return;
            }
        }
        panic!("swtpm did not start again");
    }

    /// Stop answering, as a wedged TPM does; `resume` undoes it.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// Answer again.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// Run a TPM tool against it, in `dir`.
    pub(crate) fn tool(&self, dir: &Path, words: &[&str]) -> Result<String, String> {
        let out = Command::new(words[0])
            .args(&words[1..])
            .current_dir(dir)
            .env("TPM2TOOLS_TCTI", self.tcti())
            .output();
        let out = out.map_err(|error| format!("{}: {error}", words[0]))?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        if out.status.success() {
            Ok(text)
        } else {
            Err(format!("{words:?}: {text}{said}"))
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status();
        assert!(status.unwrap().success());
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_reaped = self.child.wait();
    }
}

/// Two neighbouring ports that were free a moment ago.
fn free_ports() -> u16 {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
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

fn spawn(state: &Path, port: u16) -> Option<Child> {
    let log = fs::File::create(state.join("swtpm.log")).unwrap();
    let mut command = alone("swtpm");
    command
        .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
        .arg("--tpmstate")
        .arg(format!("dir={}", state.display()))
        .arg("--server")
        .arg(format!("type=tcp,port={port},bindaddr=127.0.0.1"))
        .arg("--ctrl")
        .arg(format!("type=tcp,port={},bindaddr=127.0.0.1", port + 1))
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .process_group(0);
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        if listens(child.id(), [port, port + 1]) {
            return Some(child);
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}
