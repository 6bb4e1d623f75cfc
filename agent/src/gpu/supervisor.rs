//! The thread that watches the thread that calls NVML.
//!
//! The supervisor never calls NVML. It starts a worker, publishes what the worker reads, and when a
//! call of the worker is overdue it abandons the worker (a thread inside a wedged driver cannot be
//! stopped) and tries a new one later. At most [`MAX_ABANDONED`] threads are ever given up like that.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::attest::Question;
use super::history::History;
use super::monitor::{Config, now_ms};
use super::progress::Progress;
use super::session::{Sample, Session};
use super::snapshot::{DeviceState, GpuSnapshot};
use super::state::GpuState;
use super::trouble::Trouble;
use super::visibility::in_host_pid_namespace;

/// How many threads may be stuck in the driver before no new one is tried.
const MAX_ABANDONED: usize = 4;

/// What the supervisor is told.
#[derive(Debug)]
pub(super) enum Message {
    Report(u64, Report),
    Release,
    Resume,
    Stop,
}

/// What a worker says.
#[derive(Debug)]
pub(super) enum Report {
    Sample(Box<Sample>),
    Trouble(Trouble),
    Closed,
}

/// One thread that calls NVML.
struct Worker {
    number: u64,
    /// Dropped to ask the worker to end.
    running: Option<Sender<()>>,
    calls: Progress,
    event_calls: Progress,
    thread: JoinHandle<()>,
}

/// The thread that watches the worker.
pub(super) struct Supervisor {
    config: Arc<Config>,
    messages: Sender<Message>,
    inbox: Receiver<Message>,
    publisher: watch::Sender<Arc<GpuSnapshot>>,
    history: History,
    question: Question,
    worker: Option<Worker>,
    abandoned: Vec<JoinHandle<()>>,
    retry: Duration,
    try_at: Option<Instant>,
    lost_since: Option<Instant>,
    released: bool,
    workers_started: u64,
}

impl Supervisor {
    /// A supervisor that tries at once.
    pub(super) fn new(
        config: Config,
        messages: Sender<Message>,
        inbox: Receiver<Message>,
        publisher: watch::Sender<Arc<GpuSnapshot>>,
        question: Question,
    ) -> Self {
        Self {
            retry: config.retry,
            config: Arc::new(config),
            messages,
            inbox,
            publisher,
            history: History::default(),
            question,
            worker: None,
            abandoned: Vec::new(),
            try_at: Some(Instant::now()),
            lost_since: None,
            released: false,
            workers_started: 0,
        }
    }

    /// Runs until told to stop, or until nobody is left to tell.
    pub(super) fn run(mut self) {
        loop {
            self.start_worker_when_due();
            match self.inbox.recv_timeout(self.patience()) {
                Ok(Message::Report(number, report)) => self.report(number, report),
                Ok(Message::Release) => self.release(),
                Ok(Message::Resume) => self.resume(),
                // `running` drops with self, so the worker ends when its call returns.
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => self.look_for_a_dead_worker(),
            }
            self.look_for_an_overdue_call();
        }
    }

    /// How long to sleep: a quarter of the deadline while a call could be overdue, else until the
    /// next try.
    fn patience(&self) -> Duration {
        let least = Duration::from_millis(10);
        let idle = Duration::from_hours(1);
        if self.worker.is_some() {
            (self.config.deadline / 4).clamp(least, Duration::from_secs(1))
        } else {
            self.try_at.map_or(idle, |at| {
                at.saturating_duration_since(Instant::now()).max(least)
            })
        }
    }

    fn start_worker_when_due(&mut self) {
        let due = self.try_at.is_some_and(|at| at <= Instant::now());
        if !due || self.released || self.worker.is_some() {
            return;
        }
        self.abandoned.retain(|thread| !thread.is_finished());
        if self.abandoned.len() >= MAX_ABANDONED {
            self.try_at = Some(Instant::now() + self.config.retry_max);
            return;
        }
        self.try_at = None;
        self.workers_started += 1;
        match Worker::start(self) {
            Ok(worker) => self.worker = Some(worker),
            Err(error) => {
                let detail = format!("no thread for NVML: {error}");
                self.fail(Trouble::new(GpuState::Failed, detail));
            }
        }
    }

