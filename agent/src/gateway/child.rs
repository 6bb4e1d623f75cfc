//! The inference server as the gateway's own child: one service, one cgroup,
//! and so one guarded group.

use super::serve::GatewayError;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::process::Command;

/// How long it may take to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// The server, if the gateway started it.
#[derive(Debug)]
pub(super) struct Child(Option<tokio::process::Child>);

impl Child {
    /// Starts it; nothing for an empty command line.
    pub(super) fn start(command: &[OsString]) -> Result<Self, GatewayError> {
        let [program, arguments @ ..] = command else {
            return Ok(Self(None));
        };
        let child = Command::new(program)
            .args(arguments)
            .kill_on_drop(true)
            // What the service manager gave to the gateway is the gateway's.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .spawn()
            .map_err(|source| GatewayError::Command {
                command: program.to_string_lossy().into_owned(),
                source,
            })?;
        Ok(Self(Some(child)))
    }

    /// Waits for its end; for ever where there is none.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        match &mut self.0 {
            Some(child) => child.wait().await,
            None => std::future::pending().await,
        }
    }

    /// Asks it to stop, and makes it.
    pub(super) async fn stop(mut self) {
        let Some(child) = &mut self.0 else { return };
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(id) = id.and_then(Pid::from_raw) {
            // It may have ended in between.
            kill_process(id, Signal::TERM).ok();
        }
        if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
            tracing::warn!("the inference server did not stop and is killed");
            child.kill().await.ok();
        }
    }
}
