//! The checkpoint that a bundle carries: what others signed of this log, and the proof that it
//! is this log's.

use super::{
    ExportError,
    proofs::{Proof, Proofs},
};
use crate::ledger::Reader;
use merestone_evidence::{ConsistencyProof, Digest};
use merestone_tlog::{Checkpoint, Note};
use std::collections::BTreeMap;

/// A note of this log.
struct Seen {
    note: Note,
    checkpoint: Checkpoint,
}

/// What goes into the bundle.
pub(super) struct Shown {
    pub(super) note: Vec<u8>,
    /// Where the checkpoint is of no size that the bundle has.
    pub(super) proof: Option<ConsistencyProof>,
}

/// The checkpoint nearest behind `last` leaves among those that witnesses gave back, else the
/// biggest, else the log's own; with the signatures of all notes of the same text. `asked` is
/// one that has to be it.
pub(super) fn choose(
    reader: &Reader,
    asked: Option<&[u8]>,
    roots: &BTreeMap<u64, Digest>,
    proofs: &mut Proofs<'_>,
) -> Result<Option<Shown>, ExportError> {
    let Some((own, published)) = reader.published()? else {
        return match asked {
            Some(_) => refused("this log has published nothing".to_owned()),
            None => Ok(None),
        };
    };
    let last = roots.keys().next_back().copied().unwrap_or_default();
    let sealed = reader.size();
    let mut seen = Vec::new();
    for (path, bytes) in reader.cosigned()? {
        match read(&bytes, &published.origin, sealed) {
            Ok(one) => seen.push(one),
            Err(why) => tracing::warn!(path = %path.display(), why, "checkpoint left out"),
        }
    }
    let chosen = match asked.map(|bytes| read(bytes, &published.origin, sealed)) {
        Some(Err(why)) => return refused(why),
        Some(Ok(one)) => one,
        None => {
            let behind = seen.iter().filter(|one| one.checkpoint.size >= last);
            let nearest = behind.min_by_key(|one| one.checkpoint.size);
            let nearest = nearest.or_else(|| seen.iter().max_by_key(|one| one.checkpoint.size));
            match nearest {
                Some(one) => Seen {
                    note: one.note.clone(),
                    checkpoint: one.checkpoint.clone(),
                },
                None => read(&own, &published.origin, sealed).or_else(refused)?,
            }
        }
    };
    let Seen {
        mut note,
        checkpoint,
    } = chosen;
    for one in &seen {
        note.merge(&one.note);
    }
    Ok(Some(Shown {
        proof: proof(&checkpoint, roots, proofs)?,
        note: note.bytes(),
    }))
}

fn refused<T>(why: String) -> Result<T, ExportError> {
    Err(ExportError::Checkpoint { why })
}

fn read(bytes: &[u8], origin: &str, sealed: u64) -> Result<Seen, String> {
    let note = Note::parse(bytes).map_err(|error| error.to_string())?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| error.to_string())?;
    if checkpoint.origin != origin {
        let other = &checkpoint.origin;
        return Err(format!("it is of the log {other}, this is {origin}"));
    }
    if checkpoint.size > sealed {
        let size = checkpoint.size;
        return Err(format!("it names {size} leaves, {sealed} are sealed here"));
    }
    Ok(Seen { note, checkpoint })
}

/// Between the checkpoint and the nearest tree that the bundle has.
///
/// A checkpoint is the word of others: where no proof joins it to this log it goes out all the
/// same, and the verifier refuses it.
fn proof(
    checkpoint: &Checkpoint,
    roots: &BTreeMap<u64, Digest>,
    proofs: &mut Proofs<'_>,
) -> Result<Option<ConsistencyProof>, ExportError> {
    let seen = (checkpoint.size, checkpoint.root);
    let sealed = |(size, root): (&u64, &Digest)| (*size, *root);
    let above = roots.range(seen.0..).next().map(sealed);
    let below = roots.range(..seen.0).next_back().map(sealed);
    let (from, to) = match (below, above) {
        (_, Some(same)) if same.0 == seen.0 => return Ok(None),
        (_, Some(above)) => (seen, above),
        (Some(below), None) => (below, seen),
        (None, None) => return Ok(None),
    };
    // The empty tree is the beginning of every one.
    if from.0 == 0 {
        return Ok(None);
    }
    let (path, held) = proofs.try_to(&Proof::Consistency { from, to })?;
    if let Err(why) = held {
        let size = seen.0;
        tracing::warn!(size, why, "the checkpoint is of another tree than this log");
    }
    Ok(Some(ConsistencyProof {
        from_size: from.0,
        to_size: to.0,
        path,
    }))
}
