//! When an epoch is closed, and what becomes of it: one at a time, on the sealing thread, and the
//! last one before the agent ends. It waits for no quote while it runs.

use super::Agent;
use crate::api::Reply;
use crate::run::{entries, report};
use crate::seal::{self, EpochSealed, SealError};
use anyhow::{Context as _, Result};
use merestone_evidence::{Body, Cause};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long the last quote may take when the agent stops.
const LAST_QUOTE: Duration = Duration::from_secs(20);

impl Agent {
    pub(super) async fn start_session(&mut self) -> Result<()> {
        let inputs = report::session_inputs(self);
        let sealed = self.parts.sealer.start_session(inputs).await?;
        if sealed.recovered != seal::Recovered::default() {
            tracing::warn!(recovered = ?sealed.recovered, "the last session did not end in order");
        }
        tracing::info!(session = %hex::encode(sealed.session.0), "session sealed by the TPM");
        self.last_epoch = Instant::now();
        Ok(())
    }

    /// Hands the epoch to the sealing thread; one at a time.
    pub(super) fn close_epoch(&mut self, cause: Cause) {
        if self.sealing.is_some() {
            self.seal_again = self.seal_again.or(Some(cause));
            return;
        }
        self.log_losses();
        if self.parts.sealer.status().session.is_none()
            && let Some(canary) = &mut self.canary
        {
            canary.begin_session();
        }
        if !self.parts.gpu.latest().devices.is_empty() {
            let body = entries::from_gpu(&self.parts.gpu.latest());
            self.log(body);
        }
        let inputs = report::epoch_inputs(self);
        let sealer = self.parts.sealer.clone();
        // A chain register that somebody else extended, or a TPM that was reset,
        // ended the session: a new one begins from what is now, and both show it.
        let session = sealer.status().session.is_none();
        let session = session.then(|| report::session_inputs(self));
        let (to, answer) = oneshot::channel();
        tokio::spawn(async move {
            let sealed = async {
                if let Some(session) = session {
                    sealer.start_session(session).await?;
                }
                sealer.close_epoch(inputs, cause).await
            };
            // Nobody listens any more only when the agent ends.
            to.send(sealed.await).ok();
        });
        self.sealing = Some(answer);
        self.dirty = None;
        self.last_epoch = Instant::now();
    }

    pub(super) fn sealed(&mut self, sealed: Result<EpochSealed, SealError>) {
        self.sealing = None;
        let reply = match &sealed {
            Ok(epoch) => {
                tracing::debug!(epoch = epoch.sequence, size = epoch.size, "epoch sealed");
                Reply::Done {
                    detail: format!("epoch {} sealed, {} entries", epoch.sequence, epoch.size),
                }
            }
            Err(error) => {
                tracing::error!(%error, "the epoch is not sealed; its entries are kept");
                self.dirty.get_or_insert_with(Instant::now);
                Reply::Refused {
                    error: error.to_string(),
                    hint: Some("see merestone status".to_owned()),
                }
            }
        };
        if self.seal_again.take().is_some() {
            self.close_epoch(Cause::Work);
        } else {
            for waiting in self.waiting.drain(..) {
                waiting.send(reply.clone()).ok();
            }
        }
    }

    /// What was lost since the last epoch is an entry, too.
    pub(super) fn log_losses(&mut self) {
        self.exact.read(&self.parts.kernel);
        for (reason, total) in report::losses(self) {
            let before = self.lost.insert(reason.clone(), total).unwrap_or(0);
            if total > before {
                self.log(Body::Lost {
                    reason,
                    count: total - before,
                });
            }
        }
    }

    /// The last epoch; the programs stay.
    pub(super) async fn end(&mut self, cause: &'static str) -> Result<()> {
        sd_notify::notify(&[sd_notify::NotifyState::Stopping]).ok();
        tracing::info!(cause, "stopping; guarded groups stay held");
        for (event, count) in self.fold.finish() {
            let process = self.attributor.process(&event);
            self.tell(&event, process, count);
        }
        self.end_canary();
        self.log(Body::AgentStop {
            cause: cause.to_owned(),
        });
        self.parts.watch.end();
        self.tell_last_turns();
        self.log_losses();
        if let Some(sealing) = self.sealing.take() {
            // What it gives was told already or is told by the next session.
            tokio::time::timeout(LAST_QUOTE, sealing).await.ok();
        }
        let inputs = report::epoch_inputs(self);
        let last = self.parts.sealer.close_epoch(inputs, Cause::Shutdown);
        match tokio::time::timeout(LAST_QUOTE, last).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                Err(error).context("the last epoch is not sealed; the next start seals it")
            }
            Err(_late) => {
                anyhow::bail!("the TPM did not seal the last epoch in time; the next start does")
            }
        }
    }
}

/// The running seal's end; never, where none runs.
pub(super) async fn ended(
    sealing: &mut Option<oneshot::Receiver<Result<EpochSealed, SealError>>>,
) -> Result<EpochSealed, SealError> {
    match sealing {
        Some(answer) => answer.await.unwrap_or(Err(SealError::Gone)),
        None => std::future::pending().await,
    }
}
