//! Asking the kubelet again and again, and remembering what it said last.
//!
//! What it said is kept in the state directory, so that a restart of the agent
//! while the kubelet is away cuts nobody off.

use super::Pod;
use super::kubelet::{self, Kubelet};
use super::list::{self, Answer};
use crate::policy::replace;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Two questions are at least so far apart, whatever happens.
const LEAST: Duration = Duration::from_secs(1);
const NAME: &str = "pods.json";
/// As of an answer.
const MOST_BYTES: u64 = 32 << 20;

/// The other end of the task that asks.
#[derive(Debug)]
pub struct Watch {
    answers: mpsc::Receiver<Result<Answer, String>>,
    sooner: Arc<Notify>,
}

impl Watch {
    /// The next answer, or why there was none; never, once the task has ended.
    pub async fn heard(&mut self) -> Result<Answer, String> {
        match self.answers.recv().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    /// Somebody unknown has turned up: asks before it is due.
    pub fn ask_now(&self) {
        self.sooner.notify_one();
    }
}

/// Asks at once and then every `interval`, for as long as somebody listens.
/// To be called within a runtime.
#[must_use]
pub fn watch(kubelet: Kubelet, interval: Duration) -> Watch {
    let (say, answers) = mpsc::channel(1);
    let sooner = Arc::new(Notify::new());
    let notified = Arc::clone(&sooner);
    tokio::spawn(async move {
        loop {
            let answer = match kubelet::fetch(&kubelet).await {
                Ok(bytes) => list::parse(&bytes).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if say.send(answer).await.is_err() {
                return;
            }
            tokio::time::sleep(LEAST).await;
            let rest = interval.saturating_sub(LEAST);
            // Either way it is time.
            tokio::time::timeout(rest, notified.notified()).await.ok();
        }
    });
    Watch { answers, sooner }
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

/// What was known last; nothing where that cannot be read, which denies more.
#[must_use]
pub fn remembered(state_dir: &Path) -> Vec<Pod> {
    let path = file(state_dir);
    if !path.exists() {
        return Vec::new();
    }
    let read = || -> std::io::Result<Vec<Pod>> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        std::fs::File::open(&path)?
            .take(MOST_BYTES)
            .read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    read().unwrap_or_else(|error| {
        tracing::warn!(%error, path = %path.display(), "the pods known last cannot be read: they are denied until the kubelet names them");
        Vec::new()
    })
}

/// Keeps what is known, for the next start.
pub(crate) fn remember(state_dir: &Path, pods: &[Pod]) -> std::io::Result<()> {
    replace(&file(state_dir), &serde_json::to_vec(pods)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_is_known_after_a_restart_and_a_broken_memory_is_none() {
        let directory = tempfile::tempdir().unwrap();
        assert!(remembered(directory.path()).is_empty());
        let pods = vec![Pod {
            uid: "u".to_owned(),
            namespace: "n".to_owned(),
            name: "p".to_owned(),
            qos: None,
            labels: [("a".to_owned(), "b".to_owned())].into(),
        }];
        remember(directory.path(), &pods).unwrap();
        assert_eq!(remembered(directory.path()), pods);
        std::fs::write(directory.path().join(NAME), "[{").unwrap();
        assert!(remembered(directory.path()).is_empty());
    }
}
