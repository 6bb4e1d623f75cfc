//! A software TPM for a test: its own process, ports and state, gone with the value.

#[path = "start.rs"]
pub(crate) mod start;

use start::{start, start_on};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
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
        let (child, port) = start(state.path()).unwrap();
        Some(Self { child, port, state })
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
            if let Some(child) = start_on(self.state.path(), self.port).unwrap() {
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
