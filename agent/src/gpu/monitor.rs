//! The handle on the GPU monitor that the rest of the agent holds, and its configuration.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::attest::{Attested, Question};
use super::library;
use super::snapshot::GpuSnapshot;
use super::supervisor::{Message, Supervisor};

/// Whether this is a build in which a test library needs leave.
pub(super) const RELEASE_BUILD: bool = !cfg!(debug_assertions);

/// How NVML is watched.
#[derive(Debug, Clone)]
pub struct Config {
    /// A library in place of the driver's own. A release build takes any only with
    /// `allow_test_library`.
    pub library: Option<PathBuf>,
    /// Whether a test library is allowed.
    pub allow_test_library: bool,
    /// Time between readings.
    pub interval: Duration,
    /// How long one call may take.
    pub deadline: Duration,
    /// How long opening may take: without a persistent driver it starts every GPU.
    pub init_deadline: Duration,
    /// Time before the first new try after a failure; it doubles with each.
    pub retry: Duration,
    /// Time between tries at most.
    pub retry_max: Duration,
    /// Where proc is mounted.
    pub proc: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            library: None,
            allow_test_library: false,
            interval: Duration::from_secs(1),
            deadline: Duration::from_secs(5),
            init_deadline: Duration::from_mins(1),
            retry: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
            proc: PathBuf::from("/proc"),
        }
    }
}

impl Config {
    /// Whether it may be started at all; what [`Monitor::start`] checks first.
    pub fn check(&self) -> Result<(), StartError> {
        match &self.library {
            Some(path) if !library::permitted(true, RELEASE_BUILD, self.allow_test_library) => {
                Err(StartError::TestLibrary {
                    library: path.clone(),
                })
            }
            _ => Ok(()),
        }
    }
}

/// Why the monitor does not start. No state of a driver is a reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another library than the driver's was configured in a release build.
    #[error(
        "gpu.nvml_library names {}, which is not the driver's own libnvidia-ml.so.1: \
         remove the key, or say --allow-test-nvml and the evidence will show it",
        library.display()
    )]
    TestLibrary {
        /// What was configured.
        library: PathBuf,
    },
    /// The system gives no thread.
    #[error("no thread for the GPU monitor: {source}")]
    Thread {
        /// Why.
        source: std::io::Error,
    },
}

/// The running monitor. Dropping it lets NVML go, without waiting for it.
#[derive(Debug)]
pub struct Monitor {
    messages: Sender<Message>,
    snapshots: watch::Receiver<Arc<GpuSnapshot>>,
    question: Question,
}

impl Monitor {
    /// Starts watching. It succeeds without a GPU, a driver or a library; the snapshot says so.
    pub fn start(config: Config) -> Result<Self, StartError> {
        config.check()?;
        let (messages, inbox) = mpsc::channel();
        let (publisher, snapshots) = watch::channel(Arc::new(GpuSnapshot::starting(now_ms())));
        let question = Question::default();
        let supervisor =
            Supervisor::new(config, messages.clone(), inbox, publisher, question.clone());
        std::thread::Builder::new()
            .name("gpu-supervisor".into())
            .spawn(move || supervisor.run())
            .map_err(|source| StartError::Thread { source })?;
        Ok(Self {
            messages,
            snapshots,
            question,
        })
    }

    /// The last snapshot.
    #[must_use]
    pub fn latest(&self) -> Arc<GpuSnapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// A channel that always holds the last snapshot.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<GpuSnapshot>> {
        self.snapshots.clone()
    }

    /// Asks every GPU in confidential computing to attest itself over `nonce`, with the next
    /// reading.
    pub fn attest(&self, nonce: [u8; 32]) {
        self.question.ask(nonce);
    }

    /// What the GPUs answered, once, and the nonce it answers to. None of them may.
    #[must_use]
    pub fn attested(&self) -> Option<([u8; 32], Vec<Attested>)> {
        self.question.take()
    }

    /// Lets NVML go, for driver work. It is done when the state is [`GpuState::Released`].
    pub fn release(&self) {
        self.tell(Message::Release);
    }

    /// Watches again.
    pub fn resume(&self) {
        self.tell(Message::Resume);
    }

    fn tell(&self, message: Message) {
        if self.messages.send(message).is_err() {
            tracing::error!("the GPU supervisor is gone");
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // If it is gone already there is nothing to stop.
        self.messages.send(Message::Stop).ok();
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
