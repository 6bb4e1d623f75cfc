//! L3: round trips to landmarks. Nothing is faster than light, so who answered a challenge after
//! so many milliseconds was at most 150 km of the way for each of them from who sent it.
//!
//! A host can make itself seem farther away, and never nearer. What the measurement shows is where
//! the holder of the session's key was: that this is the attested host rests on the key being
//! where the agent keeps it.
//!
//! A landmark's own word on where it stands counts for nothing but a warning: the position is
//! the trust policy's. No statement is decoded before its signature by a pinned key holds.

use super::area::{Drawn, Lies};
use super::error::LocationError;
use super::sphere::{Common, Disc, Point};
use super::trust::{Landmark, PlaceTrust};
use super::{Finding, Round, State, Times};
use crate::coverage::rfc3339;
use crate::enrolment::{CoseError, Kind, key_id, open};
use ed25519_dalek::VerifyingKey;
use merestone_evidence::{LandmarkStatement, decode};
use serde::Serialize;
use std::collections::BTreeSet;

/// What it rests on.
pub(crate) const ASSUMPTION: &str = "nothing is faster than light; the pinned landmarks measured and stand where the policy says; the session's key answered from the attested host, and not a copy of it from elsewhere";
/// How far a landmark's word on where it stands may be from the policy's: about a kilometre.
const MOVED_E7: u32 = 100_000;
/// Most rounds that are told one by one.
const MOST_TOLD: usize = 50;

/// One measurement.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Measured {
    /// The landmark, as the policy calls it.
    pub landmark: String,
    /// Who runs it, as the policy says.
    pub operator: String,
    /// It counts as independent of the party that is checked.
    pub independent: bool,
    /// Shortest round trip, in microseconds, rounded up.
    pub rtt_us: u64,
    /// The host was at most so far away, in kilometres, rounded up.
    pub within_km: u64,
    /// Challenges answered.
    pub answered: u32,
}

/// Measurements that one epoch sealed, and what they say together.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct RoundTold {
    /// When the epoch that sealed them closed.
    pub sealed: String,
    /// `contained`, `overlaps` or `outside`; absent where nothing can be said.
    pub place: Option<&'static str>,
    /// The measurements.
    pub measured: Vec<Measured>,
    /// Statements of landmarks that the policy does not pin; they count for nothing.
    pub unpinned: u64,
}

/// What a length of time allows for, there and back, in metres: light goes 149,896.229 m in half
/// a millisecond's way, taken for 150,000 m, and what is left over counts whole.
pub(crate) const fn reach_m(rtt_ns: u64) -> u64 {
    rtt_ns.saturating_mul(15).div_ceil(100)
}

/// What all rounds of the file come to.
pub(crate) struct Told {
    pub(crate) finding: Finding,
    pub(crate) rounds: Vec<RoundTold>,
    pub(crate) rounds_left_out: u64,
}

pub(crate) fn judge(
    rounds: &[Round<'_>],
    times: &Times,
    trust: &PlaceTrust,
    leeway_ms: u64,
) -> Told {
    let drawn = trust.area.as_ref().and_then(|area| area.drawn().ok());
    let mut judge = Judge {
        trust,
        keys: trust
            .landmarks
            .iter()
            .map(|landmark| landmark.key)
            .collect(),
        drawn,
        leeway_ms,
        faults: Vec::new(),
        shown: Vec::new(),
        overlaps: None,
        few: None,
        measured: 0,
    };
    let mut told = Vec::new();
    let mut left_out = 0;
    for round in rounds
        .iter()
        .filter(|round| !round.evidence.landmarks.is_empty())
    {
        let one = judge.round(round);
        if told.len() < MOST_TOLD {
            told.push(one);
        } else {
            left_out += 1;
        }
    }
    Told {
        finding: judge.finding(times),
        rounds: told,
        rounds_left_out: left_out,
    }
}

struct Judge<'t> {
    trust: &'t PlaceTrust,
    keys: Vec<VerifyingKey>,
    drawn: Option<Drawn>,
    leeway_ms: u64,
    faults: Vec<LocationError>,
    /// When a round that shows the host in the area was sealed.
    shown: Vec<u64>,
    overlaps: Option<LocationError>,
    few: Option<LocationError>,
    measured: u64,
}

