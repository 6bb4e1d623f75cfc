//! What part of the period is attested, and what is not, with the reason.

use crate::quote::Session;
use merestone_evidence::{Bundle, Cause};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A stretch of the period that no epoch covers.
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
    /// Stretches that nothing covers, in order.
    pub gaps: Vec<Gap>,
    /// Sessions shown.
    pub sessions: u64,
    /// Epochs shown.
    pub epochs: u64,
}

impl Coverage {
    pub(crate) fn of(bundle: &Bundle, sessions: &[Session]) -> Self {
        let (from, to) = (bundle.from_ms, bundle.to_ms.max(bundle.from_ms));
        let mut gaps = Vec::new();
        let mut at = from;
        let mut reason = "before the first session";
        let mut attested = 0;
        for session in sessions {
            for epoch in &session.epochs {
                let (opened, closed) = (epoch.statement.opened_ms, epoch.statement.closed_ms);
                let (opened, closed) = (opened.clamp(at, to), closed.clamp(at, to));
                gap(&mut gaps, at, opened, reason);
                attested += closed.saturating_sub(opened);
                at = closed.max(at);
                reason = "between epochs of a session";
            }
            // Time before the first epoch of the next session lies between sessions.
            reason = match session.epochs.last().map(|last| last.statement.cause) {
                Some(Cause::Shutdown) => "the agent was stopped",
                Some(_) => "the agent ended without closing its last epoch",
                None => "a session without epochs",
            };
        }
        gap(
            &mut gaps,
            at,
            to,
            if at == from {
                "no epoch in the period"
            } else {
                reason
            },
        );
        Self {
            from: rfc3339(from),
            to: rfc3339(to),
            period_seconds: (to - from).div_ceil(1000),
            attested_seconds: attested / 1000,
            gaps,
            sessions: sessions.len() as u64,
            epochs: sessions
                .iter()
                .map(|session| session.epochs.len() as u64)
                .sum(),
        }
    }

    /// The longest gap.
    pub(crate) fn longest(&self) -> Option<&Gap> {
        self.gaps.iter().max_by_key(|gap| gap.ms)
    }
}

fn gap(gaps: &mut Vec<Gap>, from: u64, to: u64, reason: &'static str) {
    if to > from {
        let (ms, from_ms) = (to - from, from);
        let (from, to) = (rfc3339(from), rfc3339(to));
        gaps.push(Gap {
            from,
            to,
            seconds: ms.div_ceil(1000),
            reason,
            ms,
            from_ms,
        });
    }
}

/// An instant as people write it; one beyond the calendar as its number.
pub(crate) fn rfc3339(ms: u64) -> String {
    let nanos = i128::from(ms) * 1_000_000;
    let text = OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok());
    text.unwrap_or_else(|| format!("{ms} ms"))
}
