//! Leaves → entries: each decoded, those kept that later stages look at one by one.

use super::{LogError, Shown};
use crate::account::Seen;
use crate::coverage::rfc3339;
use crate::incidents;
use crate::leaves;
use crate::quote::Session;
use crate::receipts::Told;
use crate::verdict::{CheckId, Tally};
use merestone_evidence::{DecodeError, Digest, Entry, Leaves, Run, RunBytes, decode, leaf_hash};

/// What is kept of the entries.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    /// Leaves shown by a proof each, with index.
    pub(crate) proven: Vec<(u64, Entry)>,
    /// What every entry shown adds up to.
    pub(crate) seen: Seen,
    /// Leaves of the span that tell of enforcement itself, with index.
    pub(crate) notable: Vec<(u64, Entry)>,
    /// What is to fit together of the records of inferences.
    pub(crate) told: Told,
}

impl Entries {
    pub(super) fn read(
        log: &Shown<'_>,
        hashed: Digest,
        sessions: &[Session],
        leeway_ms: u64,
        tally: &mut Tally,
    ) -> Result<Self, LogError> {
        let mut entries = Self::default();
        let mut count = 0_u64;
        let mut late = None;
        let epochs = sessions.iter().flat_map(|session| &session.epochs);
        let mut epochs = epochs.map(|epoch| &epoch.statement).peekable();
        let mut index = log.range().start;
        let mut again = log.frontier()?;
        let work = |run: &Run, bytes: &RunBytes<'_>| decoded(log.leaves, run, bytes);
        leaves::each(log.leaves, log.workers, work, |leaves| {
            for (hash, entry) in leaves.ok_or(LogError::Changed)? {
                if let Some(hash) = hash {
                    again.append(hash);
                }
                let entry = entry.map_err(|source| LogError::Entry { index, source })?;
                while epochs.next_if(|epoch| epoch.size_after <= index).is_some() {}
                let closed = epochs.peek().map(|epoch| epoch.closed_ms);
                late = late.take().or_else(|| {
                    let want = closed.filter(|ms| entry.time_ms > ms.saturating_add(leeway_ms))?;
                    Some((index, rfc3339(entry.time_ms), rfc3339(want)))
                });
                entries.seen.see(&entry);
                entries.told.see(&entry);
                if incidents::concerns(&entry.body) {
                    entries.notable.push((index, entry));
                }
                count += 1;
                index += 1;
            }
            Ok(())
        })?;
        // Whoever gave other bytes the second time is found out here.
        if !log.leaves.is_borrowed() && again.root() != hashed {
            return Err(LogError::Changed);
        }
        for proof in &log.bundle.proofs {
            let index = proof.index;
            let entry: Entry =
                decode(&proof.leaf).map_err(|source| LogError::Entry { index, source })?;
            entries.seen.see(&entry);
            entries.told.see(&entry);
            entries.proven.push((index, entry));
            count += 1;
        }
        let id = CheckId::LogEntries;
        match late {
            // It may be earlier: what the kernel told while no agent ran is written down later.
            Some((index, got, want)) => tally.fail(id, &LogError::Late { index, got, want }.into()),
            None => tally.pass(id, format!("{count} entries are well formed")),
        }
        Ok(entries)
    }
}

/// A leaf: its hash, where it may be another than it was at first, and what it says.
type Leaf = (Option<Digest>, Result<Entry, DecodeError>);

fn decoded(leaves: &Leaves<'_>, run: &Run, bytes: &RunBytes<'_>) -> Option<Vec<Leaf>> {
    let one = |leaf: &[u8]| {
        let hash = (!leaves.is_borrowed()).then(|| leaf_hash(leaf));
        (hash, decode(leaf))
    };
    let all: Vec<Leaf> = bytes.leaves().map(one).collect();
    (all.len() as u64 == run.count).then_some(all)
}
