//! [`BootChecked`] → [`LogChecked`]: the leaves shown are those that the quotes sealed, all of
//! them for the period asked for, and the tree outside it only grew.

mod entries;
mod error;
mod trust;
mod witness;

pub(crate) use error::LogError;
pub use trust::LogTrust;
pub(crate) use trust::Table;

use entries::Entries;

use crate::account::Seen;
use crate::boot::BootChecked;
use crate::chain;
use crate::counters;
use crate::frame::Purpose;
use crate::leaves::{self, Workers};
use crate::quote::{Epoch, Session};
use crate::receipts::{Contents, Opened, Receipts, Seals};
use crate::trust::Trust;
use crate::verdict::{CheckId, Tally};
use merestone_evidence::{
    Bundle, ConsistencyProof, Digest, Entry, Frontier, Leaves, ProofError, Run, RunBytes,
    SessionId, Span, leaf_hash, verify_consistency, verify_inclusion,
};
use std::collections::BTreeMap;

/// Sessions with a sealed log whose leaves, as far as shown, are the sealed ones.
#[derive(Debug)]
pub struct LogChecked {
    pub(crate) bundle: Bundle,
    pub(crate) purpose: Purpose,
    pub(crate) sessions: Vec<Session>,
    /// Leaves shown by a proof each, with index.
    pub(crate) proven: Vec<(u64, Entry)>,
    /// Leaves of the span that tell of enforcement itself, with index.
    pub(crate) notable: Vec<(u64, Entry)>,
    /// What every entry shown adds up to.
    pub(crate) seen: Seen,
    /// Receipts, each checked.
    pub(crate) receipts: Receipts,
}

impl LogChecked {
    pub(crate) fn check(
        boot: BootChecked<'_>,
        trust: &Trust,
        contents: &Contents,
        tally: &mut Tally,
    ) -> Option<Self> {
        let sessions = boot.quotes.sessions;
        let name = boot.quotes.key.name;
        let unverified = boot.quotes.key.unverified;
        let (bundle, purpose) = (unverified.bundle, unverified.purpose);
        let shown = Shown {
            bundle: &bundle,
            leaves: &unverified.leaves,
            workers: unverified.workers.0,
        };
        if !chain::check(&sessions, purpose, trust, tally) {
            return None;
        }
        let fail = |id, error: LogError, tally: &mut Tally| {
            tally.fail(id, &error.into());
            None
        };
        let roots = match sizes(&sessions, purpose) {
            Ok(roots) => roots,
            Err(error) => return fail(CheckId::LogSizes, error, tally),
        };
        tally.pass(CheckId::LogSizes, "contiguous");
        let hashed = match leaves(&shown, purpose, &sessions, &roots, tally) {
            Ok(root) => root,
            Err(error) => return fail(CheckId::LogLeaves, error, tally),
        };
        let proofs = match consistency(&shown, purpose, &sessions, tally) {
            Ok(proofs) => proofs,
            Err(error) => return fail(CheckId::LogConsistency, error, tally),
        };
        if let Err(error) = inclusion(&bundle, &roots, tally) {
            return fail(CheckId::LogInclusion, error, tally);
        }
        let leeway_ms = trust.require.max_clock_step_s.saturating_mul(1000);
        let seals = Seals {
            sessions: &sessions,
            leeway_ms,
        };
        let mut opened = Opened::open(&bundle, &name, seals, contents);
        let entries = Entries::read(&shown, hashed, &sessions, leeway_ms, &mut opened, tally);
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => return fail(CheckId::LogEntries, error, tally),
        };
        counters::tail(&sessions, bundle.to_ms, purpose, &trust.require, tally);
        let matter = witness::Matter {
            bundle: &bundle,
            purpose,
            sessions: &sessions,
            roots: &roots,
            proofs,
        };
        if let Err(error) = witness::check(&matter, trust, tally) {
            return fail(CheckId::LogWitness, error, tally);
        }
        let receipts = opened.finish(purpose, entries.told, tally)?;
        Some(Self {
            bundle,
            purpose,
            sessions,
            proven: entries.proven,
            seen: entries.seen,
            notable: entries.notable,
            receipts,
        })
    }
}

/// What a file shows of the log, and who goes over it.
pub(super) struct Shown<'s> {
    bundle: &'s Bundle,
    /// Of the bundle's span.
    leaves: &'s Leaves<'s>,
    workers: &'s dyn Workers,
}

impl Shown<'_> {
    /// The leaves shown, by their numbers in the log.
    fn range(&self) -> core::ops::Range<u64> {
        let span = self.bundle.span.as_ref();
        span.map_or(0..0, |span| {
            span.start..span.start.saturating_add(self.leaves.count())
        })
    }

    /// The tree before the first leaf shown.
    fn frontier(&self) -> Result<Frontier, LogError> {
        let Some(span) = &self.bundle.span else {
            return Ok(Frontier::new());
        };
        Ok(Frontier::from_peaks(span.start, span.frontier.clone())?)
    }
}

