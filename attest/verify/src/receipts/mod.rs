//! Receipts: each is signed by the key of a session whose statement the TPM sealed, and says of
//! a sealed leaf what the leaf says.
//!
//! A receipt's signature is checked before anything of it is decoded, with a key that stands in a
//! quoted session statement and nowhere else (N34, N35). A receipt for a leaf that is not shown, or
//! in no sealed tree, is not called wrong: it is not shown to be right (N46).
//!
//! Whether a record is true is not judged here: a bound record's digests are the workload's word,
//! and that the model computed what it should is nobody's.

mod error;
mod told;

pub use error::ReceiptError;
pub(crate) use told::Told;

use crate::coverage::rfc3339;
use crate::enrolment::{CoseKind, key_id, open_with};
use crate::frame::Purpose;
use crate::log::Entries;
use crate::quote::{Epoch, Session};
use crate::refusal::Refusal;
use crate::verdict::{CheckId, Tally};
use ed25519_dalek::VerifyingKey;
use merestone_evidence::{
    Body, Bundle, Digest, Entry, Grade, Inference, Receipt, decode, leaf_hash, receipt_id, ueid,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Receipts told one by one.
const MOST_SHOWN: usize = 200;

/// What somebody has in hand and holds a receipt against.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Contents {
    /// [`merestone_evidence::request_digest`] of the request.
    pub request: Option<Digest>,
    /// [`merestone_evidence::answer_digest`] of the answer.
    pub answer: Option<Digest>,
}

/// What the receipts in a file come to.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Receipts {
    /// Receipts in the file, each checked.
    pub checked: u64,
    /// Records of inferences among the entries shown.
    pub records: u64,
    /// The first of them, one by one.
    pub shown: Vec<ReceiptShown>,
    /// Those beyond.
    pub left_out: u64,
    /// Request and answer, as far as they were given, are those that the record binds.
    pub contents: bool,
}

/// One receipt.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ReceiptShown {
    /// Its id.
    pub id: String,
    /// `R1`, seen by the kernel, or `R2`, bound by a process of the group.
    pub grade: &'static str,
    /// When it was issued, by the host's clock.
    pub issued: String,
    /// The leaf it is about.
    pub index: u64,
    /// Whose key signed it.
    pub session: String,
    /// The client's nonce, in hex.
    pub nonce: Option<String>,
    /// Digest of the salt and the request.
    pub request: Option<String>,
    /// Digest of the salt and the answer.
    pub answer: Option<String>,
    /// The model, as whoever bound it named it.
    pub model: Option<String>,
    /// Who saw it: `kernel`, `kernel and workload`, or `workload` alone.
    pub seen_by: &'static str,
}

/// The epochs that seal leaves.
pub(crate) struct Seals<'s> {
    pub(crate) sessions: &'s [Session],
    /// How far clocks may be apart.
    pub(crate) leeway_ms: u64,
}

impl<'s> Seals<'s> {
    /// The epoch that sealed a leaf, with the place of its session.
    fn of(&self, index: u64) -> Option<(usize, &'s Epoch)> {
        let place = self.sessions.partition_point(|session| {
            let last = session.epochs.last();
            last.map_or(session.statement.tree_size, |last| {
                last.statement.size_after
            }) <= index
        });
        let session = self.sessions.get(place)?;
        let epoch = session
            .epochs
            .partition_point(|epoch| epoch.statement.size_after <= index);
        let epoch = session.epochs.get(epoch)?;
        (epoch.statement.size_before <= index).then_some((place, epoch))
    }

    fn size(&self) -> u64 {
        let epochs = self.sessions.iter().flat_map(|session| &session.epochs);
        epochs
            .map(|epoch| epoch.statement.size_after)
            .max()
            .unwrap_or(0)
    }
}

