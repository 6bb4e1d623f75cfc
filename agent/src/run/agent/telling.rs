//! What is told: entries of the evidence log, flow records, alerts. An entry that finds the disk
//! full waits; one that the disk refuses is counted, and enforcement goes on without it.

use super::Agent;
use crate::clock;
use crate::flow::{FlowEvent, Names, ProcessInfo};
use crate::grant::GrantError;
use crate::run::entries::{self, Moment};
use crate::run::held::Outcome;
use crate::run::report;
use merestone_abi::{Event, EventKind};
use merestone_evidence::{Body, Digest};
use std::time::{Duration, Instant};

/// How often groups are read and silent turns are looked for.
const TURNS: Duration = Duration::from_secs(1);

impl Agent {
    /// Appends to the evidence log. Where the disk is full it waits; a disk that
    /// refuses otherwise is told and counted. Enforcement goes on without it.
    pub(in crate::run) fn log(&mut self, body: Body) {
        self.append(body);
    }

    /// The same: its time, its index, its hash; none where the disk refuses.
    pub(in crate::run) fn append(&mut self, body: Body) -> Option<(u64, u64, Digest)> {
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

    pub(super) fn log_boundary(&mut self, error: Option<String>) {
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
    pub(super) fn log_all(&mut self, bodies: Result<Vec<Body>, GrantError>) {
        match bodies {
            Ok(bodies) => bodies.into_iter().for_each(|body| self.log(body)),
            Err(error) => tracing::error!(%error, "cannot look after the grants"),
        }
    }

    pub(super) fn tell(&mut self, event: &Event, process: ProcessInfo, count: u64) {
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

    /// Tells of what guarded servers answered. The silent ones are looked for
    /// once a second.
    pub(super) fn follow_turns(&mut self) {
        if !self.turns.enabled() {
            return;
        }
        self.take_ended();
        let ledger = &self.parts.ledger;
        let is_issued = |id: &[u8; 16]| ledger.has_receipt(id).unwrap_or(false);
        self.turns.await_receipts(clock::boot_ns(), is_issued);
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

    pub(in crate::run) fn read_groups(&mut self, keep: bool) {
        if let Err(error) = self.turns.read(&self.parts.kernel, keep) {
            tracing::error!(%error, "cannot read what the groups sent");
        }
    }

    /// The last of them, whatever they may wait for.
    pub(super) fn tell_last_turns(&mut self) {
        // It finds the streams that were cut off since the last look.
        if let Err(error) = self.parts.kernel.open_turns() {
            tracing::error!(%error, "cannot read the open turns");
        }
        self.take_ended();
        self.turns.await_no_receipts();
        self.tell_turns(None);
    }

    fn take_ended(&mut self) {
        match self.parts.kernel.ended_turns() {
            Ok(ended) => self.turns.take(ended),
            Err(error) => tracing::error!(%error, "cannot read the ended turns"),
        }
    }

    fn tell_turns(&mut self, open: Option<&[merestone_abi::Turn]>) {
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
}
