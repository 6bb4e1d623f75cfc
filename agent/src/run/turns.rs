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

use super::gpu_use::GpuReadings;
use super::request_line::{RequestLine, request_line};
use crate::api::RecordsInfo;
use crate::bpf::{Kernel, KernelError};
use crate::clock;
use crate::config;
use crate::gateway::RECEIPTS;
use merestone_abi::{Form, GroupCount, GroupId, Turn, TurnState};
use merestone_evidence::{End, Grade, GroupEgress, Inference, Process, sha256};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv6Addr;
use std::time::Duration;

/// Readings of the groups' counters that are kept, one a second.
const READINGS: usize = 900;
/// Told turns that may still go on, remembered at most.
const MOST_TOLD: usize = 65_536;
/// Turns told that a bound record may still be joined with, remembered at most.
const MOST_RECENT: usize = 16_384;
/// How long after a turn's end a bound record may come.
const LATE: Duration = Duration::from_secs(120);
/// How far the clocks of the kernel's side and the workload's may differ on one turn.
const SLACK_MS: u64 = 1000;
/// Bytes each way of a receipt's fetching, at most; the answer is about 1.5 KiB.
const MOST_FETCH: u64 = 8 << 10;
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

/// The connection of a record that a process gives, and when it says that it was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sought {
    pub(super) group: GroupId,
    pub(super) peer: [u8; 16],
    pub(super) peer_port: u16,
    pub(super) port: u16,
    pub(super) started_ms: u64,
    pub(super) ended_ms: u64,
    /// What to add to boot time for the wall clock, in milliseconds.
    pub(super) boot_ms: u64,
    /// It is what a gateway passed on. Then more is asked of a turn: it is of HTTP/1, its client
    /// is on loopback, and it began meanwhile.
    pub(super) is_onward: bool,
}

impl Sought {
    /// Whether a turn that began at `started_ms` can be what the gateway passed on.
    fn may_be_onward(&self, turn: &Turn, started_ms: u64) -> bool {
        let address = Ipv6Addr::from(turn.peer).to_canonical();
        turn.form == Form::HTTP1
            && address.is_loopback()
            && started_ms.saturating_add(SLACK_MS) >= self.started_ms
    }
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

/// What of a turn does not come from the kernel's programs.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) process: Option<Process>,
    pub(super) peer_inside: bool,
    pub(super) gpus: Vec<String>,
    /// It asked a gateway for a receipt, and got no more than one.
    pub(super) fetches_receipt: bool,
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
            gpus: GpuReadings::default(),
            latest: None,
            told: BTreeMap::new(),
            unsaid: BTreeSet::new(),
            ended: Vec::new(),
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

    /// The turn that a process of its group tells of, and whether it has an entry already. It is
    /// given once; on a connection that cannot be read, which is one turn, as often as asked.
    pub(super) fn join(&mut self, open: &[Turn], sought: &Sought) -> Option<Due> {
        let ms = |ns: u64| sought.boot_ms.saturating_add(ns / 1_000_000);
        let fits = |turn: &&Turn| {
            let last = ms(turn.last_ns.max(turn.request_ns));
            turn.group == sought.group
                && (turn.peer, turn.peer_port) == (sought.peer, sought.peer_port)
                && turn.local_port == sought.port
                && ms(turn.started_ns) <= sought.ended_ms.saturating_add(SLACK_MS)
                && last.saturating_add(SLACK_MS) >= sought.started_ms
                && !(is_whole(turn.form) && self.bound.contains(&key(turn)))
                && (!sought.is_onward || sought.may_be_onward(turn, ms(turn.started_ns)))
        };
        let turns = self.ended.iter().chain(open).chain(&self.recent);
        let turn = *turns
            .filter(fits)
            .min_by_key(|turn| ms(turn.started_ns).abs_diff(sought.started_ms))?;
        let has_ended = self.ended.iter().any(|one| key(one) == key(&turn));
        let is_recent = self.recent.iter().any(|one| key(one) == key(&turn));
        let is_whole = is_whole(turn.form);
        if self.bound.len() >= MOST_TOLD {
            self.bound.pop_first();
        }
        self.bound.insert(key(&turn));
        // A connection's bound records are inferences of their own, and its own entry is none more.
        let amends = is_whole && (is_recent || self.told.contains_key(&key(&turn)));
        if !is_recent {
            self.note_told(&turn);
        }
        if has_ended && is_whole {
            self.ended.retain(|one| key(one) != key(&turn));
            self.told.remove(&key(&turn));
            self.remember(turn, clock::boot_ns());
        }
        Some(Due {
            turn,
            end: if turn.state == TurnState::OPEN {
                End::Idle
            } else {
                end(turn.state)
            },
            amends,
        })
    }

    /// Whether it may have been told by an agent before this one.
    pub(super) const fn is_older(&self, turn: &Turn) -> bool {
        turn.request_ns < self.since_ns
    }

