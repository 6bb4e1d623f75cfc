//! From turns that the kernel saw to entries of the evidence log (grade R1).
//!
//! A turn is told once it is over: at the next request, at the connection's
//! end, or when nothing more came for a while. One that goes on after all is
//! told again, with the same id, as an amendment: bytes are never lost for
//! having come late. Requests for health and metrics are counted and left out.
//! It guesses nothing: what is not HTTP/1 in the clear is told by connection,
//! and says so.

use super::entries;
use crate::api::RecordsInfo;
use crate::bpf::{Kernel, KernelError};
use crate::clock;
use crate::config;
use merestone_abi::{Form, GroupCount, GroupId, Turn, TurnState};
use merestone_evidence::{End, Grade, GroupEgress, Inference, Process, sha256};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Readings of the groups' counters that are kept, one a second.
const READINGS: usize = 900;
/// Told turns that may still go on, remembered at most.
const MOST_TOLD: usize = 65_536;
/// Connections silent for longer are followed no more.
const FORGET: Duration = Duration::from_secs(3600);

/// Counters of every group at one moment.
#[derive(Debug)]
struct Reading {
    boot_ns: u64,
    ms: u64,
    groups: BTreeMap<GroupId, GroupCount>,
}

/// What is known of turns.
#[derive(Debug)]
pub(super) struct Turns {
    config: config::Records,
    boot_id: String,
    readings: VecDeque<Reading>,
    /// A later one than these.
    latest: Option<Reading>,
    /// Bytes each way of those told while they were open, by cookie and number.
    told: BTreeMap<(u64, u32), u64>,
    observed: u64,
    amended: u64,
    left_out: u64,
    open: u64,
}

/// What of a turn does not come from the kernel's programs.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) process: Option<Process>,
    pub(super) peer_inside: bool,
    pub(super) gpus: Vec<String>,
    /// What to add to boot time for the wall clock, in milliseconds.
    pub(super) boot_ms: u64,
}

