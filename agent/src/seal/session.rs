//! The sealer itself, without its thread.

use super::{
    Answerer, BootLogs, EpochInputs, Metrics, Recovered, SealError, SessionInputs, Status, boot,
    chain::{Place, Step, chain_value, ima_value, timed},
    counting::Counting,
    default_node_id,
    inputs::{EpochFacts, SessionFacts},
    key::{KeySlot, SessionKey},
};
use crate::{
    clock,
    ledger::{Ledger, NewKey, Opened},
};
use ed25519_dalek::SigningKey;
use merestone_evidence::{
    Body, Cause, Digest, Entry, EntryKind, EpochStatement, Quote, RecordCounts, SessionId, TpmInfo,
    encode, sha256,
};
use merestone_tpm::{Clock, NvAuth, Quoted, Tpm, check_chain_pcr};
use rustix::rand::{GetRandomFlags, getrandom};
use std::sync::Arc;

/// How to seal.
#[derive(Debug, Clone)]
pub struct SealOptions {
    /// The node's id; `None` derives it from the attestation key.
    pub node: Option<String>,
    /// Registers every quote selects, SHA-256 bank.
    pub pcrs: Vec<u8>,
    /// The register of the epochs; one of `pcrs`.
    pub chain_pcr: u8,
    /// Where this boot's logs are; `None` takes the kernel's files, and none
    /// for a TPM that this host's boot is not measured into.
    pub boot_logs: Option<BootLogs>,
    /// The password of the TPM's counters; `None` counts nothing and says nothing of it.
    pub nv: Option<NvAuth>,
}

impl Default for SealOptions {
    fn default() -> Self {
        Self {
            node: None,
            pcrs: (0..=15).collect(),
            chain_pcr: 15,
            boot_logs: None,
            nv: None,
        }
    }
}

/// A session that was started.
#[derive(Debug, Clone)]
pub struct SessionSealed {
    /// Its id.
    pub session: SessionId,
    /// Digest of its statement.
    pub digest: Digest,
    /// What was found from before.
    pub recovered: Recovered,
}

/// An epoch that was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochSealed {
    /// Position in the session.
    pub sequence: u64,
    /// Leaves it covers up to.
    pub size: u64,
    /// Root over them.
    pub root: Digest,
    /// Digest of its statement.
    pub digest: Digest,
}

/// Two clocks are read one after the other; a sleep is longer than that.
const SLEPT_JITTER_MS: u64 = 100;

/// An open session.
pub(super) struct Open {
    id: SessionId,
    /// Records appended before it began, by this process.
    records: RecordCounts,
    sequence: u64,
    /// Digest of the session's statement.
    statement: Digest,
    /// Digest of the statement before.
    previous: Digest,
    opened_ms: u64,
    /// The chain register after the last sealed epoch.
    chain: Digest,
    /// The TPM's clock in the session's quote.
    clock: Clock,
    /// How long the host had slept when the session began.
    slept_ms: u64,
    ima: Option<Digest>,
    /// The first epoch covers leaves from before the session.
    is_recovering: bool,
    pending: Option<(EpochStatement, Step)>,
    pub(super) counting: Option<Counting>,
}

/// Owns the TPM and the session key. Its calls block on both TPM and disk.
pub struct SealCore {
    pub(super) tpm: Box<dyn Tpm>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) options: SealOptions,
    boot_logs: BootLogs,
    pub(super) metrics: Metrics,
    node: String,
    pub(super) opened: Opened,
    pub(super) open: Option<Open>,
    status: Status,
    key: KeySlot,
}

impl std::fmt::Debug for SealCore {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("SealCore")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl SealCore {
    /// Take over the TPM. `opened` is what opening the ledger found.
    pub fn new(
        tpm: Box<dyn Tpm>,
        ledger: Arc<Ledger>,
        opened: Opened,
        options: SealOptions,
        metrics: Metrics,
    ) -> Result<Self, SealError> {
        check_chain_pcr(options.chain_pcr)?;
        if !options.pcrs.contains(&options.chain_pcr) || !options.pcrs.is_sorted_by(|a, b| a < b) {
            return Err(SealError::Selection {
                pcrs: options.pcrs,
                chain_pcr: options.chain_pcr,
            });
        }
        let node = options
            .node
            .clone()
            .unwrap_or_else(|| default_node_id(tpm.ak_name()));
        let boot_logs = options.boot_logs.clone();
        let boot_logs = boot_logs.unwrap_or_else(|| BootLogs::of(tpm.properties().is_local));
        let status = Status {
            statement: None,
            node: node.clone(),
            ak_name: hex::encode(tpm.ak_name()),
            tpm: tpm.properties().clone(),
            session: None,
            epochs: 0,
            last_epoch_ms: None,
            last: ledger.sealed().last,
            is_pending: false,
            error: None,
        };
        Ok(Self {
            tpm,
            ledger,
            options,
            boot_logs,
            metrics,
            node,
            opened,
            open: None,
            status,
            key: KeySlot::default(),
        })
    }

