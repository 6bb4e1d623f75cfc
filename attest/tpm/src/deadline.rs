//! A TPM on a thread of its own, so that one that hangs holds up nobody.
//!
//! A hardware TPM may take a second, a wedged one forever, and a command that
//! was sent cannot be taken back: a caller whose time is up must assume that
//! it may still take effect. That is said by [`TpmError::Deadline`]; every later
//! call is refused with [`TpmError::Busy`] until the command has come back.

use crate::{Certified, Clock, NvAuth, NvIndex, NvRole, Properties, Quoted, Tpm, TpmError};
use merestone_evidence::{Digest, PcrValue};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

type Job = Box<dyn FnOnce(&mut dyn Tpm) + Send>;

/// A [`Tpm`] whose every call has a limit.
pub struct Deadline {
    jobs: SyncSender<Job>,
    is_busy: Arc<AtomicBool>,
    limit: Duration,
    public: Vec<u8>,
    name: Vec<u8>,
    properties: Properties,
}

impl fmt::Debug for Deadline {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Deadline")
            .field("limit", &self.limit)
            .field("is_busy", &self.is_busy)
            .finish_non_exhaustive()
    }
}

impl Deadline {
    /// Open a TPM on a new thread, waiting for it at most `limit`; the same
    /// limit then holds for every call.
    pub fn spawn<T, F>(limit: Duration, open: F) -> Result<Self, TpmError>
    where
        T: Tpm + 'static,
        F: FnOnce() -> Result<T, TpmError> + Send + 'static,
    {
        let (opened_to, opened) = sync_channel(1);
        let (jobs, inbox) = sync_channel::<Job>(1);
        let body = move || {
            let mut tpm = match open() {
                Ok(tpm) => tpm,
                Err(error) => {
                    let _caller_may_be_gone = opened_to.send(Err(error));
                    return;
                }
            };
            let facts = (
                tpm.ak_public().to_vec(),
                tpm.ak_name().to_vec(),
                tpm.properties().clone(),
            );
            if opened_to.send(Ok(facts)).is_err() {
                return;
            }
            while let Ok(job) = inbox.recv() {
                job(&mut tpm);
            }
        };
        thread::Builder::new()
            .name("tpm".into())
            .spawn(body)
            .map_err(|_source| TpmError::Gone)?;
        match opened.recv_timeout(limit) {
            Ok(Ok((public, name, properties))) => Ok(Self {
                jobs,
                is_busy: Arc::default(),
                limit,
                public,
                name,
                properties,
            }),
            Ok(Err(error)) => Err(error),
            Err(RecvTimeoutError::Timeout) => Err(TpmError::Deadline {
                doing: "open",
                limit,
            }),
            Err(RecvTimeoutError::Disconnected) => Err(TpmError::Gone),
        }
    }

    /// Change the limit for the calls to come.
    pub const fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    fn call<R, F>(&self, doing: &'static str, work: F) -> Result<R, TpmError>
    where
        R: Send + 'static,
        F: FnOnce(&mut dyn Tpm) -> Result<R, TpmError> + Send + 'static,
    {
        if self.is_busy.swap(true, Ordering::AcqRel) {
            return Err(TpmError::Busy);
        }
        let (answer_to, answer) = sync_channel(1);
        let is_busy = Arc::clone(&self.is_busy);
        let job: Job = Box::new(move |tpm| {
            let result = work(tpm);
            is_busy.store(false, Ordering::Release);
            let _caller_may_be_gone = answer_to.send(result);
        });
        self.jobs.send(job).map_err(|_source| TpmError::Gone)?;
        match answer.recv_timeout(self.limit) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(TpmError::Deadline {
                doing,
                limit: self.limit,
            }),
            Err(RecvTimeoutError::Disconnected) => Err(TpmError::Gone),
        }
    }
}

impl Tpm for Deadline {
    fn ak_public(&self) -> &[u8] {
        &self.public
    }

    fn ak_name(&self) -> &[u8] {
        &self.name
    }

    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn extend(&mut self, pcr: u8, digest: &Digest) -> Result<(), TpmError> {
        let digest = *digest;
        self.call("extend a PCR", move |tpm| tpm.extend(pcr, &digest))
    }

    fn read_pcrs(&mut self, pcrs: &[u8]) -> Result<Vec<PcrValue>, TpmError> {
        let pcrs = pcrs.to_vec();
        self.call("read PCRs", move |tpm| tpm.read_pcrs(&pcrs))
    }

    fn quote(&mut self, pcrs: &[u8], qualifying: &Digest) -> Result<Quoted, TpmError> {
        let (pcrs, qualifying) = (pcrs.to_vec(), *qualifying);
        self.call("quote", move |tpm| tpm.quote(&pcrs, &qualifying))
    }

    fn clock(&mut self) -> Result<Clock, TpmError> {
        self.call("read its clock", |tpm| tpm.clock())
    }

    fn nv_find(&mut self, role: NvRole) -> Result<Option<NvIndex>, TpmError> {
        self.call("find an NV index", move |tpm| tpm.nv_find(role))
    }

    fn nv_counter(&mut self, role: NvRole, auth: &NvAuth) -> Result<NvIndex, TpmError> {
        let auth = auth.clone();
        self.call("find its counters", move |tpm| tpm.nv_counter(role, &auth))
    }

    fn nv_increment(&mut self, index: u32, auth: &NvAuth) -> Result<(), TpmError> {
        let auth = auth.clone();
        self.call("count", move |tpm| tpm.nv_increment(index, &auth))
    }

    fn nv_read(&mut self, index: u32, auth: &NvAuth) -> Result<Vec<u8>, TpmError> {
        let auth = auth.clone();
        self.call("read an NV index", move |tpm| tpm.nv_read(index, &auth))
    }

    fn nv_certify(
        &mut self,
        index: u32,
        auth: &NvAuth,
        qualifying: &Digest,
    ) -> Result<Certified, TpmError> {
        let (auth, qualifying) = (auth.clone(), *qualifying);
        self.call("certify an NV index", move |tpm| {
            tpm.nv_certify(index, &auth, &qualifying)
        })
    }
}
