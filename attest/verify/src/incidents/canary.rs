//! The canary: tries to get out, made again and again by the agent from inside the boundary.
//!
//! That none got out is the one statement of this evidence about enforcement at work, so what is
//! counted as held has to add up, and a canary that sleeps is not taken for one that held.

use super::{IncidentError, Scene, refuse};
use crate::coverage::rfc3339;
use crate::quote::{Epoch, Session};
use crate::trust::Require;
use crate::verdict::{CheckId, Tally};
use merestone_evidence::{Body, Canary};
use serde::Serialize;
use std::collections::BTreeSet;

/// A try may be this old when an epoch closes. The canary tries each minute; the interval is not
/// part of the evidence, so that a slower one does not pass for being slower.
const MOST_STALE_MS: u64 = 300_000;

/// What the canary's and the drills' tries came to.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct CanaryReport {
    /// Epochs that tell of a canary.
    pub epochs: u64,
    /// Epochs that do not.
    pub epochs_without: u64,
    /// Epochs at whose close the last try was older than five minutes, or none had been made.
    pub epochs_idle: u64,
    /// Epochs at whose close the canary was not guarded.
    pub epochs_unguarded: u64,
    /// Tries.
    pub runs: u64,
    /// Refused, and counted as refused by the kernel.
    pub held: u64,
    /// Got out.
    pub escaped: u64,
    /// Not to be had on this host, or not refused by this boundary.
    pub not_applicable: u64,
    /// Proved nothing.
    pub errors: u64,
    /// Which got out.
    pub escaped_vectors: BTreeSet<String>,
    /// When the last try ended.
    pub last: Option<String>,
    #[serde(skip)]
    idle: Option<IncidentError>,
    #[serde(skip)]
    unguarded: Option<IncidentError>,
}

pub(super) fn of(scene: &Scene<'_>, faults: &mut Vec<IncidentError>) -> CanaryReport {
    let mut report = CanaryReport {
        epochs: 0,
        epochs_without: 0,
        epochs_idle: 0,
        epochs_unguarded: 0,
        runs: 0,
        held: 0,
        escaped: 0,
        not_applicable: 0,
        errors: 0,
        escaped_vectors: BTreeSet::new(),
        last: None,
        idle: None,
        unguarded: None,
    };
    for session in scene.sessions {
        of_session(session, scene.leeway_ms, &mut report, faults);
    }
    for placed in &scene.entries {
        if let Body::Canary { vector, result, .. } = &placed.entry.body
            && result == "escaped"
            && report.escaped_vectors.insert(vector.clone())
        {
            let (at, what) = (placed.at(), format!("{vector:?}"));
            faults.push(IncidentError::Escaped { at, what });
        }
    }
    report
}

fn of_session(
    session: &Session,
    leeway_ms: u64,
    report: &mut CanaryReport,
    faults: &mut Vec<IncidentError>,
) {
    let mut told = 0;
    let mut last: Option<&Canary> = None;
    for epoch in &session.epochs {
        let Some(canary) = &epoch.statement.canary else {
            report.epochs_without += 1;
            continue;
        };
        report.epochs += 1;
        numbers(epoch, canary, last, leeway_ms, faults);
        idle(session, epoch, canary, report);
        let escaped = canary.escaped.max(canary.escaped_vectors.len() as u64);
        if escaped > told {
            told = escaped;
            let names = canary.escaped_vectors.join(", ");
            let (at, what) = (epoch.at.clone(), format!("{escaped} tries ({names})"));
            faults.push(IncidentError::Escaped { at, what });
        }
        let vectors = canary.escaped_vectors.iter().cloned();
        report.escaped_vectors.extend(vectors);
        last = Some(canary);
    }
    let Some(canary) = last else { return };
    for (sum, count) in [
        (&mut report.runs, canary.runs),
        (&mut report.held, canary.held),
        (&mut report.escaped, canary.escaped),
        (&mut report.not_applicable, canary.not_applicable),
        (&mut report.errors, canary.errors),
    ] {
        *sum = sum.saturating_add(count);
    }
    report.last = canary.last_ms.map(rfc3339).or_else(|| report.last.take());
}

