//! [`LogChecked`] → verdict: what the evidence shows against what the trust policy asks for.

mod error;

pub(crate) use error::PolicyError;

use crate::coverage::{Coverage, rfc3339};
use crate::frame::Purpose;
use crate::geotag::{GeotagError, Tagged};
use crate::incidents::Incidents;
use crate::log::LogChecked;

use crate::report::{Egress, Location};
use crate::trust::{Require, Trust};
use crate::verdict::{CheckId, Tally};
use merestone_evidence::{Boundary, Digest, Mode};
use std::collections::BTreeSet;

/// A clock of a host may be this much ahead of the verifier's.
const FUTURE_LEEWAY_MS: u64 = 300_000;

/// What the policy stage has to look at.
pub(crate) struct Matter<'e> {
    pub(crate) log: &'e LogChecked,
    pub(crate) coverage: &'e Coverage,
    pub(crate) egress: &'e Egress,
    pub(crate) location: &'e Location,
    pub(crate) geotag: &'e Result<Option<Tagged>, GeotagError>,
    pub(crate) incidents: &'e Incidents,
    pub(crate) now_ms: u64,
}

pub(crate) fn check(matter: &Matter<'_>, trust: &Trust, tally: &mut Tally) {
    let require = &trust.require;
    location(matter, require, tally);
    matter.incidents.check(matter.log.purpose, require, tally);
    period(matter, require, tally);
    coverage(matter, require, tally);
    age(matter, require, tally);
    let boundaries = boundaries(matter.log);
    let digests = boundaries
        .iter()
        .map(|(at, boundary)| (*at, boundary.sha256))
        .collect();
    accepted(
        CheckId::PolicyBoundary,
        "the boundary",
        require.boundary.as_ref(),
        digests,
        tally,
    );
    mode(&boundaries, require, tally);
    let sessions = &matter.log.sessions;
    let objects = sessions.iter().flat_map(|session| {
        let epochs = session.epochs.iter();
        let epochs = epochs.map(|epoch| (epoch.at.as_str(), epoch.statement.object_sha256));
        core::iter::once((session.at.as_str(), session.statement.object_sha256)).chain(epochs)
    });
    let objects = objects.collect();
    accepted(
        CheckId::PolicyObject,
        "the ebpf object",
        require.object.as_ref(),
        objects,
        tally,
    );
    let agents = sessions
        .iter()
        .map(|session| (session.at.as_str(), session.statement.agent.sha256))
        .collect();
    accepted(
        CheckId::PolicyAgent,
        "the agent",
        require.agent.as_ref(),
        agents,
        tally,
    );
    tiers(matter.log, require, tally);
    egress(matter.egress, require, tally);
    hardware(matter.log, require, tally);
    registers(matter.log, require, tally);
}

fn settle(id: CheckId, good: impl Into<String>, fault: Option<PolicyError>, tally: &mut Tally) {
    match fault {
        None => tally.pass(id, good),
        Some(error) => tally.fail(id, &error.into()),
    }
}

