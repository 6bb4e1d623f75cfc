//! What the evidence says beyond yes and no: where it ran, what tried to leave.

use crate::account::kind;
use crate::coverage::rfc3339;
use crate::geotag::Tagged;
use crate::quote::{Epoch, Session};
use merestone_evidence::{Body, Entry, FlowVerdict};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Where it ran, how well that is known, and what that knowledge rests on.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Location {
    /// Level of the evidence.
    pub level: &'static str,
    /// What it rests on.
    pub assumption: &'static str,
    /// Who says so.
    pub source: &'static str,
    /// Countries stated, as they are written.
    pub countries: BTreeSet<String>,
    /// Regions stated.
    pub regions: BTreeSet<String>,
    /// Facilities stated.
    pub facilities: BTreeSet<String>,
    /// Sessions that state nothing.
    pub unstated_sessions: u64,
}

impl Location {
    pub(crate) fn of(sessions: &[Session], tagged: Option<&Tagged>) -> Self {
        let sites = || {
            sessions
                .iter()
                .filter_map(|session| session.statement.site.as_ref())
        };
        let unstated = (sessions.len() - sites().count()) as u64;
        let (level, assumption, source) = match tagged {
            None => (
                "L0",
                "the operator tells the truth: nothing measured the place",
                "operator",
            ),
            Some(_) => ("L1", Tagged::ASSUMPTION, "authority and tpm"),
        };
        let sites = || sites().chain(tagged.map(|tagged| &tagged.tag.site));
        Self {
            level,
            assumption,
            source,
            countries: sites().filter_map(|site| site.country.clone()).collect(),
            regions: sites().filter_map(|site| site.region.clone()).collect(),
            facilities: sites().filter_map(|site| site.facility.clone()).collect(),
            unstated_sessions: unstated,
        }
    }
}

/// Exact decisions over the sessions shown, each counted from its session's start.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Egress {
    /// Let through by a rule.
    pub allowed: u64,
    /// Refused.
    pub denied: u64,
    /// Would have been refused, and were let through.
    pub audited: u64,
    /// Events and entries that could not be recorded; no verdict depends on them.
    pub lost: u64,
    /// Bytes that left under signed grants, beyond what the boundary allows.
    pub granted_bytes: u64,
    /// The same by place of decision and protocol.
    pub by_hook: Vec<HookCount>,
    /// Losses by reason.
    pub lost_by_reason: BTreeMap<String, u64>,
    /// Ways out that nothing covered at some time.
    pub uncovered: BTreeSet<String>,
}

/// Decisions of one kind.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct HookCount {
    /// Where.
    pub hook: String,
    /// What.
    pub verdict: &'static str,
    /// Protocol group.
    pub protocol: String,
    /// How many.
    pub count: u64,
}

impl Egress {
    /// `notable` has the entries that tell of losses. Where they tell of more than the
    /// statements count, they are believed: nobody is lenient with himself twice.
    pub(crate) fn of(sessions: &[Session], notable: &[(u64, Entry)], granted_bytes: u64) -> Self {
        let mut egress = Self {
            allowed: 0,
            denied: 0,
            audited: 0,
            lost: 0,
            granted_bytes,
            by_hook: Vec::new(),
            lost_by_reason: BTreeMap::new(),
            uncovered: BTreeSet::new(),
        };
        let mut by_hook: BTreeMap<(String, &'static str, String), u64> = BTreeMap::new();
        for session in sessions {
            egress
                .uncovered
                .extend(session.statement.uncovered.iter().cloned());
            for epoch in &session.epochs {
                egress
                    .uncovered
                    .extend(epoch.statement.uncovered.iter().cloned());
            }
            // Counts are cumulative, so the last epoch of a session has them all.
            let Some(last) = session.epochs.last() else {
                continue;
            };
            for counter in &last.statement.counters {
                let (total, verdict) = match counter.verdict {
                    FlowVerdict::Allow => (&mut egress.allowed, "allow"),
                    FlowVerdict::Deny => (&mut egress.denied, "deny"),
                    FlowVerdict::Audit => (&mut egress.audited, "audit"),
                };
                *total = total.saturating_add(counter.count);
                let key = (counter.hook.clone(), verdict, counter.protocol.clone());
                let sum = by_hook.entry(key).or_default();
                *sum = sum.saturating_add(counter.count);
            }
            for (reason, count) in losses(session, last, notable) {
                egress.lost = egress.lost.saturating_add(count);
                let sum = egress.lost_by_reason.entry(reason).or_default();
                *sum = sum.saturating_add(count);
            }
        }
        let counts = by_hook
            .into_iter()
            .map(|((hook, verdict, protocol), count)| HookCount {
                hook,
                verdict,
                protocol,
                count,
            });
        egress.by_hook = counts.collect();
        egress
    }
}

/// What a session lost, by reason: as its last epoch counts it, or as its entries told it, where
/// that is more.
fn losses(session: &Session, last: &Epoch, notable: &[(u64, Entry)]) -> BTreeMap<String, u64> {
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for loss in &last.statement.lost {
        let sum = counted.entry(loss.reason.clone()).or_default();
        *sum = sum.saturating_add(loss.count);
    }
    let leaves = session.statement.tree_size..last.statement.size_after;
    let mut told: BTreeMap<&str, u64> = BTreeMap::new();
    for (index, entry) in notable {
        if let Body::Lost { reason, count } = &entry.body
            && leaves.contains(index)
        {
            let sum = told.entry(reason).or_default();
            *sum = sum.saturating_add(*count);
        }
    }
    for (reason, count) in told {
        let sum = counted.entry(reason.to_owned()).or_default();
        *sum = count.max(*sum);
    }
    counted
}

/// A leaf that a single proof shows.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ReceiptEntry {
    /// Its index in the log.
    pub index: u64,
    /// When it was made, by the host's clock.
    pub time: String,
    /// What it is.
    pub kind: &'static str,
    /// All it says, in the words of the format.
    pub detail: String,
}

impl ReceiptEntry {
    pub(crate) fn of(index: u64, entry: &Entry) -> Self {
        Self {
            index,
            time: rfc3339(entry.time_ms),
            kind: kind(&entry.body),
            detail: format!("{:?}", entry.body),
        }
    }
}
