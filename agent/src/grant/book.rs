//! The books of grants: one file in the state directory, written whole.

use super::{GrantError, Terms};
use crate::api::GrantInfo;
use crate::policy::replace;
use crate::signed::Signed;
use merestone_abi::MAX_GRANTS;
use merestone_evidence::{Body, Digest};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};

/// The file's name in the state directory.
const NAME: &str = "grants.json";
/// How many are remembered. Past that, those that ended longest ago go: their
/// time is over, so that they cannot be applied again.
const MOST: usize = 4096;
const LIMIT_BYTES: u64 = 16 << 20;

/// What became of a grant.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// In force.
    Accepted,
    /// Its time is over.
    Expired,
    /// Taken back, or no longer counted.
    Revoked,
}

impl State {
    /// The word of the evidence.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// One grant.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What it says.
    pub terms: Terms,
    /// Digest of the signed file, hexadecimal.
    pub sha256: String,
    /// Digest of what was signed: another signature over the same terms is the
    /// same grant.
    pub payload_sha256: String,
    /// The signer's key id, hexadecimal.
    pub signer: String,
    /// What became of it.
    pub state: State,
    /// Its place in the kernel, while it is in force.
    pub place: Option<u32>,
    /// Bytes sent under it, as far as was read.
    pub bytes: u64,
    /// A packet was refused because it would have been too much.
    pub spent: bool,
    /// Bytes at the last entry that told its use, and when.
    told_bytes: u64,
    told_ms: u64,
}

impl Record {
    pub(super) fn new(terms: Terms, signed: &Signed) -> Self {
        Self {
            terms,
            sha256: hex::encode(signed.sha256),
            payload_sha256: hex::encode(Sha256::digest(&signed.payload)),
            signer: hex::encode(signed.signer),
            state: State::Accepted,
            place: None,
            bytes: 0,
            spent: false,
            told_bytes: 0,
            told_ms: 0,
        }
    }

    /// By what the kernel's entry is known to be this grant.
    pub(super) fn id(&self) -> u64 {
        let start = self.sha256.get(..16).unwrap_or_default();
        u64::from_str_radix(start, 16).unwrap_or(0)
    }

    pub(super) fn end(&mut self, state: State) {
        self.state = state;
        self.place = None;
    }

    pub(super) fn is_due(&self, now_ms: u64, every_ms: u64) -> bool {
        self.bytes != self.told_bytes && now_ms.saturating_sub(self.told_ms) >= every_ms
    }

    pub(super) fn told(&mut self, now_ms: u64) {
        self.told_bytes = self.bytes;
        self.told_ms = now_ms;
    }

    pub(super) fn entry(&self, detail: &str) -> Body {
        self.entry_as(self.state.word(), detail)
    }

    pub(super) fn entry_as(&self, state: &str, detail: &str) -> Body {
        let mut digest = [0; 32];
        hex::decode_to_slice(&self.sha256, &mut digest).ok();
        Body::Grant {
            name: self.terms.name.clone(),
            sha256: Digest(digest),
            state: state.to_owned(),
            bytes: self.bytes,
            detail: detail.to_owned(),
            terms: Some(self.terms.told(&self.signer)),
        }
    }

    pub(super) fn info(&self) -> GrantInfo {
        let state = match self.state {
            State::Accepted if self.spent => "spent",
            state => state.word(),
        };
        GrantInfo {
            terms: self.terms.clone(),
            until: self.terms.until(),
            state: state.to_owned(),
            in_force: self.state == State::Accepted,
            used_bytes: self.bytes,
            sha256: self.sha256.clone(),
            signer: self.signer.clone(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Book {
    path: PathBuf,
    records: Vec<Record>,
}

impl Book {
    pub(super) fn open(state_dir: &Path) -> Result<Self, GrantError> {
        let path = state_dir.join(NAME);
        let broken = |detail: String| GrantError::Book {
            detail: format!("{}: {detail}", path.display()),
        };
        let records = if path.exists() {
            let bytes = crate::config::fault::read(&path, LIMIT_BYTES)
                .map_err(|faults| broken(faults.to_string()))?;
            serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?
        } else {
            Vec::new()
        };
        Ok(Self { path, records })
    }

    pub(super) fn all(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.records.iter()
    }

    pub(super) fn active(&self) -> impl Iterator<Item = &Record> {
        let mut all = self.records.iter();
        std::iter::from_fn(move || all.find(|record| record.state == State::Accepted))
    }

    pub(super) fn active_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        self.records
            .iter_mut()
            .filter(|record| record.state == State::Accepted)
    }

    /// Whether a grant was applied before, under whatever signature.
    pub(super) fn seen(&self, record: &Record) -> Option<&Record> {
        self.records.iter().find(|before| {
            before.sha256 == record.sha256 || before.payload_sha256 == record.payload_sha256
        })
    }

    /// A place nobody has.
    pub(super) fn free(&self) -> Option<u32> {
        (0..MAX_GRANTS).find(|place| self.active().all(|record| record.place != Some(*place)))
    }

    pub(super) fn push(&mut self, record: Record) -> Result<(), GrantError> {
        self.records.push(record);
        while self.records.len() > MOST {
            // Over by its own terms first: it cannot come back.
            let oldest = self
                .records
                .iter()
                .enumerate()
                .filter(|(_, record)| record.state != State::Accepted)
                .min_by_key(|(_, record)| record.terms.until_ms);
            let Some((at, _)) = oldest else { break };
            self.records.remove(at);
        }
        let written = self.write();
        if written.is_err() {
            self.records.pop();
        }
        written
    }

    pub(super) fn write(&self) -> Result<(), GrantError> {
        let write = || {
            let bytes = serde_json::to_vec_pretty(&self.records)?;
            replace(&self.path, &bytes)
        };
        write().map_err(|error: std::io::Error| GrantError::Book {
            detail: format!("{}: {error}", self.path.display()),
        })
    }
}
