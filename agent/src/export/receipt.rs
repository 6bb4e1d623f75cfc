//! One record for one person: its receipt, the leaf it is about, the proof that the leaf is in a
//! tree that the TPM sealed, and the session whose key signed. Nothing of other records.

use super::bundle::{ExportError, fit};
use super::proofs::{Proof, Proofs};
use crate::clock;
use crate::enrolment;
use crate::ledger::{Kept, LedgerError, NvAt, Reader, StoredSession};
use coset::{CoseSign1, TaggedCborSerializable as _};
use merestone_evidence::{
    Blob, Bundle, BundleKind, EpochStatement, InclusionProof, Receipt, SealedEpoch, SealedSession,
    SessionStatement, decode, leaf_hash,
};
use std::path::Path;

/// A record as it is kept, and whether it can be proven yet.
#[derive(Debug)]
pub enum Found {
    /// The file for a verifier.
    Sealed(Vec<u8>),
    /// It is in the log, and no epoch covers it yet.
    Unsealed {
        /// When it was written, seconds since 1970.
        issued_s: u64,
        /// Its leaf.
        index: u64,
    },
    /// No receipt has that id.
    Unknown,
}

/// The canonical bytes of the file for the receipt of an id.
///
/// Only epochs that seal something of it are in the file, so its size does not grow with the log.
pub fn receipt(state_dir: &Path, id: &[u8; 16]) -> Result<Found, ExportError> {
    // The checkpoint first: what is in the tree by then is in the index.
    let reader = Reader::open(state_dir)?;
    let Some(kept) = reader.receipt(id)? else {
        return Ok(Found::Unknown);
    };
    let claims = claims(&kept)?;
    if kept.index >= reader.size() {
        return Ok(Found::Unsealed {
            issued_s: claims.issued_s,
            index: kept.index,
        });
    }
    let mut sessions = Vec::new();
    let mut sealer = None;
    for stored in reader.sessions()? {
        let session = stored.number;
        let damaged = |source| ExportError::Statement { session, source };
        let statement: SessionStatement = decode(&stored.statement).map_err(damaged)?;
        let is_signer = statement.session == claims.session;
        let covers = if sessions.is_empty() && !is_signer {
            None
        } else {
            covering(&reader, session, kept.index)?
        };
        if covers.is_none() && !is_signer {
            continue;
        }
        let found = covers.as_ref().map(|(epoch, _)| epoch.clone());
        sessions.push((stored, statement, covers.map(|(_, sealed)| sealed)));
        if found.is_some() {
            sealer = found;
            break;
        }
    }
    let Some(epoch) = sealer else {
        let what = "prove a receipt whose session or epoch is not in the log";
        return Err(LedgerError::Order { doing: what }.into());
    };
    pack(state_dir, &reader, kept, sessions, &epoch).map(Found::Sealed)
}

type Shown = (StoredSession, SessionStatement, Option<SealedEpoch>);

/// The epoch of a session that sealed a leaf.
fn covering(
    reader: &Reader,
    session: u64,
    index: u64,
) -> Result<Option<(EpochStatement, SealedEpoch)>, ExportError> {
    for sealed in reader.epochs(session)? {
        let epoch: EpochStatement = decode(&sealed.statement)
            .map_err(|source| ExportError::Statement { session, source })?;
        if (epoch.size_before..epoch.size_after).contains(&index) {
            return Ok(Some((epoch, sealed)));
        }
    }
    Ok(None)
}

fn pack(
    state_dir: &Path,
    reader: &Reader,
    kept: Kept,
    sessions: Vec<Shown>,
    epoch: &EpochStatement,
) -> Result<Vec<u8>, ExportError> {
    let damaged = || LedgerError::Order {
        doing: "prove a leaf that is not there",
    };
    let leaf = reader.leaves(kept.index, kept.index + 1)?;
    let leaf = leaf.into_iter().next().ok_or_else(damaged)?;
    let path = Proofs::of(reader).make(&Proof::Inclusion {
        leaf: (kept.index, leaf_hash(&leaf)),
        tree: (epoch.size_after, epoch.root),
    })?;
    let mut node = None;
    let mut shown = Vec::new();
    for (stored, statement, sealed) in sessions {
        let logs = reader.boot_logs(stored.number)?;
        let before = node.get_or_insert_with(|| (statement.node.clone(), stored.ak_public.clone()));
        if *before != (statement.node, stored.ak_public) {
            return Err(ExportError::Changed {
                what: "attestation key or node id",
                at_ms: statement.started_ms,
            });
        }
        shown.push(SealedSession {
            statement: stored.statement,
            quote: stored.quote.ok_or_else(damaged)?,
            boot_log: logs.boot,
            ima_log: logs.ima,
            epochs: sealed.into_iter().collect(),
            // The geotag is certified at the start; whether the log has its end is a bundle's
            // question.
            nv_start: reader.nv(stored.number, NvAt::Start)?,
            nv_end: None,
            gpu_reports: None,
        });
    }
    let (node, ak_public) = node.ok_or_else(damaged)?;
    let enrolments = enrolment::held(state_dir, &ak_public)?;
    fit(&Bundle {
        kind: BundleKind,
        created_ms: clock::now_ms(),
        from_ms: epoch.opened_ms,
        to_ms: epoch.closed_ms,
        node,
        ak_public,
        sessions: shown,
        span: None,
        consistency: Vec::new(),
        proofs: vec![InclusionProof {
            index: kept.index,
            size: epoch.size_after,
            leaf,
            path,
        }],
        enrolments,
        // A period shows the place; one record does not.
        location: None,
        checkpoint: None,
        receipts: Some(vec![Blob::from(kept.message)]),
    })
}

/// What the agent itself once signed.
fn claims(kept: &Kept) -> Result<Receipt, ExportError> {
    let message = CoseSign1::from_tagged_slice(&kept.message).ok();
    let payload = message.and_then(|message| message.payload);
    let receipt = payload.and_then(|payload| decode(&payload).ok());
    receipt.ok_or({
        ExportError::Ledger(LedgerError::Order {
            doing: "read a receipt that is none",
        })
    })
}
