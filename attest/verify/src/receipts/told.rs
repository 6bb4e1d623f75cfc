//! Whether the records shown are of the grades they claim, and tell of no inference twice.
//!
//! A bound record names the kernel's turn it was joined with. Of all entries about one turn of
//! HTTP/1, one alone is not an amendment, one at most is bound, and all are of the same
//! connection of the same group. On a connection that cannot be read, one turn is the whole
//! connection and any number of records can be bound on it. A turn that a gateway's record holds
//! as its own request to the server counts as bound to that record.
//!
//! What a record says of the time between its first byte and its last, what its group sent and
//! what its GPUs did, has to be of that time.

use super::ReceiptError;
use merestone_evidence::{Body, Entry, Grade, Inference, sha256};

/// The forms of which a turn is one request, and no connection of many.
const WHOLE: [&str; 2] = ["http/1", "http/2 stream"];
/// The form of a bound record that the kernel saw nothing of.
const TOLD: &str = "told";
/// Readings are of the wall clock, and that may be set while an inference runs.
const CLOCK_SET_MS: u64 = 60_000;
/// Faults that are told; a log made of them need not be told whole.
const MOST: usize = 20;

/// What is kept of a record, small: a log can have millions.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Seen {
    turn: [u8; 16],
    /// The beginning of the digest of group, peer and ports.
    connection: [u8; 4],
    amends: bool,
    bound: bool,
}

/// The records read so far.
#[derive(Debug, Default)]
pub(crate) struct Told {
    seen: Vec<Seen>,
    records: u64,
    faults: Vec<(String, &'static str)>,
}

impl Told {
    pub(crate) fn see(&mut self, entry: &Entry) {
        let Body::Inference(record) = &entry.body else {
            return;
        };
        self.records = self.records.saturating_add(1);
        if let Some(what) = misgraded(record).or_else(|| untimely(record))
            && self.faults.len() < MOST
        {
            self.faults.push((hex::encode(record.id), what));
        }
        if let Some(onward) = &record.onward {
            let ends = (&onward.peer, onward.peer_port, onward.port);
            self.seen.push(Seen {
                turn: onward.turn,
                connection: connection(record.group, ends),
                amends: onward.amends,
                bound: true,
            });
        }
        let turn = match (record.grade, record.turn) {
            (Grade::Observed, _) => record.id,
            (Grade::Bound, Some(turn)) => turn,
            (Grade::Bound, None) => return,
        };
        if WHOLE.contains(&&*record.form) {
            self.seen.push(Seen {
                turn,
                connection: connection(record.group, (&record.peer, record.peer_port, record.port)),
                amends: record.amends,
                bound: record.grade == Grade::Bound,
            });
        }
    }

    pub(crate) const fn records(&self) -> u64 {
        self.records
    }

    /// What is wrong with them; the records are then used up.
    pub(super) fn faults(self) -> Vec<ReceiptError> {
        let Self {
            mut seen,
            records: _,
            faults,
        } = self;
        let graded = faults
            .into_iter()
            .map(|(at, what)| ReceiptError::Graded { at, what });
        seen.sort_unstable();
        let turns = seen.chunk_by(|one, next| one.turn == next.turn);
        let turns = turns.filter_map(|turn| {
            let at = hex::encode(turn.first()?.turn);
            contradiction(turn).map(|what| ReceiptError::Turn { at, what })
        });
        graded.chain(turns).take(MOST).collect()
    }
}

fn misgraded(record: &Inference) -> Option<&'static str> {
    let is_told = record.form == TOLD;
    if record.onward.is_some() && record.turn.is_none() {
        return Some("it was passed on, and the kernel saw nobody ask");
    }
    match (record.grade, &record.binding, record.turn) {
        (Grade::Bound, None, _) => Some("it is called bound and has no digests"),
        (Grade::Observed, Some(_), _) => Some("it has digests and is called observed"),
        (Grade::Observed, None, Some(_)) => Some("it is the kernel's own and names another turn"),
        (Grade::Observed, None, None) if is_told => Some("the kernel saw it, and somebody told it"),
        (Grade::Bound, Some(_), turn) if turn.is_none() != is_told => {
            Some("it does not say whether the kernel saw it")
        }
        _ => None,
    }
}

/// Counts and readings that are not of the time of the record, or of a GPU that it does not name.
fn untimely(record: &Inference) -> Option<&'static str> {
    let is_apart = |(from_ms, to_ms): (u64, u64), reaches_ms: u64| {
        from_ms > record.started_ms.saturating_add(CLOCK_SET_MS)
            || to_ms.saturating_add(CLOCK_SET_MS) < reaches_ms
    };
    let egress = record.egress.as_ref();
    if egress.is_some_and(|sent| is_apart((sent.from_ms, sent.to_ms), record.ended_ms)) {
        return Some("what its group sent was counted at another time");
    }
    for during in record.gpu_use.iter().flatten() {
        // The last reading can be of before the end: it is told as soon as it has ended.
        if is_apart((during.from_ms, during.to_ms), record.started_ms) {
            return Some("its GPUs were read at another time");
        }
        if usize::try_from(during.gpu).is_ok_and(|gpu| gpu >= record.gpus.len()) {
            return Some("it says what a GPU did that it does not name");
        }
    }
    None
}

fn contradiction(turn: &[Seen]) -> Option<&'static str> {
    let count = |wanted: fn(&&Seen) -> bool| turn.iter().filter(wanted).count();
    if count(|one| !one.amends) > 1 {
        return Some("its inference is told twice");
    }
    if count(|one| one.bound) > 1 {
        return Some("two records are bound to it");
    }
    let first = turn.first()?;
    let same = turn.iter().all(|one| one.connection == first.connection);
    (!same).then_some("its entries are of different connections")
}

fn connection(group: u64, (peer, peer_port, port): (&[u8; 16], u16, u16)) -> [u8; 4] {
    let parts: [&[u8]; 4] = [
        &group.to_be_bytes(),
        peer,
        &peer_port.to_be_bytes(),
        &port.to_be_bytes(),
    ];
    let digest = sha256(&parts.concat());
    let mut short = [0; 4];
    for (to, from) in short.iter_mut().zip(digest.0) {
        *to = from;
    }
    short
}