    fn report(&mut self, number: u64, report: Report) {
        // An abandoned worker may come back; it is no longer listened to.
        if self
            .worker
            .as_ref()
            .is_none_or(|worker| worker.number != number)
        {
            return;
        }
        match report {
            Report::Sample(sample) if !self.released => self.publish_sample(*sample),
            Report::Sample(_) => {}
            Report::Trouble(trouble) => {
                self.worker = None;
                self.fail(trouble);
            }
            Report::Closed => {
                self.worker = None;
                if self.released {
                    self.publish(GpuState::Released, None, |_| {});
                } else {
                    self.try_later();
                }
            }
        }
    }

    fn release(&mut self) {
        self.released = true;
        self.try_at = None;
        match &mut self.worker {
            Some(worker) => drop(worker.running.take()),
            None => self.publish(GpuState::Released, None, |_| {}),
        }
    }

    fn resume(&mut self) {
        self.released = false;
        self.retry = self.config.retry;
        if self.worker.is_none() {
            self.try_at = Some(Instant::now());
        }
    }

    fn look_for_an_overdue_call(&mut self) {
        let Some(worker) = &self.worker else { return };
        let overdue = worker
            .calls
            .overdue()
            .or_else(|| worker.event_calls.overdue());
        if let Some((call, elapsed)) = overdue {
            if let Some(worker) = self.worker.take() {
                self.abandoned.push(worker.thread);
            }
            let seconds = elapsed.as_secs_f32();
            let detail = format!("{call} has not returned for {seconds:.1} s");
            self.fail(Trouble::new(GpuState::Wedged, detail));
        }
    }

    fn look_for_a_dead_worker(&mut self) {
        if self
            .worker
            .as_ref()
            .is_some_and(|worker| worker.thread.is_finished())
        {
            self.worker = None;
            let detail = "the thread that calls NVML panicked".to_owned();
            self.fail(Trouble::new(GpuState::Failed, detail));
        }
    }

    fn fail(&mut self, trouble: Trouble) {
        let Trouble {
            state,
            detail,
            library,
        } = trouble;
        self.publish(state, Some(detail), |snapshot| {
            if library.is_some() {
                snapshot.test_library = library.as_ref().is_some_and(|library| library.test);
                snapshot.library = library;
            }
        });
        self.try_later();
    }

    fn try_later(&mut self) {
        if self.released {
            return;
        }
        self.try_at = Some(Instant::now() + self.retry);
        self.retry = (self.retry * 2).min(self.config.retry_max);
    }

    fn publish_sample(&mut self, sample: Sample) {
        let any = |state| sample.devices.iter().any(|device| device.state == state);
        let none_listed = sample
            .devices
            .iter()
            .all(|device| device.processes.as_ref().is_none_or(Vec::is_empty));
        let complete = in_host_pid_namespace(&self.config.proc);
        let (state, detail) = if any(DeviceState::Lost) {
            (GpuState::Lost, Some(lost(&sample)))
        } else if any(DeviceState::Denied) {
            (GpuState::DeviceDenied, None)
        } else if any(DeviceState::Unread) {
            (GpuState::Failed, None)
        } else if complete == Some(false) && none_listed && !sample.devices.is_empty() {
            (GpuState::ProcessInvisible, None)
        } else if sample.devices.is_empty() {
            (GpuState::Ok, Some("the driver lists no GPU".to_owned()))
        } else {
            (GpuState::Ok, None)
        };
        let detail = detail.or_else(|| {
            let mut faults = sample.devices.iter().flat_map(|device| &device.faults);
            faults.next().cloned().filter(|_| state != GpuState::Ok)
        });
        self.publish(state, detail, |snapshot| {
            snapshot.taken_ms = Some(now_ms());
            snapshot.driver_version = sample.driver_version;
            snapshot.nvml_version = sample.nvml_version;
            snapshot.library = sample.library;
            snapshot.test_library = sample.test_library;
            snapshot.processes_complete = complete;
            snapshot.devices = sample.devices;
        });
        self.open_anew_if_lost(state);
    }

