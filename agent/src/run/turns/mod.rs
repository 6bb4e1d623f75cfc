//! From turns that the kernel saw to entries of the evidence log (grade R1).
//!
//! A turn is told once it is over: at the next request, at the connection's
//! end, or when nothing more came for a while. One that goes on after all is
//! told again, with the same id, as an amendment: bytes are never lost for
//! having come late. Requests for health and metrics are counted and left out.
//! A record that a process of the group gives of its own answer (grade R2) is
//! joined with the kernel's turn on that connection: the one that began nearest
//! to when the process says it did, of those whose times overlap. It then takes
//! the place of the turn's own entry, or, where that was written already, amends it.
//! What a gateway of the group says that it passed on to its server on loopback is the same
//! exchange once more: the record holds that turn too, whole, and the turn has no entry besides.
//! It guesses nothing: what is neither HTTP/1 nor HTTP/2 in the clear is told by
//! connection, and says so.

mod joining;
mod request_line;
mod told;
mod waiting;

pub(super) use joining::Sought;
#[cfg(fuzzing)]
pub(super) use request_line::request_line;
pub(super) use told::{Facts, receipt_asked};

use super::gpu_use::GpuReadings;
use crate::api::RecordsInfo;
use crate::bpf::{Kernel, KernelError};
use crate::clock;
use crate::config;
use merestone_abi::{Form, GroupCount, GroupId, Turn, TurnState};
use merestone_evidence::End;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Readings of the groups' counters that are kept, one a second.
const READINGS: usize = 900;
/// Told turns that may still go on, remembered at most.
const MOST_TOLD: usize = 65_536;
/// Turns told that a bound record may still be joined with, remembered at most.
const MOST_RECENT: usize = 16_384;
/// How long after a turn's end a bound record may come.
const LATE: Duration = Duration::from_secs(120);
/// Connections silent for longer are followed no more.
const FORGET: Duration = Duration::from_secs(3600);

/// Counters of every group at one moment.
#[derive(Debug)]
struct Reading {
    boot_ns: u64,
    ms: u64,
    groups: BTreeMap<GroupId, GroupCount>,
}

/// A turn: its socket's cookie, its number on it.
type Key = (u64, u32);

const fn key(turn: &Turn) -> Key {
    (turn.cookie, turn.number)
}

const fn bytes(turn: &Turn) -> u64 {
    turn.request_bytes + turn.response_bytes
}

/// A turn to be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Due {
    pub(super) turn: Turn,
    pub(super) end: End,
    /// It was told before.
    pub(super) amends: bool,
}

/// What is known of turns.
#[derive(Debug)]
pub(super) struct Turns {
    config: config::Records,
    boot_id: String,
    readings: VecDeque<Reading>,
    pub(super) gpus: GpuReadings,
    /// A later one than these.
    latest: Option<Reading>,
    /// Bytes each way of those told while they were open, by cookie and number.
    told: BTreeMap<Key, u64>,
    /// Of those, the ones that were left out.
    unsaid: BTreeSet<Key>,
    /// Those that ended and were not told yet.
    ended: Vec<Turn>,
    /// Those of them that asked for a receipt which may still come.
    waiting: Vec<Turn>,
    /// Those that were told after they ended.
    recent: VecDeque<Turn>,
    /// Those that a bound record was joined with.
    bound: BTreeSet<Key>,
    /// Nobody was there to hear of those before.
    since_ns: u64,
    observed: u64,
    amended: u64,
    left_out: u64,
    open: u64,
}

impl Turns {
    pub(super) fn new(config: config::Records) -> Self {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Self {
            config,
            boot_id: boot_id.unwrap_or_default().trim().to_owned(),
            readings: VecDeque::new(),
            gpus: GpuReadings::default(),
            latest: None,
            told: BTreeMap::new(),
            unsaid: BTreeSet::new(),
            ended: Vec::new(),
            waiting: Vec::new(),
            recent: VecDeque::new(),
            bound: BTreeSet::new(),
            since_ns: clock::boot_ns(),
            observed: 0,
            amended: 0,
            left_out: 0,
            open: 0,
        }
    }

    pub(super) const fn enabled(&self) -> bool {
        self.config.enabled
    }

