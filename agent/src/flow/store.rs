//! Keeps the latest events for `merestone flows`, and passes new ones on.

use super::FlowEvent;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::broadcast;

/// Events kept in memory; the JSONL file and the evidence log keep all.
const KEPT: usize = 10_000;
/// New events a slow follower may fall behind before it is told so.
const BEHIND: usize = 4096;

/// The latest events and a channel of new ones.
#[derive(Clone, Debug)]
pub struct Store {
    kept: Arc<Mutex<VecDeque<Arc<FlowEvent>>>>,
    new: broadcast::Sender<Arc<FlowEvent>>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            kept: Arc::default(),
            new: broadcast::channel(BEHIND).0,
        }
    }
}

impl Store {
    /// Adds an event and wakes followers.
    pub fn push(&self, event: FlowEvent) {
        let event = Arc::new(event);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&event));
        // Sent under the lock, so that `follow` neither misses nor repeats one.
        // No follower is no error.
        self.new.send(event).ok();
    }

    /// The newest `limit` events that pass `wanted`, oldest first, and the
    /// channel on which all later ones come.
    pub fn follow(
        &self,
        limit: usize,
        wanted: impl Fn(&FlowEvent) -> bool,
    ) -> (Vec<Arc<FlowEvent>>, broadcast::Receiver<Arc<FlowEvent>>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut past: Vec<_> = kept
            .iter()
            .rev()
            .filter(|event| wanted(event))
            .take(limit)
            .cloned()
            .collect();
        past.reverse();
        (past, self.new.subscribe())
    }
}
