//! The loop's part in the canary: what it came to goes into the log, to the
//! operator and to the metric.

use super::agent::Agent;
use crate::api::Reply;
use crate::canary::{Cage, Canary, Context, Told, Wake};
use crate::flow::{CANARY, FlowEvent, ProcessInfo};
use merestone_abi::{Event, EventKind};
use tokio::sync::oneshot;

/// The canary's next moment; never, where it is switched off.
pub(super) async fn wake(canary: &mut Option<Canary>) -> Wake {
    match canary {
        Some(canary) => canary.wake().await,
        None => std::future::pending().await,
    }
}

impl Agent {
    /// Has the canary guarded; the programs are attached.
    pub(super) fn begin_canary(&mut self, cage: Option<Result<Cage, String>>) {
        let Some(cage) = cage else {
            tracing::warn!("the canary is switched off: nothing tries the boundary");
            return;
        };
        let context = Context {
            kernel: &self.parts.kernel,
            boundary: &self.parts.boundary,
        };
        let interval = self.parts.config.canary.interval;
        self.canary = Some(Canary::begin(cage, &context, interval));
    }

    /// To be called with what [`wake`] gave.
    pub(super) fn canary_woken(&mut self, wake: Wake) {
        let Some(canary) = &mut self.canary else {
            return;
        };
        let context = Context {
            kernel: &self.parts.kernel,
            boundary: &self.parts.boundary,
        };
        for Told { body, alert } in canary.woken(wake, &context) {
            if let Some(alert) = alert {
                tracing::warn!(target: "merestone::alert", "{alert}");
            }
            self.log(body);
        }
        let own = self.canary.as_ref().and_then(Canary::group);
        self.exact.leave_out(own);
    }

    /// What the canary was refused: shown to who looks, and no alert. Its
    /// children come and go by the minute and are not told at all.
    pub(super) fn tell_canary(&mut self, event: &Event, process: ProcessInfo) {
        if event.kind != EventKind::FLOW && event.kind != EventKind::DEPUTY {
            return;
        }
        let names = self.names(event, process);
        let mut event = FlowEvent::new(event, names, 1);
        CANARY.clone_into(&mut event.kind);
        self.jsonl.write(&event);
        self.parts.store.push(event);
    }

    /// Tries all ways out now; answers when all is done.
    pub(super) fn drill(&mut self, reply: oneshot::Sender<Reply>) {
        match &mut self.canary {
            Some(canary) => canary.drill(reply),
            None => {
                let refused = Reply::Refused {
                    error: "the canary is switched off".to_owned(),
                    hint: Some("set [canary] enabled = true and start the agent again".to_owned()),
                };
                // The client may have hung up.
                reply.send(refused).ok();
            }
        }
    }

    /// Ends the canary's process; its group is let go, since all in it is gone.
    pub(super) fn end_canary(&mut self) {
        let Some(canary) = &mut self.canary else {
            return;
        };
        if let Some(group) = tokio::task::block_in_place(|| canary.end())
            && let Err(error) = self.parts.kernel.release_group(group)
        {
            tracing::warn!(%error, "the canary's group is let go by a later round");
        }
    }
}
