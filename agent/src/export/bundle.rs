//! The bundle: everything a verifier needs for a period.

use super::{
    checkpoint,
    proofs::{Proof, Proofs, Sealed},
};
use crate::{
    clock,
    enrolment::{self, EnrolmentError},
    ledger::{LedgerError, NvAt, Reader, StoredLogs, StoredSession},
};
use merestone_evidence::{
    Blob, Bundle, BundleKind, ConsistencyProof, DecodeError, Digest, EpochStatement, SealedEpoch,
    SealedSession, SessionStatement, Span, decode, encode,
};
use std::collections::BTreeMap;
use std::path::Path;

/// Why no bundle could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The log cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A kept enrolment certificate cannot be read.
    #[error(transparent)]
    Enrolment(#[from] EnrolmentError),
    /// A stored statement is none.
    #[error("session {session}: {source}; the log is damaged")]
    Statement {
        /// Number of the session on this disk.
        session: u64,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The period ends before it begins.
    #[error("the period ends before it begins; give --from the earlier time")]
    Period,
    /// Nothing was sealed in the period.
    #[error("nothing was sealed between {from_ms} and {to_ms} ms; the log covers {covered}")]
    Nothing {
        /// Start asked for.
        from_ms: u64,
        /// End asked for.
        to_ms: u64,
        /// What it covers.
        covered: String,
    },
    /// The attestation key or the node id changed.
    #[error("the {what} changed at {at_ms} ms; make one bundle up to then and one after")]
    Changed {
        /// What changed.
        what: &'static str,
        /// Start of the first session with the new one.
        at_ms: u64,
    },
    /// The checkpoint that was asked for is none of this log.
    #[error("the checkpoint cannot go into the bundle: {why}")]
    Checkpoint {
        /// What is wrong with it.
        why: String,
    },
    /// Leaves and statements do not fit together.
    #[error(
        "no proof of the tree of {size} leaves holds: {why}; the log is damaged, or not the one that was sealed"
    )]
    Proof {
        /// Leaves of the tree.
        size: u64,
        /// What does not hold.
        why: String,
    },
    /// More than a verifier reads.
    #[error(
        "the bundle would have {got} bytes, at most {limit} can be verified; choose a shorter period"
    )]
    TooBig {
        /// Its size.
        got: usize,
        /// The limit.
        limit: usize,
    },
}

/// A session of the period.
struct Chosen {
    stored: StoredSession,
    statement: SessionStatement,
    epochs: Vec<(EpochStatement, SealedEpoch)>,
    /// Later epochs of it are not in the period.
    is_cut: bool,
}

/// The canonical bytes of the bundle for the epochs that touch
/// `from_ms..=to_ms`, with their sessions from the beginning, and with the
/// `receipts` of their records if they are wanted.
pub fn bundle(
    state_dir: &Path,
    from_ms: u64,
    to_ms: u64,
    receipts: bool,
) -> Result<Vec<u8>, ExportError> {
    bundle_with(state_dir, from_ms, to_ms, receipts, None)
}

