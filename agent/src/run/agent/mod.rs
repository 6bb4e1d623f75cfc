//! The one loop: kernel events in, flow records and log entries out, an epoch
//! sealed when it is due, questions answered in between.
//!
//! It owns everything that changes. Nothing in it decides about a packet, and
//! none of its waits is a wait for the GPU driver or the TPM.

mod answers;
mod sealing;
mod telling;

use super::attest;
use super::attribute::Attributor;
use super::canary;
use super::entries;
use super::exact::Exact;
use super::held::Held;
use super::jsonl::Jsonl;
use super::pods::{self, Pods};
use super::records::Issuing;
use super::turns::Turns;
use crate::api::Reply;
use crate::bpf::{EventStream, Kernel};
use crate::canary::Canary;
use crate::clock;
use crate::config::Config;
use crate::flow::{Fold, Store};
use crate::gpu;
use crate::grant::Grants;
use crate::landmark;
use crate::ledger::Ledger;
use crate::policy::{self, Compiled};
use crate::seal::{self, EpochSealed, SealError, Sealer};
use crate::serve::Call;
use crate::tamper::Watch;
use anyhow::{Context as _, Result};
use merestone_abi::{Event, EventKind, GroupId};
use merestone_evidence::{Body, Cause, Digest};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

/// How often windows are closed and deadlines looked at.
const TICK: Duration = Duration::from_millis(100);
/// How often empty groups are let go and devices are looked for.
const ROUND: Duration = Duration::from_secs(5);
/// How often all processes' open files are looked through for a GPU.
const SCAN: Duration = Duration::from_secs(60);

/// What the loop is made of.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) boundary: Compiled,
    pub(super) kernel: Kernel,
    pub(super) sealer: Sealer,
    pub(super) ledger: Arc<Ledger>,
    pub(super) metrics: seal::Metrics,
    pub(super) gpu: gpu::Monitor,
    pub(super) store: Store,
    pub(super) watch: Watch,
    /// What is said of the place; none where nobody is asked.
    pub(super) location: Option<landmark::Place>,
}

/// The agent while it runs.
pub(super) struct Agent {
    pub(super) parts: Parts,
    pub(super) generation: u32,
    pub(super) reload_error: Option<String>,
    pub(super) started_ms: u64,
    pub(super) attributor: Attributor,
    pub(super) jsonl: Jsonl,
    pub(super) unlogged: u64,
    /// Entries that found the disk full.
    pub(super) held: Held,
    pub(super) exact: Exact,
    /// What made each group guarded, as far as this run has heard.
    pub(super) guards: BTreeMap<GroupId, Event>,
    /// None where it is switched off.
    pub(super) canary: Option<Canary>,
    grants: Grants,
    pub(super) turns: Turns,
    pub(super) pods: Pods,
    pub(super) issuing: Issuing,
    pub(super) asked: attest::Asked,
    fold: Fold,
    lost: BTreeMap<String, u64>,
    gpu_state: String,
    /// Since when entries wait for a quote.
    dirty: Option<Instant>,
    last_epoch: Instant,
    last_round: Instant,
    last_scan: Instant,
    last_turns: Instant,
    sealing: Option<oneshot::Receiver<Result<EpochSealed, SealError>>>,
    waiting: Vec<oneshot::Sender<Reply>>,
    seal_again: Option<Cause>,
}

impl Agent {
    /// Starts the session: the first thing that the TPM signs says what is
    /// loaded, under which boundary.
    pub(super) async fn begin(mut parts: Parts, pods: Pods, root: PathBuf) -> Result<Self> {
        let jsonl = Jsonl::open(parts.config.events.jsonl.as_deref())
            .context("cannot open the event file, [events] jsonl")?;
        let now = Instant::now();
        let generation = parts.kernel.settings()?.generation;
        let signers = policy::Sources::of(&parts.config)?.signers;
        let (grants, found) = Grants::open(&parts.config.state_dir, signers, &mut parts.kernel)?;
        let exact = Exact::begin(&parts.kernel)?;
        let turns = Turns::new(parts.config.records.clone());
        let mut agent = Self {
            exact,
            parts,
            grants,
            turns,
            pods,
            issuing: Issuing::default(),
            asked: attest::Asked::default(),
            generation,
            reload_error: None,
            started_ms: clock::now_ms(),
            attributor: Attributor::new(root),
            jsonl,
            unlogged: 0,
            held: Held::default(),
            guards: BTreeMap::new(),
            canary: None,
            fold: Fold::default(),
            lost: BTreeMap::new(),
            gpu_state: String::new(),
            dirty: None,
            last_epoch: now,
            last_round: now,
            last_scan: now,
            last_turns: now,
            sealing: None,
            waiting: Vec::new(),
            seal_again: None,
        };
        agent.start_session().await?;
        agent.log(Body::AgentStart {
            version: env!("CARGO_PKG_VERSION").to_owned(),
        });
        agent.begin_watch();
        agent.log_boundary(None);
        agent.log_pods();
        agent.log_all(Ok(found));
        Ok(agent)
    }