/// Every sealed size with its root.
type Roots = BTreeMap<u64, Digest>;

/// A receipt may leave epochs out, over which the tree only grew.
fn sizes(sessions: &[Session], purpose: Purpose) -> Result<Roots, LogError> {
    let follows = |got: u64, want: u64| got == want || purpose == Purpose::Receipt && got > want;
    let mut roots = Roots::new();
    let mut before: Option<u64> = None;
    for session in sessions {
        let statement = &session.statement;
        let got = statement.tree_size;
        if let Some(want) = before.filter(|want| !follows(got, *want)) {
            return Err(LogError::Sizes {
                at: session.at.clone(),
                got,
                want,
            });
        }
        sealed(&mut roots, &session.at, got, statement.tree_root)?;
        let mut size = got;
        for epoch in &session.epochs {
            let at = || epoch.at.clone();
            let (got, after) = (epoch.statement.size_before, epoch.statement.size_after);
            if !follows(got, size) {
                return Err(LogError::Sizes {
                    at: at(),
                    got,
                    want: size,
                });
            }
            if after < got {
                return Err(LogError::Sizes {
                    at: at(),
                    got: after,
                    want: got,
                });
            }
            sealed(&mut roots, &epoch.at, after, epoch.statement.root)?;
            size = after;
        }
        counts(session)?;
        before = Some(size);
    }
    Ok(roots)
}

fn sealed(roots: &mut Roots, at: &str, size: u64, root: Digest) -> Result<(), LogError> {
    let empty = (size == 0).then(merestone_evidence::empty_root);
    let want = roots.insert(size, root).or(empty).unwrap_or(root);
    if root == want {
        return Ok(());
    }
    Err(LogError::Root {
        at: at.to_owned(),
        size,
        got: root,
        want,
    })
}

/// Cumulative counts only grow within a session; one that disappears went back to zero.
fn counts(session: &Session) -> Result<(), LogError> {
    let mut before: BTreeMap<String, u64> = BTreeMap::new();
    for epoch in &session.epochs {
        let now = tallies(epoch);
        for (what, &want) in &before {
            let got = now.get(what).copied().unwrap_or(0);
            if got < want {
                let (at, what) = (epoch.at.clone(), what.clone());
                return Err(LogError::Count {
                    at,
                    what,
                    got,
                    want,
                });
            }
        }
        before = now;
    }
    Ok(())
}

fn tallies(epoch: &Epoch) -> BTreeMap<String, u64> {
    let counters = epoch.statement.counters.iter().map(|counter| {
        let verdict = counter.verdict;
        (
            format!("{} {verdict:?} {}", counter.hook, counter.protocol),
            counter.count,
        )
    });
    let lost = epoch.statement.lost.iter();
    let lost = lost.map(|loss| (format!("lost {}", loss.reason), loss.count));
    let canary = epoch.statement.canary.iter().flat_map(|canary| {
        [
            ("tries", canary.runs),
            ("tries held", canary.held),
            ("tries escaped", canary.escaped),
            ("tries not applicable", canary.not_applicable),
            ("tries without proof", canary.errors),
        ]
    });
    let canary = canary.map(|(what, count)| (format!("the canary's {what}"), count));
    let records = epoch.statement.records.iter().flat_map(|records| {
        [
            ("records R1".to_owned(), records.observed),
            ("records R2".to_owned(), records.bound),
        ]
    });
    let mut sums = BTreeMap::new();
    for (what, count) in counters.chain(lost).chain(canary).chain(records) {
        let sum: &mut u64 = sums.entry(what).or_default();
        *sum = sum.saturating_add(count);
    }
    sums
}

/// Recomputes the root at every seal within the span, from the leaves themselves; the last root.
fn leaves(
    log: &Shown<'_>,
    purpose: Purpose,
    sessions: &[Session],
    roots: &Roots,
    tally: &mut Tally,
) -> Result<Digest, LogError> {
    let bundle = log.bundle;
    let root = match &bundle.span {
        Some(span) => span_roots(span, log, roots)?,
        None => merestone_evidence::empty_root(),
    };
    if purpose == Purpose::Receipt {
        tally.skip(CheckId::LogLeaves, "a receipt shows single leaves, not all");
        return Ok(root);
    }
    let shown = log.range();
    let absent = sessions
        .iter()
        .flat_map(|session| &session.epochs)
        .find(|epoch| {
            let statement = &epoch.statement;
            let inside =
                statement.closed_ms >= bundle.from_ms && statement.opened_ms <= bundle.to_ms;
            let (from, to) = (statement.size_before, statement.size_after);
            inside && from != to && !(shown.start <= from && to <= shown.end)
        });
    if let Some(epoch) = absent {
        let (from, to) = (epoch.statement.size_before, epoch.statement.size_after);
        let error = LogError::Incomplete {
            at: epoch.at.clone(),
            from,
            to,
        };
        tally.fail(CheckId::LogLeaves, &error.into());
    } else {
        let detail = format!(
            "{} leaves lead to every sealed root",
            shown.end - shown.start
        );
        tally.pass(CheckId::LogLeaves, detail);
    }
    Ok(root)
}

