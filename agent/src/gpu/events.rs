//! XIDs: a thread that waits on NVML's event set.
//!
//! It waits a second at a time (the wrapper's own loop wakes a thousand times a second), and makes
//! the set anew after any error but a timeout, because a set that failed stays silent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, EventSet, Nvml};

use super::history::History;
use super::monitor::now_ms;
use super::progress::Progress;
use super::raw;

const WAIT_MS: u32 = 1000;

/// The event thread of one opening of NVML.
#[derive(Debug)]
pub(super) struct Watcher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts the thread; without it XIDs are absent, which the readings show.
    pub(super) fn start(
        nvml: Arc<Nvml>,
        history: History,
        progress: Progress,
        deadline: Duration,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name("gpu-events".into())
            .spawn({
                let stop = Arc::clone(&stop);
                move || {
                    let calls = Calls {
                        progress: &progress,
                        limit: deadline + Duration::from_millis(WAIT_MS.into()),
                    };
                    watch_until_stopped(&nvml, &history, &calls, &stop);
                }
            });
        if let Err(error) = &thread {
            tracing::warn!(%error, "XIDs are not watched: no thread for them");
        }
        Self {
            stop,
            thread: thread.ok(),
        }
    }

    /// Asks the thread to end and waits until it has let NVML go: at most one wait, or for ever if
    /// the driver is wedged, so only under a deadline.
    pub(super) fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the thread that watches XIDs panicked");
        }
    }
}

fn watch_until_stopped(nvml: &Nvml, history: &History, calls: &Calls<'_>, stop: &AtomicBool) {
    let mut refused = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        let uuids = watch(nvml, history, calls, &mut refused, stop);
        for uuid in uuids.values() {
            history.watching(uuid, false);
        }
        pause(stop);
    }
}

/// How this thread calls NVML.
struct Calls<'thread> {
    progress: &'thread Progress,
    limit: Duration,
}

impl Calls<'_> {
    fn make<T>(&self, call: &'static str, job: impl FnOnce() -> T) -> T {
        self.progress.call(call, self.limit, job)
    }
}

/// Registers every GPU but those that `refused` it, and waits until an error or the stop. Gives the
/// GPUs that were registered, by handle.
fn watch(
    nvml: &Nvml,
    history: &History,
    calls: &Calls<'_>,
    refused: &mut BTreeSet<u32>,
    stop: &AtomicBool,
) -> BTreeMap<usize, String> {
    let mut uuids = BTreeMap::new();
    let Ok(mut set) = calls.make("nvmlEventSetCreate", || nvml.create_event_set()) else {
        return uuids;
    };
    let count = calls.make("nvmlDeviceGetCount_v2", || nvml.device_count());
    for index in (0..count.unwrap_or(0)).filter(|index| !refused.contains(index)) {
        let Ok((device, uuid)) = calls.make("nvmlDeviceGetSupportedEventTypes", || {
            watchable(nvml, index)
        }) else {
            continue;
        };
        let handle = raw::handle_number(&device);
        match calls.make("nvmlDeviceRegisterEvents", || {
            device.register_events(EventTypes::CRITICAL_XID_ERROR, set)
        }) {
            Ok(same) => set = same,
            // The wrapper gives the whole set up with the error: begin again without this GPU.
            Err(error) => {
                tracing::warn!(%error, uuid, "XIDs of a GPU cannot be watched");
                refused.insert(index);
                return uuids;
            }
        }
        history.watching(&uuid, true);
        uuids.insert(handle, uuid);
    }
    if !uuids.is_empty() {
        listen(&set, &uuids, history, calls, stop);
    }
    uuids
}

/// A GPU that can report XIDs, with the UUID that it may no longer tell when it does.
fn watchable(nvml: &Nvml, index: u32) -> Result<(Device<'_>, String), NvmlError> {
    let device = nvml.device_by_index(index)?;
    let uuid = device.uuid()?;
    let supported = device.supported_event_types()?;
    if supported.contains(EventTypes::CRITICAL_XID_ERROR) {
        Ok((device, uuid))
    } else {
        Err(NvmlError::NotSupported)
    }
}

fn listen(
    set: &EventSet<'_>,
    uuids: &BTreeMap<usize, String>,
    history: &History,
    calls: &Calls<'_>,
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::Relaxed) {
        match calls.make("nvmlEventSetWait_v2", || raw::wait(set, WAIT_MS)) {
            Ok(event) if event.kind & EventTypes::CRITICAL_XID_ERROR.bits() != 0 => {
                if let Some(uuid) = uuids.get(&event.device) {
                    tracing::warn!(uuid, xid = event.data, "the driver reported an XID");
                    history.saw(uuid, event.data, now_ms());
                }
            }
            Ok(_) | Err(NvmlError::Timeout) => {}
            Err(error) => {
                tracing::warn!(%error, "waiting for XIDs failed; the set is made anew");
                return;
            }
        }
    }
}

/// Waits before the set is made anew, in steps, so that a stop is seen soon.
fn pause(stop: &AtomicBool) {
    for _ in 0..20 {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
