//! [`KeyTrusted`] → [`QuoteChecked`]: every quote is signed, whole, and about its statement.
//!
//! All or nothing: one bad quote among good ones spoils the file (N10). Statements are decoded
//! at the end, when the TPM's signature over their digest has been checked.

use crate::counters::{self, Held};
use crate::key::KeyTrusted;
use crate::refusal::Refusal;
use crate::tpm::{Attest, ClockInfo, Public, Signature};
use crate::verdict::{CheckId, Tally};
use merestone_evidence::{
    Digest, EpochStatement, GpuReport, PcrValue, Quote, SealedEpoch, SealedSession,
    SessionStatement, decode, session_end, sha256,
};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Why a quote is not about what it stands beside.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum QuoteError {
    /// It was made for something else.
    #[error("the quote is over {got:?}, the statement beside it is {want}")]
    Binding {
        /// Hexadecimal extraData.
        got: String,
        /// Digest of the statement.
        want: Digest,
    },
    /// Registers shown are not those quoted.
    #[error("the quote selects registers {got:?}, values are shown for {want:?}")]
    Selection {
        /// Selected.
        got: Vec<u8>,
        /// Shown, in the order shown.
        want: Vec<u8>,
    },
    /// Registers quoted are not those the session declares.
    #[error("the quote selects registers {got:?}, the session declares {want:?}")]
    Declared {
        /// Selected.
        got: Vec<u8>,
        /// Declared.
        want: Vec<u8>,
    },
    /// The values are not those quoted.
    #[error("the values shown hash to {got}, the tpm signed {want}")]
    Values {
        /// Digest of the values shown.
        got: Digest,
        /// Digest that was signed.
        want: Digest,
    },
    /// The chain register is resettable or not quoted.
    #[error("register {got} cannot hold the chain: {why}")]
    Register {
        /// The register.
        got: u8,
        /// Why.
        why: &'static str,
    },
    /// A statement of another node or session.
    #[error("the statement is of {what} {got:?}, not {want:?}")]
    Foreign {
        /// Node or session.
        what: &'static str,
        /// In the statement.
        got: String,
        /// Where it stands.
        want: String,
    },
}

/// What a TPM said, checked.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// Digest of the statement.
    pub(crate) digest: Digest,
    pub(crate) clock: ClockInfo,
    pub(crate) selected: BTreeSet<u8>,
    pub(crate) pcrs: BTreeMap<u8, Digest>,
}

/// An epoch whose quote holds.
#[derive(Debug)]
pub(crate) struct Epoch {
    pub(crate) at: String,
    pub(crate) said: Said,
    pub(crate) statement: EpochStatement,
    /// What was certified with it.
    pub(crate) nv: Vec<Held>,
}

/// A session whose quotes hold.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) at: String,
    pub(crate) said: Said,
    pub(crate) statement: SessionStatement,
    pub(crate) boot_log: Option<Vec<u8>>,
    pub(crate) ima_log: Option<Vec<u8>>,
    pub(crate) gpu_reports: Vec<GpuReport>,
    /// Of the statement's bytes.
    pub(crate) digest: Digest,
    pub(crate) epochs: Vec<Epoch>,
    /// What was certified at its start.
    pub(crate) nv_start: Vec<Held>,
    /// What was certified at its end; absent where no end is shown.
    pub(crate) nv_end: Option<Vec<Held>>,
}

/// Sessions whose every quote holds, with their statements.
#[derive(Debug)]
pub struct QuoteChecked<'s> {
    pub(crate) key: KeyTrusted<'s>,
    pub(crate) sessions: Vec<Session>,
}

impl<'s> QuoteChecked<'s> {
    pub(crate) fn check(mut key: KeyTrusted<'s>, tally: &mut Tally) -> Option<Self> {
        let sealed = core::mem::take(&mut key.unverified.bundle.sessions);
        let mut said = Vec::new();
        for (quote, bytes, at) in quotes(&sealed) {
            match one(&key, quote, bytes, &at) {
                Ok(one) => said.push(one),
                Err((id, refusal)) => {
                    pass_before(id, tally);
                    tally.fail(id, &refusal);
                    return None;
                }
            }
        }
        for id in QUOTE_CHECKS {
            tally.pass(id, format!("{} quotes", said.len()));
        }
        hierarchy(&key, &sealed, tally);
        let sessions = match statements(&key, sealed, said) {
            Ok(sessions) => sessions,
            Err((id, refusal)) => {
                if matches!(id, CheckId::ChainRegister | CheckId::NvCertified) {
                    tally.pass(CheckId::Statements, "well formed");
                }
                tally.fail(id, &refusal);
                return None;
            }
        };
        let epochs: usize = sessions.iter().map(|session| session.epochs.len()).sum();
        let detail = format!("{} sessions, {epochs} epochs", sessions.len());
        tally.pass(CheckId::Statements, detail);
        let registers: BTreeSet<_> = sessions.iter().map(|s| s.statement.chain_pcr).collect();
        tally.pass(
            CheckId::ChainRegister,
            format!("register {registers:?} cannot be reset"),
        );
        counters::tell(&sessions, tally);
        Some(Self { key, sessions })
    }
}