fn span_roots(span: &Span, log: &Shown<'_>, roots: &Roots) -> Result<Digest, LogError> {
    let mut frontier = log.frontier()?;
    let Some(&want) = roots.get(&span.start) else {
        return Err(LogError::Edge {
            what: "begins",
            got: span.start,
        });
    };
    same(&frontier, want, "the span's start")?;
    let hashes = |run: &Run, bytes: &RunBytes<'_>| -> Option<Vec<Digest>> {
        let hashes: Vec<_> = bytes.leaves().map(leaf_hash).collect();
        (hashes.len() as u64 == run.count).then_some(hashes)
    };
    leaves::each(log.leaves, log.workers, hashes, |hashes| {
        for hash in hashes.ok_or(LogError::Changed)? {
            frontier.append(hash);
            if let Some(&want) = roots.get(&frontier.size()) {
                same(&frontier, want, "the span")?;
            }
        }
        Ok(())
    })?;
    if !roots.contains_key(&frontier.size()) {
        return Err(LogError::Edge {
            what: "ends",
            got: frontier.size(),
        });
    }
    Ok(frontier.root())
}

fn same(frontier: &Frontier, want: Digest, at: &str) -> Result<(), LogError> {
    let got = frontier.root();
    if got == want {
        return Ok(());
    }
    Err(LogError::Root {
        at: at.to_owned(),
        size: frontier.size(),
        got,
        want,
    })
}

/// Each epoch outside the span: its tree begins with the one before it. What is left of the
/// proofs where the file has a checkpoint, which one of them may be for.
fn consistency<'b>(
    log: &Shown<'b>,
    purpose: Purpose,
    sessions: &[Session],
    tally: &mut Tally,
) -> Result<Vec<&'b ConsistencyProof>, LogError> {
    let span = log.range();
    let mut proofs: BTreeMap<(u64, u64), &ConsistencyProof> = BTreeMap::new();
    for proof in &log.bundle.consistency {
        proofs.insert((proof.from_size, proof.to_size), proof);
    }
    let mut proven = 0;
    let mut missing = Vec::new();
    for session in sessions {
        let mut first = session.statement.tree_root;
        for epoch in &session.epochs {
            let at = || epoch.at.clone();
            let (from, to) = (epoch.statement.size_before, epoch.statement.size_after);
            let second = epoch.statement.root;
            let shown = span.start <= from && to <= span.end;
            if let Some(proof) = proofs.remove(&(from, to)) {
                verify_consistency(from, to, &proof.path, &first, &second)
                    .map_err(|source| LogError::Consistency { at: at(), source })?;
                proven += 1;
            } else if from != 0 && from != to && !shown {
                missing.push(LogError::NoProof { at: at(), from, to });
            }
            first = second;
        }
    }
    let left: Vec<_> = proofs.into_values().collect();
    if let (Some(proof), None) = (left.first(), &log.bundle.checkpoint) {
        // A proof that belongs to no epoch is not part of the evidence.
        let (from, to) = (proof.from_size, proof.to_size);
        let source = ProofError::Sizes { from, to };
        return Err(LogError::Consistency {
            at: "no epoch".to_owned(),
            source,
        });
    }
    match (missing.into_iter().next(), purpose) {
        (None, _) => tally.pass(CheckId::LogConsistency, format!("{proven} proofs")),
        (Some(error), Purpose::Receipt) => tally.skip(CheckId::LogConsistency, error.to_string()),
        (Some(error), Purpose::Period) => tally.fail(CheckId::LogConsistency, &error.into()),
    }
    Ok(left)
}

fn inclusion(bundle: &Bundle, roots: &Roots, tally: &mut Tally) -> Result<(), LogError> {
    for proof in &bundle.proofs {
        let (index, size) = (proof.index, proof.size);
        let root = roots.get(&size).ok_or(LogError::Unsealed { index, size })?;
        verify_inclusion(index, size, &leaf_hash(&proof.leaf), &proof.path, root)
            .map_err(|source| LogError::Inclusion { index, source })?;
    }
    match bundle.proofs.len() {
        0 => tally.pass(CheckId::LogInclusion, "no single leaves are shown"),
        count => tally.pass(
            CheckId::LogInclusion,
            format!("{count} leaves are in sealed trees"),
        ),
    }
    Ok(())
}

impl LogChecked {
    /// Session ids in order.
    pub fn session_ids(&self) -> impl Iterator<Item = SessionId> {
        self.sessions
            .iter()
            .map(|session| session.statement.session)
    }
}
