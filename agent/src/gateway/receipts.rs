//! Receipts kept for the clients that will fetch them: in memory only, for a
//! time, and at most so many.
//!
//! The salt is here and nowhere else: not in the agent, not in the log, not on
//! disk. Whoever knows an id can fetch its salt while it is kept; the id is
//! 128 random bits.

use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Receipts kept at most; about 1.5 KiB each.
pub(super) const MOST_KEPT: usize = 65_536;

/// A receipt's id.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Id(pub(super) [u8; 16]);

impl Id {
    /// From 32 lower-case hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).ok()?;
        let id = Self(id);
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What there is of a receipt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Kept {
    /// The answer, or the agent's, is under way.
    Pending,
    /// The JSON for the client.
    Ready(Bytes),
    /// There is none, and why.
    Lost(&'static str),
}

#[derive(Debug, Default)]
struct Inner {
    kept: HashMap<Id, (u64, Kept)>,
    /// In the order of age; an id put again is here twice.
    order: VecDeque<(Instant, u64, Id)>,
    count: u64,
}

/// The receipts.
#[derive(Debug)]
pub(super) struct Receipts {
    inner: Mutex<Inner>,
    most: usize,
    keep: Duration,
}

impl Receipts {
    pub(super) fn new(most: usize, keep: Duration) -> Self {
        Self {
            inner: Mutex::default(),
            most,
            keep,
        }
    }

    /// An exchange has begun.
    pub(super) fn begin(&self, id: Id) {
        self.put(id, Kept::Pending);
    }

    /// The receipt is there.
    pub(super) fn ready(&self, id: Id, json: Bytes) {
        self.put(id, Kept::Ready(json));
    }

    /// There will be none.
    pub(super) fn lose(&self, id: Id, why: &'static str) {
        self.put(id, Kept::Lost(why));
    }

    fn put(&self, id: Id, kept: Kept) {
        let now = Instant::now();
        let mut inner = self.inner();
        inner.count += 1;
        let count = inner.count;
        inner.kept.insert(id, (count, kept));
        inner.order.push_back((now, count, id));
        self.age(&mut inner, now);
    }

    /// What is kept under an id.
    pub(super) fn get(&self, id: Id) -> Option<Kept> {
        let mut inner = self.inner();
        self.age(&mut inner, Instant::now());
        inner.kept.get(&id).map(|(_, kept)| kept.clone())
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.inner().kept.len()
    }

    fn age(&self, inner: &mut Inner, now: Instant) {
        let is_over = |inner: &Inner| {
            let old = inner
                .order
                .front()
                .is_some_and(|(put, _, _)| now.duration_since(*put) > self.keep);
            // An exchange is put twice: when it begins and when it is over.
            old || inner.kept.len() > self.most || inner.order.len() > 2 * self.most
        };
        while is_over(inner) {
            let Some((_, count, id)) = inner.order.pop_front() else {
                return;
            };
            if inner
                .kept
                .get(&id)
                .is_some_and(|(newest, _)| *newest == count)
            {
                inner.kept.remove(&id);
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_the_oldest_go_first() {
        let receipts = Receipts::new(4, Duration::from_secs(60));
        for number in 0..100_u8 {
            receipts.begin(Id([number; 16]));
            receipts.ready(Id([number; 16]), Bytes::from_static(b"{}"));
        }
        assert_eq!(receipts.len(), 4);
        assert_eq!(receipts.get(Id([95; 16])), None);
        assert!(matches!(receipts.get(Id([96; 16])), Some(Kept::Ready(_))));
        assert!(receipts.inner().order.len() <= 8);
    }

    #[test]
    fn a_receipt_is_forgotten_after_its_time() {
        let receipts = Receipts::new(4, Duration::ZERO);
        receipts.begin(Id([1; 16]));
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(receipts.get(Id([1; 16])), None);
    }

    #[test]
    fn an_id_is_32_lower_case_digits() {
        assert!(Id::parse(&"0a".repeat(16)).is_some());
        for wrong in [
            "",
            "0a",
            &"0A".repeat(16),
            &"0g".repeat(16),
            &"0a".repeat(17),
        ] {
            assert_eq!(Id::parse(wrong), None);
        }
    }
}