    /// The entry of a turn; none where its path is left out.
    pub(super) fn entry(&mut self, due: &Due, facts: Facts) -> Option<Inference> {
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
    pub(super) fn facts(&self, due: &Due, facts: Facts) -> Inference {
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
    pub(super) fn id(&self, turn: &Turn) -> [u8; 16] {
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
    pub(super) fn egress(&self, group: GroupId, started_ns: u64) -> Option<GroupEgress> {
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
pub(super) fn receipt_asked(turn: &Turn) -> Option<[u8; 16]> {
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
            socket: None,
        })
    }

    fn facts() -> Facts {
        Facts {
            process: None,
            peer_inside: true,
            gpus: Vec::new(),
            fetches_receipt: false,
            boot_ms: 1_000_000,
        }
    }

    fn ended(mut turn: Turn, state: TurnState) -> Turn {
        turn.state = state;
        turn
    }

    #[test]
    fn health_checks_are_counted_and_left_out() {
        let mut turns = turns();
        let health = turn(b"GET /health?verbose HTTP/1.1\r\n");
        turns.take(vec![ended(health, TurnState::NEXT)]);
        let due = turns.due(None, 8_000_000_000);
        assert!(turns.entry(&due[0], facts()).is_none());
        assert_eq!((turns.info().observed, turns.info().left_out), (0, 1));
    }

    #[test]
    fn a_silent_turn_is_told_once_and_again_only_when_it_went_on() {
        let mut turns = turns();
        let open = turn(b"POST /v1/completions HTTP/1.1\r\n");
        assert!(turns.due(Some(&[open]), 8_000_000_000).is_empty());
        let due = turns.due(Some(&[open]), 9_500_000_000);
        assert_eq!(
            (due[0].turn, due[0].end, due[0].amends),
            (open, End::Idle, false)
        );
        let first = turns.entry(&due[0], facts()).unwrap();
        assert_eq!((first.started_ms, first.ended_ms), (1_005_000, 1_007_000));
        assert!(turns.due(Some(&[open]), 10_000_000_000).is_empty());
        let mut more = open;
        more.response_bytes += 1;
        let due = turns.due(Some(&[more]), 10_000_000_000);
        assert_eq!(due.len(), 1);
        let second = turns.entry(&due[0], facts()).unwrap();
        assert!(second.amends && second.id == first.id);
        turns.take(vec![ended(more, TurnState::NEXT)]);
        assert!(turns.due(Some(&[]), 11_000_000_000).is_empty());
    }

    #[test]
    fn a_silent_turn_that_went_on_and_ended_is_told_as_an_amendment() {
        let mut turns = turns();
        let open = turn(b"POST /v1/completions HTTP/1.1\r\n");
        let due = turns.due(Some(&[open]), 9_500_000_000);
        turns.entry(&due[0], facts()).unwrap();
        let mut more = ended(open, TurnState::SERVER_CLOSED);
        more.response_bytes += 1;
        turns.take(vec![more]);
        let due = turns.due(None, 10_000_000_000);
        assert!(due[0].amends);
    }

    const fn sought(started_ms: u64) -> Sought {
        Sought {
            group: 7,
            peer: [0; 16],
            peer_port: 40_000,
            port: 8000,
            started_ms,
            ended_ms: started_ms + 2000,
            boot_ms: 1_000_000,
            is_onward: false,
        }
    }

    #[test]
    fn a_bound_record_takes_the_place_of_its_turn_or_amends_it() {
        // Before it was told: no entry of its own follows.
        let fresh = turns;
        let mut turns = fresh();
        let one = ended(turn(b"POST /v1/a HTTP/1.1\r\n"), TurnState::NEXT);
        turns.take(vec![one]);
        let joined = turns.join(&[], &sought(1_005_000)).unwrap();
        assert_eq!((joined.end, joined.amends), (End::Next, false));
        assert!(turns.due(None, 8_000_000_000).is_empty());
        assert!(turns.join(&[], &sought(1_005_000)).is_none(), "once");
        // While it is open: told again only when more comes, and then as an amendment.
        let mut turns = fresh();
        let open = turn(b"POST /v1/a HTTP/1.1\r\n");
        assert!(!turns.join(&[open], &sought(1_005_000)).unwrap().amends);
        turns.take(vec![ended(open, TurnState::CLIENT_CLOSED)]);
        assert!(turns.due(None, 8_000_000_000).is_empty());
        // After it was told.
        let mut turns = fresh();
        turns.take(vec![one]);
        let due = turns.due(None, 8_000_000_000);
        turns.entry(&due[0], facts()).unwrap();
        assert!(turns.join(&[], &sought(1_005_000)).unwrap().amends);
    }

    #[test]
    fn of_many_turns_on_a_connection_the_nearest_in_time_is_joined() {
        let mut turns = turns();
        let mut second = turn(b"POST /v1/b HTTP/1.1\r\n");
        second.number = 1;
        second.started_ns += 300_000_000;
        let first = ended(turn(b"POST /v1/a HTTP/1.1\r\n"), TurnState::NEXT);
        turns.take(vec![first]);
        let joined = turns.join(&[second], &sought(1_005_010)).unwrap();
        assert_eq!(joined.turn.number, 0);
        let joined = turns.join(&[second], &sought(1_005_010)).unwrap();
        assert_eq!(joined.turn.number, 1);
        let mut other = sought(1_005_000);
        other.group = 8;
        assert!(turns.join(&[first], &other).is_none(), "another group's");
        let mut later = turns;
        assert!(later.join(&[second], &sought(1_900_000)).is_none());
    }

    #[test]
    fn what_a_gateway_passed_on_is_no_turn_of_its_own_and_only_on_loopback() {
        let onward = |peer: [u8; 4]| Sought {
            peer: std::net::Ipv4Addr::from(peer).to_ipv6_mapped().octets(),
            is_onward: true,
            ..sought(1_005_000)
        };
        let of = |peer: [u8; 4]| {
            let mut turn = turn(b"POST /v1/a HTTP/1.1\r\n");
            turn.peer = onward(peer).peer;
            turn
        };
        let mut kept = turns();
        let here = of([127, 0, 0, 1]);
        let joined = kept.join(&[here], &onward([127, 0, 0, 1])).unwrap();
        assert!(!joined.amends);
        kept.take(vec![ended(here, TurnState::NEXT)]);
        assert!(kept.due(None, 8_000_000_000).is_empty());
        // What more it had would be told, as an amendment.
        let mut kept = turns();
        kept.join(&[here], &onward([127, 0, 0, 1])).unwrap();
        let mut more = ended(here, TurnState::NEXT);
        more.response_bytes += 1;
        kept.take(vec![more]);
        assert!(kept.due(None, 8_000_000_000)[0].amends);
        // Somebody else's is told on its own, whatever a process says.
        let away = of([192, 0, 2, 7]);
        assert!(kept.join(&[away], &onward([192, 0, 2, 7])).is_none());
        // So is one that began before the client asked, or that is no HTTP/1.
        let mut early = here;
        early.cookie = 2;
        early.started_ns -= 1_500_000_000;
        assert!(kept.join(&[early], &onward([127, 0, 0, 1])).is_none());
        let mut tls = here;
        (tls.cookie, tls.form) = (3, Form::TLS);
        assert!(kept.join(&[tls], &onward([127, 0, 0, 1])).is_none());
    }

    #[test]
    fn only_the_whole_path_of_a_receipt_with_few_bytes_is_its_fetching() {
        let path = |path: &str| turn(format!("GET {path} HTTP/1.1\r\n").as_bytes());
        let fetch = path(&format!("{RECEIPTS}{}", "0a".repeat(16)));
        assert_eq!(receipt_asked(&fetch), Some([10; 16]));
        let mut long = fetch;
        long.response_bytes = MOST_FETCH + 1;
        assert_eq!(receipt_asked(&long), None);
        let mut cut = fetch;
        cut.head_bytes = 64;
        assert_eq!(receipt_asked(&cut), None);
        for other in ["/v1/a".to_owned(), format!("{RECEIPTS}{}", "0a".repeat(15))] {
            assert_eq!(receipt_asked(&path(&other)), None);
        }
        let mut turns = turns();
        turns.take(vec![ended(fetch, TurnState::NEXT)]);
        let due = turns.due(None, 8_000_000_000);
        let facts = Facts {
            fetches_receipt: true,
            ..facts()
        };
        assert!(turns.entry(&due[0], facts).is_none());
        assert_eq!((turns.info().observed, turns.info().left_out), (0, 1));
    }

    #[test]
    fn what_was_left_out_and_goes_on_beyond_a_receipt_is_told_after_all() {
        let mut turns = turns();
        let open = turn(format!("GET {RECEIPTS}{} HTTP/1.1\r\n", "0a".repeat(16)).as_bytes());
        let fetch = || Facts {
            fetches_receipt: true,
            ..facts()
        };
        let due = turns.due(Some(&[open]), 9_500_000_000);
        assert!(turns.entry(&due[0], fetch()).is_none());
        let mut more = ended(open, TurnState::NEXT);
        more.response_bytes = MOST_FETCH + 1;
        turns.take(vec![more]);
        let due = turns.due(None, 11_000_000_000);
        assert!(!turns.entry(&due[0], facts()).unwrap().amends);
        assert_eq!(turns.info().observed, 1);
    }

    #[test]
    fn a_silent_health_check_is_counted_once() {
        let mut turns = turns();
        let open = turn(b"GET /health HTTP/1.1\r\n");
        let due = turns.due(Some(&[open]), 9_500_000_000);
        assert!(turns.entry(&due[0], facts()).is_none());
        assert!(turns.due(Some(&[open]), 10_500_000_000).is_empty());
        turns.take(vec![ended(open, TurnState::NEXT)]);
        assert!(turns.due(None, 11_000_000_000).is_empty());
        assert_eq!(turns.info().left_out, 1);
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
