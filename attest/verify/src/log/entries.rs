//! Leaves → entries: each decoded, those kept that later stages look at one by one.

use super::LogError;
use crate::account::Seen;
use crate::coverage::rfc3339;
use crate::incidents;
use crate::quote::Session;
use crate::receipts::Told;
use crate::verdict::{CheckId, Tally};
use merestone_evidence::{Bundle, Entry, decode};

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
        bundle: &Bundle,
        sessions: &[Session],
        leeway_ms: u64,
        tally: &mut Tally,
    ) -> Result<Self, LogError> {
        let mut entries = Self::default();
        let mut count = 0_u64;
        let mut late = None;
        let epochs = sessions.iter().flat_map(|session| &session.epochs);
        let mut epochs = epochs.map(|epoch| &epoch.statement).peekable();
        if let Some(span) = &bundle.span {
            for (index, leaf) in (span.start..).zip(&span.leaves) {
                let entry: Entry =
                    decode(leaf).map_err(|source| LogError::Entry { index, source })?;
                while epochs.next_if(|epoch| epoch.size_after <= index).is_some() {}
                let closed = epochs.peek().map(|epoch| epoch.closed_ms);
                late = late.or_else(|| {
                    let want = closed.filter(|ms| entry.time_ms > ms.saturating_add(leeway_ms))?;
                    Some((index, rfc3339(entry.time_ms), rfc3339(want)))
                });
                entries.seen.see(&entry);
                entries.told.see(&entry);
                if incidents::concerns(&entry.body) {
                    entries.notable.push((index, entry));
                }
                count += 1;
            }
        }
        for proof in &bundle.proofs {
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