/// Checks every receipt in the file; `None` where one is wrong.
pub(crate) fn check(
    bundle: &Bundle,
    purpose: Purpose,
    ak_name: &[u8],
    seals: &Seals<'_>,
    entries: &Entries,
    contents: &Contents,
    tally: &mut Tally,
) -> Option<Receipts> {
    let id = CheckId::Receipts;
    let faults = entries.told.faults();
    let is_consistent = faults.is_empty();
    for fault in faults {
        tally.fail(id, &Refusal::Receipt(fault));
    }
    let mut receipts = Receipts {
        records: entries.told.records(),
        ..Receipts::default()
    };
    let carried = bundle.receipts.as_deref().unwrap_or_default();
    if carried.is_empty() {
        if *contents != Contents::default() {
            tally.fail(id, &Refusal::Receipt(ReceiptError::NoContents));
        } else if is_consistent {
            tally.skip(id, none_carried(purpose, receipts.records));
        }
        return Some(receipts);
    }
    let check = Check {
        bundle,
        ueid: ueid(ak_name),
        seals,
        keys: keys(seals.sessions),
    };
    let mut seen = (BTreeSet::new(), BTreeSet::new());
    let mut is_whole = is_consistent;
    for (number, message) in carried.iter().enumerate() {
        match check.one(number, message, &mut seen, contents) {
            Ok(shown) => receipts.show(shown),
            Err(error) => {
                let hard = error.grade() == crate::refusal::Grade::Untrusted;
                tally.fail(id, &Refusal::Receipt(error));
                if hard {
                    return None;
                }
                is_whole = false;
            }
        }
    }
    if is_whole {
        receipts.contents = *contents != Contents::default();
        tally.pass(id, receipts.sentence());
    }
    Some(receipts)
}

fn none_carried(purpose: Purpose, records: u64) -> String {
    match (purpose, records) {
        (Purpose::Receipt, _) => {
            "the file shows entries, and no receipt that was handed out".to_owned()
        }
        (Purpose::Period, 0) => "the file tells of no inference and holds no receipt".to_owned(),
        (Purpose::Period, records) => {
            format!("the file tells of {records} records of inferences and holds no receipt")
        }
    }
}

impl Receipts {
    fn show(&mut self, one: ReceiptShown) {
        self.checked = self.checked.saturating_add(1);
        if self.shown.len() < MOST_SHOWN {
            self.shown.push(one);
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }

    fn sentence(&self) -> String {
        let bodies = if self.contents {
            "; what was given of request and answer is what the record binds"
        } else {
            ""
        };
        format!(
            "{} receipts are signed by their sessions' keys and say what their leaves say{bodies}; {} records of inferences are shown",
            self.checked, self.records
        )
    }
}

/// Session keys by their id. One that is no key, or of small order, opens nothing (N41).
fn keys(sessions: &[Session]) -> BTreeMap<Digest, (usize, VerifyingKey)> {
    let mut keys = BTreeMap::new();
    for (place, session) in sessions.iter().enumerate() {
        let key = VerifyingKey::from_bytes(&session.statement.session_key);
        if let Some(key) = key.ok().filter(|key| !key.is_weak()) {
            keys.entry(key_id(&key)).or_insert((place, key));
        }
    }
    keys
}

struct Check<'c> {
    bundle: &'c Bundle,
    ueid: [u8; 33],
    seals: &'c Seals<'c>,
    keys: BTreeMap<Digest, (usize, VerifyingKey)>,
}

type SeenIds = (BTreeSet<[u8; 16]>, BTreeSet<u64>);

