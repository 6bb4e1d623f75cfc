//! What part of the period is attested, and what is not, with the reason.

mod between;
mod dark;

pub use between::{ClockJump, Reboot};
pub use dark::Dark;

use crate::account::FirstReading;
use crate::quote::Session;
use crate::trust::Require;
use merestone_evidence::Bundle;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A stretch of the period that no epoch covers, or in which enforcement is not shown.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Gap {
    /// Its start.
    pub from: String,
    /// Its end.
    pub to: String,
    /// Its length, rounded up.
    pub seconds: u64,
    /// Why nothing covers it.
    pub reason: &'static str,
    /// Its length, exactly.
    #[serde(skip)]
    pub(crate) ms: u64,
    /// Its start, exactly.
    #[serde(skip)]
    pub(crate) from_ms: u64,
}

/// What part of the period is attested.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Coverage {
    /// Start of the period.
    pub from: String,
    /// End of the period.
    pub to: String,
    /// Seconds of it, rounded up.
    pub period_seconds: u64,
    /// Seconds of it that an epoch covers, rounded down.
    pub attested_seconds: u64,
    /// Stretches that nothing covers, or in which enforcement is not shown, in order.
    pub gaps: Vec<Gap>,
    /// Every second of the period that was asked for: attested, or why not. The shares add up to it.
    pub shares: Vec<Share>,
    /// Where the wall clock and the TPM's parted.
    pub clock_jumps: Vec<ClockJump>,
    /// Where the host was started anew.
    pub reboots: Vec<Reboot>,
    /// What GPUs used between sessions.
    pub dark: Vec<Dark>,
    /// Sessions shown.
    pub sessions: u64,
    /// Epochs shown.
    pub epochs: u64,
    /// The counterpart of the gaps, touching stretches as one: both add up to the period.
    #[serde(skip)]
    pub(crate) attested_ms: Vec<(u64, u64)>,
}

/// Time of one kind.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Share {
    /// `attested`, or why not.
    pub what: &'static str,
    /// How many stretches.
    pub stretches: u64,
    /// Their length together.
    pub milliseconds: u64,
}