/// Whether the numbers of a statement agree with each other and with those before.
fn numbers(
    epoch: &Epoch,
    canary: &Canary,
    before: Option<&Canary>,
    leeway_ms: u64,
    faults: &mut Vec<IncidentError>,
) {
    let mut fault = |what, got: String, want: String| {
        let at = epoch.at.clone();
        faults.push(IncidentError::CanaryNumbers {
            at,
            what,
            got,
            want,
        });
    };
    let outcomes = [
        canary.held,
        canary.escaped,
        canary.not_applicable,
        canary.errors,
    ];
    let sum = outcomes.into_iter().map(u128::from).sum::<u128>();
    if sum != u128::from(canary.runs) {
        let (got, want) = (canary.runs.to_string(), sum.to_string());
        fault("tries are not the sum of what they came to", got, want);
    }
    let names: BTreeSet<_> = canary.escaped_vectors.iter().collect();
    if names.len() as u64 > canary.escaped || names.len() != canary.escaped_vectors.len() {
        let (got, want) = (names.len().to_string(), canary.escaped.to_string());
        fault("vectors that escaped are more than escapes", got, want);
    }
    let closed = epoch.statement.closed_ms;
    let future = canary
        .last_ms
        .filter(|last| *last > closed.saturating_add(leeway_ms));
    if let Some(last) = future {
        fault(
            "last try is after the epoch's close",
            rfc3339(last),
            rfc3339(closed),
        );
    }
    if canary.last_ms.is_some() != (canary.runs > 0) {
        let got = canary.last_ms.map_or("none".to_owned(), rfc3339);
        fault(
            "last try does not go with its count",
            got,
            canary.runs.to_string(),
        );
    }
    // Names stay: what escaped in a session escaped in it for good.
    if let Some(lost) = before.and_then(|before| {
        let mut names = before.escaped_vectors.iter();
        names.find(|name| !canary.escaped_vectors.contains(name))
    }) {
        fault(
            "escapes forget a vector",
            "nothing".to_owned(),
            format!("{lost:?}"),
        );
    }
}

/// Whether the canary was at work when the epoch closed.
fn idle(session: &Session, epoch: &Epoch, canary: &Canary, report: &mut CanaryReport) {
    let closed = epoch.statement.closed_ms;
    // A session's first minutes may go by before the first try.
    let since = canary.last_ms.unwrap_or(session.statement.started_ms);
    let at = || epoch.at.clone();
    if closed.saturating_sub(since) > MOST_STALE_MS {
        report.epochs_idle += 1;
        report.idle.get_or_insert_with(|| {
            let ago = closed.saturating_sub(since).div_ceil(1000);
            let why = format!("the canary had not tried anything for {ago} s; 300 s may be");
            IncidentError::CanaryIdle { at: at(), why }
        });
    }
    if !canary.guarded && canary.runs > 0 {
        report.epochs_unguarded += 1;
        report.unguarded.get_or_insert_with(|| {
            let why = "the canary was not guarded, so what it tried says nothing".to_owned();
            IncidentError::CanaryIdle { at: at(), why }
        });
    }
}

pub(super) fn check(
    report: &CanaryReport,
    faults: &[IncidentError],
    require: &Require,
    tally: &mut Tally,
) {
    let id = CheckId::Canary;
    let mut is_refused = refuse(id, faults, tally);
    let sleeping = report.idle.iter().chain(&report.unguarded);
    if require.canary {
        for error in sleeping.clone() {
            tally.fail(id, &error.clone().into());
            is_refused = true;
        }
    }
    let all = report.epochs.saturating_add(report.epochs_without);
    let absent = report.epochs_without;
    if absent > 0 || all == 0 {
        let detail = if absent == all {
            "no epoch tells of a canary: it was switched off, or the agent has none".to_owned()
        } else {
            format!("{absent} of {all} epochs tell of no canary")
        };
        if require.canary {
            tally.missing(id, detail);
        } else if !is_refused {
            tally.skip(id, detail);
        }
        return;
    }
    if is_refused {
        return;
    }
    let CanaryReport {
        runs,
        held,
        not_applicable,
        errors,
        ..
    } = report;
    let counts = format!(
        "{runs} tries: {held} held, 0 escaped, {not_applicable} not applicable, {errors} proved nothing"
    );
    if let Some(error) = sleeping.clone().next() {
        tally.skip(id, format!("{error}; {counts}"));
    } else if *held == 0 {
        let detail = format!("no try was held; {counts}");
        if require.canary {
            tally.missing(id, detail);
        } else {
            tally.skip(id, detail);
        }
    } else {
        tally.pass(id, counts);
    }
}