impl Check<'_> {
    fn one(
        &self,
        number: usize,
        message: &[u8],
        seen: &mut SeenIds,
        contents: &Contents,
    ) -> Result<ReceiptShown, ReceiptError> {
        let signed = open_with(CoseKind::Receipt, message, |signer| {
            self.keys.get(signer).map(|(_, key)| key)
        });
        let signed = signed.map_err(|source| ReceiptError::Signed { number, source })?;
        let receipt: Receipt =
            decode(&signed.payload).map_err(|source| ReceiptError::Form { number, source })?;
        let at = hex::encode(receipt.id);
        let of = self.keys.get(&signed.signer).map(|(place, _)| *place);
        let of = of.and_then(|place| Some((place, self.seals.sessions.get(place)?)));
        let Some((place, session)) = of else {
            return Err(ReceiptError::Claim {
                at,
                what: "session",
            });
        };
        let claim = |holds: bool, what| {
            let at = at.clone();
            holds.then_some(()).ok_or(ReceiptError::Claim { at, what })
        };
        claim(receipt.session == session.statement.session, "session")?;
        claim(receipt.ueid == self.ueid, "node")?;
        if !seen.0.insert(receipt.id) {
            return Err(ReceiptError::Twice { at });
        }
        let index = receipt.index;
        if !seen.1.insert(index) {
            return Err(ReceiptError::SameLeaf { at, index });
        }
        let leaf = self.leaf(&at, index)?;
        let hash = leaf_hash(leaf);
        if hash != receipt.leaf {
            let (got, want) = (receipt.leaf, hash);
            return Err(ReceiptError::Leaf {
                at,
                index,
                got,
                want,
            });
        }
        let entry: Entry = decode(leaf).map_err(|source| ReceiptError::Form { number, source })?;
        let Body::Inference(record) = &entry.body else {
            return Err(ReceiptError::NotARecord { at, index });
        };
        claim(receipt.id == receipt_id(record, &hash), "id")?;
        claim(receipt.issued_s == entry.time_ms / 1000, "time")?;
        claim(receipt.grade == record.grade, "grade")?;
        let bound = record.binding.as_ref();
        claim(
            receipt.request == bound.map(|bound| bound.request),
            "request",
        )?;
        claim(
            receipt.response == bound.map(|bound| bound.response),
            "answer",
        )?;
        let model = bound.and_then(|bound| bound.model.as_ref());
        claim(receipt.model.as_ref() == model, "model")?;
        let files = bound.and_then(|bound| bound.model_sha256);
        claim(receipt.model_sha256 == files, "model's files")?;
        self.sealed(&at, index, place, session, entry.time_ms)?;
        held_against(&at, &receipt, contents)?;
        Ok(shown(&receipt, record))
    }

    /// The leaf, from the span or from a single proof; both were checked before.
    fn leaf(&self, at: &str, index: u64) -> Result<&[u8], ReceiptError> {
        let size = self.seals.size();
        let at = || at.to_owned();
        if index >= size {
            return Err(ReceiptError::Unsealed {
                at: at(),
                index,
                size,
            });
        }
        let span = self.bundle.span.as_ref();
        let of_span = span.and_then(|span| {
            let place = usize::try_from(index.checked_sub(span.start)?).ok()?;
            span.leaves.get(place)
        });
        if let Some(leaf) = of_span {
            return Ok(leaf);
        }
        let mut proofs = self.bundle.proofs.iter();
        let proof = proofs.find(|proof| proof.index == index);
        proof
            .map(|proof| proof.leaf.as_slice())
            .ok_or_else(|| ReceiptError::NotShown { at: at(), index })
    }

    /// The leaf is sealed by an epoch of the receipt's own session, whose times fit; or, where
    /// that session ended before it sealed it, by the first epoch of a later one (N47).
    fn sealed(
        &self,
        at: &str,
        index: u64,
        place: usize,
        session: &Session,
        time_ms: u64,
    ) -> Result<(), ReceiptError> {
        let at = || at.to_owned();
        let Some((sealer, epoch)) = self.seals.of(index) else {
            return Err(ReceiptError::NotShown { at: at(), index });
        };
        let statement = &epoch.statement;
        let from_ms = if sealer == place {
            statement.opened_ms
        } else if sealer > place && statement.sequence == 0 {
            session.statement.started_ms
        } else {
            return Err(ReceiptError::Epoch {
                at: at(),
                got: session.at.clone(),
                want: epoch.at.clone(),
            });
        };
        let leeway_ms = self.seals.leeway_ms;
        let to_ms = statement.closed_ms;
        if time_ms < from_ms.saturating_sub(leeway_ms) || time_ms > to_ms.saturating_add(leeway_ms)
        {
            return Err(ReceiptError::Time {
                at: at(),
                got: rfc3339(time_ms),
                from: rfc3339(from_ms),
                to: rfc3339(to_ms),
            });
        }
        Ok(())
    }
}

fn held_against(at: &str, receipt: &Receipt, contents: &Contents) -> Result<(), ReceiptError> {
    let pairs = [
        ("request", contents.request, receipt.request),
        ("answer", contents.answer, receipt.response),
    ];
    for (what, got, want) in pairs {
        match (got, want) {
            (Some(got), Some(want)) if got != want => {
                let at = at.to_owned();
                return Err(ReceiptError::Content {
                    at,
                    what,
                    got,
                    want,
                });
            }
            (Some(_), None) => return Err(ReceiptError::NoContents),
            _ => {}
        }
    }
    Ok(())
}

/// Who saw a record's request and answer.
pub(crate) const fn seen_by(record: &Inference) -> &'static str {
    match (record.grade, record.turn.is_some()) {
        (Grade::Observed, _) => "kernel",
        (Grade::Bound, true) => "kernel and workload",
        (Grade::Bound, false) => "workload",
    }
}

fn shown(receipt: &Receipt, record: &Inference) -> ReceiptShown {
    ReceiptShown {
        id: hex::encode(receipt.id),
        grade: match receipt.grade {
            Grade::Observed => "R1",
            Grade::Bound => "R2",
        },
        issued: rfc3339(receipt.issued_s.saturating_mul(1000)),
        index: receipt.index,
        session: receipt.session.to_string(),
        nonce: receipt.nonce.as_ref().map(hex::encode),
        request: receipt.request.map(|digest| digest.to_string()),
        answer: receipt.response.map(|digest| digest.to_string()),
        model: receipt.model.clone(),
        seen_by: seen_by(record),
    }
}