/// What is checked of each quote, in order.
const QUOTE_CHECKS: [CheckId; 5] = [
    CheckId::QuoteSignature,
    CheckId::QuoteForm,
    CheckId::QuoteBinding,
    CheckId::QuoteSelection,
    CheckId::QuotePcrs,
];

fn pass_before(id: CheckId, tally: &mut Tally) {
    for earlier in QUOTE_CHECKS
        .into_iter()
        .take_while(|earlier| *earlier != id)
    {
        tally.pass(earlier, "every quote up to the one refused");
    }
}

/// Every quote with the statement it stands beside and its place, in the order of the file.
fn quotes(sessions: &[SealedSession]) -> impl Iterator<Item = (&Quote, &[u8], String)> {
    sessions.iter().enumerate().flat_map(|(number, session)| {
        let own = (
            &session.quote,
            session.statement.as_slice(),
            format!("session {number}"),
        );
        let epochs = session
            .epochs
            .iter()
            .enumerate()
            .map(move |(sequence, epoch)| {
                let at = format!("session {number} epoch {sequence}");
                (&epoch.quote, epoch.statement.as_slice(), at)
            });
        core::iter::once(own).chain(epochs)
    })
}

pub(crate) type Refused = (CheckId, Refusal);

fn one(key: &KeyTrusted<'_>, quote: &Quote, statement: &[u8], at: &str) -> Result<Said, Refused> {
    let at = || at.to_owned();
    Signature::parse(&quote.signature)
        .and_then(|signature| signature.check(&key.public.key, &quote.attest))
        .map_err(|source| {
            (
                CheckId::QuoteSignature,
                Refusal::Signature { at: at(), source },
            )
        })?;
    let attest = Attest::parse(&quote.attest)
        .map_err(|source| (CheckId::QuoteForm, Refusal::Attest { at: at(), source }))?;
    let refuse = |id, source| (id, Refusal::Quote { at: at(), source });
    let digest = sha256(statement);
    if attest.extra != digest.0 {
        let got = hex::encode(&attest.extra);
        return Err(refuse(
            CheckId::QuoteBinding,
            QuoteError::Binding { got, want: digest },
        ));
    }
    // Ascending and unique, so that the order of hashing is the TPM's own.
    let shown: Vec<u8> = quote.pcrs.iter().map(|pcr| pcr.index).collect();
    if !attest.selected.iter().eq(&shown) {
        let got = attest.selected.into_iter().collect();
        let error = QuoteError::Selection { got, want: shown };
        return Err(refuse(CheckId::QuoteSelection, error));
    }
    let values = values_digest(&quote.pcrs);
    if values != attest.pcr_digest {
        let error = QuoteError::Values {
            got: values,
            want: attest.pcr_digest,
        };
        return Err(refuse(CheckId::QuotePcrs, error));
    }
    let pcrs = quote
        .pcrs
        .iter()
        .map(|pcr| (pcr.index, pcr.value))
        .collect();
    Ok(Said {
        digest,
        clock: attest.clock,
        selected: attest.selected,
        pcrs,
    })
}

fn values_digest(pcrs: &[PcrValue]) -> Digest {
    let mut hasher = Sha256::new();
    for pcr in pcrs {
        hasher.update(pcr.value.0);
    }
    Digest(hasher.finalize().into())
}

/// A key elsewhere than under the endorsement hierarchy shows obfuscated counters (N29).
fn hierarchy(key: &KeyTrusted<'_>, sealed: &[SealedSession], tally: &mut Tally) {
    let want = Public::endorsement_primary(&key.name);
    let other = quotes(sealed).find_map(|(quote, _, at)| {
        let attest = Attest::parse(&quote.attest).ok()?;
        (attest.qualified_signer != want).then_some((attest.qualified_signer, at))
    });
    match other {
        None => tally.pass(
            CheckId::AkHierarchy,
            "a primary key of the endorsement hierarchy",
        ),
        Some((got, at)) => {
            let (got, want) = (hex::encode(got), hex::encode(want));
            tally.fail(
                CheckId::AkHierarchy,
                &Refusal::KeyHierarchy { at, got, want },
            );
        }
    }
}

