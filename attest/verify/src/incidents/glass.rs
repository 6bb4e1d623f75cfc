//! Break-glass: who opened protection, for what, from when to when.
//!
//! An opening is legitimate where the policy says so, and never silent: while it lasts, the
//! refusals that the rest of a report counts on are suspended for whoever uses it.

use super::{IncidentError, Placed, Scene, refuse};
use crate::coverage::rfc3339;
use crate::trust::{Permit, Require};
use crate::verdict::{CheckId, Tally};
use merestone_evidence::{Body, Digest};
use serde::Serialize;
use std::collections::BTreeSet;

/// Openings of protection.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct BreakGlass {
    /// Each, in order.
    pub openings: Vec<Opening>,
    /// Tokens that were refused.
    pub refused: u64,
    /// How long claims that rest on tampering being refused are suspended, rounded up.
    pub suspended_seconds: u64,
}

/// One opening.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Opening {
    /// Digest of the signed token; absent where nobody signed.
    pub token: Option<String>,
    /// Digest of the signer's public key, where it is told.
    pub signer: Option<String>,
    /// Why, in the operator's words.
    pub reason: String,
    /// What it lets through.
    pub actions: Vec<String>,
    /// When it was opened; absent where that is before the first leaf shown.
    pub opened: Option<String>,
    /// Until when it was opened.
    pub until: String,
    /// When it was closed; absent where the leaves do not show it.
    pub closed: Option<String>,
    #[serde(skip)]
    from_ms: Option<u64>,
    #[serde(skip)]
    until_ms: u64,
    #[serde(skip)]
    closed_ms: Option<u64>,
    #[serde(skip)]
    sha256: Digest,
}

impl Opening {
    /// The kernel closes it at its time, whatever the agent does.
    fn end_ms(&self) -> u64 {
        self.closed_ms.unwrap_or(self.until_ms)
    }

    const fn permit(&self) -> (Permit, &'static str) {
        if self.token.is_some() {
            (Permit::BreakGlass, "break_glass")
        } else {
            (Permit::BreakGlassUnsigned, "break_glass_unsigned")
        }
    }
}

impl BreakGlass {
    /// Whether an opening is shown that lasts at a time.
    pub(super) fn is_open(&self, time_ms: u64, leeway_ms: u64) -> bool {
        self.openings.iter().any(|one| {
            let from = one.from_ms.unwrap_or(0).saturating_sub(leeway_ms);
            (from..=one.end_ms().saturating_add(leeway_ms)).contains(&time_ms)
        })
    }
}

/// What is being followed from entry to entry.
#[derive(Default)]
struct Walk {
    openings: Vec<Opening>,
    /// The last of them has not been closed.
    is_open: bool,
    closed: BTreeSet<Digest>,
    refused: u64,
}

pub(super) fn of(scene: &Scene<'_>, faults: &mut Vec<IncidentError>) -> BreakGlass {
    let mut walk = Walk::default();
    for placed in &scene.entries {
        let Body::BreakGlass {
            sha256,
            state,
            reason,
            until_ms,
            signer,
            actions,
        } = &placed.entry.body
        else {
            continue;
        };
        match state.as_str() {
            "refused" => walk.refused += 1,
            "opened" => {
                let opening = Opening {
                    token: (*sha256 != Digest::ZERO).then(|| sha256.to_string()),
                    signer: signer.map(|signer| signer.to_string()),
                    reason: reason.clone(),
                    actions: actions.clone(),
                    opened: Some(rfc3339(placed.entry.time_ms)),
                    until: rfc3339(*until_ms),
                    closed: None,
                    from_ms: Some(placed.entry.time_ms),
                    until_ms: *until_ms,
                    closed_ms: None,
                    sha256: *sha256,
                };
                walk.open(opening, placed, faults);
            }
            "closed" => walk.close(*sha256, (reason, *until_ms, actions), placed, scene, faults),
            _ => faults.push(IncidentError::Alone {
                at: placed.at(),
                what: "a break-glass of a state that this program does not know",
            }),
        }
    }
    let sums = walk.openings.iter().map(|one| {
        let from = one.from_ms.unwrap_or(one.end_ms());
        one.end_ms().saturating_sub(from)
    });
    let suspended = sums.fold(0, u64::saturating_add);
    BreakGlass {
        openings: walk.openings,
        refused: walk.refused,
        suspended_seconds: suspended.div_ceil(1000),
    }
}

