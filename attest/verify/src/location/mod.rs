//! Where it ran: each level of evidence is looked at by itself, and the highest that is proven is
//! told with what it rests on.
//!
//! L0 is the operator's word, L1 a geotag in the TPM ([`crate::GeotagError`] says what is wrong with
//! one), L2 a cloud's signature over its instance (`cloud`), L3 round trips to
//! landmarks (`landmarks`). A level that is shown and contradicts the policy fails
//! whether or not it was asked for: what was computed is also consulted (N66). A level is never
//! proven by the one above or below it, and none is called proven for being stated.

mod area;
mod cloud;
#[cfg(fuzzing)]
pub mod doors;
mod error;
mod landmarks;
#[expect(clippy::many_single_char_names, reason = "coordinates")]
mod sphere;
#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "samples are small numbers"
)]
mod tests;
mod trust;

pub use area::{Area, Lies};
pub use cloud::{Cloud, CloudTold, Provider};
pub use error::LocationError;
pub use landmarks::{Measured, RoundTold};
pub use sphere::Point;
pub use trust::{Landmark, PlaceTrust};

pub(crate) use cloud::Table as CloudTable;
pub(crate) use trust::{LandmarkTable, Table, check as trusted};

use crate::geotag::{GeotagError, Tagged};
use crate::log::LogChecked;
use crate::policy::PolicyError;
use crate::quote::Session;
use crate::refusal::Refusal;
use crate::trust::{Require, Trust};
use crate::verdict::{CheckId, Tally};
use merestone_evidence::{Digest, LocationEvidence, SessionId, decode, sha256};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What a level rests on, where nothing but the operator's word is there.
const STATED: &str = "the operator tells the truth: nothing measured the place";

/// Where it ran, how well that is known, and what that knowledge rests on.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Location {
    /// The highest level that is proven for every session.
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
    /// What there is of each level.
    pub levels: Vec<LevelTold>,
    /// The area that the policy names.
    pub area: Option<String>,
    /// Rounds of measurements by landmarks, in order.
    pub rounds: Vec<RoundTold>,
    /// Rounds beyond what is told.
    pub rounds_left_out: u64,
    /// What clouds signed.
    pub clouds: Vec<CloudTold>,
    /// Evidence whose digest was sealed and that the file does not have.
    pub evidence_not_shown: u64,
}

/// What there is of one level.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct LevelTold {
    /// `L0` to `L3`.
    pub level: &'static str,
    /// `proven`, `not enough` or `absent`; L0 is `stated`.
    pub state: &'static str,
    /// In words.
    pub detail: String,
    /// What it rests on.
    pub assumption: &'static str,
}

/// What became of a level.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    /// For every session.
    Proven,
    /// There is evidence, and it does not do.
    Short,
    /// There is none, or none that the policy lets count.
    Absent,
}

/// What became of one level of evidence, above L0.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) level: u8,
    pub(crate) state: State,
    pub(crate) detail: String,
    pub(crate) assumption: &'static str,
    /// Each fails the check, whatever level is asked for.
    pub(crate) faults: Vec<LocationError>,
    /// Why it does not do; fails the check where this level is asked for.
    pub(crate) short: Option<LocationError>,
}

/// One piece of location evidence with the epoch that sealed it.
pub(crate) struct Round<'l> {
    pub(crate) at: &'l str,
    pub(crate) session: SessionId,
    pub(crate) session_key: &'l [u8; 32],
    /// Digest of the session statement.
    pub(crate) session_digest: Digest,
    pub(crate) opened_ms: u64,
    pub(crate) closed_ms: u64,
    pub(crate) evidence: LocationEvidence,
}

/// The period, and from when to when each session was sealed.
pub(crate) struct Times {
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
    pub(crate) sessions: Vec<(u64, u64)>,
}

/// What is told of the place, and why it is or is not accepted.
pub(crate) struct Judged {
    pub(crate) told: Location,
    findings: Vec<Finding>,
    tagged: Option<Tagged>,
    faults: Vec<Refusal>,
}