    /// Signs answers to landmarks with the open session's key.
    #[must_use]
    pub fn answerer(&self) -> Answerer {
        Answerer::of(self.key.clone())
    }

    /// The state after the last step.
    #[must_use]
    pub const fn status(&self) -> &Status {
        &self.status
    }

    /// Where the open session's key is.
    #[must_use]
    pub fn key(&self) -> KeySlot {
        self.key.clone()
    }

    /// Finish what a crash left, then start a session.
    pub fn start_session(&mut self, inputs: SessionInputs) -> Result<SessionSealed, SealError> {
        let result = self.try_start(inputs);
        self.note(result.as_ref().err());
        result
    }

    /// Seal everything recorded so far.
    pub fn close_epoch(
        &mut self,
        inputs: EpochInputs,
        cause: Cause,
    ) -> Result<EpochSealed, SealError> {
        let result = self.try_close(inputs, cause);
        if result.as_ref().is_err_and(SealError::ends_session) {
            self.end_session();
        }
        self.note(result.as_ref().err());
        result
    }

    fn end_session(&mut self) {
        self.open = None;
        self.key.set(None);
    }

    fn note(&mut self, error: Option<&SealError>) {
        if let Some(error) = error {
            self.metrics
                .failures
                .with_label_values(&[error.reason()])
                .inc();
        }
        self.status.error = error.map(ToString::to_string);
        self.status.session = self.open.as_ref().map(|open| open.id);
        self.status.statement = self.open.as_ref().map(|open| open.statement);
        self.status.epochs = self.open.as_ref().map_or(0, |open| open.sequence);
        self.status.is_pending = self
            .open
            .as_ref()
            .is_some_and(|open| open.pending.is_some());
        self.metrics.pending.set(i64::from(self.status.is_pending));
        self.status.last = self.ledger.sealed().last;
    }

    fn try_start(&mut self, inputs: SessionInputs) -> Result<SessionSealed, SealError> {
        self.key.set(None);
        let recovered = self.recover()?;
        self.end_session();
        let mut id = SessionId::default();
        let mut secret = [0; 32];
        random(&mut id.0)?;
        random(&mut secret)?;
        let key = SigningKey::from_bytes(&secret);
        let (declared, counting) = self.declare()?;
        let sealed = self.ledger.sealed();
        let properties = self.tpm.properties();
        let started_ms = clock::now_ms();
        let statement = inputs.statement(SessionFacts {
            node: self.node.clone(),
            session: id,
            previous: sealed.last,
            started_ms,
            session_key: key.verifying_key().to_bytes(),
            tpm: TpmInfo {
                manufacturer: format!("{} {}", properties.manufacturer, properties.vendor)
                    .trim()
                    .to_owned(),
                firmware: properties.firmware.clone(),
                software: properties.software,
            },
            pcrs: self.options.pcrs.clone(),
            chain_pcr: self.options.chain_pcr,
            tree: (sealed.size, sealed.root),
            declared,
        });
        let bytes = encode(&statement);
        let digest = sha256(&bytes);
        self.ledger.begin_session(&bytes, self.tpm.ak_public())?;
        let slept_ms = clock::slept_ms();
        let Quoted { quote, clock } = timed(&self.metrics.quote_seconds, || {
            self.tpm.quote(&self.options.pcrs, &digest)
        })?;
        let logs = &self.boot_logs;
        let (boot_log, ima_log) = (boot::read(&logs.boot), boot::read(&logs.ima));
        self.ledger
            .seal_session(&quote, boot_log.as_deref(), ima_log.as_deref())?;
        self.count_start(&statement, &digest)?;
        self.key
            .set(Some(SessionKey::new(id, digest, self.tpm.ak_name(), key)));
        self.open = Some(Open {
            id,
            records: self.ledger.records(),
            sequence: 0,
            statement: digest,
            previous: digest,
            opened_ms: started_ms,
            chain: chain_value(&quote.pcrs, self.options.chain_pcr)?,
            clock,
            slept_ms,
            ima: ima_value(&quote),
            is_recovering: recovered.unsealed > 0,
            pending: None,
            counting,
        });
        self.publish()?;
        Ok(SessionSealed {
            session: id,
            digest,
            recovered,
        })
    }

    /// From the first session on the log is published under this node's name.
    fn publish(&self) -> Result<(), SealError> {
        if self.ledger.log_key().is_some() {
            return Ok(());
        }
        let tell = |NewKey { key, previous }| Entry {
            kind: EntryKind,
            time_ms: clock::now_ms(),
            boot_ns: clock::boot_ns(),
            body: Body::LogKey { key, previous },
        };
        Ok(self.ledger.publish_as(&self.node, tell)?)
    }