impl Walk {
    fn open(&mut self, new: Opening, placed: &Placed<'_>, faults: &mut Vec<IncidentError>) {
        if let Some(last) = self.openings.last_mut().filter(|_| self.is_open) {
            // A start tells of what it finds open: the same opening, whose end may be known
            // better now. Time that is over is another opening's.
            if last.sha256 == new.sha256 && placed.entry.time_ms <= last.until_ms {
                last.until_ms = last.until_ms.max(new.until_ms);
                last.until = rfc3339(last.until_ms);
                return;
            }
            let end = placed.entry.time_ms.min(last.until_ms);
            last.closed_ms = Some(end);
            self.closed.insert(last.sha256);
        }
        if new.sha256 != Digest::ZERO && self.closed.contains(&new.sha256) {
            faults.push(IncidentError::Alone {
                at: placed.at(),
                what: "a token opened protection a second time: it counts once",
            });
        }
        self.is_open = true;
        self.openings.push(new);
    }

    fn close(
        &mut self,
        sha256: Digest,
        (reason, until_ms, actions): (&str, u64, &[String]),
        placed: &Placed<'_>,
        scene: &Scene<'_>,
        faults: &mut Vec<IncidentError>,
    ) {
        let time = placed.entry.time_ms;
        self.closed.insert(sha256);
        if let Some(last) = self.openings.last_mut()
            && self.is_open
            && last.sha256 == sha256
        {
            last.closed_ms = Some(time.min(last.until_ms));
            last.closed = Some(rfc3339(time));
            self.is_open = false;
            return;
        }
        if scene.whole {
            let (at, what) = (placed.at(), "protection was closed that was never opened");
            faults.push(IncidentError::Alone { at, what });
        }
        self.is_open = false;
        self.openings.push(Opening {
            token: (sha256 != Digest::ZERO).then(|| sha256.to_string()),
            signer: None,
            reason: reason.to_owned(),
            actions: actions.to_vec(),
            opened: None,
            until: rfc3339(until_ms),
            closed: Some(rfc3339(time)),
            from_ms: None,
            until_ms,
            closed_ms: Some(time),
            sha256,
        });
    }
}

pub(super) fn check(
    glass: &BreakGlass,
    faults: &[IncidentError],
    require: &Require,
    tally: &mut Tally,
) {
    let id = CheckId::BreakGlass;
    let mut is_refused = refuse(id, faults, tally);
    for (permit, word) in [
        (Permit::BreakGlass, "break_glass"),
        (Permit::BreakGlassUnsigned, "break_glass_unsigned"),
    ] {
        let mut these = glass
            .openings
            .iter()
            .filter(|one| one.permit().0 == permit)
            .peekable();
        let Some(first) = these.peek().filter(|_| !require.permits(permit)) else {
            continue;
        };
        let by = match (&first.token, &first.signer) {
            (None, _) => "asked for by root, signed by nobody".to_owned(),
            (Some(token), None) => format!("token {token}"),
            (Some(token), Some(signer)) => format!("token {token}, signed by {signer}"),
        };
        let who = format!(
            "first for {}: {by}, {:?}",
            first.actions.join(", "),
            first.reason
        );
        let openings = these.count() as u64;
        let error = IncidentError::Opened {
            openings,
            who,
            permit: word,
        };
        tally.fail(id, &error.into());
        is_refused = true;
    }
    if is_refused {
        return;
    }
    let refused = glass.refused;
    match glass.openings.len() {
        0 => tally.pass(id, format!("never opened; {refused} requests refused")),
        count => tally.skip(
            id,
            format!(
                "opened {count} times, which the policy permits: claims that rest on tampering being refused are suspended for {} s",
                glass.suspended_seconds
            ),
        ),
    }
}