fn statements(
    key: &KeyTrusted<'_>,
    sealed: Vec<SealedSession>,
    said: Vec<Said>,
) -> Result<Vec<Session>, Refused> {
    let mut said = said.into_iter();
    let mut sessions = Vec::new();
    for (number, sealed) in sealed.into_iter().enumerate() {
        let at = format!("session {number}");
        // One entry for each quote, in the order they were taken: never too few.
        let Some(own) = said.next() else { break };
        let statement: SessionStatement =
            decode(&sealed.statement).map_err(|source| statement_refused(&at, source))?;
        belongs(&at, "node", &statement.node, &key.unverified.bundle.node)?;
        declared(&at, &own, &statement)?;
        let indices = counters::Indices::of(&at, &statement, &key.vouched)?;
        let start = sealed.nv_start.as_deref().unwrap_or_default();
        let nv_start = indices.certified(&at, key, start, own.digest, own.clock)?;
        let mut epochs = Vec::new();
        for (sequence, (sealed, said)) in sealed.epochs.iter().zip(&mut said).enumerate() {
            let at = format!("session {number} epoch {sequence}");
            let (digest, clock) = (said.digest, said.clock);
            let mut epoch = epoch(at, sealed, said, &statement)?;
            let held = sealed.nv.as_deref().unwrap_or_default();
            epoch.nv = indices.certified(&epoch.at, key, held, digest, clock)?;
            epochs.push(epoch);
        }
        let digest = sha256(&sealed.statement);
        let last = epochs.last().map_or(&own, |epoch| &epoch.said);
        let (end, clock) = (session_end(&last.digest), last.clock);
        let nv_end = sealed.nv_end.as_deref();
        let nv_end = nv_end.map(|end_of| indices.certified(&at, key, end_of, end, clock));
        let nv_end = nv_end.transpose()?;
        let SealedSession {
            boot_log,
            ima_log,
            gpu_reports,
            ..
        } = sealed;
        sessions.push(Session {
            at,
            said: own,
            statement,
            boot_log,
            ima_log,
            gpu_reports: gpu_reports.unwrap_or_default(),
            digest,
            epochs,
            nv_start,
            nv_end,
        });
    }
    Ok(sessions)
}

fn epoch(
    at: String,
    sealed: &SealedEpoch,
    said: Said,
    session: &SessionStatement,
) -> Result<Epoch, Refused> {
    let statement: EpochStatement =
        decode(&sealed.statement).map_err(|source| statement_refused(&at, source))?;
    belongs(&at, "node", &statement.node, &session.node)?;
    belongs(
        &at,
        "session",
        &statement.session.to_string(),
        &session.session.to_string(),
    )?;
    declared(&at, &said, session)?;
    Ok(Epoch {
        at,
        said,
        statement,
        nv: Vec::new(),
    })
}

fn statement_refused(at: &str, source: merestone_evidence::DecodeError) -> Refused {
    (
        CheckId::Statements,
        Refusal::Statement {
            at: at.to_owned(),
            source,
        },
    )
}

fn belongs(at: &str, what: &'static str, got: &str, want: &str) -> Result<(), Refused> {
    if got == want {
        return Ok(());
    }
    let source = QuoteError::Foreign {
        what,
        got: got.to_owned(),
        want: want.to_owned(),
    };
    Err((
        CheckId::Statements,
        Refusal::Quote {
            at: at.to_owned(),
            source,
        },
    ))
}

/// The session says which registers each of its quotes selects and which holds the chain.
fn declared(at: &str, said: &Said, session: &SessionStatement) -> Result<(), Refused> {
    let refuse = |id, source| {
        Err((
            id,
            Refusal::Quote {
                at: at.to_owned(),
                source,
            },
        ))
    };
    if !said.selected.iter().eq(&session.pcrs) {
        let got = said.selected.iter().copied().collect();
        let want = session.pcrs.clone();
        return refuse(CheckId::Statements, QuoteError::Declared { got, want });
    }
    let got = session.chain_pcr;
    // PC Client Platform TPM Profile 1.05, 4.6: 16 and 23 can be reset from locality 0, 17 to 22
    // by a dynamic launch.
    if got >= 16 {
        let why = "software can reset it";
        return refuse(CheckId::ChainRegister, QuoteError::Register { got, why });
    }
    if !said.selected.contains(&got) {
        let why = "the quotes do not select it";
        return refuse(CheckId::ChainRegister, QuoteError::Register { got, why });
    }
    Ok(())
}
