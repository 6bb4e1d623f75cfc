//! Energy that GPUs used while nobody watched: their own counters before and after, as the agent
//! read them, less what they would have used idle.
//!
//! It does not say what the energy was used for. A counter that began anew (a reset, another
//! driver) is said to, and never taken for little use.

use super::between::{is_new_boot, last_ms};
use super::rfc3339;
use crate::account::FirstReading;
use crate::quote::Session;
use serde::Serialize;
use std::collections::BTreeMap;

/// One GPU between two sessions.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Dark {
    /// The device.
    pub uuid: String,
    /// When it was read last before.
    pub from: String,
    /// When it was read first after.
    pub to: String,
    /// Length in milliseconds.
    pub ms: u64,
    /// Energy used in between, in joules, rounded up; absent where the counters do not tell.
    pub joules: Option<u64>,
    /// What being idle explains of it, in joules, rounded down.
    pub idle_joules: u64,
    /// The rest.
    pub unexplained_joules: Option<u64>,
    /// Milliwatts taken for idle; absent where neither the policy nor the file tells them.
    pub idle_milliwatts: Option<u64>,
    /// Why the counters do not tell.
    pub unknown: Option<&'static str>,
}

/// Power over an epoch is told from so much of it at least.
const LEAST_MS: u64 = 1_000;

/// The least power that each GPU had over an epoch of the file, in milliwatts, rounded down: a
/// millijoule in a millisecond is a watt.
fn idle(sessions: &[Session]) -> BTreeMap<String, u64> {
    let mut least: BTreeMap<String, u64> = BTreeMap::new();
    for session in sessions {
        for (before, epoch) in session.epochs.iter().zip(session.epochs.iter().skip(1)) {
            let (before, epoch) = (&before.statement, &epoch.statement);
            let ms = epoch.closed_ms.saturating_sub(before.closed_ms);
            if ms < LEAST_MS {
                continue;
            }
            for now in &epoch.gpu_energy {
                let was = before.gpu_energy.iter().find(|was| was.uuid == now.uuid);
                let used = was
                    .and_then(|was| was.millijoules)
                    .zip(now.millijoules)
                    .and_then(|(was, now)| now.checked_sub(was));
                let Some(used) = used else { continue };
                let milliwatts = used.saturating_mul(1000) / ms;
                let least = least.entry(now.uuid.clone()).or_insert(milliwatts);
                *least = milliwatts.min(*least);
            }
        }
    }
    least
}

/// When a session first read a GPU's counter, and what it said.
fn first(session: &Session, readings: &[FirstReading], uuid: &str) -> Option<(u64, u64)> {
    let (from, to) = (session.statement.started_ms, last_ms(session));
    let entry = readings
        .iter()
        .filter(|reading| (from..=to).contains(&reading.time_ms))
        .find_map(|reading| Some((reading.time_ms, *reading.millijoules.get(uuid)?)));
    let epochs = session.epochs.iter().map(|epoch| &epoch.statement);
    let epoch = epochs.flat_map(|epoch| {
        let of = epoch.gpu_energy.iter().filter(|energy| energy.uuid == uuid);
        of.filter_map(|energy| Some((epoch.closed_ms, energy.millijoules?)))
    });
    let epoch = epoch.min();
    match (entry, epoch) {
        (Some(entry), Some(epoch)) => Some(entry.min(epoch)),
        (one, other) => one.or(other),
    }
}

/// Every GPU that was read before a gap between two sessions.
pub(super) fn dark(
    sessions: &[Session],
    readings: &[FirstReading],
    idle_milliwatts: Option<u64>,
) -> Vec<Dark> {
    let measured = idle(sessions);
    let mut all = Vec::new();
    for (before, next) in sessions.iter().zip(sessions.iter().skip(1)) {
        let Some(last) = before.epochs.last().map(|epoch| &epoch.statement) else {
            continue;
        };
        for energy in &last.gpu_energy {
            let idle = idle_milliwatts.or_else(|| measured.get(&energy.uuid).copied());
            let after = first(next, readings, &energy.uuid);
            let to_ms = after.map_or(next.statement.started_ms, |(at, _)| at);
            let ms = to_ms.saturating_sub(last.closed_ms);
            let other_driver = before.statement.gpu.driver != next.statement.gpu.driver;
            let used = match (energy.millijoules, after) {
                (None, _) | (_, None) => Err("the counter was not read on both sides"),
                _ if is_new_boot(before, next) => {
                    Err("the host was restarted: the counter began anew")
                }
                _ if other_driver => Err("another driver was loaded: the counter began anew"),
                (Some(was), Some((_, now))) => now
                    .checked_sub(was)
                    .ok_or("the counter went back: it began anew"),
            };
            let idle_joules = idle.unwrap_or_default().saturating_mul(ms) / 1_000_000;
            let joules = used.ok().map(|used| used.div_ceil(1000));
            all.push(Dark {
                uuid: energy.uuid.clone(),
                from: rfc3339(last.closed_ms),
                to: rfc3339(to_ms),
                ms,
                joules,
                idle_joules,
                unexplained_joules: joules.map(|joules| joules.saturating_sub(idle_joules)),
                idle_milliwatts: idle,
                unknown: used.err(),
            });
        }
    }
    all
}
