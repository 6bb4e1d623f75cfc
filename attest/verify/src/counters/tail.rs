//! Whether the counters explain what is shown, and nothing else: the end of the log.

use super::{Held, Role, TailError};
use crate::coverage::rfc3339;
use crate::frame::Purpose;
use crate::quote::Session;
use crate::refusal::Refusal;
use crate::tpm::NvPublic;
use crate::trust::Require;
use crate::verdict::{CheckId, Tally};
use merestone_evidence::NvCounter;

/// Part 2, 13.4 and the reference code's `MAX_ORDERLY_COUNT`: what a loss of power adds at most.
const MOST_BY_CRASH: u64 = 255;
const ID: CheckId = CheckId::LogTail;

/// Where the counters are after what was shown so far. A step that may or may not have been
/// counted (the process ended between) leaves two values.
struct Known {
    epochs: (u64, u64),
    sessions: (u64, u64),
    resets: u32,
    /// Its last session has a certified end.
    is_ended: bool,
}

/// Where an orderly counter stands after its TPM lost power: what it counted since it was last
/// written is lost, so it goes on from the end of that stretch (`MAX_ORDERLY_COUNT` of the
/// reference implementation, TPM 2.0 Part 1, 37.4.5).
const STRETCH: u64 = 255;

/// Faults and remarks.
#[derive(Default)]
struct Found {
    faults: Vec<Refusal>,
    crashes: Vec<(String, u64)>,
    uncounted: Vec<String>,
    unended: u64,
}

impl Found {
    fn fault(&mut self, at: &str, source: TailError) {
        let at = at.to_owned();
        self.faults.push(Refusal::Tail { at, source });
    }
}

/// Judges the counters over all sessions; `to_ms` is the end of the period.
pub(crate) fn tail(
    sessions: &[Session],
    to_ms: u64,
    purpose: Purpose,
    require: &Require,
    tally: &mut Tally,
) {
    if matches!(purpose, Purpose::Receipt) {
        return tally.skip(ID, "a receipt shows one place of the log, not its end");
    }
    let mut found = Found::default();
    let mut known: Option<Known> = None;
    for session in sessions {
        let counters = session.statement.counters.as_ref();
        let both = counters.and_then(|one| one.epochs.as_ref().zip(one.sessions.as_ref()));
        let Some((epochs, count)) = both else {
            let why = counters.and_then(|one| one.absent.as_deref());
            let why = why.unwrap_or("it declares none");
            found.uncounted.push(format!("{}: {why}", session.at));
            continue;
        };
        if let Some(before) = &known {
            begins(session, before, (epochs, count), &mut found);
        }
        known = Some(follow(session, (epochs, count), &mut found));
    }
    settle(sessions, known.is_some(), to_ms, require, found, tally);
}

/// A session begins where the one shown before it ended.
fn begins(
    session: &Session,
    before: &Known,
    (epochs, count): (&NvCounter, &NvCounter),
    found: &mut Found,
) {
    let at = session.at.as_str();
    let what = "starts and ends of sessions";
    if let Err(error) = within(what, count.value, before.sessions) {
        found.fault(at, error);
    }
    let what = "epochs";
    match within(what, epochs.value, before.epochs) {
        Ok(()) => {
            if !session.said.clock.safe && session.said.clock.resets > before.resets {
                found.crashes.push((at.to_owned(), 0));
            }
        }
        Err(TailError::Missing { got, want, .. })
            if got - want <= MOST_BY_CRASH
                && crashed(session, before, got)
                && NvPublic::parse(&epochs.held.public).is_ok_and(|public| public.is_orderly()) =>
        {
            found.crashes.push((at.to_owned(), got - want));
        }
        Err(error) => found.fault(at, error),
    }
}

/// The TPM lost power without a shutdown since. It says so until it has written its clock again,
/// which can be within seconds; the counter's place says it for good, and counts where the
/// session before did not end either. Whoever can cut the power can bring about both.
fn crashed(session: &Session, before: &Known, got: u64) -> bool {
    let is_jump = !before.is_ended && got & STRETCH == STRETCH;
    session.said.clock.resets > before.resets && (!session.said.clock.safe || is_jump)
}

fn within(what: &'static str, got: u64, (low, high): (u64, u64)) -> Result<(), TailError> {
    if got < low {
        let want = low;
        return Err(TailError::Back { what, got, want });
    }
    if got > high {
        let want = high;
        return Err(TailError::Missing { what, got, want });
    }
    Ok(())
}