fn location(matter: &Matter<'_>, require: &Require, tally: &mut Tally) {
    let location = matter.location;
    let id = CheckId::Location;
    let tagged = match matter.geotag {
        Ok(tagged) => tagged.as_ref(),
        // Whether or not it was asked for: what was computed is also consulted (N66).
        Err(error) => return tally.fail(id, &error.clone().into()),
    };
    // Exact comparison: "EU" is neither "eu" nor the beginning of "EU-OUT" (N49).
    let places = [
        ("country", &require.country, &location.countries),
        ("region", &require.region, &location.regions),
    ];
    let mut asked = false;
    for (what, accepted, stated) in places {
        let Some(accepted) = accepted else { continue };
        asked = true;
        let other = stated.iter().find(|place| !accepted.contains(*place));
        if let Some(got) = other {
            let (at, got) = ("the site".to_owned(), format!("{got:?}"));
            return tally.fail(id, &PolicyError::Value { at, what, got }.into());
        }
        let silent = matter.log.sessions.iter().filter(|session| {
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
            return tally.fail(id, &PolicyError::Unstated { got, what }.into());
        }
    }
    if require.location_level > u8::from(tagged.is_some()) {
        let want = format!("L{}", require.location_level);
        return tally.fail(
            id,
            &PolicyError::Level {
                got: location.level,
                want,
            }
            .into(),
        );
    }
    if let Some(tagged) = tagged {
        tally.pass(id, tagged.told());
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
}

fn period(matter: &Matter<'_>, require: &Require, tally: &mut Tally) {
    let bundle = &matter.log.bundle;
    let short = require.from_ms.is_some_and(|from| bundle.from_ms > from)
        || require.to_ms.is_some_and(|to| bundle.to_ms < to)
        || bundle.to_ms < bundle.from_ms;
    let got = format!("{} to {}", rfc3339(bundle.from_ms), rfc3339(bundle.to_ms));
    let asked = require.from_ms.is_some() || require.to_ms.is_some();
    let end = |end: Option<u64>| end.map_or("any time".to_owned(), rfc3339);
    let want = format!("{} to {}", end(require.from_ms), end(require.to_ms));
    if matter.log.purpose == Purpose::Receipt {
        tally.skip(CheckId::PolicyPeriod, "a receipt is about single entries");
    } else if short {
        tally.fail(
            CheckId::PolicyPeriod,
            &PolicyError::Period { got, want }.into(),
        );
    } else if asked {
        tally.pass(CheckId::PolicyPeriod, got);
    } else {
        let detail = format!("{got}, as the producer chose: the policy names no period");
        tally.skip(CheckId::PolicyPeriod, detail);
    }
}

fn coverage(matter: &Matter<'_>, require: &Require, tally: &mut Tally) {
    if matter.log.purpose == Purpose::Receipt {
        return tally.skip(CheckId::PolicyCoverage, "a receipt is about single entries");
    }
    let coverage = matter.coverage;
    let limit = require.max_gap_s;
    let limit_ms = limit.saturating_mul(1000);
    let gap = coverage.longest().filter(|(ms, ..)| *ms > limit_ms);
    let gap = gap.map(|(ms, from, reason)| (ms.div_ceil(1000), from, reason));
    // Nothing was sealed while it lasted, whatever its statement says of that time.
    let epochs = matter
        .log
        .sessions
        .iter()
        .flat_map(|session| &session.epochs);
    let long = epochs
        .map(|epoch| (epoch.statement.opened_ms, epoch.statement.closed_ms))
        .find(|(opened, closed)| closed.saturating_sub(*opened) > limit_ms)
        .map(|(from, to)| {
            (
                (to - from).div_ceil(1000),
                rfc3339(from),
                "one epoch, sealed at its end",
            )
        });
    let fault = gap
        .or(long)
        .map(|(seconds, from, reason)| PolicyError::Gap {
            seconds,
            from,
            reason,
            limit,
        });
    // However short the period: what is not there has no gaps.
    let fault = if coverage.attested_ms.is_empty() {
        Some(PolicyError::Nothing)
    } else {
        fault
    };
    let good = format!(
        "{} of {} s attested, nothing over {limit} s without a seal",
        coverage.attested_seconds, coverage.period_seconds
    );
    settle(CheckId::PolicyCoverage, good, fault, tally);
}

fn age(matter: &Matter<'_>, require: &Require, tally: &mut Tally) {
    let epochs = matter.log.sessions.iter().flat_map(|session| {
        let closed = session.epochs.iter().map(|epoch| epoch.statement.closed_ms);
        core::iter::once(session.statement.started_ms).chain(closed)
    });
    let last = epochs.max().unwrap_or_default();
    let now = matter.now_ms;
    let oldest = require
        .max_age_s
        .map(|age| now.saturating_sub(age.saturating_mul(1000)));
    let fault = if last > now.saturating_add(FUTURE_LEEWAY_MS) {
        Some(("after now,", now))
    } else {
        oldest
            .filter(|oldest| last < *oldest)
            .map(|oldest| ("before", oldest))
    };
    let fault = fault.map(|(what, want)| PolicyError::Age {
        got: rfc3339(last),
        what,
        want: rfc3339(want),
    });
    settle(
        CheckId::PolicyAge,
        format!("last at {}", rfc3339(last)),
        fault,
        tally,
    );
}

fn boundaries(log: &LogChecked) -> Vec<(&str, &Boundary)> {
    let mut all = Vec::new();
    for session in &log.sessions {
        all.push((session.at.as_str(), &session.statement.boundary));
        let epochs = session.epochs.iter();
        all.extend(epochs.map(|epoch| (epoch.at.as_str(), &epoch.statement.boundary)));
    }
    all
}

/// Every digest is one of those accepted; a policy that names none says so.
fn accepted(
    id: CheckId,
    what: &'static str,
    accepted: Option<&BTreeSet<Digest>>,
    found: Vec<(&str, Digest)>,
    tally: &mut Tally,
) {
    let Some(accepted) = accepted else {
        let kinds: BTreeSet<_> = found.iter().map(|(_, digest)| digest.to_string()).collect();
        let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
        return tally.skip(id, format!("the policy names none; it was {kinds}"));
    };
    let other = found.iter().find(|(_, digest)| !accepted.contains(digest));
    let fault = other.map(|(at, digest)| PolicyError::Value {
        at: (*at).to_owned(),
        what,
        got: digest.to_string(),
    });
    settle(id, "accepted in every statement", fault, tally);
}

fn mode(boundaries: &[(&str, &Boundary)], require: &Require, tally: &mut Tally) {
    let audit = boundaries
        .iter()
        .find(|(_, boundary)| boundary.mode == Mode::Audit);
    let fault = audit
        .filter(|_| !require.audit)
        .map(|(at, _)| PolicyError::Value {
            at: (*at).to_owned(),
            what: "the mode",
            got: "audit".to_owned(),
        });
    let good = if audit.is_some() {
        "audit mode is accepted"
    } else {
        "enforced throughout"
    };
    settle(CheckId::PolicyMode, good, fault, tally);
}

fn tiers(log: &LogChecked, require: &Require, tally: &mut Tally) {
    let mut fault = None;
    for session in &log.sessions {
        let active = session.statement.tiers.iter().filter(|tier| tier.active);
        let active = active.map(|tier| tier.name.clone()).collect::<Vec<_>>();
        let mut places = vec![(&session.at, active)];
        let epochs = session.epochs.iter();
        places.extend(epochs.map(|epoch| (&epoch.at, epoch.statement.tiers.clone())));
        for (at, got) in places {
            let absent = require
                .tiers
                .iter()
                .find(|want| !got.contains(want))
                .cloned();
            let error = absent.map(|want| PolicyError::Tier {
                at: at.clone(),
                want,
                got,
            });
            fault = fault.or(error);
        }
    }
    if require.tiers.is_empty() {
        tally.skip(CheckId::PolicyTiers, "the policy names none");
    } else {
        settle(
            CheckId::PolicyTiers,
            "in force in every epoch",
            fault,
            tally,
        );
    }
}

fn egress(egress: &Egress, require: &Require, tally: &mut Tally) {
    let list = egress
        .uncovered
        .iter()
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if list.is_empty() {
        tally.pass(CheckId::PolicyUncovered, "the agent declares none");
    } else if require.uncovered {
        tally.skip(CheckId::PolicyUncovered, format!("nothing covers: {list}"));
    } else {
        tally.fail(
            CheckId::PolicyUncovered,
            &PolicyError::Uncovered { got: list }.into(),
        );
    }
    let audited = (egress.audited > 0 && !require.audit).then_some(PolicyError::Count {
        what: "flows went outside the boundary in audit mode",
        got: egress.audited,
        limit: 0,
    });
    let good = format!(
        "{} allowed by rule, {} denied",
        egress.allowed, egress.denied
    );
    settle(CheckId::PolicyEgress, good, audited, tally);
    let lost = (egress.lost > require.max_lost).then_some(PolicyError::Count {
        what: "events or entries were lost",
        got: egress.lost,
        limit: require.max_lost,
    });
    settle(
        CheckId::PolicyLost,
        format!("{} lost", egress.lost),
        lost,
        tally,
    );
}

fn hardware(log: &LogChecked, require: &Require, tally: &mut Tally) {
    let soft = log
        .sessions
        .iter()
        .find(|session| session.statement.tpm.software);
    match soft {
        Some(session) if !require.software_tpm => {
            let (at, got) = (session.at.clone(), "a program, not a chip".to_owned());
            let error = PolicyError::Value {
                at,
                what: "the tpm",
                got,
            };
            tally.fail(CheckId::PolicyTpm, &error.into());
        }
        Some(_) => tally.skip(
            CheckId::PolicyTpm,
            "a software tpm, which the policy allows: whoever runs the host can copy its key",
        ),
        None => tally.pass(CheckId::PolicyTpm, "the agent reports a hardware tpm"),
    }
    let double = log
        .sessions
        .iter()
        .find(|session| session.statement.gpu.test_library);
    match double {
        Some(session) if !require.test_gpu_library => {
            let (at, got) = (session.at.clone(), "a test double".to_owned());
            let error = PolicyError::Value {
                at,
                what: "the gpu library",
                got,
            };
            tally.fail(CheckId::PolicyGpu, &error.into());
        }
        Some(_) => tally.skip(
            CheckId::PolicyGpu,
            "a test double of the gpu library, which the policy allows: its readings mean nothing",
        ),
        None => tally.pass(CheckId::PolicyGpu, "the agent reports no test double"),
    }
}

/// A register the policy names and the evidence lacks is never passed over (N9, N19).
fn registers(log: &LogChecked, require: &Require, tally: &mut Tally) {
    if require.pcrs.is_empty() {
        return tally.skip(CheckId::PolicyPcrs, "the policy names no register");
    }
    let mut faults = Vec::new();
    for session in &log.sessions {
        let epochs = session.epochs.iter().map(|epoch| (&epoch.at, &epoch.said));
        let quotes: Vec<_> = core::iter::once((&session.at, &session.said))
            .chain(epochs)
            .collect();
        for (&register, accepted) in &require.pcrs {
            // One fault a session says enough.
            faults.extend(quotes.iter().find_map(|(at, said)| {
                let at = (*at).clone();
                match said.pcrs.get(&register) {
                    None => Some(PolicyError::NoRegister { at, register }),
                    Some(value) if accepted.contains(value) => None,
                    Some(value) => {
                        let got = format!("{value} in register {register}");
                        Some(PolicyError::Value {
                            at,
                            what: "the value",
                            got,
                        })
                    }
                }
            }));
        }
    }
    if faults.is_empty() {
        tally.pass(
            CheckId::PolicyPcrs,
            format!("{} registers", require.pcrs.len()),
        );
    }
    for fault in faults {
        tally.fail(CheckId::PolicyPcrs, &fault.into());
    }
}
