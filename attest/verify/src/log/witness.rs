//! `log.witness`: others saw the same log, and did not see more of it than is shown.
//!
//! A checkpoint is held against the trees that the quotes sealed: the same size has the same
//! root, and between other sizes there is a consistency proof. Who signed it is asked of the
//! trust policy's keys alone; its extension lines are the log's word and count only against it.
//! A cosignature says that the witness had seen no bigger tree at its time; so a witness that had
//! seen a bigger one before the period's end shows that epochs were cut off.

use super::{LogError, LogTrust, Roots};
use crate::coverage::rfc3339;
use crate::frame::Purpose;
use crate::quote::{Epoch, Session};
use crate::trust::Trust;
use crate::verdict::{CheckId, Tally};
use merestone_evidence::{Bundle, ConsistencyProof, verify_consistency};
use merestone_tlog::{Checkpoint, Note};

const ID: CheckId = CheckId::LogWitness;

/// What the evidence is held against.
pub(super) struct Matter<'m> {
    pub(super) bundle: &'m Bundle,
    pub(super) purpose: Purpose,
    pub(super) sessions: &'m [Session],
    pub(super) roots: &'m Roots,
    /// Consistency proofs that belong to no epoch.
    pub(super) proofs: Vec<&'m ConsistencyProof>,
}

/// How a checkpoint's tree stands to those that are sealed.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// One of them, or shown to be the beginning or the continuation of one.
    Shown,
    /// Nothing shows either.
    Unknown,
}

/// A checkpoint that the log's key signed.
struct Seen<'m> {
    at: String,
    checkpoint: &'m Checkpoint,
    place: Place,
    /// When each witness that signed saw it, seconds.
    times: Vec<u64>,
}

/// Makes the check. An error is about the evidence; what is only missing is told in the tally.
pub(super) fn check(matter: &Matter<'_>, trust: &Trust, tally: &mut Tally) -> Result<(), LogError> {
    let carried = match &matter.bundle.checkpoint {
        Some(bytes) => Some(read(bytes)?),
        None => None,
    };
    let carried_checkpoint = carried.as_ref().map(|(_, checkpoint)| checkpoint);
    matter.proofs_belong(carried_checkpoint)?;
    let place = match carried_checkpoint {
        Some(checkpoint) => matter.place("the checkpoint in the file", checkpoint)?,
        None => Place::Unknown,
    };
    let Some(log) = &trust.log else {
        let detail = if carried.is_some() {
            "the file has a checkpoint, and the trust policy names no key of a log"
        } else {
            "no witness has cosigned this log"
        };
        tally.skip(ID, detail);
        return Ok(());
    };
    let mut seen = Vec::new();
    if let Some((note, checkpoint)) = &carried {
        let at = "the checkpoint in the file".to_owned();
        seen.push(signed(at, (note, checkpoint), place, log)?);
    }
    for (name, note, checkpoint) in &log.checkpoints {
        let at = format!("the checkpoint {name}");
        let place = matter.place(&at, checkpoint)?;
        seen.push(signed(at, (note, checkpoint), place, log)?);
    }
    let leeway_ms = trust.require.max_clock_step_s.saturating_mul(1000);
    for one in &seen {
        matter.binds(one)?;
        if let Some(error) = matter.cut(one, leeway_ms) {
            tally.fail(ID, &error.into());
            return Ok(());
        }
    }
    matter.quorum(&seen, log, tally);
    Ok(())
}

fn read(bytes: &[u8]) -> Result<(Note, Checkpoint), LogError> {
    let fail = |why: String| LogError::Checkpoint { why };
    let note = Note::parse(bytes).map_err(|error| fail(error.to_string()))?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| fail(error.to_string()))?;
    Ok((note, checkpoint))
}

