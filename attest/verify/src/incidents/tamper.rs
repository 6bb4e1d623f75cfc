//! Attempts on enforcement, and what was found not to be as it had been left.
//!
//! An attempt that was denied is told and costs nothing: enforcement held. What was found
//! afterwards is another matter. Between the last time it is known to have been right and the
//! finding nothing shows that the boundary held, so that time counts as not attested, and the
//! evidence fails unless the policy permits it.

use super::{BreakGlass, IncidentError, Placed, Scene, Who, refuse};
use crate::coverage::rfc3339;
use crate::trust::{Permit, Require};
use crate::verdict::{CheckId, Tally};
use merestone_evidence::Body;
use serde::Serialize;
use std::collections::BTreeMap;

/// Findings named one by one in a check.
const MOST_NAMED: usize = 8;
/// What a start finds that is told by the coverage already: time without an agent.
const TOLD_BY_COVERAGE: [&str; 3] = ["boot", "agent_gap", "agent_end"];

/// Attempts on enforcement, and what was found of it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Tamper {
    /// Attempts that were denied.
    pub denied: u64,
    /// Attempts let through, because a break-glass was open.
    pub let_through: u64,
    /// Changes found afterwards by the watch.
    pub found: u64,
    /// Each attempt and each change found, alike ones together.
    pub attempts: Vec<Attempt>,
    /// What was not as it had been left, and the time in which enforcement is not shown for it.
    pub not_kept: Vec<Unkept>,
    /// Epochs in which the kernel refused tampering.
    pub epochs_refusing: u64,
    /// Epochs shown.
    pub epochs: u64,
    /// Time let through without an opening shown, in entries.
    #[serde(skip)]
    unexplained: u64,
}

/// Alike attempts.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Attempt {
    /// `denied`, `let_through` or `found`.
    pub outcome: &'static str,
    /// What was tried or done.
    pub attempt: String,
    /// What it was aimed at.
    pub target: String,
    /// Where it was seen.
    pub hook: String,
    /// Who tried, where that is known.
    pub who: Option<Who>,
    /// How many.
    pub count: u64,
    /// When the first of them was seen.
    pub first: String,
    /// And the last.
    pub last: String,
}

/// Something that was not as it had been left.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Unkept {
    /// What.
    pub what: String,
    /// In the agent's words.
    pub detail: String,
    /// From when on enforcement is not shown: the seal before, or the end of the session before.
    pub from: String,
    /// Until when: the finding, where it was put back at once.
    pub to: String,
    /// How long that is, rounded up.
    pub seconds: u64,
    /// Whether it was put back.
    pub repaired: bool,
    #[serde(skip)]
    pub(crate) from_ms: u64,
    #[serde(skip)]
    pub(crate) to_ms: u64,
    #[serde(skip)]
    pub(crate) reason: &'static str,
    #[serde(skip)]
    at: String,
}

type Key = (&'static str, String, String, String, Option<Who>);

/// How many of a kind, when first and when last.
type Seen = (u64, u64, u64);

pub(super) fn of(scene: &Scene<'_>, glass: &BreakGlass, faults: &mut Vec<IncidentError>) -> Tamper {
    let statements = || scene.sessions.iter().flat_map(|session| &session.epochs);
    let refusing = |tiers: &[String]| tiers.iter().any(|tier| tier == "tamper");
    let with = statements().filter(|epoch| refusing(&epoch.statement.tiers));
    let mut tamper = Tamper {
        denied: 0,
        let_through: 0,
        found: 0,
        attempts: Vec::new(),
        not_kept: Vec::new(),
        epochs_refusing: with.count() as u64,
        epochs: statements().count() as u64,
        unexplained: 0,
    };
    let mut alike: BTreeMap<Key, Seen> = BTreeMap::new();
    // When the boundary in the kernel was last installed as a whole.
    let mut installed: Option<(usize, u64)> = None;
    for placed in &scene.entries {
        let time = placed.entry.time_ms;
        match &placed.entry.body {
            Body::Boundary { accepted: true, .. } => installed = Some((placed.session, time)),
            Body::Found { what, kept, detail } => {
                found(scene, placed, (what, *kept, detail), &mut tamper, faults);
            }
            Body::Tamper {
                attempt,
                target,
                repaired,
                ..
            } => match count(placed, &mut tamper, &mut alike) {
                Some("found") => {
                    let since = installed.filter(|(session, _)| *session == placed.session);
                    let since = since.map(|(_, time)| time);
                    let what = (attempt.as_str(), target.as_str(), *repaired == Some(true));
                    changed(scene, placed, what, since, &mut tamper);
                }
                Some("let_through") if !glass.is_open(time, scene.leeway_ms) => {
                    unexplained(scene, placed, attempt, &mut tamper, faults);
                }
                _ => {}
            },
            _ => {}
        }
    }
    tamper.attempts = alike.into_iter().map(attempt).collect();
    tamper
}

/// Counts an attempt, and says what became of it.
fn count(
    placed: &Placed<'_>,
    tamper: &mut Tamper,
    alike: &mut BTreeMap<Key, Seen>,
) -> Option<&'static str> {
    let Body::Tamper {
        attempt,
        refused,
        hook,
        target,
        process,
        count,
        ..
    } = &placed.entry.body
    else {
        return None;
    };
    let (outcome, sum) = match (*refused, hook.as_str()) {
        (true, _) => ("denied", &mut tamper.denied),
        (false, "watch") => ("found", &mut tamper.found),
        (false, _) => ("let_through", &mut tamper.let_through),
    };
    *sum = sum.saturating_add(*count);
    let who = Who::of(process.as_ref());
    let key = (outcome, attempt.clone(), target.clone(), hook.clone(), who);
    let time = placed.entry.time_ms;
    let (sum, first, last) = alike.entry(key).or_insert((0, time, time));
    *sum = sum.saturating_add(*count);
    (*first, *last) = ((*first).min(time), (*last).max(time));
    Some(outcome)
}

