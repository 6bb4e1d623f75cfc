//! Sessions and epochs follow one another, and the chain register says there was nothing else.

use crate::frame::Purpose;
use crate::quote::{Epoch, Session};
use crate::refusal::{Grade, Refusal};
use crate::trust::Trust;
use crate::verdict::{CheckId, Tally};
use merestone_evidence::Digest;
use std::collections::BTreeSet;

/// Why statements do not follow one another.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ChainError {
    /// An epoch is missing, doubled or out of order.
    #[error("its sequence number is {got}, {want} comes here")]
    Sequence {
        /// In the statement.
        got: u64,
        /// By position.
        want: u64,
    },
    /// It follows another statement than the one before it.
    #[error("it follows {got}, the statement before it is {want}")]
    Previous {
        /// In the statement.
        got: String,
        /// By position.
        want: String,
    },
    /// Two sessions call themselves the same.
    #[error("its id is {got}, which an earlier session has")]
    Twice {
        /// The id.
        got: String,
    },
    /// Time goes back.
    #[error("it {what} at {got} ms, before {want} ms")]
    Time {
        /// Opens or closes.
        what: &'static str,
        /// In the statement.
        got: u64,
        /// The earlier instant.
        want: u64,
    },
    /// The chain register holds something that no statement explains.
    #[error(
        "the chain register is {got}, the statements lead to {want}: a foreign extend or a statement not shown"
    )]
    Foreign {
        /// Quoted.
        got: Digest,
        /// Replayed.
        want: Digest,
    },
}

impl ChainError {
    pub(crate) const fn grade(&self) -> Grade {
        match self {
            Self::Sequence { .. } | Self::Previous { .. } | Self::Twice { .. } => Grade::Untrusted,
            // The statements are whole; someone else on the host extended the register, or set
            // the clock. The policy owner has to know, and the signatures still hold.
            Self::Time { .. } | Self::Foreign { .. } => Grade::Failed,
        }
    }
}

/// Returns whether the order holds; without it nothing after makes sense.
///
/// A file that shows single leaves may leave out epochs which seal none of them: what stands
/// between is then not judged, and the verdict says so.
pub(crate) fn check(
    sessions: &[Session],
    purpose: Purpose,
    trust: &Trust,
    tally: &mut Tally,
) -> bool {
    let step_ms = trust.require.max_clock_step_s.saturating_mul(1000);
    match order(sessions, purpose, step_ms) {
        Err(refusal) => {
            let hard = refusal.grade() == Grade::Untrusted;
            tally.fail(CheckId::ChainOrder, &refusal);
            if hard {
                return false;
            }
        }
        Ok(true) => tally.pass(CheckId::ChainOrder, "contiguous"),
        Ok(false) => {
            let why = "a receipt shows the epochs that seal its leaves, not those between";
            tally.skip(CheckId::ChainOrder, why);
            tally.skip(CheckId::ChainReplay, why);
            return true;
        }
    }
    let foreign = replay(sessions);
    if foreign.is_empty() {
        tally.pass(
            CheckId::ChainReplay,
            "holds the epochs and nothing else since each session's start",
        );
    }
    for refusal in &foreign {
        tally.fail(CheckId::ChainReplay, refusal);
    }
    true
}

fn refuse(at: &str, source: ChainError) -> Refusal {
    Refusal::Chain {
        at: at.to_owned(),
        source,
    }
}

/// Whether nothing is left out. `step_ms` is how far the wall clock may be set back between two
/// statements.
fn order(sessions: &[Session], purpose: Purpose, step_ms: u64) -> Result<bool, Refusal> {
    let may_leave_out = purpose == Purpose::Receipt;
    let mut is_whole = true;
    // `None` until something in the file tells: the first session may follow one not shown.
    let mut before: Option<Option<Digest>> = None;
    let mut time = Ok(());
    let mut last_ms = 0_u64;
    let mut ids = BTreeSet::new();
    for session in sessions {
        if !ids.insert(session.statement.session.0) {
            let got = session.statement.session.to_string();
            return Err(refuse(&session.at, ChainError::Twice { got }));
        }
        let got = session.statement.previous;
        if may_leave_out && before.is_some_and(|want| got != want) {
            is_whole = false;
        } else if let Some(want) = before
            && got != want
        {
            let text = |digest: Option<Digest>| {
                digest.map_or("nothing".to_owned(), |digest| digest.to_string())
            };
            let source = ChainError::Previous {
                got: text(got),
                want: text(want),
            };
            return Err(refuse(&session.at, source));
        }
        before = Some(
            session
                .epochs
                .last()
                .map_or(got, |last| Some(last.said.digest)),
        );
        let mut previous = session.said.digest;
        let started = session.statement.started_ms;
        time = time.and_then(|()| {
            forward(
                &session.at,
                "starts",
                started,
                last_ms.saturating_sub(step_ms),
            )
        });
        last_ms = started;
        let mut want = 0;
        for epoch in &session.epochs {
            if may_leave_out && epoch.statement.sequence > want {
                is_whole = false;
            } else {
                follows(epoch, want, previous)?;
            }
            want = epoch.statement.sequence.saturating_add(1);
            let statement = &epoch.statement;
            let (opened, closed) = (statement.opened_ms, statement.closed_ms);
            time = time
                .and_then(|()| forward(&epoch.at, "opens", opened, last_ms.saturating_sub(step_ms)))
                .and_then(|()| forward(&epoch.at, "closes", closed, opened));
            last_ms = closed;
            previous = epoch.said.digest;
        }
    }
    time.map(|()| is_whole)
}

fn follows(epoch: &Epoch, want: u64, previous: Digest) -> Result<(), Refusal> {
    let got = epoch.statement.sequence;
    if got != want {
        return Err(refuse(&epoch.at, ChainError::Sequence { got, want }));
    }
    let got = epoch.statement.previous;
    if got != previous {
        let (got, want) = (got.to_string(), previous.to_string());
        return Err(refuse(&epoch.at, ChainError::Previous { got, want }));
    }
    Ok(())
}

fn forward(at: &str, what: &'static str, got: u64, want: u64) -> Result<(), Refusal> {
    if got < want {
        return Err(refuse(at, ChainError::Time { what, got, want }));
    }
    Ok(())
}

/// Each value that the statements do not lead to; the replay goes on from what was quoted.
fn replay(sessions: &[Session]) -> Vec<Refusal> {
    let mut foreign = Vec::new();
    // Boot and register of the session before, and what it left there.
    let mut left: Option<(u32, u8, Digest)> = None;
    for session in sessions {
        let register = session.statement.chain_pcr;
        let boot = session.said.clock.resets;
        // That the register is quoted was checked with the quotes.
        let Some(&baseline) = session.said.pcrs.get(&register) else {
            continue;
        };
        if let Some((before, same, want)) = left
            && (before, same) == (boot, register)
            && baseline != want
        {
            foreign.push(refuse(
                &session.at,
                ChainError::Foreign {
                    got: baseline,
                    want,
                },
            ));
        }
        let mut value = baseline;
        for epoch in &session.epochs {
            let want = value.extended(&epoch.said.digest);
            let got = epoch.said.pcrs.get(&register).copied().unwrap_or_default();
            if got != want {
                foreign.push(refuse(&epoch.at, ChainError::Foreign { got, want }));
            }
            value = got;
        }
        left = Some((boot, register, value));
    }
    foreign
}
