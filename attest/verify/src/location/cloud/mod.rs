//! L2: what a cloud signed of the instance that asked for it, verified with what the policy pins.
//!
//! Google's token has the digest of the session statement as its audience, Azure's document ten
//! digits of it as its nonce; nothing can be put into the document of AWS, so nothing shows when
//! it was asked for. A document can be handed on by whoever has it: so it counts only for
//! instances that the policy names. Azure's does not say where its instance is: that the one
//! named is in the region is then the policy's own word.

mod ber;
mod cms;
mod jwt;
mod read;
mod table;
#[cfg(test)]
mod tests;

pub use table::{Cloud, Provider};
pub(crate) use table::{Table, check};

use super::error::LocationError;
use super::trust::PlaceTrust;
use super::{Finding, Round, State};
use crate::coverage::rfc3339;
use crate::quote::Session;
use merestone_evidence::{CloudDocument, SessionId};
use serde::Serialize;
use std::collections::BTreeSet;

const ASSUMPTION: &str = "the cloud signs nothing false, and the instance that the policy names is this host: a document can be handed on";

/// Most documents that are told one by one.
const MOST_TOLD: usize = 50;

/// One document, as it was judged.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct CloudTold {
    /// `aws`, `azure` or `gcp`.
    pub provider: &'static str,
    /// When the epoch that sealed it closed.
    pub sealed: String,
    /// The instance.
    pub instance: String,
    /// The region that the document states; absent where it states none.
    pub region: Option<String>,
    /// What ties it to this session; absent where nothing does.
    pub bound_by: Option<&'static str>,
}

/// What a document says once its signature holds.
#[derive(Debug)]
struct Said {
    instance: String,
    region: Option<String>,
    bound_by: Option<&'static str>,
    /// From when to when it may have been made, where it says.
    made_ms: Option<(u64, u64)>,
}

pub(crate) fn judge(
    rounds: &[Round<'_>],
    sessions: &[Session],
    trust: &PlaceTrust,
    leeway_ms: u64,
) -> (Finding, Vec<CloudTold>) {
    let (mut told, mut faults) = (Vec::new(), Vec::new());
    let mut shown: BTreeSet<SessionId> = BTreeSet::new();
    let mut documents = 0;
    for round in rounds {
        for document in &round.evidence.clouds {
            let clouds = trust.clouds.iter();
            let cloud = clouds.filter(|cloud| cloud.provider.word() == document.provider);
            let Some(cloud) = cloud.into_iter().next() else {
                continue;
            };
            documents += 1;
            match one(round, document, cloud, leeway_ms) {
                Ok(one) => {
                    shown.insert(round.session);
                    if told.len() < MOST_TOLD {
                        told.push(one);
                    }
                }
                Err(error) => faults.push(error),
            }
        }
    }
    let missing = sessions
        .iter()
        .find(|session| !shown.contains(&session.statement.session));
    let (state, detail) = match missing {
        _ if documents == 0 => (State::Absent, "no document of a pinned cloud".to_owned()),
        _ if !faults.is_empty() => (State::Short, "a document is refused".to_owned()),
        Some(session) => (State::Short, format!("{} has no document", session.at)),
        None => (State::Proven, words(&told)),
    };
    let finding = Finding {
        level: 2,
        state,
        detail,
        assumption: ASSUMPTION,
        faults,
        short: None,
    };
    (finding, told)
}

fn words(told: &[CloudTold]) -> String {
    let regions: BTreeSet<String> = told
        .iter()
        .map(|one| {
            let region = one.region.as_deref().unwrap_or("of no stated region");
            let bound = one.bound_by.unwrap_or("nothing: it may be of any time");
            format!("{} {region}, tied to the session by {bound}", one.provider)
        })
        .collect();
    regions.into_iter().collect::<Vec<_>>().join("; ")
}

fn one(
    round: &Round<'_>,
    document: &CloudDocument,
    cloud: &Cloud,
    leeway_ms: u64,
) -> Result<CloudTold, LocationError> {
    let provider = cloud.provider.word();
    let at = || round.at.to_owned();
    let said = read::read(round, document, cloud).map_err(|detail| LocationError::Cloud {
        at: at(),
        provider: provider.to_owned(),
        detail,
    })?;
    if let Some((from, until)) = said.made_ms {
        let early = round.opened_ms.saturating_sub(leeway_ms);
        let late = round.closed_ms.saturating_add(leeway_ms);
        if from > late || until < early {
            return Err(LocationError::Time {
                at: at(),
                whose: format!("the document of {provider}"),
                got: rfc3339(from),
                from: rfc3339(round.opened_ms),
                to: rfc3339(round.closed_ms),
            });
        }
    }
    let refused = |what, got: &str| LocationError::CloudValue {
        at: at(),
        provider: provider.to_owned(),
        what,
        got: got.to_owned(),
    };
    if !cloud.instances.contains(&said.instance) {
        return Err(refused("instance", &said.instance));
    }
    // Compared whole and exactly (N49).
    if let Some(region) = said
        .region
        .as_ref()
        .filter(|region| !cloud.regions.contains(*region))
    {
        return Err(refused("region", region));
    }
    Ok(CloudTold {
        provider,
        sealed: rfc3339(round.closed_ms),
        instance: said.instance,
        region: said.region,
        bound_by: said.bound_by,
    })
}
