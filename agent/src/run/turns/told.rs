//! What an entry says of a turn, and which turns have none.

use super::request_line::{RequestLine, request_line};
use super::{Due, MOST_TOLD, Reading, Turns, key};
use crate::gateway::RECEIPTS;
use merestone_abi::{Form, GroupId, Turn};
use merestone_evidence::{End, Grade, GroupEgress, Inference, Process, sha256};

/// Bytes each way of a receipt's fetching, at most; the answer is about 1.5 KiB.
pub(super) const MOST_FETCH: u64 = 8 << 10;

/// What of a turn does not come from the kernel's programs.
#[derive(Debug)]
pub(in crate::run) struct Facts {
    pub(in crate::run) process: Option<Process>,
    pub(in crate::run) peer_inside: bool,
    pub(in crate::run) gpus: Vec<String>,
    /// It asked a gateway for a receipt, and got no more than one.
    pub(in crate::run) fetches_receipt: bool,
    /// What to add to boot time for the wall clock, in milliseconds.
    pub(in crate::run) boot_ms: u64,
}

impl Turns {
    /// The entry of a turn; none where its path is left out.
    pub(in crate::run) fn entry(&mut self, due: &Due, facts: Facts) -> Option<Inference> {
        let Due { turn, end, amends } = due;
        let line = request_line(turn);
        let is_left_out = |path: &String| self.config.leave_out.contains(path);
        let is_no_inference = facts.fetches_receipt || line.1.as_ref().is_some_and(is_left_out);
        let was_left_out = self.unsaid.remove(&key(turn));
        if *end == End::Idle {
            self.note_told(turn);
        }
        if is_no_inference {
            self.left_out += u64::from(!was_left_out);
            if *end == End::Idle {
                self.leave_out(turn);
            }
            return None;
        }
        let amends = *amends && !was_left_out;
        if amends {
            self.amended += 1;
        } else {
            self.observed += 1;
        }
        Some(self.seen(&Due { amends, ..*due }, facts, line))
    }

    /// Remembers that a turn which may go on was left out so far.
    fn leave_out(&mut self, turn: &Turn) {
        if self.unsaid.len() >= MOST_TOLD {
            self.unsaid.pop_first();
        }
        self.unsaid.insert(key(turn));
    }

    /// What the kernel saw of a turn.
    pub(in crate::run) fn facts(&self, due: &Due, facts: Facts) -> Inference {
        self.seen(due, facts, request_line(&due.turn))
    }

    fn seen(&self, due: &Due, facts: Facts, (method, path): RequestLine) -> Inference {
        let Due { turn, end, amends } = due;
        let ms = |ns: u64| facts.boot_ms.saturating_add(ns / 1_000_000);
        let last = turn.last_ns.max(turn.request_ns);
        let interval = (ms(turn.started_ns), ms(last));
        let gpu_use = self.gpus.during(turn.group, &facts.gpus, interval);
        Inference {
            id: self.id(turn),
            grade: Grade::Observed,
            started_ms: ms(turn.started_ns),
            answered_ms: (turn.answered_ns != 0).then(|| ms(turn.answered_ns)),
            ended_ms: ms(last),
            request_bytes: turn.request_bytes,
            response_bytes: turn.response_bytes,
            group: turn.group,
            process: facts.process,
            peer: turn.peer,
            peer_port: turn.peer_port,
            port: turn.local_port,
            peer_inside: facts.peer_inside,
            form: form(turn.form).to_owned(),
            method,
            path,
            end: *end,
            gpus: facts.gpus,
            egress: self.egress(turn.group, turn.started_ns),
            amends: *amends,
            binding: None,
            turn: None,
            onward: None,
            gpu_use,
        }
    }

    /// Unique on this host: the boot, the socket, the turn on it.
    pub(in crate::run) fn id(&self, turn: &Turn) -> [u8; 16] {
        let text = format!(
            "merestone/turn/v1 {} {} {}",
            self.boot_id, turn.cookie, turn.number
        );
        let digest = sha256(text.as_bytes());
        let mut id = [0; 16];
        for (to, from) in id.iter_mut().zip(digest.0) {
            *to = from;
        }
        id
    }

    /// What a group sent from before `started_ns` until the last reading.
    pub(in crate::run) fn egress(&self, group: GroupId, started_ns: u64) -> Option<GroupEgress> {
        let last = self.latest.as_ref().or(self.readings.back())?;
        let first = self
            .readings
            .iter()
            .rev()
            .find(|reading| reading.boot_ns <= started_ns)?;
        let of = |reading: &Reading| reading.groups.get(&group).copied().unwrap_or_default();
        let (before, after) = (of(first), of(last));
        Some(GroupEgress {
            from_ms: first.ms,
            to_ms: last.ms,
            allowed: after.allowed.saturating_sub(before.allowed),
            allowed_bytes: after.allowed_bytes.saturating_sub(before.allowed_bytes),
            denied: after.denied.saturating_sub(before.denied),
            audited: after.audited.saturating_sub(before.audited),
        })
    }
}

const fn form(form: Form) -> &'static str {
    match form {
        Form::HTTP1 => "http/1",
        Form::HTTP2 => "http/2",
        Form::TLS => "tls",
        Form::SWITCHED => "upgraded",
        Form::STREAM => "http/2 stream",
        _ => "other",
    }
}

/// The receipt that a turn asks a gateway for; none where it is anything else, or may be: its
/// path is not whole, or more passed than a receipt needs.
pub(in crate::run) fn receipt_asked(turn: &Turn) -> Option<[u8; 16]> {
    if turn.form != Form::HTTP1 || turn.request_bytes.max(turn.response_bytes) > MOST_FETCH {
        return None;
    }
    let (Some(method), Some(path)) = request_line(turn) else {
        return None;
    };
    let digits = path.strip_prefix(RECEIPTS)?;
    let mut id = [0; 16];
    hex::decode_to_slice(digits, &mut id).ok()?;
    (method == "GET").then_some(id)
}
