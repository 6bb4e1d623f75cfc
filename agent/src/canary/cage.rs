//! The canary's process and cgroup, as the agent holds them.
//!
//! Made before the agent gives up its privileges and starts threads. The canary
//! ends when this end of its socket does, be that by a drop or by a kill -9 of
//! the agent; its keeper then removes the cgroup. What a killed keeper leaves,
//! the next start removes.

use super::words::{Answer, Order};
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;

/// Cgroups of canaries begin with it; the agent's process id follows.
const NAME: &str = "merestone-canary-";
/// How long the canary may take to end; a try takes at most three seconds.
const PATIENCE: Duration = Duration::from_secs(4);

/// Why there is no canary.
#[derive(Debug, thiserror::Error)]
pub enum CageError {
    /// The cgroup.
    #[error("cannot make the cgroup {path}: {source}; the cgroup file system must be writable")]
    Cgroup {
        /// Its place.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process.
    #[error("cannot start the canary: {source}")]
    Process {
        /// Why.
        source: io::Error,
    },
}

/// A canary that waits for orders.
#[derive(Debug)]
pub struct Cage {
    /// The canary's keeper.
    child: Child,
    cgroup: PathBuf,
    path: String,
    agent: UnixStream,
}

impl Cage {
    /// Starts a canary in a cgroup of its own below `root`.
    pub fn set(root: &Path) -> Result<Self, CageError> {
        sweep(root);
        let name = format!("{NAME}{}", std::process::id());
        let cgroup = root.join(&name);
        let failed = |source| CageError::Cgroup {
            path: cgroup.clone(),
            source,
        };
        std::fs::create_dir(&cgroup).map_err(failed)?;
        let (child, agent) = match spawn(&cgroup) {
            Ok(started) => started,
            Err(source) => {
                std::fs::remove_dir(&cgroup).ok();
                return Err(CageError::Process { source });
            }
        };
        Ok(Self {
            path: format!("/{name}"),
            child,
            agent,
            cgroup,
        })
    }

    /// Its cgroup, as a path below the root.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A way to give orders and to hear answers; the latter ends with the
    /// canary. To be called in the runtime.
    pub(super) fn talk(
        &self,
    ) -> io::Result<(
        mpsc::UnboundedSender<Order>,
        mpsc::UnboundedReceiver<Answer>,
    )> {
        let stream = self.agent.try_clone()?;
        stream.set_nonblocking(true)?;
        let stream = tokio::net::UnixStream::from_std(stream)?;
        let (orders, mut given) = mpsc::unbounded_channel::<Order>();
        let (tell, answers) = mpsc::unbounded_channel();
        let (read, mut write) = stream.into_split();
        tokio::spawn(async move {
            while let Some(order) = given.recv().await {
                let Ok(mut line) = serde_json::to_vec(&order) else {
                    break;
                };
                line.push(b'\n');
                if write.write_all(&line).await.is_err() {
                    break;
                }
            }
        });
        tokio::spawn(async move {
            let mut lines = BufReader::new(read).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                // It is this very program: what is not understood is no canary
                // any more.
                let Ok(answer) = serde_json::from_str(&line) else {
                    break;
                };
                if tell.send(answer).is_err() {
                    break;
                }
            }
        });
        Ok((orders, answers))
    }

    /// Ends the canary; whether its cgroup is gone.
    pub(super) fn end(self) -> bool {
        let cgroup = self.cgroup.clone();
        drop(self);
        !cgroup.exists()
    }

    fn wait(&mut self) {
        self.agent.shutdown(Shutdown::Both).ok();
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                tracing::warn!("the canary does not end by itself");
                self.child.kill().ok();
                self.child.wait().ok();
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.cgroup.exists() {
            let cgroup = self.cgroup.display();
            tracing::warn!(%cgroup, "the canary's cgroup is left; the next start removes it");
        }
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        self.wait();
    }
}

fn spawn(cgroup: &Path) -> io::Result<(Child, UnixStream)> {
    let (agent, canary) = UnixStream::pair()?;
    let child = super::child::itself()
        .args([super::CHILD, "keep"])
        .arg(cgroup)
        .stdin(Stdio::from(OwnedFd::from(canary)))
        .stdout(Stdio::null())
        .spawn()?;
    Ok((child, agent))
}

/// Removes what canaries left that were killed. A cgroup with a process in it
/// is somebody's and stays: rmdir(2) refuses.
fn sweep(root: &Path) {
    let Ok(entries) = std::fs::read_dir(root) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(NAME) {
            std::fs::remove_dir(entry.path()).ok();
        }
    }
}