/// The same with a checkpoint that a witness gave back, in place of those kept beside the log.
pub fn bundle_with(
    state_dir: &Path,
    from_ms: u64,
    to_ms: u64,
    receipts: bool,
    checkpoint: Option<&[u8]>,
) -> Result<Vec<u8>, ExportError> {
    if to_ms < from_ms {
        return Err(ExportError::Period);
    }
    let reader = Reader::open(state_dir)?;
    let chosen = choose(&reader, from_ms, to_ms)?;
    let first = chosen.first().ok_or(ExportError::Period)?;
    let (node, ak_public) = (first.statement.node.clone(), first.stored.ak_public.clone());
    let enrolments = enrolment::held(state_dir, &ak_public)?;
    let (roots, mut proofs) = (roots(&chosen), Proofs::of(&reader));
    let inside = range(&chosen, from_ms, to_ms);
    let span = match inside {
        Some((start, end)) => {
            let tree = sealed_at(&roots, start)?;
            let frontier = proofs.make(&Proof::Peaks { tree })?;
            Some(span(&reader, frontier, start, end)?)
        }
        None => None,
    };
    let receipts = match inside.filter(|_| receipts) {
        Some((start, end)) => reader.receipts(start..end)?,
        None => Vec::new(),
    };
    let receipts = (!receipts.is_empty()).then(|| {
        let messages = receipts.into_iter().map(|kept| Blob::from(kept.message));
        messages.collect()
    });
    let location = location(&reader, &chosen)?;
    let mut consistency = consistency(&mut proofs, &roots, &chosen, inside.unwrap_or_default())?;
    let seen = checkpoint::choose(&reader, checkpoint, &roots, &mut proofs)?;
    let (checkpoint, proof) = seen.map_or((None, None), |seen| (Some(seen.note), seen.proof));
    consistency.extend(proof);
    let sessions = chosen
        .into_iter()
        .map(|session| sealed(&reader, session))
        .collect::<Result<_, _>>()?;
    fit(&Bundle {
        kind: BundleKind,
        created_ms: clock::now_ms(),
        from_ms,
        to_ms,
        node,
        ak_public,
        sessions,
        span,
        consistency,
        proofs: Vec::new(),
        enrolments,
        location,
        checkpoint,
        receipts,
    })
}

/// The file's bytes, if a verifier will read so many.
pub(super) fn fit(bundle: &Bundle) -> Result<Vec<u8>, ExportError> {
    let bytes = encode(bundle);
    // What a verifier reads; the skeleton without the leaves has its own, smaller limit there.
    let limit = usize::try_from(merestone_evidence::MOST_BUNDLE_BYTES).unwrap_or(usize::MAX);
    if bytes.len() > limit {
        return Err(ExportError::TooBig {
            got: bytes.len(),
            limit,
        });
    }
    Ok(bytes)
}

/// Sessions that touch the period, each with its epochs up to the last that does.
fn choose(reader: &Reader, from_ms: u64, to_ms: u64) -> Result<Vec<Chosen>, ExportError> {
    let mut chosen: Vec<Chosen> = Vec::new();
    let mut covered = (u64::MAX, 0);
    for stored in reader.sessions()? {
        let session = stored.number;
        let damaged = |source| ExportError::Statement { session, source };
        let statement: SessionStatement = decode(&stored.statement).map_err(damaged)?;
        let mut epochs = Vec::new();
        let mut end_ms = statement.started_ms;
        for sealed in reader.epochs(session)? {
            let epoch: EpochStatement = decode(&sealed.statement).map_err(damaged)?;
            end_ms = end_ms.max(epoch.closed_ms);
            epochs.push((epoch, sealed));
        }
        covered = (covered.0.min(statement.started_ms), covered.1.max(end_ms));
        if end_ms < from_ms || statement.started_ms > to_ms {
            continue;
        }
        let after = epochs
            .iter()
            .rposition(|(epoch, _)| epoch.opened_ms <= to_ms)
            .map_or(0, |last| last + 1);
        let is_cut = after < epochs.len();
        epochs.truncate(after);
        if let Some(before) = chosen.first() {
            let at_ms = statement.started_ms;
            if before.stored.ak_public != stored.ak_public {
                return Err(ExportError::Changed {
                    what: "attestation key",
                    at_ms,
                });
            }
            if before.statement.node != statement.node {
                return Err(ExportError::Changed {
                    what: "node id",
                    at_ms,
                });
            }
        }
        chosen.push(Chosen {
            stored,
            statement,
            epochs,
            is_cut,
        });
    }
    if chosen.is_empty() {
        let covered = match covered {
            (u64::MAX, _) => "nothing yet".to_owned(),
            (from, to) => format!("{from} to {to} ms"),
        };
        return Err(ExportError::Nothing {
            from_ms,
            to_ms,
            covered,
        });
    }
    Ok(chosen)
}

/// Leaves of the epochs that touch the period; they are one run, because the
/// sizes of sealed epochs follow one another.
fn range(chosen: &[Chosen], from_ms: u64, to_ms: u64) -> Option<(u64, u64)> {
    let touching = chosen
        .iter()
        .flat_map(|session| &session.epochs)
        .map(|(epoch, _)| epoch);
    let touching = touching.filter(|epoch| epoch.closed_ms >= from_ms && epoch.opened_ms <= to_ms);
    touching.fold(None, |range, epoch| {
        let (start, end) = range.unwrap_or((epoch.size_before, epoch.size_after));
        Some((start.min(epoch.size_before), end.max(epoch.size_after)))
    })
}