impl<'t> Judge<'t> {
    fn round(&mut self, round: &Round<'_>) -> RoundTold {
        let mut told = RoundTold {
            sealed: rfc3339(round.closed_ms),
            place: None,
            measured: Vec::new(),
            unpinned: 0,
        };
        let mut discs = Vec::new();
        let mut operators = BTreeSet::new();
        let mut is_sound = true;
        for (number, message) in round.evidence.landmarks.iter().enumerate() {
            match self.statement(round, number, message) {
                Ok(None) => told.unpinned += 1,
                Ok(Some((landmark, statement))) => {
                    self.measured += 1;
                    let metres = reach_m(statement.rtt_min_ns);
                    told.measured.push(Measured {
                        landmark: landmark.name.clone(),
                        operator: landmark.operator.clone(),
                        independent: landmark.independent,
                        rtt_us: statement.rtt_min_ns.div_ceil(1000),
                        within_km: metres.div_ceil(1000),
                        answered: statement.answered,
                    });
                    // Who is checked may not measure himself (N71).
                    if landmark.independent {
                        operators.insert(landmark.operator.clone());
                        discs.push((metres, landmark.at));
                    }
                }
                Err(error) => {
                    is_sound = false;
                    self.faults.push(error);
                }
            }
        }
        if is_sound {
            told.place = self.place(round, discs, operators.len() as u64);
        }
        told
    }