/// A stretch, and why enforcement is not shown in it.
type Unproven = (u64, u64, &'static str);

impl Coverage {
    pub(crate) fn of(
        bundle: &Bundle,
        sessions: &[Session],
        unproven: &[Unproven],
        readings: &[FirstReading],
        require: &Require,
    ) -> Self {
        let (from, to) = (bundle.from_ms, bundle.to_ms.max(bundle.from_ms));
        let mut gaps = Vec::new();
        let mut at = from;
        let mut reason = "before the first session";
        let mut attested = Vec::new();
        for (number, session) in sessions.iter().enumerate() {
            for epoch in &session.epochs {
                let (opened, closed) = (epoch.statement.opened_ms, epoch.statement.closed_ms);
                let (opened, closed) = (opened.clamp(at, to), closed.clamp(at, to));
                gap(&mut gaps, at, opened, reason);
                shown(&mut gaps, &mut attested, (opened, closed), unproven);
                at = closed.max(at);
                reason = "between epochs of a session";
            }
            // Time before the first epoch of the next session lies between sessions.
            reason = between::reason(session, sessions.get(number + 1));
        }
        let reason = if at == from {
            "no epoch in the period"
        } else {
            reason
        };
        gap(&mut gaps, at, to, reason);
        let asked = (require.from_ms.unwrap_or(from), require.to_ms.unwrap_or(to));
        Self {
            shares: shares(asked, (from, to), &attested, &gaps),
            clock_jumps: between::jumps(sessions),
            reboots: between::reboots(sessions),
            dark: dark::dark(sessions, readings, require.idle_milliwatts),
            from: rfc3339(from),
            to: rfc3339(to),
            period_seconds: (to - from).div_ceil(1000),
            attested_seconds: attested.iter().map(|(from, to)| to - from).sum::<u64>() / 1000,
            gaps,
            sessions: sessions.len() as u64,
            epochs: sessions
                .iter()
                .map(|session| session.epochs.len() as u64)
                .sum(),
            attested_ms: attested,
        }
    }

    /// The longest stretch without evidence: its length, its start and why it began. Gaps that
    /// touch are one, whatever their reasons.
    pub(crate) fn longest(&self) -> Option<(u64, String, &'static str)> {
        let mut longest: Option<(u64, &Gap)> = None;
        let mut run: Option<(&Gap, u64)> = None;
        for gap in &self.gaps {
            let (first, before) = match run {
                Some((first, ms)) if first.from_ms.saturating_add(ms) == gap.from_ms => (first, ms),
                _ => (gap, 0),
            };
            let ms = before.saturating_add(gap.ms);
            run = Some((first, ms));
            if longest.is_none_or(|(most, _)| ms > most) {
                longest = Some((ms, first));
            }
        }
        longest.map(|(ms, first)| (ms, first.from.clone(), first.reason))
    }
}

/// All of the time asked for, by what is known of it.
fn shares(
    (from, to): (u64, u64),
    (file_from, file_to): (u64, u64),
    attested: &[(u64, u64)],
    gaps: &[Gap],
) -> Vec<Share> {
    let outside = [(0, file_from), (file_to, u64::MAX)];
    let outside = outside.map(|(from, to)| (from, to, "outside the period of this file"));
    let attested = attested.iter().map(|(from, to)| (*from, *to, "attested"));
    let gaps = gaps
        .iter()
        .map(|gap| (gap.from_ms, gap.from_ms.saturating_add(gap.ms), gap.reason));
    let mut shares: Vec<Share> = Vec::new();
    for (start, end, what) in attested.chain(gaps).chain(outside) {
        let milliseconds = end.min(to).saturating_sub(start.max(from));
        if milliseconds == 0 {
            continue;
        }
        match shares.iter_mut().find(|share| share.what == what) {
            Some(share) => {
                share.stretches += 1;
                share.milliseconds = share.milliseconds.saturating_add(milliseconds);
            }
            None => shares.push(Share {
                what,
                stretches: 1,
                milliseconds,
            }),
        }
    }
    shares
}

/// An epoch: what is not proven of it is a gap, the rest is attested.
fn shown(
    gaps: &mut Vec<Gap>,
    attested: &mut Vec<(u64, u64)>,
    (opened, closed): (u64, u64),
    unproven: &[Unproven],
) {
    let mut inside: Vec<_> = unproven
        .iter()
        .map(|(from, to, reason)| ((*from).max(opened), (*to).min(closed), *reason))
        .filter(|(from, to, _)| from < to)
        .collect();
    inside.sort_unstable();
    let mut at = opened;
    for (from, to, reason) in inside {
        stretch(attested, at, from);
        gap(gaps, from.max(at), to, reason);
        at = at.max(to);
    }
    stretch(attested, at, closed);
}

fn stretch(attested: &mut Vec<(u64, u64)>, from: u64, to: u64) {
    match attested.last_mut() {
        _ if to <= from => {}
        Some((_, end)) if *end == from => *end = to,
        _ => attested.push((from, to)),
    }
}

/// Stretches that touch and have one reason are one.
fn gap(gaps: &mut Vec<Gap>, from: u64, to: u64, reason: &'static str) {
    if to <= from {
        return;
    }
    let touches =
        |last: &mut Gap| last.reason == reason && last.from_ms.saturating_add(last.ms) == from;
    let before = gaps.pop_if(touches);
    let from_ms = before.map_or(from, |before| before.from_ms);
    let ms = to - from_ms;
    gaps.push(Gap {
        from: rfc3339(from_ms),
        to: rfc3339(to),
        seconds: ms.div_ceil(1000),
        reason,
        ms,
        from_ms,
    });
}

/// An instant as people write it; one beyond the calendar as its number.
pub(crate) fn rfc3339(ms: u64) -> String {
    let nanos = i128::from(ms) * 1_000_000;
    let text = OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok());
    text.unwrap_or_else(|| format!("{ms} ms"))
}