impl Turns {
    pub(super) fn new(config: config::Records) -> Self {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Self {
            config,
            boot_id: boot_id.unwrap_or_default().trim().to_owned(),
            readings: VecDeque::new(),
            latest: None,
            told: BTreeMap::new(),
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

    /// Those to tell now: `ended`, and of the open ones those that are silent.
    pub(super) fn due(
        &mut self,
        ended: Vec<Turn>,
        open: Option<&[Turn]>,
        now_ns: u64,
    ) -> Vec<(Turn, End)> {
        let mut due = Vec::new();
        for turn in ended {
            let bytes = turn.request_bytes + turn.response_bytes;
            // Told while it was silent, and nothing came since.
            if self.told.remove(&(turn.cookie, turn.number)) != Some(bytes) {
                due.push((turn, end(turn.state)));
            }
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
            let bytes = turn.request_bytes + turn.response_bytes;
            let key = (turn.cookie, turn.number);
            if self.told.get(&key) == Some(&bytes) {
                continue;
            }
            if self.told.len() >= MOST_TOLD {
                self.told.pop_first();
            }
            due.push((*turn, End::Idle));
        }
        due
    }

    /// The entry of a turn; none where its path is left out.
    pub(super) fn entry(&mut self, turn: &Turn, end: End, facts: Facts) -> Option<Inference> {
        let line = request_line(turn);
        if let Some((_, path)) = &line
            && self.config.leave_out.iter().any(|left| left == path)
        {
            self.left_out += 1;
            return None;
        }
        let bytes = turn.request_bytes + turn.response_bytes;
        let key = (turn.cookie, turn.number);
        let before = if end == End::Idle {
            self.told.insert(key, bytes)
        } else {
            None
        };
        let amends = before.is_some();
        if amends {
            self.amended += 1;
        } else {
            self.observed += 1;
        }
        let ms = |ns: u64| facts.boot_ms.saturating_add(ns / 1_000_000);
        let last = turn.last_ns.max(turn.request_ns);
        let (method, path) = line.unzip();
        Some(Inference {
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
            end,
            gpus: facts.gpus,
            egress: self.egress(turn.group, turn.started_ns),
            amends,
            binding: None,
        })
    }

    /// Unique on this host: the boot, the socket, the turn on it.
    fn id(&self, turn: &Turn) -> [u8; 16] {
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
    fn egress(&self, group: GroupId, started_ns: u64) -> Option<GroupEgress> {
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

    /// Before when a connection must have fallen silent to be forgotten.
    pub(super) fn forget_before(now_ns: u64) -> u64 {
        now_ns.saturating_sub(u64::try_from(FORGET.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn info(&self) -> RecordsInfo {
        RecordsInfo {
            enabled: self.config.enabled,
            observed: self.observed,
            bound: 0,
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

const fn form(form: Form) -> &'static str {
    match form {
        Form::HTTP1 => "http/1",
        Form::HTTP2 => "http/2",
        Form::TLS => "tls",
        Form::SWITCHED => "upgraded",
        _ => "other",
    }
}

/// Method and path of an HTTP/1 request (RFC 9112 §3). The query is left out:
/// it can hold what was asked. A path that is cut ends in `…`.
fn request_line(turn: &Turn) -> Option<(String, String)> {
    if turn.form != Form::HTTP1 && turn.form != Form::SWITCHED {
        return None;
    }
    let head = turn.head.get(..usize::from(turn.head_bytes))?;
    let mut words = head.split(|byte| matches!(byte, b' ' | b'\r' | b'\n'));
    let method = words.next()?;
    let target = words.next()?;
    // A line that goes on beyond what is kept of it.
    let is_cut = words.next().is_none() && !target.contains(&b'?');
    let path = target.split(|byte| *byte == b'?').next()?;
    if method.is_empty()
        || !method.iter().all(u8::is_ascii_uppercase)
        || path.is_empty()
        || !path.iter().all(u8::is_ascii_graphic)
    {
        return None;
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let more = if is_cut { "…" } else { "" };
    Some((text(method), text(path) + more))
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

/// The process of an entry, where it is known.
pub(super) fn process(info: &crate::flow::ProcessInfo) -> Option<Process> {
    entries::process(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(head: &[u8]) -> Turn {
        let mut bytes = [0; merestone_abi::TURN_HEAD];
        bytes[..head.len()].copy_from_slice(head);
        Turn {
            started_ns: 5_000_000_000,
            request_ns: 5_000_000_000,
            answered_ns: 6_000_000_000,
            last_ns: 7_000_000_000,
            request_bytes: 100,
            response_bytes: 900,
            cookie: 1,
            group: 7,
            peer: [0; 16],
            owner: 0,
            number: 0,
            peer_port: 40_000,
            local_port: 8000,
            form: Form::HTTP1,
            state: TurnState::OPEN,
            head_bytes: u8::try_from(head.len()).unwrap(),
            half_closed: 0,
            head: bytes,
        }
    }

    fn turns() -> Turns {
        Turns::new(config::Records {
            enabled: true,
            idle: Duration::from_secs(2),
            leave_out: vec!["/health".to_owned()],
            socket: std::path::PathBuf::new(),
        })
    }

    fn facts() -> Facts {
        Facts {
            process: None,
            peer_inside: true,
            gpus: Vec::new(),
            boot_ms: 1_000_000,
        }
    }

    #[test]
    fn a_request_line_gives_method_and_path_and_never_the_query() {
        for (head, want) in [
            (
                &b"POST /v1/chat/completions?user=jane HTTP/1.1\r\nHost:"[..],
                Some(("POST", "/v1/chat/completions")),
            ),
            (b"GET /health HTTP/1.0\r\n", Some(("GET", "/health"))),
            (b"GET /v1/a-long-na", Some(("GET", "/v1/a-long-na…"))),
            (b"GET ", None),
            (b"G\xc3\xa9T / HTTP/1.1", None),
            (b"POST /\x1b[2J HTTP/1.1", None),
            (b"", None),
        ] {
            let got = request_line(&turn(head));
            let got = got.as_ref().map(|(method, path)| (&**method, &**path));
            assert_eq!(got, want, "{head:?}");
        }
    }

    #[test]
    fn health_checks_are_counted_and_left_out() {
        let mut turns = turns();
        let health = turn(b"GET /health?verbose HTTP/1.1\r\n");
        assert!(turns.entry(&health, End::Next, facts()).is_none());
        assert_eq!((turns.info().observed, turns.info().left_out), (0, 1));
    }

    #[test]
    fn a_silent_turn_is_told_once_and_again_only_when_it_went_on() {
        let mut turns = turns();
        let open = turn(b"POST /v1/completions HTTP/1.1\r\n");
        assert!(turns.due(vec![], Some(&[open]), 8_000_000_000).is_empty());
        let due = turns.due(vec![], Some(&[open]), 9_500_000_000);
        assert_eq!(due, [(open, End::Idle)]);
        let first = turns.entry(&open, End::Idle, facts()).unwrap();
        assert_eq!((first.started_ms, first.ended_ms), (1_005_000, 1_007_000));
        assert!(turns.due(vec![], Some(&[open]), 10_000_000_000).is_empty());
        let mut more = open;
        more.response_bytes += 1;
        let due = turns.due(vec![], Some(&[more]), 10_000_000_000);
        assert_eq!(due.len(), 1);
        let second = turns.entry(&more, End::Idle, facts()).unwrap();
        assert!(second.amends && second.id == first.id);
        more.state = TurnState::NEXT;
        assert!(turns.due(vec![more], Some(&[]), 11_000_000_000).is_empty());
    }

    #[test]
    fn what_the_group_sent_is_taken_from_before_the_request_until_now() {
        let mut turns = turns();
        let reading = |boot_ns, denied| Reading {
            boot_ns,
            ms: boot_ns / 1_000_000,
            groups: BTreeMap::from([(
                7,
                GroupCount {
                    denied,
                    ..GroupCount::default()
                },
            )]),
        };
        turns
            .readings
            .extend([reading(4_900_000_000, 3), reading(8_000_000_000, 5)]);
        let egress = turns.egress(7, 5_000_000_000).unwrap();
        assert_eq!(
            (egress.denied, egress.from_ms, egress.to_ms),
            (2, 4900, 8000)
        );
        assert!(turns.egress(7, 4_000_000_000).is_none(), "not known");
    }
}
