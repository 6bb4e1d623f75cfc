//! The one loop: kernel events in, flow records and log entries out, an epoch
//! sealed when it is due, questions answered in between.
//!
//! It owns everything that changes. Nothing in it decides about a packet, and
//! none of its waits is a wait for the GPU driver or the TPM.

use super::attest;
use super::attribute::Attributor;
use super::canary;
use super::entries::{self, Moment};
use super::exact::Exact;
use super::held::{Held, Outcome};
use super::jsonl::Jsonl;
use super::pods::{self, Pods};
use super::records::Issuing;
use super::report;
use super::turns::Turns;
use crate::api::{Reply, Request};
use crate::bpf::{EventStream, Kernel};
use crate::canary::Canary;
use crate::clock;
use crate::config::Config;
use crate::flow::{FlowEvent, Fold, Names, ProcessInfo, Store};
use crate::gpu;
use crate::grant::{GrantError, Grants};
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
/// How often groups are read and silent turns are looked for.
const TURNS: Duration = Duration::from_secs(1);
/// How long the last quote may take when the agent stops.
const LAST_QUOTE: Duration = Duration::from_secs(20);

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

    async fn start_session(&mut self) -> Result<()> {
        let inputs = report::session_inputs(self);
        let sealed = self.parts.sealer.start_session(inputs).await?;
        if sealed.recovered != seal::Recovered::default() {
            tracing::warn!(recovered = ?sealed.recovered, "the last session did not end in order");
        }
        tracing::info!(session = %hex::encode(sealed.session.0), "session sealed by the TPM");
        self.last_epoch = Instant::now();
        Ok(())
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
                sealed = sealed(&mut self.sealing) => self.sealed(sealed),
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

    /// Appends to the evidence log. Where the disk is full it waits; a disk that
    /// refuses otherwise is told and counted. Enforcement goes on without it.
    pub(super) fn log(&mut self, body: Body) {
        self.append(body);
    }

    /// The same: its time, its index, its hash; none where the disk refuses.
    pub(super) fn append(&mut self, body: Body) -> Option<(u64, u64, Digest)> {
        let moment = Moment {
            time_ms: clock::now_ms(),
            boot_ns: clock::boot_ns(),
        };
        let ledger = &self.parts.ledger;
        let entry = entries::entry(moment, body);
        match self.held.take(entry, |entry| ledger.append_hashed(entry)) {
            Outcome::Written((index, hash)) => {
                self.dirty.get_or_insert_with(Instant::now);
                Some((moment.time_ms, index, hash))
            }
            Outcome::Held => None,
            Outcome::Refused(error) => {
                if self.unlogged == 0 {
                    tracing::error!(%error, "the evidence log refuses entries");
                }
                self.unlogged += 1;
                None
            }
        }
    }

    fn log_boundary(&mut self, error: Option<String>) {
        let boundary = report::boundary(&self.parts.boundary);
        let body = Body::Boundary {
            name: boundary.name,
            sha256: boundary.sha256,
            generation: self.generation,
            accepted: error.is_none(),
            error: error.as_deref().map(report::cut),
            mode: boundary.mode,
            detail: self.parts.boundary.detail(),
        };
        self.log(body);
    }

    /// What became of grants.
    fn log_all(&mut self, bodies: Result<Vec<Body>, GrantError>) {
        match bodies {
            Ok(bodies) => bodies.into_iter().for_each(|body| self.log(body)),
            Err(error) => tracing::error!(%error, "cannot look after the grants"),
        }
    }

    fn grant(&mut self, message: &str) -> Reply {
        let message = hex::decode(message).unwrap_or_default();
        let (outcome, body) = self.grants.apply(&mut self.parts.kernel, &message);
        self.log(body);
        reply_to(outcome)
    }

    fn revoke(&mut self, name: &str) -> Reply {
        let outcome = self.grants.revoke(&mut self.parts.kernel, name);
        reply_to(outcome.map(|body| {
            self.log(body);
            format!("grant {name:?} is revoked")
        }))
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

    fn tell(&mut self, event: &Event, process: ProcessInfo, count: u64) {
        if event.kind == EventKind::TAMPER {
            return self.tell_tamper(event, process, count);
        }
        let name = self.parts.kernel.name_of(event);
        if let Some(body) = entries::from_event(event, &process, name.as_deref(), count) {
            self.log(body);
        }
        let names = Names {
            time: report::rfc3339(report::event_ms(event)),
            mode: report::mode_word(&self.parts.boundary).to_owned(),
            boundary: report::boundary_info(&self.parts.boundary),
            gpu: report::gpus_of(self, event),
            name,
            process,
        };
        let event = FlowEvent::new(event, names, count);
        if event.is_denied() {
            tracing::warn!(target: "merestone::alert", "{}", event.line());
        }
        self.jsonl.write(&event);
        self.parts.store.push(event);
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

    /// Tells of what guarded servers answered. The silent ones are looked for
    /// once a second.
    fn follow_turns(&mut self) {
        if !self.turns.enabled() {
            return;
        }
        if self.last_turns.elapsed() < TURNS {
            return self.tell_turns(None);
        }
        self.last_turns = Instant::now();
        self.read_groups(true);
        let kernel = &self.parts.kernel;
        let group_of = |pid| kernel.task(pid).map(|task| task.group);
        self.turns.gpus.note(&self.parts.gpu.latest(), group_of);
        match self.parts.kernel.open_turns() {
            Ok(open) => self.tell_turns(Some(&open)),
            Err(error) => tracing::error!(%error, "cannot read the open turns"),
        }
    }

    pub(super) fn read_groups(&mut self, keep: bool) {
        if let Err(error) = self.turns.read(&self.parts.kernel, keep) {
            tracing::error!(%error, "cannot read what the groups sent");
        }
    }

    fn tell_turns(&mut self, open: Option<&[merestone_abi::Turn]>) {
        match self.parts.kernel.ended_turns() {
            Ok(ended) => self.turns.take(ended),
            Err(error) => {
                tracing::error!(%error, "cannot read the ended turns");
                return;
            }
        }
        let due = self.turns.due(open, clock::boot_ns());
        if !due.is_empty() {
            self.read_groups(false);
        }
        for mut due in due {
            // An agent before this one may have told it already.
            if !due.amends && self.turns.is_older(&due.turn) {
                let id = self.turns.id(&due.turn);
                due.amends = self.parts.ledger.has_receipt(&id).unwrap_or(false);
            }
            let facts = report::turn_facts(self, &due.turn);
            if let Some(record) = self.turns.entry(&due, facts) {
                self.record(record, None);
            }
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

    /// Hands the epoch to the sealing thread; one at a time.
    fn close_epoch(&mut self, cause: Cause) {
        if self.sealing.is_some() {
            self.seal_again = self.seal_again.or(Some(cause));
            return;
        }
        self.log_losses();
        if self.parts.sealer.status().session.is_none()
            && let Some(canary) = &mut self.canary
        {
            canary.begin_session();
        }
        if !self.parts.gpu.latest().devices.is_empty() {
            let body = entries::from_gpu(&self.parts.gpu.latest());
            self.log(body);
        }
        let inputs = report::epoch_inputs(self);
        let sealer = self.parts.sealer.clone();
        // A chain register that somebody else extended, or a TPM that was reset,
        // ended the session: a new one begins from what is now, and both show it.
        let session = sealer.status().session.is_none();
        let session = session.then(|| report::session_inputs(self));
        let (to, answer) = oneshot::channel();
        tokio::spawn(async move {
            let sealed = async {
                if let Some(session) = session {
                    sealer.start_session(session).await?;
                }
                sealer.close_epoch(inputs, cause).await
            };
            // Nobody listens any more only when the agent ends.
            to.send(sealed.await).ok();
        });
        self.sealing = Some(answer);
        self.dirty = None;
        self.last_epoch = Instant::now();
    }

    fn sealed(&mut self, sealed: Result<EpochSealed, SealError>) {
        self.sealing = None;
        let reply = match &sealed {
            Ok(epoch) => {
                tracing::debug!(epoch = epoch.sequence, size = epoch.size, "epoch sealed");
                Reply::Done {
                    detail: format!("epoch {} sealed, {} entries", epoch.sequence, epoch.size),
                }
            }
            Err(error) => {
                tracing::error!(%error, "the epoch is not sealed; its entries are kept");
                self.dirty.get_or_insert_with(Instant::now);
                Reply::Refused {
                    error: error.to_string(),
                    hint: Some("see merestone status".to_owned()),
                }
            }
        };
        if self.seal_again.take().is_some() {
            self.close_epoch(Cause::Work);
        } else {
            for waiting in self.waiting.drain(..) {
                waiting.send(reply.clone()).ok();
            }
        }
    }

    /// What was lost since the last epoch is an entry, too.
    fn log_losses(&mut self) {
        self.exact.read(&self.parts.kernel);
        for (reason, total) in report::losses(self) {
            let before = self.lost.insert(reason.clone(), total).unwrap_or(0);
            if total > before {
                self.log(Body::Lost {
                    reason,
                    count: total - before,
                });
            }
        }
    }

    fn answer(&mut self, call: Call) {
        match call {
            Call::Control { request, reply } => self.control(&request, reply),
            Call::Scrape { reply } => {
                self.exact.read(&self.parts.kernel);
                reply.send(report::exposition(self)).ok();
            }
            Call::Guarded { peer, reply } => {
                reply.send(self.is_guarded(&peer)).ok();
            }
            Call::Record { peer, post, reply } => {
                // The client may have hung up; its record stands.
                reply.send(self.bind(&peer, *post)).ok();
            }
            Call::Ready { reply } => {
                let quote_error = self.parts.sealer.status().error;
                let ready = match (report::enforcing(self), quote_error) {
                    (true, None) => Ok(()),
                    (false, _) => Err("not enforcing".to_owned()),
                    (true, Some(error)) => Err(error),
                };
                reply.send(ready).ok();
            }
        }
    }

    fn control(&mut self, request: &Request, reply: oneshot::Sender<Reply>) {
        let answer = match request {
            Request::Status {} => {
                self.exact.read(&self.parts.kernel);
                Reply::Status(Box::new(report::status(self)))
            }
            Request::Guarded {} => match report::guarded(self) {
                Ok(groups) => Reply::Guarded { groups },
                Err(error) => Reply::Refused {
                    error: format!("the guarded groups cannot be read: {error}"),
                    hint: Some("see the agent's log".to_owned()),
                },
            },
            Request::Names {} => match super::names::learned(self) {
                Ok(names) => Reply::Names { names },
                Err(error) => Reply::Refused {
                    error: format!("what is learned of names cannot be read: {error}"),
                    hint: Some("see the agent's log".to_owned()),
                },
            },
            Request::Pods {} => Reply::Pods {
                pods: self.pods.known().to_vec(),
            },
            Request::Reload {} => self.reload(),
            Request::OpenGlass { .. }
            | Request::OpenGlassUnsigned { .. }
            | Request::CloseGlass {} => self.break_glass(request),
            Request::GrantApply { message } => self.grant(message),
            Request::GrantList {} => Reply::Grants {
                grants: self.grants.list(),
            },
            Request::GrantRevoke { name } => self.revoke(name),
            Request::Drill {} => return self.drill(reply),
            Request::Seal {} => {
                self.waiting.push(reply);
                self.close_epoch(Cause::Work);
                return;
            }
            Request::Flows { .. } => Reply::Refused {
                error: "flows are read from the store".to_owned(),
                hint: None,
            },
        };
        // The client may have hung up.
        reply.send(answer).ok();
    }

    /// Reads the boundary again; the old one stays where the new one is refused.
    fn reload(&mut self) -> Reply {
        sd_notify::notify(&[sd_notify::NotifyState::Reloading]).ok();
        let reply = match self.try_reload() {
            Ok(()) => {
                self.reload_error = None;
                self.log_boundary(None);
                self.log_pods();
                tracing::info!(generation = self.generation, "boundary reloaded");
                Reply::Done {
                    detail: format!(
                        "boundary {} is in force, generation {}",
                        self.parts.boundary.name, self.generation
                    ),
                }
            }
            Err(error) => {
                let error = error.replace('\n', "; ");
                self.reload_error = Some(error.clone());
                self.log_boundary(Some(error.clone()));
                tracing::error!(%error, "the new boundary is refused, the old one stays");
                Reply::Refused {
                    error,
                    hint: Some(format!(
                        "boundary {} stays in force; mend the file and reload",
                        self.parts.boundary.name
                    )),
                }
            }
        };
        self.close_epoch(Cause::Boundary);
        sd_notify::notify(&[sd_notify::NotifyState::Ready]).ok();
        reply
    }

    fn try_reload(&mut self) -> Result<(), String> {
        let mut boundary =
            super::load_boundary(&self.parts.config).map_err(|faults| faults.to_string())?;
        self.pods.tell(&self.parts.config.kubernetes, &mut boundary);
        let tables = super::tables(&boundary);
        let installed = tokio::task::block_in_place(|| self.parts.kernel.install(&tables));
        self.generation = installed.map_err(|error| error.to_string())?;
        self.parts.boundary = boundary;
        self.boundary_is_in_force();
        Ok(())
    }

    /// The last epoch; the programs stay.
    async fn end(&mut self, cause: &'static str) -> Result<()> {
        sd_notify::notify(&[sd_notify::NotifyState::Stopping]).ok();
        tracing::info!(cause, "stopping; guarded groups stay held");
        for (event, count) in self.fold.finish() {
            let process = self.attributor.process(&event);
            self.tell(&event, process, count);
        }
        self.end_canary();
        self.log(Body::AgentStop {
            cause: cause.to_owned(),
        });
        self.parts.watch.end();
        self.tell_turns(None);
        self.log_losses();
        if let Some(sealing) = self.sealing.take() {
            // What it gives was told already or is told by the next session.
            tokio::time::timeout(LAST_QUOTE, sealing).await.ok();
        }
        let inputs = report::epoch_inputs(self);
        let last = self.parts.sealer.close_epoch(inputs, Cause::Shutdown);
        match tokio::time::timeout(LAST_QUOTE, last).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                Err(error).context("the last epoch is not sealed; the next start seals it")
            }
            Err(_late) => {
                anyhow::bail!("the TPM did not seal the last epoch in time; the next start does")
            }
        }
    }

    /// The digest of the eBPF object that is loaded.
    pub(super) fn object_digest() -> Digest {
        Digest(crate::bpf::object_sha256().unwrap_or_default())
    }
}

fn reply_to(outcome: Result<String, GrantError>) -> Reply {
    match outcome {
        Ok(detail) => Reply::Done { detail },
        Err(error) => Reply::Refused {
            error: error.to_string(),
            hint: None,
        },
    }
}

/// The running seal's end; never, where none runs.
async fn sealed(
    sealing: &mut Option<oneshot::Receiver<Result<EpochSealed, SealError>>>,
) -> Result<EpochSealed, SealError> {
    match sealing {
        Some(answer) => answer.await.unwrap_or(Err(SealError::Gone)),
        None => std::future::pending().await,
    }
}
