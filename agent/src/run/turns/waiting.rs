//! Requests for receipts that are on their way: the gateway hands an answer's id out before the
//! agent has the record, and a client may ask at once.

use super::{Turns, receipt_asked};
use merestone_abi::Turn;
use std::time::Duration;

/// How long such a request waits to be told.
const ON_ITS_WAY: Duration = Duration::from_secs(10);
/// As many wait at most; one more is told at once.
pub(super) const MOST_WAITING: usize = 1024;

impl Turns {
    /// Has those wait that asked for a receipt which may still come.
    pub(in crate::run) fn await_receipts(
        &mut self,
        now_ns: u64,
        is_issued: impl Fn(&[u8; 16]) -> bool,
    ) {
        let patience = u64::try_from(ON_ITS_WAY.as_nanos()).unwrap_or(u64::MAX);
        self.await_no_receipts();
        let may_come = |turn: &Turn| {
            now_ns.saturating_sub(turn.last_ns) < patience
                && receipt_asked(turn).is_some_and(|id| !is_issued(&id))
        };
        for turn in std::mem::take(&mut self.ended) {
            if self.waiting.len() < MOST_WAITING && may_come(&turn) {
                self.waiting.push(turn);
            } else {
                self.ended.push(turn);
            }
        }
    }

    /// Has all of them told with the next that is due.
    pub(in crate::run) fn await_no_receipts(&mut self) {
        self.ended.append(&mut self.waiting);
    }
}
