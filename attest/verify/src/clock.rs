//! The TPM's clock: it goes forward, resets only grow, and a session never spans a reset.

use crate::quote::{Said, Session};
use crate::refusal::{Grade, Refusal};
use crate::tpm::ClockInfo;
use crate::trust::Trust;
use crate::verdict::{CheckId, Tally};

/// Why the clock contradicts the order of the evidence.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ClockError {
    /// A counter went back.
    #[error("the tpm's {what} is {got} after {want}")]
    Back {
        /// Clock, reset count or restart count.
        what: &'static str,
        /// Later value.
        got: u64,
        /// Earlier value.
        want: u64,
    },
    /// A reset or restart inside a session.
    #[error("the tpm's {what} changed from {want} to {got} inside a session")]
    Inside {
        /// Which counter.
        what: &'static str,
        /// Later value.
        got: u64,
        /// Earlier value.
        want: u64,
    },
    /// The two clocks part.
    #[error("{got} ms passed on the wall clock and {want} ms on the tpm's")]
    Step {
        /// By the wall clock.
        got: i128,
        /// By the TPM.
        want: i128,
    },
}

impl ClockError {
    pub(crate) const fn grade(self) -> Grade {
        match self {
            Self::Back { .. } | Self::Inside { .. } => Grade::Untrusted,
            // Hosts set their clocks; how far they may is the policy's business.
            Self::Step { .. } => Grade::Failed,
        }
    }
}

pub(crate) fn check(sessions: &[Session], trust: &Trust, tally: &mut Tally) -> Result<(), Refusal> {
    let mut last: Option<ClockInfo> = None;
    for session in sessions {
        let refuse = |at: &str, source| Refusal::Clock {
            at: at.to_owned(),
            source,
        };
        let own = session.said.clock;
        if let Some(before) = last {
            between(before, own).map_err(|error| refuse(&session.at, error))?;
        }
        let mut before = own;
        for epoch in &session.epochs {
            let now = epoch.said.clock;
            within(before, now).map_err(|error| refuse(&epoch.at, error))?;
            before = now;
        }
        last = Some(before);
    }
    let boots = sessions.iter().map(|session| session.said.clock.resets);
    let boots = boots.collect::<std::collections::BTreeSet<_>>().len();
    tally.pass(
        CheckId::ClockCounters,
        format!("only grow, over {boots} boots"),
    );
    safe(sessions, tally);
    wall(sessions, trust, tally);
    Ok(())
}

fn grows(what: &'static str, want: u64, got: u64) -> Result<(), ClockError> {
    if got < want {
        Err(ClockError::Back { what, got, want })
    } else {
        Ok(())
    }
}

fn within(before: ClockInfo, now: ClockInfo) -> Result<(), ClockError> {
    grows("reset count", before.resets.into(), now.resets.into())?;
    if now.resets != before.resets {
        let (got, want) = (now.resets.into(), before.resets.into());
        return Err(ClockError::Inside {
            what: "reset count",
            got,
            want,
        });
    }
    grows("restart count", before.restarts.into(), now.restarts.into())?;
    if now.restarts != before.restarts {
        let (got, want) = (now.restarts.into(), before.restarts.into());
        return Err(ClockError::Inside {
            what: "restart count",
            got,
            want,
        });
    }
    grows("clock", before.clock_ms, now.clock_ms)
}

/// Part 1, 36.2: the clock survives a reset; after a disorderly shutdown it may be behind, and
/// says so by not being safe.
fn between(before: ClockInfo, now: ClockInfo) -> Result<(), ClockError> {
    grows("reset count", before.resets.into(), now.resets.into())?;
    if now.resets == before.resets {
        grows("restart count", before.restarts.into(), now.restarts.into())?;
    }
    if now.resets == before.resets || now.safe {
        grows("clock", before.clock_ms, now.clock_ms)?;
    }
    Ok(())
}

fn all(sessions: &[Session]) -> impl Iterator<Item = (&str, &Said)> {
    sessions.iter().flat_map(|session| {
        let epochs = session
            .epochs
            .iter()
            .map(|epoch| (epoch.at.as_str(), &epoch.said));
        core::iter::once((session.at.as_str(), &session.said)).chain(epochs)
    })
}

fn safe(sessions: &[Session], tally: &mut Tally) {
    let unsafe_at: Vec<_> = all(sessions)
        .filter(|(_, said)| !said.clock.safe)
        .map(|(at, _)| at)
        .collect();
    match unsafe_at.as_slice() {
        [] => tally.pass(CheckId::ClockSafe, "safe in every quote"),
        [first, rest @ ..] => tally.skip(
            CheckId::ClockSafe,
            format!(
                "{first} and {} more: the tpm lost power without a shutdown, its clock may be behind",
                rest.len()
            ),
        ),
    }
}

/// Both clocks between the first and any later quote of a session.
fn wall(sessions: &[Session], trust: &Trust, tally: &mut Tally) {
    let limit = i128::from(trust.require.max_clock_step_s) * 1000;
    let mut worst = 0;
    for session in sessions {
        let (wall, own) = (session.statement.started_ms, session.said.clock.clock_ms);
        for epoch in &session.epochs {
            let got = i128::from(epoch.statement.closed_ms) - i128::from(wall);
            let want = i128::from(epoch.said.clock.clock_ms) - i128::from(own);
            let step = (got - want).abs();
            if step > limit {
                let source = ClockError::Step { got, want };
                let at = epoch.at.clone();
                tally.fail(CheckId::ClockWall, &Refusal::Clock { at, source });
                return;
            }
            worst = worst.max(step);
        }
    }
    tally.pass(
        CheckId::ClockWall,
        format!("within {worst} ms of the tpm's"),
    );
}
