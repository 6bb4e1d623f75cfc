//! Grants: signed permission for one group to one destination, for a time, up
//! to a number of bytes.
//!
//! The file says what is granted ([`Terms`]); the kernel counts; this keeps the
//! books: what was applied, what became of it, and that nothing is applied
//! twice. Books are written before the kernel is told. Whatever the kernel no
//! longer counts, because its maps were taken away or the host was started
//! again, is over: a grant never begins anew.

mod book;
mod terms;
#[cfg(test)]
mod tests;

pub use book::{Record, State};
pub use terms::{Terms, TermsError};

use crate::api::GrantInfo;
use crate::bpf::{Kernel, KernelError};
use crate::clock;
use crate::signed::{Kind, SignedError, Signers};
use book::Book;
use merestone_abi::{Grant, GrantUse, MAX_GRANTS};
use merestone_evidence::{Body, Digest};
use sha2::{Digest as _, Sha256};
use std::path::Path;

/// Largest signed grant that is read; it travels over the control socket.
pub const LIMIT_BYTES: usize = 16 << 10;
/// How often the use of a grant is an entry, at most.
const USED_EVERY_MS: u64 = 60_000;

/// Why a grant was not applied, or not revoked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// Nobody may sign grants.
    #[error("no signer is pinned: set [policy] signers in merestone.toml")]
    NoSigners,
    /// The signature does not hold.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// The terms cannot be honoured.
    #[error(transparent)]
    Terms(#[from] TermsError),
    /// It was applied before.
    #[error("grant {name:?} was applied before and is {state}: a grant counts once")]
    Replayed {
        /// Its name.
        name: String,
        /// What became of it.
        state: &'static str,
    },
    /// Another one has its name.
    #[error("another grant called {name:?} is in force: revoke it first")]
    Name {
        /// The name.
        name: String,
    },
    /// Its time is over.
    #[error("grant {name:?} ended at {until}")]
    Over {
        /// Its name.
        name: String,
        /// When.
        until: String,
    },
    /// No place is left.
    #[error("{MAX_GRANTS} grants are in force, which is the most: revoke one")]
    Full,
    /// None of that name.
    #[error("no grant called {name:?} is in force")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The books cannot be kept.
    #[error("cannot keep the books of grants: {detail}")]
    Book {
        /// Why.
        detail: String,
    },
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// The grants of this host.
#[derive(Debug)]
pub struct Grants {
    signers: Signers,
    book: Book,
}

impl Grants {
    /// Opens the books and holds them against what the kernel counts.
    pub fn open(
        state_dir: &Path,
        signers: Signers,
        kernel: &mut Kernel,
    ) -> Result<(Self, Vec<Body>), GrantError> {
        let mut this = Self {
            signers,
            book: Book::open(state_dir)?,
        };
        let mut told = Vec::new();
        let live = kernel.grants()?;
        for (place, grant, _) in &live {
            let is_known = this
                .book
                .active()
                .any(|record| record.place == Some(*place) && record.id() == grant.id);
            if !is_known {
                kernel.withdraw(*place)?;
                tracing::error!(place, "a grant without a record was withdrawn");
            }
        }
        for record in this.book.active_mut() {
            let counted = live
                .iter()
                .any(|(place, grant, _)| record.place == Some(*place) && record.id() == grant.id);
            if !counted {
                record.end(State::Revoked);
                told.push(record.entry("the kernel no longer counts it: it is over"));
            }
        }
        this.book.write()?;
        told.extend(this.round(kernel)?);
        Ok((this, told))
    }

    /// Applies a signed grant. The entry says whether it is in force.
    pub fn apply(
        &mut self,
        kernel: &mut Kernel,
        message: &[u8],
    ) -> (Result<String, GrantError>, Body) {
        let sha256 = Sha256::digest(message).into();
        match self.try_apply(kernel, message) {
            Ok(record) => {
                let detail = format!("signed by {}: {}", record.signer, record.terms.reason);
                let said = format!("grant {:?} is in force", record.terms.name);
                (Ok(said), record.entry(&detail))
            }
            Err(error) => {
                let body = Body::Grant {
                    name: String::new(),
                    sha256: Digest(sha256),
                    state: "refused".to_owned(),
                    bytes: 0,
                    detail: error.to_string(),
                    terms: None,
                };
                (Err(error), body)
            }
        }
    }

    fn try_apply(&mut self, kernel: &mut Kernel, message: &[u8]) -> Result<Record, GrantError> {
        if self.signers.is_empty() {
            return Err(GrantError::NoSigners);
        }
        let signed = self.signers.verify(Kind::Grant, message, None)?;
        let terms = Terms::parse(&signed.payload)?;
        let now_ms = clock::now_ms();
        let mut record = Record::new(terms, &signed);
        if let Some(before) = self.book.seen(&record) {
            return Err(GrantError::Replayed {
                name: before.terms.name.clone(),
                state: before.state.word(),
            });
        }
        let name = record.terms.name.clone();
        if self.book.active().any(|other| other.terms.name == name) {
            return Err(GrantError::Name { name });
        }
        if record.terms.until_ms <= now_ms {
            let until = record.terms.until();
            return Err(GrantError::Over { name, until });
        }
        let place = self.book.free().ok_or(GrantError::Full)?;
        let group = kernel.cgroup_id(&record.terms.group).unwrap_or(0);
        let grant = record
            .terms
            .compile(group, record.id(), clock::boot_ns(), now_ms);
        record.place = Some(place);
        // The books first: what is in force was written down.
        self.book.push(record.clone())?;
        if let Err(error) = kernel.grant(place, &grant) {
            self.end(&record.terms.name, State::Revoked)?;
            return Err(error.into());
        }
        Ok(record)
    }

    /// Takes a grant out of force.
    pub fn revoke(&mut self, kernel: &mut Kernel, name: &str) -> Result<Body, GrantError> {
        let unknown = || GrantError::Unknown {
            name: name.to_owned(),
        };
        let place = self
            .book
            .active()
            .find(|record| record.terms.name == name)
            .and_then(|record| record.place)
            .ok_or_else(unknown)?;
        let bytes = used(kernel, place)?.map(|used| used.bytes);
        kernel.withdraw(place)?;
        for record in self.book.active_mut() {
            if record.terms.name == name {
                record.bytes = bytes.unwrap_or(record.bytes);
            }
        }
        let record = self.end(name, State::Revoked)?.ok_or_else(unknown)?;
        Ok(record.entry("revoked on the control socket"))
    }

    fn end(&mut self, name: &str, state: State) -> Result<Option<Record>, GrantError> {
        let mut ended = None;
        for record in self.book.active_mut() {
            if record.terms.name == name {
                record.end(state);
                ended = Some(record.clone());
            }
        }
        self.book.write()?;
        Ok(ended)
    }

    /// Looks at what was used: to be called every few seconds, and when the
    /// kernel says that a grant is spent.
    pub fn round(&mut self, kernel: &mut Kernel) -> Result<Vec<Body>, GrantError> {
        if self.book.active().next().is_none() {
            return Ok(Vec::new());
        }
        let mut told = Vec::new();
        let (now_ms, boot_ns) = (clock::now_ms(), clock::boot_ns());
        let mut changed = false;
        for (place, grant, used) in kernel.grants()? {
            let mut records = self.book.active_mut();
            let Some(record) = records.find(|record| record.place == Some(place)) else {
                continue;
            };
            follow_cgroup(kernel, place, &grant, record)?;
            changed |= record.bytes != used.bytes;
            record.bytes = used.bytes;
            if boot_ns >= grant.until_boot_ns {
                kernel.withdraw(place)?;
                record.end(State::Expired);
                told.push(record.entry("its time is over"));
                changed = true;
                continue;
            }
            if !record.spent && (used.refused != 0 || used.bytes >= grant.limit_bytes) {
                record.spent = true;
                let detail = format!("{} of {} bytes", used.bytes, grant.limit_bytes);
                told.push(record.entry_as("spent", &detail));
                changed = true;
            } else if record.is_due(now_ms, USED_EVERY_MS) {
                record.told(now_ms);
                let detail = format!("{} packets", used.packets);
                told.push(record.entry_as("used", &detail));
                changed = true;
            }
        }
        if changed {
            self.book.write()?;
        }
        Ok(told)
    }

    /// Every grant in the books, the latest first.
    pub fn list(&self) -> Vec<GrantInfo> {
        self.book.all().rev().map(Record::info).collect()
    }
}

fn used(kernel: &Kernel, place: u32) -> Result<Option<GrantUse>, KernelError> {
    let all = kernel.grants()?.into_iter();
    let mut here = all.filter(|(own, _, _)| *own == place);
    Ok(here.next().map(|(_, _, used)| used))
}

/// A service that was started again has a new cgroup at the old path.
fn follow_cgroup(
    kernel: &mut Kernel,
    place: u32,
    grant: &Grant,
    record: &Record,
) -> Result<(), KernelError> {
    let group = kernel.cgroup_id(&record.terms.group).unwrap_or(0);
    if group != 0 && group != grant.group {
        let grant = Grant { group, ..*grant };
        kernel.regrant(place, &grant)?;
    }
    Ok(())
}