impl Judged {
    pub(crate) fn of(
        log: &LogChecked,
        trust: &Trust,
        geotag: Result<Option<Tagged>, GeotagError>,
    ) -> Self {
        let mut faults = Vec::new();
        let (rounds, not_shown) = rounds(log, &mut faults);
        let times = Times {
            from_ms: log.bundle.from_ms,
            to_ms: log.bundle.to_ms,
            sessions: log.sessions.iter().filter_map(sealed).collect(),
        };
        let leeway_ms = trust.require.max_clock_step_s.saturating_mul(1000);
        let (cloud, clouds) = cloud::judge(&rounds, &log.sessions, &trust.place, leeway_ms);
        let landmarks = landmarks::judge(&rounds, &times, &trust.place, leeway_ms);
        let mut faults: Vec<Refusal> = faults.into_iter().map(Refusal::from).collect();
        let tagged = geotag.unwrap_or_else(|error| {
            faults.push(error.into());
            None
        });
        let findings = vec![vouched(tagged.as_ref()), cloud, landmarks.finding];
        let mut told = stated(&log.sessions, tagged.as_ref());
        for finding in &findings {
            if finding.state == State::Proven && faults.is_empty() && finding.faults.is_empty() {
                told.level = word(finding.level);
                told.assumption = finding.assumption;
                told.source = source(finding.level);
            }
            told.levels.push(LevelTold {
                level: word(finding.level),
                state: match finding.state {
                    State::Proven => "proven",
                    State::Short => "not enough",
                    State::Absent => "absent",
                },
                detail: finding.detail.clone(),
                assumption: finding.assumption,
            });
        }
        told.area = trust.place.area.as_ref().map(|area| area.name.clone());
        told.rounds = landmarks.rounds;
        told.rounds_left_out = landmarks.rounds_left_out;
        told.clouds = clouds;
        told.evidence_not_shown = not_shown;
        Self {
            told,
            findings,
            tagged,
            faults,
        }
    }

    /// Records what the evidence of the place comes to.
    pub(crate) fn check(
        self,
        sessions: &[Session],
        require: &Require,
        tally: &mut Tally,
    ) -> Location {
        let Self {
            told,
            mut findings,
            tagged,
            faults,
        } = self;
        let id = CheckId::Location;
        let shown = findings
            .iter_mut()
            .flat_map(|finding| finding.faults.drain(..))
            .map(Refusal::from);
        let faults: Vec<_> = faults.into_iter().chain(shown).collect();
        if !faults.is_empty() {
            for fault in faults {
                tally.fail(id, &fault);
            }
            return told;
        }
        let asked = match accepted(&told, sessions, tagged.as_ref(), require) {
            Ok(asked) => asked,
            Err(error) => {
                tally.fail(id, &error.into());
                return told;
            }
        };
        let reached = findings
            .iter()
            .filter(|finding| finding.state == State::Proven)
            .map(|finding| finding.level)
            .max()
            .unwrap_or_default();
        let want = require.location_level;
        if reached < want {
            tally.fail(id, &missing(&mut findings, want, told.level));
        } else if let Some(tagged) = tagged.filter(|_| reached == 1) {
            tally.pass(id, tagged.told());
        } else if reached > 0 {
            let proven = findings.iter().find(|finding| finding.level == reached);
            let detail = proven
                .map(|finding| finding.detail.as_str())
                .unwrap_or_default();
            tally.pass(
                id,
                format!(
                    "{}: {detail}; this holds only if: {}",
                    told.level, told.assumption
                ),
            );
        } else if asked {
            tally.pass(
                id,
                "L0: the operator states an accepted place; nothing measured it",
            );
        } else {
            tally.skip(
                id,
                "L0: the operator's word, and the policy names no place; nothing measured it",
            );
        }
        told
    }
}

/// Why the level asked for is not reached: what its own evidence lacks, if there is any.
fn missing(findings: &mut [Finding], want: u8, got: &'static str) -> Refusal {
    let own = findings.iter_mut().find(|finding| finding.level == want);
    let short = own.and_then(|finding| {
        finding
            .short
            .take()
            .ok_or_else(|| finding.detail.clone())
            .into()
    });
    match short {
        Some(Ok(error)) => error.into(),
        Some(Err(why)) => LocationError::Level { got, want, why }.into(),
        None => LocationError::Level {
            got,
            want,
            why: "this program cannot judge that level".to_owned(),
        }
        .into(),
    }
}

/// Whether the policy names places and every session states one of them.
fn accepted(
    told: &Location,
    sessions: &[Session],
    tagged: Option<&Tagged>,
    require: &Require,
) -> Result<bool, PolicyError> {
    // Exact comparison: "EU" is neither "eu" nor the beginning of "EU-OUT" (N49).
    let places = [
        ("country", &require.country, &told.countries),
        ("region", &require.region, &told.regions),
    ];
    let mut asked = false;
    for (what, accepted, stated) in places {
        let Some(accepted) = accepted else { continue };
        asked = true;
        let other = stated.iter().find(|place| !accepted.contains(*place));
        if let Some(got) = other {
            let (at, got) = ("the site".to_owned(), format!("{got:?}"));
            return Err(PolicyError::Value { at, what, got });
        }
        let silent = sessions.iter().filter(|session| {
            let site = session.statement.site.as_ref();
            let place = site.and_then(|site| match what {
                "country" => site.country.as_ref(),
                _ => site.region.as_ref(),
            });
            place.is_none()
        });
        let got = silent.count() as u64;
        let is_tagged = tagged.is_some_and(|tagged| match what {
            "country" => tagged.tag.site.country.is_some(),
            _ => tagged.tag.site.region.is_some(),
        });
        if got > 0 && !is_tagged {
            return Err(PolicyError::Unstated { got, what });
        }
    }
    Ok(asked)
}

