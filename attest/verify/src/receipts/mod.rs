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
use crate::quote::{Epoch, Session};
use crate::refusal::Refusal;
use crate::verdict::{CheckId, Tally};
use ed25519_dalek::VerifyingKey;
use merestone_evidence::{
    Body, Bundle, Digest, Entry, Grade, Inference, Receipt, decode, encode, leaf_hash, receipt_id,
    ueid,
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

/// The receipts of a file, whose signatures hold, while the leaves are gone over.
pub(crate) struct Opened<'s> {
    seals: Seals<'s>,
    contents: Contents,
    ueid: [u8; 33],
    size: u64,
    carried: bool,
    /// Each with the place of the session whose key signed it.
    receipts: Vec<(Receipt, usize)>,
    by_leaf: BTreeMap<u64, usize>,
    /// What each comes to; none as long as its leaf was not seen.
    outcomes: Vec<Option<Result<ReceiptShown, ReceiptError>>>,
    /// One that is none, or a second one of an id or leaf.
    broken: Option<ReceiptError>,
}

impl<'s> Opened<'s> {
    /// Checks every signature, and then what the receipts say by themselves.
    pub(crate) fn open(
        bundle: &Bundle,
        ak_name: &[u8],
        seals: Seals<'s>,
        contents: &Contents,
    ) -> Self {
        let carried = bundle.receipts.as_deref().unwrap_or_default();
        let mut opened = Self {
            contents: *contents,
            ueid: ueid(ak_name),
            size: seals.size(),
            carried: !carried.is_empty(),
            receipts: Vec::new(),
            by_leaf: BTreeMap::new(),
            outcomes: Vec::new(),
            broken: None,
            seals,
        };
        let keys = keys(opened.seals.sessions);
        let mut ids = BTreeSet::new();
        for (number, message) in carried.iter().enumerate() {
            if let Err(error) = opened.take(number, message, &keys, &mut ids) {
                opened.broken = Some(error);
                break;
            }
        }
        opened
    }

    fn take(
        &mut self,
        number: usize,
        message: &[u8],
        keys: &Keys,
        ids: &mut BTreeSet<[u8; 16]>,
    ) -> Result<(), ReceiptError> {
        let signed = open_with(CoseKind::Receipt, message, |signer| {
            keys.get(signer).map(|(_, key)| key)
        });
        let signed = signed.map_err(|source| ReceiptError::Signed { number, source })?;
        let receipt: Receipt =
            decode(&signed.payload).map_err(|source| ReceiptError::Form { number, source })?;
        let at = || hex::encode(receipt.id);
        let place = keys.get(&signed.signer).map(|(place, _)| *place);
        let session = place.and_then(|place| Some((place, self.seals.sessions.get(place)?)));
        let session = session.filter(|(_, one)| one.statement.session == receipt.session);
        let Some((place, _)) = session else {
            let what = "session";
            return Err(ReceiptError::Claim { at: at(), what });
        };
        if receipt.ueid != self.ueid {
            return Err(ReceiptError::Claim {
                at: at(),
                what: "node",
            });
        }
        if !ids.insert(receipt.id) {
            return Err(ReceiptError::Twice { at: at() });
        }
        let index = receipt.index;
        if self.by_leaf.insert(index, self.receipts.len()).is_some() {
            return Err(ReceiptError::SameLeaf { at: at(), index });
        }
        self.receipts.push((receipt, place));
        self.outcomes.push(None);
        Ok(())
    }

    /// Holds the receipt of a leaf, where there is one, against it. The leaf is a sealed one.
    pub(crate) fn see(&mut self, index: u64, entry: &Entry) {
        let Some(&number) = self.by_leaf.get(&index) else {
            return;
        };
        let Some((receipt, place)) = self.receipts.get(number) else {
            return;
        };
        let outcome = self.judge(receipt, *place, entry);
        if let Some(slot) = self.outcomes.get_mut(number) {
            *slot = Some(outcome);
        }
    }

    fn judge(
        &self,
        receipt: &Receipt,
        place: usize,
        entry: &Entry,
    ) -> Result<ReceiptShown, ReceiptError> {
        let index = receipt.index;
        let at = hex::encode(receipt.id);
        let claim = |holds: bool, what| {
            let at = at.clone();
            holds.then_some(()).ok_or(ReceiptError::Claim { at, what })
        };
        // An entry has one encoding, so these are the leaf's own bytes.
        let hash = leaf_hash(&encode(entry));
        if hash != receipt.leaf {
            let (got, want) = (receipt.leaf, hash);
            return Err(ReceiptError::Leaf {
                at,
                index,
                got,
                want,
            });
        }
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
        self.sealed(&at, index, place, entry.time_ms)?;
        held_against(&at, receipt, &self.contents)?;
        Ok(shown(receipt, record))
    }

    /// The leaf is sealed by an epoch of the receipt's own session, whose times fit; or, where
    /// that session ended before it sealed it, by the first epoch of a later one (N47).
    fn sealed(&self, at: &str, index: u64, place: usize, time_ms: u64) -> Result<(), ReceiptError> {
        let at = || at.to_owned();
        let session = self.seals.sessions.get(place);
        let (Some((sealer, epoch)), Some(session)) = (self.seals.of(index), session) else {
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

    /// What all of them come to; `None` where one is wrong.
    pub(crate) fn finish(
        self,
        purpose: Purpose,
        told: Told,
        tally: &mut Tally,
    ) -> Option<Receipts> {
        let id = CheckId::Receipts;
        let records = told.records();
        let faults = told.faults();
        let mut is_whole = faults.is_empty();
        for fault in faults {
            tally.fail(id, &Refusal::Receipt(fault));
        }
        let mut receipts = Receipts {
            records,
            ..Receipts::default()
        };
        let is_held = self.contents != Contents::default();
        if !self.carried {
            if is_held {
                tally.fail(id, &Refusal::Receipt(ReceiptError::NoContents));
            } else if is_whole {
                tally.skip(id, none_carried(purpose, receipts.records));
            }
            return Some(receipts);
        }
        if let Some(error) = self.broken {
            tally.fail(id, &Refusal::Receipt(error));
            return None;
        }
        for ((receipt, _), outcome) in self.receipts.iter().zip(self.outcomes) {
            let (index, size) = (receipt.index, self.size);
            let at = || hex::encode(receipt.id);
            let outcome = outcome.unwrap_or_else(|| {
                Err(if index >= size {
                    let at = at();
                    ReceiptError::Unsealed { at, index, size }
                } else {
                    ReceiptError::NotShown { at: at(), index }
                })
            });
            match outcome {
                Ok(shown) => receipts.show(shown),
                Err(error) => {
                    let is_wrong = error.grade() == crate::refusal::Grade::Untrusted;
                    tally.fail(id, &Refusal::Receipt(error));
                    if is_wrong {
                        return None;
                    }
                    is_whole = false;
                }
            }
        }
        if is_whole {
            receipts.contents = is_held;
            tally.pass(id, receipts.sentence());
        }
        Some(receipts)
    }
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

type Keys = BTreeMap<Digest, (usize, VerifyingKey)>;

/// Session keys by their id. One that is no key, or of small order, opens nothing (N41).
fn keys(sessions: &[Session]) -> Keys {
    let mut keys = BTreeMap::new();
    for (place, session) in sessions.iter().enumerate() {
        let key = VerifyingKey::from_bytes(&session.statement.session_key);
        if let Some(key) = key.ok().filter(|key| !key.is_weak()) {
            keys.entry(key_id(&key)).or_insert((place, key));
        }
    }
    keys
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
