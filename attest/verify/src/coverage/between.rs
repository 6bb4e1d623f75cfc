//! What happened between two sessions, as far as the TPM's clock and counters tell.
//!
//! The wall clock is the host's word. The TPM's clock goes on while the TPM has power, so time
//! that passed by it and not by the wall clock was hidden.

use super::rfc3339;
use crate::quote::Session;
use crate::tpm::ClockInfo;
use merestone_evidence::Cause;
use serde::Serialize;

/// Two clocks read one after the other differ by this without anything having happened.
const NOTHING_MS: i128 = 2_000;

/// The wall clock and the TPM's parted.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ClockJump {
    /// By the wall clock, before it.
    pub at: String,
    /// What passed by the wall clock until the next quote, in milliseconds; negative where it was
    /// set back.
    pub wall_ms: i64,
    /// What passed by the TPM's.
    pub tpm_ms: u64,
    /// It lies between two sessions.
    pub between_sessions: bool,
}

impl ClockJump {
    /// Time that passed and that the wall clock does not show.
    #[must_use]
    pub fn hidden_ms(&self) -> u64 {
        let hidden = i128::from(self.tpm_ms) - i128::from(self.wall_ms);
        u64::try_from(hidden).unwrap_or(0)
    }
}

/// The host, or its TPM, was started anew.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Reboot {
    /// What was sealed last before it.
    pub after: String,
    /// What was sealed first after it.
    pub before: String,
    /// The agent had been stopped, and the TPM shut down in order.
    pub orderly: bool,
    /// Resets of the TPM in between; none where the kernel alone was started anew (kexec).
    pub resets: u32,
}

/// Why time after a session is not attested.
pub(super) fn reason(before: &Session, next: Option<&Session>) -> &'static str {
    let cause = before.epochs.last().map(|last| last.statement.cause);
    let stopped = cause == Some(Cause::Shutdown);
    let restarted = next.is_some_and(|next| is_new_boot(before, next));
    match (cause, stopped, restarted) {
        (None, ..) => "a session without epochs",
        (_, true, true) => "the agent was stopped and the host restarted",
        (_, true, false) => "the agent was stopped",
        (_, false, true) => "the host went down while the agent ran",
        (_, false, false) if next.is_some_and(|next| has_slept(before, next)) => "the host slept",
        _ => "the agent ended without closing its last epoch",
    }
}

fn last_clock(session: &Session) -> ClockInfo {
    let last = session.epochs.last();
    last.map_or(session.said.clock, |epoch| epoch.said.clock)
}

pub(super) fn is_new_boot(before: &Session, next: &Session) -> bool {
    last_clock(before).resets != next.said.clock.resets
        || before.statement.kernel.boot_id != next.statement.kernel.boot_id
}

/// Part 1, 36.3: the restart count grows with each resume.
fn has_slept(before: &Session, next: &Session) -> bool {
    last_clock(before).restarts != next.said.clock.restarts
}

pub(super) fn reboots(sessions: &[Session]) -> Vec<Reboot> {
    let pairs = sessions.iter().zip(sessions.iter().skip(1));
    let pairs = pairs.filter(|(before, next)| is_new_boot(before, next));
    pairs
        .map(|(before, next)| {
            let last = before.epochs.last();
            let (was, is) = (last_clock(before), next.said.clock);
            Reboot {
                after: rfc3339(last_ms(before)),
                before: rfc3339(next.statement.started_ms),
                orderly: last.is_some_and(|last| last.statement.cause == Cause::Shutdown)
                    && is.safe,
                resets: is.resets.saturating_sub(was.resets),
            }
        })
        .collect()
}

pub(super) fn last_ms(session: &Session) -> u64 {
    let closed = session.epochs.iter().map(|epoch| epoch.statement.closed_ms);
    closed.fold(session.statement.started_ms, u64::max)
}

/// Every step between two quotes in which the clocks part by more than a TPM's clock may be wrong
/// (part 1, 36.2: 15 %).
pub(super) fn jumps(sessions: &[Session]) -> Vec<ClockJump> {
    let mut jumps = Vec::new();
    let mut before: Option<(&Session, u64, ClockInfo)> = None;
    for session in sessions {
        let start = (session.statement.started_ms, session.said.clock);
        if let Some((earlier, wall, clock)) = before {
            jump(&mut jumps, (wall, clock), start, Some((earlier, session)));
        }
        let mut at = start;
        for (number, epoch) in session.epochs.iter().enumerate() {
            // What a crash left is quoted by the next start, long after it was closed.
            let is_last = number + 1 == session.epochs.len();
            if is_last && epoch.statement.cause != Cause::Shutdown {
                break;
            }
            let now = (epoch.statement.closed_ms, epoch.said.clock);
            jump(&mut jumps, at, now, None);
            at = now;
        }
        before = Some((session, at.0, at.1));
    }
    jumps
}

fn jump(
    jumps: &mut Vec<ClockJump>,
    (wall_before, before): (u64, ClockInfo),
    (wall_now, now): (u64, ClockInfo),
    sessions: Option<(&Session, &Session)>,
) {
    // A clock that may have been behind when the power came back says nothing.
    let Some(tpm_ms) = now
        .clock_ms
        .checked_sub(before.clock_ms)
        .filter(|_| now.resets == before.resets || now.safe)
    else {
        return;
    };
    let wall = i128::from(wall_now) - i128::from(wall_before);
    let tpm = i128::from(tpm_ms);
    let allowed = NOTHING_MS + tpm.max(wall) * 15 / 100;
    // Without power the TPM's clock stands still, and in sleep it may.
    let may_stand =
        sessions.is_some_and(|(before, next)| is_new_boot(before, next) || has_slept(before, next));
    let apart = tpm - wall;
    if apart > allowed || (-apart > allowed && !may_stand) {
        jumps.push(ClockJump {
            at: rfc3339(wall_before),
            wall_ms: i64::try_from(wall).unwrap_or(i64::MIN),
            tpm_ms,
            between_sessions: sessions.is_some(),
        });
    }
}