/// From the start of a session to the last epoch shown.
fn sealed(session: &Session) -> Option<(u64, u64)> {
    let from = session.statement.started_ms;
    let last = session
        .epochs
        .iter()
        .map(|epoch| epoch.statement.closed_ms)
        .max()?;
    Some((from, last.max(from)))
}

/// Every piece of evidence with the epoch that sealed its digest, in the epochs' order; and how
/// many digests have no evidence here.
fn rounds<'l>(log: &'l LogChecked, faults: &mut Vec<LocationError>) -> (Vec<Round<'l>>, u64) {
    let shown = log.bundle.location.as_deref().unwrap_or_default();
    let mut by_digest: BTreeMap<Digest, (usize, bool)> = BTreeMap::new();
    for (number, bytes) in shown.iter().enumerate() {
        by_digest.insert(sha256(bytes), (number, false));
    }
    let mut rounds = Vec::new();
    let mut not_shown = 0;
    for session in &log.sessions {
        for epoch in &session.epochs {
            let Some(digest) = epoch.statement.location else {
                continue;
            };
            let Some((number, used)) = by_digest.get_mut(&digest) else {
                not_shown += 1;
                continue;
            };
            *used = true;
            let bytes = shown.get(*number).map_or(&[][..], |bytes| bytes.as_slice());
            let evidence: LocationEvidence = match decode(bytes) {
                Ok(evidence) => evidence,
                Err(source) => {
                    let number = *number;
                    faults.push(LocationError::Evidence { number, source });
                    continue;
                }
            };
            let own = session.statement.session;
            if evidence.session != own {
                faults.push(LocationError::Foreign {
                    at: epoch.at.clone(),
                    whose: "the location evidence".to_owned(),
                    what: "session",
                    got: evidence.session.to_string(),
                    want: own.to_string(),
                });
                continue;
            }
            rounds.push(Round {
                at: &epoch.at,
                session: own,
                session_key: &session.statement.session_key,
                session_digest: session.said.digest,
                opened_ms: epoch.statement.opened_ms,
                closed_ms: epoch.statement.closed_ms,
                evidence,
            });
        }
    }
    for (got, (number, used)) in by_digest {
        if !used {
            faults.push(LocationError::Unsealed { number, got });
        }
    }
    (rounds, not_shown)
}

/// L1, as the authority vouches for it.
fn vouched(tagged: Option<&Tagged>) -> Finding {
    let none = || "no authority vouches for a geotag".to_owned();
    Finding {
        level: 1,
        state: if tagged.is_some() {
            State::Proven
        } else {
            State::Absent
        },
        detail: tagged.map_or_else(none, Tagged::told),
        assumption: Tagged::ASSUMPTION,
        faults: Vec::new(),
        short: None,
    }
}

fn stated(sessions: &[Session], tagged: Option<&Tagged>) -> Location {
    let sites = || {
        sessions
            .iter()
            .filter_map(|session| session.statement.site.as_ref())
    };
    let unstated_sessions = (sessions.len() - sites().count()) as u64;
    let sites = || sites().chain(tagged.map(|tagged| &tagged.tag.site));
    Location {
        level: word(0),
        assumption: STATED,
        source: source(0),
        countries: sites().filter_map(|site| site.country.clone()).collect(),
        regions: sites().filter_map(|site| site.region.clone()).collect(),
        facilities: sites().filter_map(|site| site.facility.clone()).collect(),
        unstated_sessions,
        levels: vec![LevelTold {
            level: word(0),
            state: "stated",
            detail: if unstated_sessions == 0 {
                "every session states its place".to_owned()
            } else {
                format!("{unstated_sessions} sessions state no place")
            },
            assumption: STATED,
        }],
        area: None,
        rounds: Vec::new(),
        rounds_left_out: 0,
        clouds: Vec::new(),
        evidence_not_shown: 0,
    }
}

const fn word(level: u8) -> &'static str {
    match level {
        0 => "L0",
        1 => "L1",
        2 => "L2",
        _ => "L3",
    }
}

const fn source(level: u8) -> &'static str {
    match level {
        0 => "operator",
        1 => "authority and tpm",
        2 => "cloud",
        _ => "landmarks",
    }
}
