//! What outlives one opening of NVML: XID counts and the last energy of each GPU.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::snapshot::{Xid, Xids};

/// Shared by the reading thread and the event thread of every opening.
#[derive(Debug, Clone, Default)]
pub(super) struct History(Arc<Mutex<BTreeMap<String, Past>>>);

/// One GPU's past, by UUID.
#[derive(Debug, Default)]
struct Past {
    watched: bool,
    watching: bool,
    xids: BTreeMap<u64, (u64, u64)>,
    energy_millijoules: Option<u64>,
    energy_resets: u32,
}

impl History {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Past>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, or no longer, an XID of this GPU would be seen.
    pub(super) fn watching(&self, uuid: &str, watching: bool) {
        let mut all = self.lock();
        let past = all.entry(uuid.to_owned()).or_default();
        past.watching = watching;
        past.watched |= watching;
    }

    /// An XID was seen.
    pub(super) fn saw(&self, uuid: &str, code: u64, now_ms: u64) {
        let mut all = self.lock();
        let past = all.entry(uuid.to_owned()).or_default();
        let (count, last) = past.xids.entry(code).or_default();
        *count = count.saturating_add(1);
        *last = now_ms;
    }

    /// The XIDs of a GPU; `None` when it was never watched.
    pub(super) fn xids(&self, uuid: &str) -> Option<Xids> {
        let all = self.lock();
        let past = all.get(uuid).filter(|past| past.watched)?;
        Some(Xids {
            watching: past.watching,
            seen: past
                .xids
                .iter()
                .map(|(&code, &(count, last_ms))| Xid {
                    code,
                    count,
                    last_ms,
                })
                .collect(),
        })
    }

    /// Notes an energy reading; how often the counter went backwards so far.
    pub(super) fn energy(&self, uuid: &str, now: Option<u64>) -> u32 {
        let mut all = self.lock();
        let past = all.entry(uuid.to_owned()).or_default();
        if let Some(now) = now {
            if past.energy_millijoules.is_some_and(|before| now < before) {
                past.energy_resets = past.energy_resets.saturating_add(1);
            }
            past.energy_millijoules = Some(now);
        }
        past.energy_resets
    }
}