/// Through one session, from what it declares to what its last certification shows.
fn follow(
    session: &Session,
    (epochs, count): (&NvCounter, &NvCounter),
    found: &mut Found,
) -> Known {
    let at = session.at.as_str();
    let started = value(&session.nv_start, Role::Sessions);
    let (mut low, mut high) = (epochs.value, epochs.value);
    let mut own = (count.value, count.value.saturating_add(1));
    match (started, value(&session.nv_start, Role::Epochs)) {
        (Some(started), Some(first)) => {
            let want = count.value.saturating_add(1);
            exactly("starts and ends of sessions", started, want, at, found);
            exactly("epochs", first, epochs.value, at, found);
            own = (started, started);
        }
        _ if session.epochs.is_empty() => {}
        _ => {
            let lacks = "has no certification at its start";
            found.fault(at, TailError::Uncertified { lacks });
        }
    }
    for epoch in &session.epochs {
        let Some(declared) = epoch.statement.counter else {
            let lacks = "an epoch of it was not counted";
            found.fault(&epoch.at, TailError::Uncertified { lacks });
            continue;
        };
        exactly("epochs", declared, high.saturating_add(1), &epoch.at, found);
        (low, high) = if let Some(certified) = value(&epoch.nv, Role::Epochs) {
            exactly("epochs", certified, declared, &epoch.at, found);
            (certified, certified)
        } else {
            (declared.saturating_sub(1), declared)
        };
    }
    let ended = session.nv_end.as_deref();
    let ended = ended.and_then(|end| value(end, Role::Sessions));
    match ended {
        Some(ended) => {
            let want = own.1.saturating_add(1);
            exactly("starts and ends of sessions", ended, want, at, found);
            own = (ended, ended);
        }
        None => found.unended += 1,
    }
    let last = session
        .epochs
        .last()
        .map_or(&session.said, |epoch| &epoch.said);
    Known {
        epochs: (low, high),
        sessions: own,
        resets: last.clock.resets,
        is_ended: ended.is_some(),
    }
}

fn exactly(what: &'static str, got: u64, want: u64, at: &str, found: &mut Found) {
    if let Err(error) = within(what, got, (want, want)) {
        found.fault(at, error);
    }
}

fn value(held: &[Held], role: Role) -> Option<u64> {
    held.iter().find(|one| one.role == role)?.value()
}

fn settle(
    sessions: &[Session],
    counts: bool,
    to_ms: u64,
    require: &Require,
    found: Found,
    tally: &mut Tally,
) {
    let missing: u64 = found.crashes.iter().map(|(_, most)| most).sum();
    for fault in found.faults.iter().take(8) {
        tally.fail(ID, fault);
    }
    if missing > require.max_crash_epochs {
        let (got, limit) = (missing, require.max_crash_epochs);
        let at = found.crashes.first().map_or("", |(at, _)| at).to_owned();
        let source = TailError::Crash { got, limit };
        return tally.fail(ID, &Refusal::Tail { at, source });
    }
    if !found.faults.is_empty() {
        return;
    }
    let leave = |tally: &mut Tally, detail: String| {
        if require.counters {
            tally.missing(ID, detail);
        } else {
            tally.skip(ID, detail);
        }
    };
    if !found.uncounted.is_empty() {
        let what = if counts {
            "not all sessions count"
        } else {
            "no session counts"
        };
        let first = found.uncounted.first().map_or("", String::as_str);
        let detail = format!(
            "{what}, so epochs cut from their ends, or whole sessions, would not show; {first}"
        );
        return leave(tally, detail);
    }
    let Some(end) = end(sessions, to_ms) else {
        let detail = "the last session shown is neither ended nor certified up to the end of the \
                      period: what was sealed after it would not show";
        return leave(tally, detail.to_owned());
    };
    let crashes: Vec<String> = found
        .crashes
        .iter()
        .map(|(at, most)| {
            format!("the host lost power before {at}: up to {most} epochs may be missing there")
        })
        .collect();
    let open = found.unended.saturating_sub(u64::from(end.is_open));
    let unended = match open {
        0 => String::new(),
        some => format!("; {some} sessions have no end: their agent did not stop by itself"),
    };
    let detail = format!(
        "every session and epoch that the tpm counted is there, {}{unended}",
        end.text
    );
    if missing == 0 {
        let crashes = if crashes.is_empty() {
            String::new()
        } else {
            format!("; {}", crashes.join("; "))
        };
        tally.pass(ID, format!("{detail}{crashes}"));
    } else {
        // Sound, and not the whole: said, and not called a pass.
        tally.skip(ID, format!("{}; but for that {detail}", crashes.join("; ")));
    }
}

struct End {
    text: String,
    is_open: bool,
}

/// Up to when the counters speak.
fn end(sessions: &[Session], to_ms: u64) -> Option<End> {
    let last = sessions.last()?;
    let ended = last.nv_end.as_deref();
    if ended.and_then(|end| value(end, Role::Sessions)).is_some() {
        return Some(End {
            text: format!("to the end of {}", last.at),
            is_open: false,
        });
    }
    let epoch = last.epochs.last()?;
    value(&epoch.nv, Role::Epochs)?;
    let closed = epoch.statement.closed_ms;
    // Of what may have been sealed between its close and the period's end nothing would show.
    (closed >= to_ms).then(|| End {
        text: format!(
            "to {}, when {} was still going on",
            rfc3339(closed),
            last.at
        ),
        is_open: true,
    })
}
