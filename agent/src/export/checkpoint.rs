//! The checkpoint that a bundle carries: what others signed of this log, and the proof that it
//! is this log's.

use super::{ExportError, tree::Tree};
use crate::ledger::Reader;
use merestone_evidence::ConsistencyProof;
use merestone_tlog::{Checkpoint, Note};

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
    sizes: &[u64],
    tree: &Tree,
) -> Result<Option<Shown>, ExportError> {
    let Some((own, published)) = reader.published()? else {
        return match asked {
            Some(_) => refused("this log has published nothing".to_owned()),
            None => Ok(None),
        };
    };
    let last = sizes.iter().copied().max().unwrap_or_default();
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
        proof: proof(&checkpoint, sizes, tree),
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
fn proof(checkpoint: &Checkpoint, sizes: &[u64], tree: &Tree) -> Option<ConsistencyProof> {
    let size = checkpoint.size;
    if size == 0 || sizes.contains(&size) {
        return None;
    }
    let above = sizes.iter().copied().filter(|other| *other > size).min();
    let below = sizes.iter().copied().filter(|other| *other < size).max();
    let (from_size, to_size) = above.map_or_else(|| Some((below?, size)), |up| Some((size, up)))?;
    // The empty tree is the beginning of every one.
    (from_size > 0).then(|| ConsistencyProof {
        from_size,
        to_size,
        path: tree.consistency(from_size, to_size),
    })
}
