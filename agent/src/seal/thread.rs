//! The sealer on its own thread, for an agent that must not wait.

use super::{
    Answerer, EpochInputs, EpochSealed, KeySlot, SealCore, SealError, SessionInputs, SessionKey,
    SessionSealed, Status,
};
use merestone_evidence::Cause;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};
use tokio::sync::oneshot;

enum Job {
    Start(
        Box<SessionInputs>,
        oneshot::Sender<Result<SessionSealed, SealError>>,
    ),
    Close(
        Box<EpochInputs>,
        Cause,
        oneshot::Sender<Result<EpochSealed, SealError>>,
    ),
}

/// A handle to the sealing thread; clones speak to the same one. The thread
/// ends when the last handle is gone and its jobs are done.
#[derive(Debug, Clone)]
pub struct Sealer {
    jobs: Sender<Job>,
    status: Arc<Mutex<Status>>,
    key: KeySlot,
}

impl Sealer {
    /// Start the thread.
    pub fn spawn(core: SealCore) -> Result<Self, SealError> {
        let status = Arc::new(Mutex::new(core.status().clone()));
        let key = core.key();
        let (jobs, inbox) = channel();
        let shown = Arc::clone(&status);
        thread::Builder::new()
            .name("seal".into())
            .spawn(move || work(core, &inbox, &shown))
            .map_err(|_source| SealError::Gone)?;
        Ok(Self { jobs, status, key })
    }

    /// Signs answers to landmarks; never waits for the TPM.
    #[must_use]
    pub fn answerer(&self) -> Answerer {
        Answerer::of(self.key.clone())
    }

    /// The state after the last step; never waits for the TPM.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The key of the session that is open now; never waits for the TPM.
    #[must_use]
    pub fn key(&self) -> Option<Arc<SessionKey>> {
        self.key.key()
    }

    /// See [`SealCore::start_session`].
    pub async fn start_session(&self, inputs: SessionInputs) -> Result<SessionSealed, SealError> {
        let (to, answer) = oneshot::channel();
        self.jobs
            .send(Job::Start(Box::new(inputs), to))
            .map_err(|_source| SealError::Gone)?;
        answer.await.map_err(|_source| SealError::Gone)?
    }

    /// See [`SealCore::close_epoch`].
    pub async fn close_epoch(
        &self,
        inputs: EpochInputs,
        cause: Cause,
    ) -> Result<EpochSealed, SealError> {
        let (to, answer) = oneshot::channel();
        self.jobs
            .send(Job::Close(Box::new(inputs), cause, to))
            .map_err(|_source| SealError::Gone)?;
        answer.await.map_err(|_source| SealError::Gone)?
    }
}

fn work(mut core: SealCore, inbox: &Receiver<Job>, shown: &Mutex<Status>) {
    while let Ok(job) = inbox.recv() {
        match job {
            Job::Start(inputs, to) => {
                let result = core.start_session(*inputs);
                show(&core, shown);
                let _caller_may_be_gone = to.send(result);
            }
            Job::Close(inputs, cause, to) => {
                let result = core.close_epoch(*inputs, cause);
                show(&core, shown);
                let _caller_may_be_gone = to.send(result);
            }
        }
    }
}

/// Before the answer goes out, so that who asks next sees it.
fn show(core: &SealCore, shown: &Mutex<Status>) {
    *shown.lock().unwrap_or_else(PoisonError::into_inner) = core.status().clone();
}
