//! Which NVML call is being made, so that another thread can see that it does not return.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One thread's place in NVML.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<Mutex<Option<Running>>>);

#[derive(Debug, Clone, Copy)]
struct Running {
    call: &'static str,
    since: Instant,
    limit: Duration,
}

impl Progress {
    /// Makes a call, which may take until `limit`.
    pub(super) fn call<T>(
        &self,
        call: &'static str,
        limit: Duration,
        job: impl FnOnce() -> T,
    ) -> T {
        self.set(Some(Running {
            call,
            since: Instant::now(),
            limit,
        }));
        let result = job();
        self.set(None);
        result
    }

    /// The call that has run longer than it may, and for how long.
    pub(super) fn overdue(&self) -> Option<(&'static str, Duration)> {
        let running = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let elapsed = running.since.elapsed();
        (elapsed > running.limit).then_some((running.call, elapsed))
    }

    fn set(&self, running: Option<Running>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }
}
