//! Entries that found the disk full.
//!
//! Enforcement goes on without a disk. What happens meanwhile waits here, in order, up to a
//! bound, and is written with its own time when there is space again; what goes beyond the bound
//! is counted as lost, reason `disk_full`. Nothing overtakes what waits.

use crate::ledger::LedgerError;
use merestone_evidence::{Entry, encode};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

const MOST_ENTRIES: usize = 16_384;
const MOST_BYTES: usize = 8 << 20;
/// How often space is looked for.
const AGAIN: Duration = Duration::from_secs(1);

/// What became of an entry.
#[derive(Debug)]
pub(super) enum Outcome<T> {
    /// It is in the log, as the log says.
    Written(T),
    /// It waits for space, or is counted as lost.
    Held,
    /// The log does not take it, for another reason.
    Refused(LedgerError),
}

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Held {
    entries: VecDeque<Entry>,
    bytes: usize,
    lost: u64,
    tried: Option<Instant>,
}

impl Held {
    /// Entries that were lost for want of space since the start.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    /// Entries that wait.
    pub(super) fn waiting(&self) -> usize {
        self.entries.len()
    }

    /// Write an entry, or have it wait.
    pub(super) fn take<T>(
        &mut self,
        entry: Entry,
        append: impl FnOnce(&Entry) -> Result<T, LedgerError>,
    ) -> Outcome<T> {
        if self.entries.is_empty() {
            match append(&entry) {
                Ok(said) => return Outcome::Written(said),
                Err(error) if !error.is_full() => return Outcome::Refused(error),
                Err(error) => {
                    tracing::error!(%error, "the disk is full; entries wait in memory");
                    self.tried = Some(Instant::now());
                }
            }
        }
        let bytes = encode(&entry).len();
        if self.entries.len() >= MOST_ENTRIES || self.bytes.saturating_add(bytes) > MOST_BYTES {
            self.lost += 1;
        } else {
            self.bytes += bytes;
            self.entries.push_back(entry);
        }
        Outcome::Held
    }

    /// Write what waits, as far as there is space; how many were written. At most once a second.
    pub(super) fn retry(
        &mut self,
        mut append: impl FnMut(&Entry) -> Result<u64, LedgerError>,
    ) -> usize {
        let is_due = self.tried.is_none_or(|tried| tried.elapsed() >= AGAIN);
        if self.entries.is_empty() || !is_due {
            return 0;
        }
        self.tried = Some(Instant::now());
        let mut written = 0;
        while let Some(entry) = self.entries.front() {
            match append(entry) {
                Ok(_) => written += 1,
                Err(error) if error.is_full() => return written,
                // Refused for itself: it would hold up the others for ever.
                Err(error) => {
                    tracing::error!(%error, "an entry that waited is refused");
                    self.lost += 1;
                }
            }
            self.bytes -= encode(entry).len();
            self.entries.pop_front();
        }
        tracing::warn!(written, lost = self.lost, "there is space again");
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use merestone_evidence::{Body, EntryKind};
    use std::cell::{Cell, RefCell};

    fn entry(number: u64) -> Entry {
        Entry {
            kind: EntryKind,
            time_ms: number,
            boot_ns: number,
            body: Body::AgentStart {
                version: "x".repeat(400),
            },
        }
    }

    fn full() -> LedgerError {
        LedgerError::Io {
            doing: "append to",
            path: "leaves".into(),
            source: std::io::ErrorKind::StorageFull.into(),
        }
    }

    #[test]
    fn entries_wait_in_order_while_the_disk_is_full_and_are_counted_beyond_the_bound() {
        let mut held = Held::default();
        let (space, log) = (Cell::new(true), RefCell::new(Vec::new()));
        let append = |entry: &Entry| {
            if !space.get() {
                return Err(full());
            }
            log.borrow_mut().push(entry.time_ms);
            Ok(0)
        };
        assert!(matches!(held.take(entry(0), append), Outcome::Written(0)));
        space.set(false);
        for number in 1..30_000 {
            assert!(matches!(held.take(entry(number), append), Outcome::Held));
        }
        let waiting = held.waiting() as u64;
        assert!(waiting > 10_000 && held.bytes <= MOST_BYTES);
        assert_eq!(waiting + held.lost(), 29_999);
        held.tried = None;
        assert_eq!(held.retry(append), 0);
        space.set(true);
        assert_eq!(held.retry(append), 0, "not before a second has passed");
        // What comes now does not overtake what waits.
        assert!(matches!(held.take(entry(30_000), append), Outcome::Held));
        held.tried = None;
        assert_eq!(held.retry(append) as u64, waiting);
        let log = log.borrow();
        assert!(log.is_sorted() && log.len() as u64 == waiting + 1);
        assert_eq!((held.waiting(), held.bytes), (0, 0));
    }

    #[test]
    fn an_entry_that_is_refused_for_itself_holds_nothing_up() {
        let mut held = Held::default();
        let refuse = |_: &Entry| Err(LedgerError::TooBig { got: 2, limit: 1 });
        assert!(matches!(held.take(entry(0), refuse), Outcome::Refused(_)));
        assert_eq!((held.waiting(), held.lost()), (0, 0));
        assert!(matches!(
            held.take::<u64>(entry(1), |_| Err(full())),
            Outcome::Held
        ));
        held.tried = None;
        assert_eq!(held.retry(refuse), 0);
        assert_eq!((held.waiting(), held.lost()), (0, 1));
    }
}
