//! Grants: what left beyond the boundary, by whose leave, within which bounds.
//!
//! Whether there may be grants is the policy's word. That a grant keeps to what was signed is
//! not: more bytes, another time or a use that nobody accepted fail whatever the policy says.

use super::{Faults, IncidentError, Placed, Scene, refuse};
use crate::coverage::rfc3339;
use crate::network::Network;
use crate::trust::{Permit, Require};
use crate::verdict::{CheckId, Tally};
use merestone_evidence::{Body, Digest, GrantTerms};
use serde::Serialize;

/// Grants in force at some time.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Grants {
    /// Bytes that left under them, as far as the entries tell.
    pub bytes: u64,
    /// Each, in the order they first came.
    pub used: Vec<GrantUsed>,
    /// Files that were refused.
    pub refused: u64,
}

/// One grant.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct GrantUsed {
    /// Its name.
    pub name: String,
    /// Digest of the signed file.
    pub sha256: String,
    /// Digest of the signer's public key.
    pub signer: Option<String>,
    /// The control group that may send.
    pub group: Option<String>,
    /// The network it may send to.
    pub to: Option<String>,
    /// Ranges of ports; none for any.
    pub ports: Vec<(u16, u16)>,
    /// IP protocol numbers; none for any.
    pub protocols: Vec<u8>,
    /// How many bytes may leave.
    pub limit_bytes: Option<u64>,
    /// How many did, as far as the entries tell.
    pub bytes: u64,
    /// When it was taken into force; absent where that is before the first leaf shown.
    pub accepted: Option<String>,
    /// Its time is over then.
    pub until: Option<String>,
    /// Why, in the words of whoever signed.
    pub reason: Option<String>,
    /// What became of it: `accepted`, `used`, `spent`, `expired` or `revoked`.
    pub state: String,
    #[serde(skip)]
    terms: Option<GrantTerms>,
    #[serde(skip)]
    digest: Digest,
}

impl GrantUsed {
    fn new(name: &str, digest: Digest) -> Self {
        Self {
            name: name.to_owned(),
            sha256: digest.to_string(),
            signer: None,
            group: None,
            to: None,
            ports: Vec::new(),
            protocols: Vec::new(),
            limit_bytes: None,
            bytes: 0,
            accepted: None,
            until: None,
            reason: None,
            state: String::new(),
            terms: None,
            digest,
        }
    }

    fn tell(&mut self, terms: &GrantTerms) {
        self.signer = Some(terms.signer.to_string());
        self.group = Some(terms.group.clone());
        self.to = Some(terms.to.clone());
        self.ports.clone_from(&terms.ports);
        self.protocols.clone_from(&terms.protocols);
        self.limit_bytes = Some(terms.limit_bytes);
        self.until = Some(rfc3339(terms.until_ms));
        self.reason = Some(terms.reason.clone());
        self.terms = Some(terms.clone());
    }

    fn has_ended(&self) -> bool {
        matches!(self.state.as_str(), "expired" | "revoked")
    }
}

/// One entry about a grant.
struct Said<'e> {
    state: &'e str,
    bytes: u64,
    terms: Option<&'e GrantTerms>,
}

pub(super) fn of(
    scene: &Scene<'_>,
    faults: &mut Vec<IncidentError>,
    unknown: &mut Vec<String>,
) -> Grants {
    let mut grants = Grants {
        bytes: 0,
        used: Vec::new(),
        refused: 0,
    };
    for placed in &scene.entries {
        let Body::Grant {
            name,
            sha256,
            state,
            bytes,
            detail: _,
            terms,
        } = &placed.entry.body
        else {
            continue;
        };
        let said = Said {
            state,
            bytes: *bytes,
            terms: terms.as_ref(),
        };
        let alone = |what| IncidentError::Alone {
            at: placed.at(),
            what,
        };
        if !matches!(
            state.as_str(),
            "accepted" | "used" | "spent" | "expired" | "revoked"
        ) {
            if state == "refused" {
                grants.refused += 1;
            } else {
                faults.push(alone("a grant of a state that this program does not know"));
            }
            continue;
        }
        let known = grants.used.iter_mut().position(|one| one.digest == *sha256);
        let is_new = known.is_none();
        let at = known.unwrap_or(grants.used.len());
        if is_new {
            grants.used.push(GrantUsed::new(name, *sha256));
        }
        let Some(grant) = grants.used.get_mut(at) else {
            continue;
        };
        if state == "accepted" {
            if !is_new {
                faults.push(alone("a grant was accepted a second time: it counts once"));
            }
            grant.accepted = Some(rfc3339(placed.entry.time_ms));
        } else if is_new && scene.whole {
            faults.push(alone("a grant was in force that was never accepted"));
        }
        follow(grant, &said, placed, scene.leeway_ms, faults);
    }
    let without = grants.used.iter().filter(|grant| grant.terms.is_none());
    unknown.extend(without.map(|grant| grant.name.clone()));
    let sums = grants.used.iter().map(|grant| grant.bytes);
    grants.bytes = sums.fold(0, u64::saturating_add);
    grants
}

