//! Deputies: processes outside a guarded group, on the same host, that it asked.
//!
//! Whoever answers on the host may pass on what he was given, and no hook follows that. So a
//! request that was let through is told, and the policy decides whom it accepts.

use super::{IncidentError, Scene, Who};
use crate::coverage::rfc3339;
use crate::trust::{DeputyRule, Require};
use crate::verdict::{CheckId, Tally};
use merestone_evidence::Body;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Requests to somebody outside the group, on the same host.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Deputies {
    /// Requests that were refused.
    pub refused: u64,
    /// Requests that were let through.
    pub let_through: u64,
    /// Each, alike ones together.
    pub asked: Vec<Deputy>,
}

/// Alike requests.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Deputy {
    /// Whom: a local address and port, or a Unix socket, and its owner.
    pub deputy: String,
    /// Whether it was refused.
    pub refused: bool,
    /// Where it was seen.
    pub hook: String,
    /// The guarded group.
    pub group: u64,
    /// Who asked, where that is known.
    pub who: Option<Who>,
    /// How many.
    pub count: u64,
    /// When the first of them was seen.
    pub first: String,
    /// And the last.
    pub last: String,
}

impl Deputy {
    /// What a policy names: the address, or that it is a Unix socket, without the owner, whose
    /// process id is another at each start.
    fn place(&self) -> &str {
        let cut = self.deputy.split_once(" of ");
        cut.map_or(self.deputy.as_str(), |(place, _)| place)
    }
}

type Key = (String, bool, String, u64, Option<Who>);

pub(super) fn of(scene: &Scene<'_>) -> Deputies {
    let mut alike: BTreeMap<Key, (u64, u64, u64)> = BTreeMap::new();
    let (mut refusals, mut let_through) = (0_u64, 0_u64);
    for placed in &scene.entries {
        let Body::Deputy {
            refused,
            hook,
            group,
            process,
            deputy,
            count,
        } = &placed.entry.body
        else {
            continue;
        };
        let sum = if *refused {
            &mut refusals
        } else {
            &mut let_through
        };
        *sum = sum.saturating_add(*count);
        let who = Who::of(process.as_ref());
        let key = (deputy.clone(), *refused, hook.clone(), *group, who);
        let time = placed.entry.time_ms;
        let (sum, first, last) = alike.entry(key).or_insert((0, time, time));
        *sum = sum.saturating_add(*count);
        (*first, *last) = ((*first).min(time), (*last).max(time));
    }
    let asked = alike.into_iter().map(
        |((deputy, refused, hook, group, who), (count, first, last))| Deputy {
            deputy,
            refused,
            hook,
            group,
            who,
            count,
            first: rfc3339(first),
            last: rfc3339(last),
        },
    );
    Deputies {
        refused: refusals,
        let_through,
        asked: asked.collect(),
    }
}

pub(super) fn check(deputies: &Deputies, require: &Require, tally: &mut Tally) {
    let id = CheckId::Deputies;
    let passed = || deputies.asked.iter().filter(|one| !one.refused);
    let refused = deputies.refused;
    let foreign: Vec<_> = match &require.deputies {
        DeputyRule::Any => Vec::new(),
        DeputyRule::None => passed().collect(),
        DeputyRule::Listed(listed) => passed()
            .filter(|one| !listed.contains(one.place()))
            .collect(),
    };
    if !foreign.is_empty() {
        let counts = foreign.iter().map(|one| one.count);
        let got = counts.fold(0, u64::saturating_add);
        let places: BTreeSet<_> = foreign.iter().map(|one| one.place()).collect();
        let who = places.into_iter().take(8).collect::<Vec<_>>().join(", ");
        return tally.fail(id, &IncidentError::Deputies { got, who }.into());
    }
    match (deputies.let_through, &require.deputies) {
        (0, _) => tally.pass(id, format!("nobody was reached; {refused} refused")),
        (count, DeputyRule::Any) => tally.skip(
            id,
            format!(
                "{count} requests reached others on the host, {refused} refused; what those pass on is not followed, and the policy names nobody"
            ),
        ),
        (count, _) => tally.pass(
            id,
            format!("{count} requests reached only those the policy names, {refused} refused"),
        ),
    }
}
