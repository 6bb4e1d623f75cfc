//! What the log tells of enforcement itself: attempts on it, openings of it, what left under a
//! grant, who was asked on the host, and what the canary came to.
//!
//! It believes the agent as far as the TPM sealed its words, and no further: an entry that says
//! something was not kept is a failure until the policy permits it, and what an entry should
//! have beside it (an opening, an acceptance) and has not is one always. A receipt shows single
//! leaves, so that what is absent from it says nothing: there nothing of this is judged but the
//! canary, whose counts are in the statements.

mod canary;
mod deputies;
mod error;
mod glass;
mod grants;
mod tamper;

pub use canary::CanaryReport;
pub use deputies::{Deputies, Deputy};
pub(crate) use error::IncidentError;
pub use glass::{BreakGlass, Opening};
pub use grants::{GrantUsed, Grants};
pub use tamper::{Attempt, Tamper, Unkept};

use crate::coverage::rfc3339;
use crate::frame::Purpose;
use crate::log::LogChecked;
use crate::quote::Session;
use crate::trust::Require;
use crate::verdict::{CheckId, Tally};
use merestone_evidence::{Body, Entry, Process};
use serde::Serialize;

/// What the log tells of enforcement itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Incidents {
    pub(crate) tamper: Tamper,
    pub(crate) break_glass: BreakGlass,
    pub(crate) grants: Grants,
    pub(crate) deputies: Deputies,
    pub(crate) canary: CanaryReport,
    faults: Faults,
}

/// What no policy permits, and what could not be told from the leaves shown.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Faults {
    tamper: Vec<IncidentError>,
    break_glass: Vec<IncidentError>,
    grants: Vec<IncidentError>,
    canary: Vec<IncidentError>,
    /// A grant was used whose acceptance is before the first leaf shown, and has no terms.
    unknown_grants: Vec<String>,
}

/// An entry with its place.
pub(crate) struct Placed<'e> {
    pub(crate) index: u64,
    pub(crate) entry: &'e Entry,
    /// Which session, by position.
    pub(crate) session: usize,
    /// When its epoch opened.
    pub(crate) opened_ms: u64,
}

impl Placed<'_> {
    fn at(&self) -> String {
        format!("entry {} at {}", self.index, rfc3339(self.entry.time_ms))
    }
}

/// Everything to walk through.
struct Scene<'e> {
    sessions: &'e [Session],
    entries: Vec<Placed<'e>>,
    /// Every leaf from the log's first is shown, so what is absent did not happen.
    whole: bool,
    /// How far a wall clock may be off.
    leeway_ms: u64,
}

/// Whether an entry is of a kind that this module looks at.
pub(crate) const fn concerns(body: &Body) -> bool {
    matches!(
        body,
        Body::Tamper { .. }
            | Body::Canary { .. }
            | Body::Grant { .. }
            | Body::BreakGlass { .. }
            | Body::Found { .. }
            | Body::Deputy { .. }
            | Body::Boundary { .. }
            | Body::Lost { .. }
    )
}

impl Incidents {
    pub(crate) fn of(log: &LogChecked, require: &Require) -> Self {
        let scene = Scene {
            sessions: &log.sessions,
            entries: placed(log),
            whole: log.bundle.span.as_ref().is_some_and(|span| span.start == 0),
            leeway_ms: require.max_clock_step_s.saturating_mul(1000),
        };
        let mut faults = Faults::default();
        let break_glass = glass::of(&scene, &mut faults.break_glass);
        Self {
            tamper: tamper::of(&scene, &break_glass, &mut faults.tamper),
            grants: grants::of(&scene, &mut faults.grants, &mut faults.unknown_grants),
            deputies: deputies::of(&scene),
            canary: canary::of(&scene, &mut faults.canary),
            break_glass,
            faults,
        }
    }

    /// Stretches in which enforcement is not shown, with the reason.
    pub(crate) fn unproven(&self) -> Vec<(u64, u64, &'static str)> {
        let unkept = self.tamper.not_kept.iter();
        unkept
            .map(|one| (one.from_ms, one.to_ms, one.reason))
            .collect()
    }

    pub(crate) fn check(&self, purpose: Purpose, require: &Require, tally: &mut Tally) {
        if purpose == Purpose::Receipt {
            for id in [
                CheckId::Tamper,
                CheckId::BreakGlass,
                CheckId::Grants,
                CheckId::Deputies,
            ] {
                tally.skip(id, "a receipt shows single entries, not all");
            }
        } else {
            tamper::check(&self.tamper, &self.faults.tamper, require, tally);
            glass::check(&self.break_glass, &self.faults.break_glass, require, tally);
            grants::check(&self.grants, &self.faults, require, tally);
            deputies::check(&self.deputies, require, tally);
        }
        canary::check(&self.canary, &self.faults.canary, require, tally);
    }
}

/// The entries that matter here, each in its session and epoch.
fn placed(log: &LogChecked) -> Vec<Placed<'_>> {
    let epochs = log.sessions.iter().enumerate().flat_map(|(session, one)| {
        let epochs = one.epochs.iter();
        epochs.map(move |epoch| (session, &epoch.statement))
    });
    let mut epochs = epochs.peekable();
    let mut placed = Vec::new();
    for (index, entry) in &log.notable {
        while epochs
            .next_if(|(_, epoch)| epoch.size_after <= *index)
            .is_some()
        {}
        // A span ends at a seal, so that every leaf of it lies in an epoch; the leaves of one
        // that is not shown here, before the first, belong to the first.
        let Some((session, epoch)) = epochs.peek() else {
            break;
        };
        placed.push(Placed {
            index: *index,
            entry,
            session: *session,
            opened_ms: epoch.opened_ms,
        });
    }
    placed
}

/// Faults as they are, or `None` where there is none.
fn refuse(id: CheckId, faults: &[IncidentError], tally: &mut Tally) -> bool {
    for fault in faults {
        tally.fail(id, &fault.clone().into());
    }
    !faults.is_empty()
}

/// Who did something, as the agent knew it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Who {
    /// Process id.
    pub pid: u32,
    /// Its executable.
    pub exe: String,
    /// Command name.
    pub comm: String,
    /// Control group.
    pub cgroup: String,
}

impl Who {
    fn of(process: Option<&Process>) -> Option<Self> {
        process.map(|process| Self {
            pid: process.pid,
            exe: process.exe.clone(),
            comm: process.comm.clone(),
            cgroup: process.cgroup.clone(),
        })
    }
}