/// Every size of the tree that a statement of the bundle seals, with its root.
fn roots(chosen: &[Chosen]) -> BTreeMap<u64, Digest> {
    let of = |session: &Chosen| {
        let epochs = session.epochs.iter();
        let mut sealed: Vec<Sealed> = epochs
            .map(|(epoch, _)| (epoch.size_after, epoch.root))
            .collect();
        sealed.push((session.statement.tree_size, session.statement.tree_root));
        sealed
    };
    chosen.iter().flat_map(of).collect()
}

fn sealed_at(roots: &BTreeMap<u64, Digest>, size: u64) -> Result<Sealed, ExportError> {
    match roots.get(&size) {
        Some(root) => Ok((size, *root)),
        None => Err(ExportError::Proof {
            size,
            why: "no statement seals a tree of that size".to_owned(),
        }),
    }
}

fn span(reader: &Reader, frontier: Vec<Digest>, start: u64, end: u64) -> Result<Span, ExportError> {
    let leaves = reader
        .leaves(start, end)?
        .into_iter()
        .map(Blob::from)
        .collect();
    Ok(Span {
        start,
        frontier,
        leaves,
    })
}

/// One proof for each epoch whose leaves are not shown.
fn consistency(
    proofs: &mut Proofs<'_>,
    roots: &BTreeMap<u64, Digest>,
    chosen: &[Chosen],
    (start, end): (u64, u64),
) -> Result<Vec<ConsistencyProof>, ExportError> {
    let epochs = chosen
        .iter()
        .flat_map(|session| &session.epochs)
        .map(|(epoch, _)| epoch);
    let outside = epochs.filter(|epoch| {
        let (from, to) = (epoch.size_before, epoch.size_after);
        from != 0 && from < to && (from < start || to > end)
    });
    let mut made = Vec::new();
    for epoch in outside {
        let from = sealed_at(roots, epoch.size_before)?;
        let to = (epoch.size_after, epoch.root);
        made.push(ConsistencyProof {
            from_size: from.0,
            to_size: to.0,
            path: proofs.make(&Proof::Consistency { from, to })?,
        });
    }
    Ok(made)
}

/// What the epochs shown have sealed of the place, each once; none where there is none.
fn location(reader: &Reader, chosen: &[Chosen]) -> Result<Option<Vec<Blob>>, ExportError> {
    let mut all = BTreeMap::new();
    for session in chosen {
        let digests = session.epochs.iter();
        for digest in digests.filter_map(|(epoch, _)| epoch.location) {
            // A file that is gone leaves a digest that the verifier misses.
            if let Some(bytes) = reader.location(session.stored.number, &digest)? {
                all.insert(digest, Blob::from(bytes));
            }
        }
    }
    Ok((!all.is_empty()).then(|| all.into_values().collect()))
}

fn sealed(reader: &Reader, session: Chosen) -> Result<SealedSession, ExportError> {
    let Chosen {
        stored,
        statement: _,
        epochs,
        is_cut,
    } = session;
    let gpu_reports = reader.gpu_reports(stored.number)?;
    let nv_start = reader.nv(stored.number, NvAt::Start)?;
    // The end is that of epochs which are not shown.
    let nv_end = reader
        .nv(stored.number, NvAt::End)?
        .filter(|_certified| !is_cut);
    let StoredLogs {
        boot: boot_log,
        ima: ima_log,
    } = reader.boot_logs(stored.number)?;
    let missing = || LedgerError::Order {
        doing: "export a session without a quote",
    };
    Ok(SealedSession {
        statement: stored.statement,
        quote: stored.quote.ok_or_else(missing)?,
        boot_log,
        ima_log,
        epochs: epochs.into_iter().map(|(_, sealed)| sealed).collect(),
        gpu_reports,
        nv_start,
        nv_end,
    })
}