    /// Serves until `stop` says why to end.
    pub(super) async fn serve(
        &mut self,
        mut events: EventStream,
        mut asked: mpsc::Receiver<Call>,
        hangup: &mut Signal,
        stop: impl Future<Output = &'static str>,
    ) -> Result<()> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Ok(event) => self.take(event),
                    Err(error) => return Err(error).context("the kernel's events cannot be read"),
                },
                Some(call) = asked.recv() => self.answer(call),
                sealed = sealing::ended(&mut self.sealing) => self.sealed(sealed),
                woken = canary::wake(&mut self.canary) => self.canary_woken(woken),
                answer = pods::heard(&mut self.pods) => self.pods_heard(answer),
                _ = hangup.recv() => {
                    self.reload();
                    if let Err(error) = self.jsonl.reopen() {
                        tracing::error!(%error, "cannot reopen the event file");
                    }
                }
                _ = tick.tick() => self.tick(),
                cause = &mut stop => return self.end(cause).await,
            }
        }
    }

    fn take(&mut self, event: Event) {
        if event.kind == EventKind::GRANT {
            let told = self.grants.round(&mut self.parts.kernel);
            self.log_all(told);
        }
        if event.kind == EventKind::GUARD {
            self.guards.insert(event.group, event);
        }
        if let Err(error) = self.parts.kernel.follow(&event) {
            tracing::error!(%error, "cannot take a new group's members in");
        }
        if event.kind == EventKind::GUARD {
            self.look_for_pod(event.group);
        }
        // Looked at even when it is folded away: a process may end meanwhile.
        let process = tokio::task::block_in_place(|| self.attributor.process(&event));
        let canary = self.canary.as_mut();
        if canary.is_some_and(|canary| canary.saw(&event)) {
            return self.tell_canary(&event, process);
        }
        for (event, count) in self.fold.push(event) {
            self.tell(&event, process.clone(), count);
        }
    }

    fn tick(&mut self) {
        let ledger = &self.parts.ledger;
        if self.held.retry(|entry| ledger.append(entry)) > 0 {
            self.dirty.get_or_insert_with(Instant::now);
        }
        self.watch();
        self.follow_turns();
        let now_ns = clock::boot_ns();
        for (event, count) in self.fold.tick(now_ns) {
            let process = self.attributor.process(&event);
            self.tell(&event, process, count);
        }
        if self.last_round.elapsed() >= ROUND {
            self.last_round = Instant::now();
            self.round(now_ns);
        }
        let evidence = &self.parts.config.evidence;
        if self
            .dirty
            .is_some_and(|since| since.elapsed() >= evidence.epoch)
        {
            self.close_epoch(Cause::Work);
        } else if self.last_epoch.elapsed() >= evidence.heartbeat {
            self.close_epoch(Cause::Heartbeat);
        }
    }

    fn round(&mut self, now_ns: u64) {
        // Fed by this loop alone: a wedged driver must not look like a dead agent.
        sd_notify::notify(&[sd_notify::NotifyState::Watchdog]).ok();
        self.attributor.forget(now_ns);
        attest::follow(self);
        match self.parts.kernel.reap(Instant::now()) {
            Ok(released) => {
                for group in released {
                    self.guards.remove(&group);
                    self.log(Body::GuardStop {
                        group,
                        cause: "empty".to_owned(),
                    });
                }
            }
            Err(error) => tracing::error!(%error, "cannot look after the guarded groups"),
        }
        let before = Turns::forget_before(now_ns);
        if let Err(error) = self.parts.kernel.forget_turns(before) {
            tracing::error!(%error, "cannot forget silent connections");
        }
        let told = self.grants.round(&mut self.parts.kernel);
        self.log_all(told);
        if let Err(error) = self.parts.kernel.expire_names() {
            tracing::error!(%error, "cannot look after the names");
        }
        if let Err(error) = self.parts.kernel.refresh_devices() {
            tracing::error!(%error, "cannot look for new GPU devices");
        }
        if self.last_scan.elapsed() >= SCAN {
            self.last_scan = Instant::now();
            self.scan();
        }
        let state = self.parts.gpu.latest().state.name();
        if state != self.gpu_state {
            state.clone_into(&mut self.gpu_state);
            let body = entries::from_gpu(&self.parts.gpu.latest());
            self.log(body);
        }
    }

    /// Guards who holds a GPU without having opened it where the kernel could
    /// see: an open file that was handed over, a driver loaded meanwhile.
    fn scan(&mut self) {
        let found = tokio::task::block_in_place(|| self.parts.kernel.scan());
        match found {
            Ok(found) => found.into_iter().for_each(|event| self.take(event)),
            Err(error) => tracing::error!(%error, "cannot look for processes that hold a GPU"),
        }
    }

    /// The digest of the eBPF object that is loaded.
    pub(super) fn object_digest() -> Digest {
        Digest(crate::bpf::object_sha256().unwrap_or_default())
    }
}