fn attempt(((outcome, attempt, target, hook, who), (count, first, last)): (Key, Seen)) -> Attempt {
    Attempt {
        outcome,
        attempt,
        target,
        hook,
        who,
        count,
        first: rfc3339(first),
        last: rfc3339(last),
    }
}

/// An attempt passed that no opening in the leaves explains.
fn unexplained(
    scene: &Scene<'_>,
    placed: &Placed<'_>,
    attempt: &str,
    tamper: &mut Tamper,
    faults: &mut Vec<IncidentError>,
) {
    if scene.whole {
        let (at, attempt) = (placed.at(), attempt.to_owned());
        faults.push(IncidentError::LetThrough { at, attempt });
    } else {
        tamper.unexplained += 1;
    }
}

/// The watch found a change while the agent ran.
fn changed(
    scene: &Scene<'_>,
    placed: &Placed<'_>,
    (attempt, target, repaired): (&str, &str, bool),
    installed: Option<u64>,
    tamper: &mut Tamper,
) {
    let time = placed.entry.time_ms;
    let session = scene.sessions.get(placed.session);
    let started = session.map_or(placed.opened_ms, |session| session.statement.started_ms);
    // Prefixes are looked at in turns that outlast an epoch: what is found among them may be as
    // old as the boundary's installation.
    let from = if attempt == "boundary" {
        installed.unwrap_or(started)
    } else {
        placed.opened_ms
    };
    let end = session.and_then(|session| session.epochs.last());
    let end = end.map_or(time, |last| last.statement.closed_ms);
    let to = if repaired { time } else { end.max(time) };
    let what = (attempt, target, repaired);
    let reason = if repaired {
        "enforcement had been changed, until it was put back"
    } else {
        "enforcement had been changed and was not put back"
    };
    tamper
        .not_kept
        .push(unkept(placed, what, (from, to), reason));
}

/// What a starting agent found.
fn found(
    scene: &Scene<'_>,
    placed: &Placed<'_>,
    (what, kept, detail): (&str, bool, &str),
    tamper: &mut Tamper,
    faults: &mut Vec<IncidentError>,
) {
    let before = placed.session.checked_sub(1);
    let before = before.and_then(|before| scene.sessions.get(before));
    let own = scene.sessions.get(placed.session);
    if let (Some(before), Some(own), "boot") = (before, own, what)
        && before.said.clock.resets == own.said.clock.resets
    {
        let (at, resets) = (placed.at(), own.said.clock.resets);
        faults.push(IncidentError::Restarted { at, resets });
    }
    if kept || TOLD_BY_COVERAGE.contains(&what) {
        return;
    }
    let time = placed.entry.time_ms;
    let started = own.map_or(placed.opened_ms, |own| own.statement.started_ms);
    let from = before
        .and_then(|before| before.epochs.last())
        .map_or(started, |last| last.statement.closed_ms);
    let reason = "a start found enforcement not as it had been left";
    let what = (what, detail, true);
    tamper
        .not_kept
        .push(unkept(placed, what, (from, time), reason));
}

fn unkept(
    placed: &Placed<'_>,
    (what, detail, repaired): (&str, &str, bool),
    (from_ms, to_ms): (u64, u64),
    reason: &'static str,
) -> Unkept {
    Unkept {
        what: what.to_owned(),
        detail: detail.to_owned(),
        from: rfc3339(from_ms),
        to: rfc3339(to_ms),
        seconds: to_ms.saturating_sub(from_ms).div_ceil(1000),
        repaired,
        from_ms,
        to_ms,
        reason,
        at: placed.at(),
    }
}

pub(super) fn check(
    tamper: &Tamper,
    faults: &[IncidentError],
    require: &Require,
    tally: &mut Tally,
) {
    let id = CheckId::Tamper;
    let refused = refuse(id, faults, tally);
    let findings = tamper.not_kept.len();
    if findings > 0 && !require.permits(Permit::Tamper) {
        for one in tamper.not_kept.iter().take(MOST_NAMED) {
            let (at, what) = (one.at.clone(), one.what.clone());
            let span = format!("not shown to be enforced from {} to {}", one.from, one.to);
            let detail = format!("{}; {span}", one.detail);
            tally.fail(id, &IncidentError::Unkept { at, what, detail }.into());
        }
        let more = findings.saturating_sub(MOST_NAMED) as u64;
        if more > 0 {
            tally.fail(id, &IncidentError::More { more }.into());
        }
        return;
    }
    if tamper.unexplained > 0 {
        let count = tamper.unexplained;
        let detail = format!(
            "{count} entries of attempts let through; an opening may stand before the first leaf shown"
        );
        return tally.missing(id, detail);
    }
    if refused {
        return;
    }
    let denied = tamper.denied;
    if findings > 0 {
        let detail = format!(
            "{findings} findings, which the policy permits: enforcement is not shown meanwhile; {denied} attempts denied"
        );
        return tally.skip(id, detail);
    }
    let (with, all) = (tamper.epochs_refusing, tamper.epochs);
    let how = if with == all {
        "the kernel refused tampering throughout".to_owned()
    } else {
        format!("tampering was refused in {with} of {all} epochs, else only looked for")
    };
    tally.pass(
        id,
        format!("{denied} attempts denied, nothing found changed; {how}"),
    );
}