    /// A GPU that was reset comes back only to a new opening; and to hold NVML hinders the reset.
    fn open_anew_if_lost(&mut self, state: GpuState) {
        if state != GpuState::Lost {
            self.lost_since = None;
            self.retry = self.config.retry;
            return;
        }
        let since = *self.lost_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.config.retry_max {
            self.lost_since = None;
            if let Some(worker) = &mut self.worker {
                drop(worker.running.take());
            }
        }
    }

    /// Publishes a state. Readings do not outlive it: the GPUs stay listed, without values.
    fn publish(
        &self,
        state: GpuState,
        detail: Option<String>,
        change: impl FnOnce(&mut GpuSnapshot),
    ) {
        let before = Arc::clone(&self.publisher.borrow());
        let since_ms = if before.state == state {
            before.since_ms
        } else {
            now_ms()
        };
        let mut next = GpuSnapshot {
            state,
            detail,
            ..GpuSnapshot::starting(since_ms)
        };
        // The driver that does not answer, or was let go, is still the one that was there.
        if !matches!(state, GpuState::NoDriver | GpuState::Refused) {
            next.devices = before
                .devices
                .iter()
                .map(|device| device.unread(DeviceState::Unread))
                .collect();
        }
        if state == GpuState::Wedged {
            next.driver_version.clone_from(&before.driver_version);
            next.nvml_version.clone_from(&before.nvml_version);
            next.library.clone_from(&before.library);
            next.test_library = before.test_library;
        }
        change(&mut next);
        if before.state != state {
            tracing::info!(state = state.name(), "{}", next.sentence());
        }
        self.publisher.send_replace(Arc::new(next));
    }
}

/// Which GPUs are lost.
fn lost(sample: &Sample) -> String {
    let names: Vec<_> = sample
        .devices
        .iter()
        .filter(|device| device.state == DeviceState::Lost)
        .map(|device| {
            let uuid = device.uuid.as_deref().unwrap_or("UUID unknown");
            let place = device.pci_bus_id.as_deref().unwrap_or("address unknown");
            format!("GPU {} ({uuid}, {place})", device.index)
        })
        .collect();
    names.join(", ")
}

impl Worker {
    fn start(supervisor: &Supervisor) -> std::io::Result<Self> {
        let number = supervisor.workers_started;
        let (running, stop) = mpsc::channel();
        let calls = Progress::default();
        let event_calls = Progress::default();
        let thread = std::thread::Builder::new().name("gpu-nvml".into()).spawn({
            let config = Arc::clone(&supervisor.config);
            let (calls, event_calls) = (calls.clone(), event_calls.clone());
            let shared = (supervisor.history.clone(), supervisor.question.clone());
            let messages = supervisor.messages.clone();
            move || {
                let outcome = work(config, calls, event_calls, shared, &stop, |sample| {
                    let report = Report::Sample(Box::new(sample));
                    messages.send(Message::Report(number, report)).is_ok()
                });
                let report = outcome.map_or_else(Report::Trouble, |()| Report::Closed);
                // A supervisor that is gone needs no report.
                messages.send(Message::Report(number, report)).ok();
            }
        })?;
        Ok(Self {
            number,
            running: Some(running),
            calls,
            event_calls,
            thread,
        })
    }
}

/// Opens NVML and reads it until told to stop; NVML is shut down when this returns.
fn work(
    config: Arc<Config>,
    calls: Progress,
    event_calls: Progress,
    shared: (History, Question),
    stop: &Receiver<()>,
    mut tell: impl FnMut(Sample) -> bool,
) -> Result<(), Trouble> {
    let interval = config.interval;
    let deadline = config.deadline;
    let mut session = Session::open(config, calls.clone(), event_calls, shared)?;
    let outcome = loop {
        match session.sample() {
            Ok(sample) => {
                if !tell(sample) {
                    break Ok(());
                }
            }
            Err(trouble) => break Err(trouble),
        }
        if stop.recv_timeout(interval) == Err(RecvTimeoutError::Disconnected) {
            break Ok(());
        }
    };
    session.stop_events();
    calls.call("nvmlShutdown", deadline, || drop(session));
    outcome
}