    /// To be called every second, to `keep` what may be asked for later, and
    /// before turns are told.
    pub(super) fn read(&mut self, kernel: &Kernel, keep: bool) -> Result<(), KernelError> {
        let reading = Reading {
            boot_ns: clock::boot_ns(),
            ms: clock::now_ms(),
            groups: kernel.group_counts()?.into_iter().collect(),
        };
        if !keep {
            self.latest = Some(reading);
            return Ok(());
        }
        if self.readings.len() >= READINGS {
            self.readings.pop_front();
        }
        self.readings.push_back(reading);
        self.latest = None;
        Ok(())
    }

    /// Takes up what ended, to be told with the next that is due.
    pub(super) fn take(&mut self, ended: Vec<Turn>) {
        self.ended.extend(ended);
    }

    /// Those to tell now: what ended, and of the open ones those that are silent.
    pub(super) fn due(&mut self, open: Option<&[Turn]>, now_ns: u64) -> Vec<Due> {
        let mut due = Vec::new();
        for turn in std::mem::take(&mut self.ended) {
            let before = self.told.remove(&key(&turn));
            self.remember(turn, now_ns);
            // Told while it was silent, or bound, and nothing came since.
            if before == Some(bytes(&turn)) {
                self.unsaid.remove(&key(&turn));
                continue;
            }
            due.push(Due {
                turn,
                end: end(turn.state),
                amends: before.is_some(),
            });
        }
        let Some(open) = open else {
            return due;
        };
        self.open = 0;
        let idle = u64::try_from(self.config.idle.as_nanos()).unwrap_or(u64::MAX);
        for turn in open {
            let last = turn.last_ns.max(turn.request_ns);
            if turn.answered_ns == 0 || now_ns.saturating_sub(last) < idle {
                self.open += 1;
                continue;
            }
            let before = self.told.get(&key(turn)).copied();
            if before == Some(bytes(turn)) {
                continue;
            }
            due.push(Due {
                turn: *turn,
                end: End::Idle,
                amends: before.is_some(),
            });
        }
        due
    }

    fn remember(&mut self, turn: Turn, now_ns: u64) {
        let late = u64::try_from(LATE.as_nanos()).unwrap_or(u64::MAX);
        let is_past = |turn: &Turn| now_ns.saturating_sub(turn.last_ns.max(turn.request_ns)) > late;
        while self.recent.len() >= MOST_RECENT || self.recent.front().is_some_and(is_past) {
            self.recent.pop_front();
        }
        self.recent.push_back(turn);
    }

    fn note_told(&mut self, turn: &Turn) {
        if self.told.len() >= MOST_TOLD {
            self.told.pop_first();
        }
        self.told.insert(key(turn), bytes(turn));
    }

    /// Whether it may have been told by an agent before this one.
    pub(super) const fn is_older(&self, turn: &Turn) -> bool {
        turn.request_ns < self.since_ns
    }

    /// Before when a connection must have fallen silent to be forgotten.
    pub(super) fn forget_before(now_ns: u64) -> u64 {
        now_ns.saturating_sub(u64::try_from(FORGET.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn info(&self) -> RecordsInfo {
        RecordsInfo {
            enabled: self.config.enabled,
            observed: self.observed,
            bound: 0,
            receipts: 0,
            unreceipted: 0,
            amended: self.amended,
            left_out: self.left_out,
            open: self.open,
        }
    }
}

const fn end(state: TurnState) -> End {
    match state {
        TurnState::NEXT => End::Next,
        TurnState::SERVER_CLOSED => End::Server,
        TurnState::CLIENT_CLOSED => End::Client,
        TurnState::RESET => End::Reset,
        _ => End::Idle,
    }
}

/// Whether a turn is one request with its answer, and no connection of many.
fn is_whole(form: Form) -> bool {
    form == Form::HTTP1 || form == Form::STREAM
}

/// The event by which the process that listens is looked for.
pub(super) fn as_event(turn: &Turn) -> merestone_abi::Event {
    merestone_abi::Event {
        boot_ns: turn.started_ns,
        group: turn.group,
        cookie: turn.cookie,
        tgid: turn.owner,
        kind: merestone_abi::EventKind::FLOW,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