/// Holds an entry against what was signed and what was said before.
fn follow(
    grant: &mut GrantUsed,
    said: &Said<'_>,
    placed: &Placed<'_>,
    leeway_ms: u64,
    faults: &mut Vec<IncidentError>,
) {
    let beyond = |grant: &GrantUsed, what, got: String, want: String| IncidentError::Beyond {
        at: placed.at(),
        name: grant.name.clone(),
        what,
        got,
        want,
    };
    match (said.terms, &grant.terms) {
        (Some(now), Some(before)) if now != before => {
            let (got, want) = (format!("{now:?}"), format!("{before:?}"));
            faults.push(beyond(grant, "has other terms than before", got, want));
        }
        (Some(now), None) => grant.tell(now),
        _ => {}
    }
    let (before, bytes) = (grant.bytes, said.bytes);
    if bytes < before {
        let (got, want) = (bytes.to_string(), format!("at least {before}"));
        faults.push(beyond(grant, "was counted back", got, want));
    }
    if grant.has_ended() && bytes > before {
        let got = format!("{bytes} bytes after it had {}", grant.state);
        faults.push(beyond(
            grant,
            "was used after its end",
            got,
            before.to_string(),
        ));
    }
    if let Some(terms) = &grant.terms {
        let (time, limit) = (placed.entry.time_ms, terms.limit_bytes);
        if bytes > limit {
            let (got, want) = (format!("{bytes} bytes"), format!("{limit}"));
            faults.push(beyond(grant, "was used beyond its budget", got, want));
        }
        // An entry of its end may be late; it tells of use until then.
        let tells_use = matches!(said.state, "used" | "spent") && bytes > before;
        if tells_use && time > terms.until_ms.saturating_add(leeway_ms) {
            let (got, want) = (rfc3339(time), format!("until {}", rfc3339(terms.until_ms)));
            faults.push(beyond(grant, "was used after its time", got, want));
        }
        if bytes > before && time.saturating_add(leeway_ms) < terms.from_ms {
            let (got, want) = (rfc3339(time), format!("from {}", rfc3339(terms.from_ms)));
            faults.push(beyond(grant, "was used before its time", got, want));
        }
    }
    grant.bytes = bytes.max(before);
    said.state.clone_into(&mut grant.state);
}

pub(super) fn check(grants: &Grants, faults: &Faults, require: &Require, tally: &mut Tally) {
    let id = CheckId::Grants;
    let mut is_refused = refuse(id, &faults.grants, tally);
    let count = grants.used.len() as u64;
    let is_named = require.grant_to.is_some() || require.max_grant_bytes.is_some();
    if count > 0 && !is_named && !require.permits(Permit::Grants) {
        let names = grants
            .used
            .iter()
            .take(8)
            .map(|grant| format!("{:?}", grant.name));
        let error = IncidentError::Granted {
            grants: count,
            names: names.collect::<Vec<_>>().join(", "),
            bytes: grants.bytes,
        };
        tally.fail(id, &error.into());
        is_refused = true;
    }
    for grant in foreign(grants, require) {
        let (name, to) = (grant.name.clone(), grant.to.clone().unwrap_or_default());
        tally.fail(id, &IncidentError::Destination { name, to }.into());
        is_refused = true;
    }
    let (got, limit) = (grants.bytes, require.max_grant_bytes);
    if let Some(limit) = limit.filter(|limit| got > *limit) {
        tally.fail(id, &IncidentError::GrantedBytes { got, limit }.into());
        is_refused = true;
    }
    if is_refused {
        return;
    }
    if let Some(first) = faults.unknown_grants.first() {
        let more = faults.unknown_grants.len();
        let detail = format!("{more} grants whose terms no leaf shown tells, first {first:?}");
        return tally.missing(id, detail);
    }
    let refused = grants.refused;
    if count == 0 {
        tally.pass(id, format!("none was in force; {refused} refused"));
    } else {
        let detail =
            format!("{count} within their bounds, {got} bytes left under them; {refused} refused");
        tally.pass(id, detail);
    }
}

/// Grants to somewhere the policy does not name. Terms that are no network are to nowhere it
/// names; those that are not told are another matter.
fn foreign<'g>(grants: &'g Grants, require: &'g Require) -> impl Iterator<Item = &'g GrantUsed> {
    let accepted = require.grant_to.as_ref();
    grants.used.iter().filter(move |grant| {
        let (Some(accepted), Some(to)) = (accepted, &grant.to) else {
            return false;
        };
        let to = Network::parse(to).ok();
        !to.is_some_and(|to| accepted.iter().any(|network| network.holds(to)))
    })
}
