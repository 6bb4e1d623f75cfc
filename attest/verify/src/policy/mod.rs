//! [`LogChecked`] → verdict: what the evidence shows against what the trust policy asks for.

mod error;

pub(crate) use error::PolicyError;

use crate::coverage::{Coverage, rfc3339};
use crate::frame::Purpose;
use crate::incidents::Incidents;
use crate::log::LogChecked;

use crate::report::Egress;
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
    pub(crate) incidents: &'e Incidents,
    pub(crate) now_ms: u64,
}

pub(crate) fn check(matter: &Matter<'_>, trust: &Trust, tally: &mut Tally) {
    let require = &trust.require;
    matter.incidents.check(matter.log.purpose, require, tally);
    period(matter, require, tally);
    coverage(matter, require, tally);
    dark(matter, require, tally);
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
    // Time that the wall clock does not show is in no gap.
    let hidden = coverage
        .clock_jumps
        .iter()
        .filter(|jump| jump.between_sessions)
        .map(|jump| (jump.hidden_ms(), jump))
        .find(|(hidden, _)| *hidden > limit_ms);
    let hidden = hidden.map(|(hidden, jump)| PolicyError::Gap {
        seconds: hidden.div_ceil(1000),
        from: jump.at.clone(),
        reason: "by the tpm's clock; the host's was set back",
        limit,
    });
    let fault = fault.or(hidden);
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

/// Energy that GPUs used while no session watched.
fn dark(matter: &Matter<'_>, require: &Require, tally: &mut Tally) {
    let id = CheckId::PolicyDark;
    let dark = &matter.coverage.dark;
    if matter.log.purpose == Purpose::Receipt {
        return tally.skip(id, "a receipt is about single entries");
    }
    if matter.log.sessions.len() < 2 {
        return tally.skip(id, "one session: nothing lies between");
    }
    let most = dark
        .iter()
        .filter_map(|one| Some((one.unexplained_joules?, one)))
        .max_by_key(|(joules, _)| *joules);
    let unknown = dark.iter().find(|one| one.unexplained_joules.is_none());
    let told = most.map_or_else(
        || "no counter of a gpu was read on both sides".to_owned(),
        |(joules, one)| {
            format!(
                "at most {joules} J by one gpu beyond being idle, from {} to {}",
                one.from, one.to
            )
        },
    );
    match (require.max_dark_joules, most, unknown) {
        (None, ..) => tally.skip(id, format!("{told}; the policy names no limit")),
        (Some(limit), Some((got, one)), _) if got > limit => {
            let error = PolicyError::Dark {
                uuid: one.uuid.clone(),
                got,
                from: one.from.clone(),
                to: one.to.clone(),
                limit,
            };
            tally.fail(id, &error.into());
        }
        (Some(_), _, Some(one)) => {
            let why = one.unknown.unwrap_or("unknown");
            let detail = format!("{:?} from {} to {}: {why}", one.uuid, one.from, one.to);
            tally.missing(id, detail);
        }
        // A host that shows no GPU has none to ask.
        (Some(_), None, None) => tally.missing(id, told),
        (Some(_), Some(_), None) => tally.pass(id, told),
    }
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