/// By a pinned key of this very log; then who else signed. A line that claims to be of a pinned
/// key and is not spoils the note.
fn signed<'m>(
    at: String,
    (note, checkpoint): (&Note, &'m Checkpoint),
    place: Place,
    log: &LogTrust,
) -> Result<Seen<'m>, LogError> {
    let fail = |error: merestone_tlog::NoteError| LogError::Checkpoint {
        why: error.to_string(),
    };
    let mut is_signed = false;
    for key in log
        .keys
        .iter()
        .filter(|key| key.name() == checkpoint.origin)
    {
        is_signed |= note.signed_by(key).map_err(fail)?.is_some();
    }
    if !is_signed {
        return Err(LogError::Unsigned {
            at,
            origin: checkpoint.origin.clone(),
        });
    }
    let mut times = Vec::new();
    for witness in &log.witnesses {
        times.extend(note.signed_by(witness).map_err(fail)?);
    }
    Ok(Seen {
        at,
        checkpoint,
        place,
        times,
    })
}

impl Matter<'_> {
    /// A proof that belongs neither to an epoch nor to the checkpoint is not part of the evidence.
    fn proofs_belong(&self, checkpoint: Option<&Checkpoint>) -> Result<(), LogError> {
        let size = checkpoint.map(|checkpoint| checkpoint.size);
        let stray = self.proofs.iter().find(|proof| {
            let (from, to) = (Some(proof.from_size), Some(proof.to_size));
            let other = if from == size {
                proof.to_size
            } else {
                proof.from_size
            };
            (from != size && to != size) || !self.roots.contains_key(&other)
        });
        stray.map_or(Ok(()), |proof| {
            let (from, to) = (proof.from_size, proof.to_size);
            let source = merestone_evidence::ProofError::Sizes { from, to };
            let at = "no epoch".to_owned();
            Err(LogError::Consistency { at, source })
        })
    }

    fn place(&self, at: &str, checkpoint: &Checkpoint) -> Result<Place, LogError> {
        let (size, root) = (checkpoint.size, checkpoint.root);
        if let Some(&want) = self.roots.get(&size) {
            if root == want {
                return Ok(Place::Shown);
            }
            return Err(LogError::Root {
                at: at.to_owned(),
                size,
                got: root,
                want,
            });
        }
        let mut place = Place::Unknown;
        for proof in &self.proofs {
            let (from, to) = (proof.from_size, proof.to_size);
            let roots = if from == size {
                self.roots.get(&to).map(|other| (root, *other))
            } else if to == size {
                self.roots.get(&from).map(|other| (*other, root))
            } else {
                None
            };
            if let Some((first, second)) = roots {
                verify_consistency(from, to, &proof.path, &first, &second).map_err(|source| {
                    LogError::Consistency {
                        at: at.to_owned(),
                        source,
                    }
                })?;
                place = Place::Shown;
            }
        }
        // The empty tree is the beginning of every one.
        Ok(if size == 0 { Place::Shown } else { place })
    }

    fn epochs(&self) -> impl Iterator<Item = &Epoch> {
        self.sessions.iter().flat_map(|session| &session.epochs)
    }

    /// Leaves of the last tree that is shown.
    fn last_size(&self) -> u64 {
        let sizes = self.roots.keys().next_back();
        sizes.copied().unwrap_or_default()
    }

    /// What one of our own checkpoints says of the epoch that seals it must not contradict it.
    fn binds(&self, seen: &Seen<'_>) -> Result<(), LogError> {
        let Some(sealed) = seen.checkpoint.sealed() else {
            return Ok(());
        };
        let named = self
            .epochs()
            .find(|epoch| epoch.said.digest == sealed.epoch);
        let fits = match named {
            Some(epoch) => {
                let statement = &epoch.statement;
                statement.session == sealed.session
                    && statement.size_after == seen.checkpoint.size
                    && statement.root == seen.checkpoint.root
            }
            // Within a session that is shown from its beginning every epoch is there.
            None => seen.checkpoint.size >= self.last_size() || !self.has_session(sealed.session),
        };
        if fits {
            return Ok(());
        }
        Err(LogError::Binding {
            at: seen.at.clone(),
            epoch: sealed.epoch,
        })
    }

    fn has_session(&self, id: merestone_evidence::SessionId) -> bool {
        let mut sessions = self.sessions.iter();
        sessions.any(|session| session.statement.session == id)
    }

    /// A witness saw more before the period's end than the file has.
    fn cut(&self, seen: &Seen<'_>, leeway_ms: u64) -> Option<LogError> {
        let last = self.last_size();
        let first_s = seen.times.iter().min()?;
        let at_ms = first_s.saturating_mul(1000);
        let within = at_ms.saturating_add(leeway_ms) <= self.bundle.to_ms;
        if self.purpose == Purpose::Receipt || !within {
            return None;
        }
        let got = seen.checkpoint.size;
        let sealed = seen.checkpoint.sealed();
        // The same tree under a later epoch: one without entries was cut.
        let later = sealed.filter(|sealed| {
            let named = self.epochs().any(|epoch| epoch.said.digest == sealed.epoch);
            let begins = self.sessions.first();
            let begins = begins.map(|session| session.statement.tree_size);
            let earlier = begins == Some(got) && !self.has_session(sealed.session);
            got == last && !named && !earlier
        });
        (got > last || later.is_some()).then(|| LogError::Cut {
            at: seen.at.clone(),
            seen: rfc3339(at_ms),
            got: last,
            want: got,
        })
    }

    /// Enough witnesses signed one checkpoint that covers the period.
    fn quorum(&self, seen: &[Seen<'_>], log: &LogTrust, tally: &mut Tally) {
        if log.witnesses.is_empty() {
            let detail = match seen.iter().find(|one| one.place == Place::Shown) {
                Some(one) => format!(
                    "the log's key signed this tree at {} leaves; the trust policy names no witness",
                    one.checkpoint.size
                ),
                None => "the trust policy names no witness".to_owned(),
            };
            tally.skip(ID, detail);
            return;
        }
        let want = log.quorum;
        let best = seen.iter().filter(|one| one.place == Place::Shown);
        let best = best.max_by_key(|one| (one.times.len().min(want), one.checkpoint.size));
        let Some(best) = best else {
            let detail = match seen.first() {
                Some(one) => format!(
                    "{} has {} leaves, and nothing shows how they stand to the {} of the file",
                    one.at,
                    one.checkpoint.size,
                    self.last_size()
                ),
                None => "no checkpoint of this log is there".to_owned(),
            };
            tally.missing(ID, detail);
            return;
        };
        let (got, size) = (best.times.len(), best.checkpoint.size);
        let of = log.witnesses.len();
        if got < want {
            let detail = format!(
                "{got} of {of} witnesses signed {}, {want} are asked for",
                best.at
            );
            tally.missing(ID, detail);
            return;
        }
        if let Some(from_ms) = self.unwitnessed(size, log.max_unwitnessed_s) {
            let detail = format!(
                "witnesses saw {size} leaves; what was sealed after {} they did not, and at most {} s may be so",
                rfc3339(from_ms),
                log.max_unwitnessed_s
            );
            tally.missing(ID, detail);
            return;
        }
        let last_s = best.times.iter().max().copied().unwrap_or_default();
        let seen = rfc3339(last_s.saturating_mul(1000));
        tally.pass(
            ID,
            format!("{got} of {of} witnesses saw this log at {size} leaves, by {seen}"),
        );
    }

    /// Since when, where a longer stretch than allowed at the period's end was seen by nobody.
    fn unwitnessed(&self, size: u64, most_s: u64) -> Option<u64> {
        if self.purpose == Purpose::Receipt {
            return None;
        }
        let beyond = |epoch: &&Epoch| epoch.statement.size_after > size;
        let first = self.epochs().find(beyond)?.statement.opened_ms;
        let end = self.epochs().map(|epoch| epoch.statement.closed_ms).max()?;
        let end = end.min(self.bundle.to_ms);
        (end.saturating_sub(first) > most_s.saturating_mul(1000)).then_some(first)
    }
}