    fn try_close(&mut self, inputs: EpochInputs, cause: Cause) -> Result<EpochSealed, SealError> {
        self.clear_pending()?;
        self.count_due()?;
        let open = self.open.as_ref().ok_or(SealError::NoSession)?;
        // Seen before the register is touched, so that the next session begins
        // where this one ended.
        if clock::slept_ms().abs_diff(open.slept_ms) > SLEPT_JITTER_MS {
            return Err(SealError::Restarted);
        }
        self.write_ahead(inputs, cause)?;
        let sealed = self.step()?;
        // Sealed is sealed: what was not counted now is counted before the next epoch.
        let counted = self.count_due().and_then(|()| match cause {
            Cause::Shutdown => self.count_end(&sealed.digest),
            _ => Ok(()),
        });
        if let Err(error) = counted {
            tracing::warn!(%error, "not counted");
            self.metrics
                .failures
                .with_label_values(&[error.reason()])
                .inc();
        }
        Ok(sealed)
    }

    /// Deal with an epoch that a slow or absent TPM left pending. One that is
    /// in the register gets its quote; one that is not would be quoted long
    /// after the time it names, so it makes way for a fresh statement.
    fn clear_pending(&mut self) -> Result<(), SealError> {
        let open = self.open.as_mut().ok_or(SealError::NoSession)?;
        let Some((_statement, step)) = open.pending.as_ref() else {
            return Ok(());
        };
        if step.place(self.tpm.as_mut())? == Place::Before {
            self.ledger.abandon_epoch(
                "it never reached the register; a fresh statement takes its place",
            )?;
            open.pending = None;
            return Ok(());
        }
        self.step().map(drop)
    }

    fn write_ahead(&mut self, mut inputs: EpochInputs, cause: Cause) -> Result<(), SealError> {
        let (size, root, records) = self.ledger.sync_counted()?;
        let open = self.open.as_mut().ok_or(SealError::NoSession)?;
        // Of a session that ended meanwhile it would say nothing.
        let location = inputs.location.take();
        let location = location.filter(|evidence| evidence.session == open.id);
        let location = location.map(|evidence| {
            let bytes = encode(&evidence);
            let digest = sha256(&bytes);
            self.ledger.keep_location(&digest, &bytes).map(|()| digest)
        });
        let location = location.transpose()?;
        let statement = inputs.statement(EpochFacts {
            node: self.node.clone(),
            session: open.id,
            sequence: open.sequence,
            previous: open.previous,
            opened_ms: open.opened_ms,
            // A clock that was set back does not make a stretch end before it began.
            closed_ms: clock::now_ms().max(open.opened_ms),
            size_before: self.ledger.sealed().size,
            location,
            tree: (size, root),
            records: RecordCounts {
                observed: records.observed.saturating_sub(open.records.observed),
                bound: records.bound.saturating_sub(open.records.bound),
            },
            cause: if open.is_recovering {
                Cause::Recovered
            } else {
                cause
            },
            counter: open.counting.as_ref().map(Counting::next),
        });
        let bytes = encode(&statement);
        let step = Step {
            digest: sha256(&bytes),
            before: open.chain,
            clock: open.clock,
            pcrs: self.options.pcrs.clone(),
            chain_pcr: self.options.chain_pcr,
        };
        self.ledger.write_ahead(&bytes)?;
        open.pending = Some((statement, step));
        Ok(())
    }

    /// Take the pending epoch as far as it goes.
    fn step(&mut self) -> Result<EpochSealed, SealError> {
        let open = self.open.as_mut().ok_or(SealError::NoSession)?;
        let (statement, step) = open.pending.as_ref().ok_or(SealError::NoSession)?;
        let quote = step.take(self.tpm.as_mut(), &self.ledger, &self.metrics.quote_seconds)?;
        let sealed = EpochSealed {
            sequence: statement.sequence,
            size: statement.size_after,
            root: statement.root,
            digest: step.digest,
        };
        if let (Some(counting), Some(value)) = (open.counting.as_mut(), statement.counter) {
            counting.sealed(step.digest, value);
        }
        open.sequence += 1;
        open.previous = sealed.digest;
        open.opened_ms = statement.closed_ms;
        open.chain = chain_value(&quote.pcrs, self.options.chain_pcr)?;
        open.is_recovering = false;
        self.status.last_epoch_ms = Some(statement.closed_ms);
        open.pending = None;
        self.metrics.epochs.inc();
        self.refresh_ima(&quote);
        Ok(sealed)
    }

    /// Keep a measurement list that explains the newest quote. Failing that is
    /// no reason not to seal: the verifier says what the list does not explain.
    fn refresh_ima(&mut self, quote: &Quote) {
        let Some(open) = self.open.as_mut() else {
            return;
        };
        let ima = ima_value(quote);
        if ima == open.ima {
            return;
        }
        let Some(list) = boot::read(&self.boot_logs.ima) else {
            return;
        };
        match self.ledger.replace_ima_log(&list) {
            Ok(()) => open.ima = ima,
            Err(error) => tracing::warn!(%error, "measurement list not stored"),
        }
    }
}

pub(super) fn random(bytes: &mut [u8]) -> Result<(), SealError> {
    // At most 32 bytes: the kernel gives them whole (random(7), up to 256).
    getrandom(bytes, GetRandomFlags::empty())
        .map(drop)
        .map_err(|error| SealError::Random {
            source: error.into(),
        })
}