    fn place(
        &mut self,
        round: &Round<'_>,
        mut discs: Vec<(u64, Point)>,
        operators: u64,
    ) -> Option<&'static str> {
        if discs.is_empty() {
            return None;
        }
        // The smallest first: it says soonest what is far away.
        discs.sort_unstable();
        let discs: Vec<Disc> = discs
            .iter()
            .filter_map(|(metres, at)| Disc::of(*at, *metres))
            .collect();
        let drawn = self.drawn.as_ref()?;
        let area = self.trust.area.as_ref().map(|area| area.name.clone());
        let lies = match Common::of(&discs) {
            Some(common) => drawn.lies(&common),
            // Every disc was too wide to say anything.
            None if discs.is_empty() => Lies::Overlaps,
            None => {
                let at = round.at.to_owned();
                self.faults.push(LocationError::Nowhere { at });
                return None;
            }
        };
        let error = || LocationError::Area {
            at: round.at.to_owned(),
            got: lies,
            area: area.clone().unwrap_or_default(),
        };
        match lies {
            Lies::Contained if operators >= self.trust.min_landmarks => {
                self.shown.push(round.closed_ms);
            }
            Lies::Contained => {
                self.few.get_or_insert_with(|| LocationError::Few {
                    at: round.at.to_owned(),
                    got: operators,
                    want: self.trust.min_landmarks,
                });
            }
            Lies::Overlaps => {
                self.overlaps.get_or_insert_with(error);
            }
            Lies::Outside => self.faults.push(error()),
        }
        Some(lies.word())
    }

    /// A statement of a pinned landmark that is about this session and this epoch's time; none
    /// where nobody who is pinned signed it.
    fn statement(
        &self,
        round: &Round<'_>,
        number: usize,
        message: &[u8],
    ) -> Result<Option<(&'t Landmark, LandmarkStatement)>, LocationError> {
        let at = || round.at.to_owned();
        let landmarks = &self.trust.landmarks;
        let opened = match open(Kind::Landmark, message, &self.keys) {
            Ok(opened) => opened,
            Err(CoseError::Unknown { .. }) => return Ok(None),
            Err(source) => {
                return Err(LocationError::Signed {
                    at: at(),
                    number,
                    source,
                });
            }
        };
        let landmark = landmarks
            .iter()
            .find(|landmark| key_id(&landmark.key) == opened.signer);
        let Some(landmark) = landmark else {
            return Ok(None);
        };
        let statement: LandmarkStatement =
            decode(&opened.payload).map_err(|source| LocationError::Statement {
                at: at(),
                landmark: landmark.name.clone(),
                source,
            })?;
        self.about(round, landmark, &statement)?;
        Ok(Some((landmark, statement)))
    }

    fn about(
        &self,
        round: &Round<'_>,
        landmark: &Landmark,
        statement: &LandmarkStatement,
    ) -> Result<(), LocationError> {
        let at = || round.at.to_owned();
        let whose = || format!("the statement of landmark {:?}", landmark.name);
        let foreign = |what, got: String, want: String| LocationError::Foreign {
            at: at(),
            whose: whose(),
            what,
            got,
            want,
        };
        if statement.session != round.session {
            let (got, want) = (statement.session.to_string(), round.session.to_string());
            return Err(foreign("session", got, want));
        }
        if statement.session_key != *round.session_key {
            let (got, want) = (
                hex::encode(statement.session_key),
                hex::encode(round.session_key),
            );
            return Err(foreign("key", got, want));
        }
        let measured = |detail: &str| LocationError::Measured {
            at: at(),
            landmark: landmark.name.clone(),
            detail: detail.to_owned(),
        };
        if statement.rtt_min_ns == 0 || statement.answered == 0 {
            return Err(measured("no answer, or one in no time"));
        }
        if statement.answered > statement.sent || statement.ended_ms < statement.began_ms {
            return Err(measured(
                "more answers than challenges, or an end before the beginning",
            ));
        }
        let early = round.opened_ms.saturating_sub(self.leeway_ms);
        let late = round.closed_ms.saturating_add(self.leeway_ms);
        if statement.began_ms < early || statement.ended_ms > late {
            return Err(LocationError::Time {
                at: at(),
                whose: whose(),
                got: rfc3339(statement.ended_ms),
                from: rfc3339(round.opened_ms),
                to: rfc3339(round.closed_ms),
            });
        }
        let own = Point::from_e7(statement.latitude_e7, statement.longitude_e7);
        let near = own.is_some_and(|own| {
            own.latitude_e7.abs_diff(landmark.at.latitude_e7) <= MOVED_E7
                && own.longitude_e7.abs_diff(landmark.at.longitude_e7) <= MOVED_E7
        });
        if near {
            return Ok(());
        }
        let shown = |(latitude, longitude)| format!("{latitude}, {longitude}");
        Err(LocationError::Moved {
            at: at(),
            landmark: landmark.name.clone(),
            got: own.map_or_else(
                || "no place on earth".to_owned(),
                |own| shown(own.degrees()),
            ),
            want: shown(landmark.at.degrees()),
        })
    }

    fn finding(self, times: &Times) -> Finding {
        let Self {
            trust,
            faults,
            mut shown,
            overlaps,
            few,
            measured,
            ..
        } = self;
        let state = |state, detail: String| (state, detail);
        shown.sort_unstable();
        let area = trust.area.as_ref().map(|area| area.name.as_str());
        let mut short = overlaps;
        let (state, detail) = match area {
            _ if measured == 0 => state(State::Absent, "no pinned landmark measured".to_owned()),
            None => state(
                State::Absent,
                "the policy names no area to measure by".to_owned(),
            ),
            Some(_) if !faults.is_empty() => {
                state(State::Short, "what was measured is refused".to_owned())
            }
            Some(area) => match stale(times, &shown, trust.max_age_s) {
                None => state(
                    State::Proven,
                    format!(
                        "contained in {area:?} by {} rounds, none over {} s apart",
                        shown.len(),
                        trust.max_age_s
                    ),
                ),
                // That it may be elsewhere says more than for how long.
                Some(stale) => {
                    let error = few.or(short.take()).unwrap_or(stale);
                    let detail = error.to_string();
                    short = Some(error);
                    state(State::Short, detail)
                }
            },
        };
        Finding {
            level: 3,
            state,
            detail,
            assumption: ASSUMPTION,
            faults,
            short: short.filter(|_| state == State::Short),
        }
    }
}

/// The longest stretch of the sealed time without a round that shows the host in the area, of
/// those that reach into the period; or a session without any.
fn stale(times: &Times, shown: &[u64], limit: u64) -> Option<LocationError> {
    let mut longest = (0, 0);
    let mut unmeasured = None;
    for &(from, to) in &times.sessions {
        let inside: Vec<u64> = shown
            .iter()
            .copied()
            .filter(|at| (from..=to).contains(at))
            .collect();
        if inside.is_empty() && to > times.from_ms && from < times.to_ms {
            unmeasured = unmeasured.or(Some(from));
        }
        let mut at = from;
        for next in inside.into_iter().chain(core::iter::once(to)) {
            if next > times.from_ms && at < times.to_ms {
                longest = longest.max((next.saturating_sub(at), at));
            }
            at = next;
        }
    }
    let (got, from) = longest;
    let stale = (got > limit.saturating_mul(1000)).then(|| LocationError::Stale {
        got: got.div_ceil(1000),
        from: rfc3339(from),
        limit,
    });
    stale.or_else(|| {
        unmeasured.map(|from| LocationError::Unmeasured {
            from: rfc3339(from),
        })
    })
}
