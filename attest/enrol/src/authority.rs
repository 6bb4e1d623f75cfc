//! `authority.toml`: which TPM vendors an authority believes, and on which terms it signs.
//! `docs/enrolment.md` is its manual.
//!
//! The grammar is closed: an unknown key is an error with its line.

use core::ops::Range;
use merestone_verify::ek::{Anchors, Certificate, Rules, certificates};
use serde::Deserialize;
use toml::Spanned;

/// Bytes of a policy.
const MAX_BYTES: usize = 1 << 20;
/// Days that a certificate holds unless the policy or the call says otherwise.
const DEFAULT_VALID_DAYS: u64 = 365;
/// A month to carry a challenge there and an answer back.
const DEFAULT_CHALLENGE_DAYS: u64 = 30;
const DAY_S: u64 = 24 * 60 * 60;
/// Longest of either.
const MAX_DAYS: u64 = 36_500;

/// A fault in an authority's policy.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{file}:{line}: {detail}")]
pub struct AuthorityError {
    /// The name the caller gave the file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub detail: String,
}

/// What an authority believes, and its terms.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Vendors' roots and intermediates.
    pub anchors: Anchors,
    /// What an endorsement certificate has to say.
    pub rules: Rules,
    /// Accepted manufacturers, as in `INTC`; empty accepts every pinned vendor's.
    pub vendors: Vec<String>,
    /// Oldest challenge that may be answered.
    pub max_challenge_age_s: u64,
    /// How long a certificate holds.
    pub valid_days: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Spanned<u32>,
    ek: Ek,
    #[serde(default)]
    challenge: Challenge,
    #[serde(default)]
    certificate: CertificateTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ek {
    roots: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    intermediates: Vec<Spanned<String>>,
    #[serde(default)]
    vendors: Vec<String>,
    must_name_tpm: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Challenge {
    max_age_days: Option<Spanned<u64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CertificateTable {
    valid_days: Option<Spanned<u64>>,
}

type Fault = (Range<usize>, String);

impl Policy {
    /// Reads a policy; `file` is what errors call it, `files` gives the contents of the files
    /// that it names.
    pub fn parse(
        text: &str,
        file: &str,
        files: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Self, AuthorityError> {
        let fail = |span: Option<Range<usize>>, detail: String| {
            let at = span.map_or(0, |span| span.start);
            let before = text.bytes().take(at).filter(|byte| *byte == b'\n');
            AuthorityError {
                file: file.to_owned(),
                line: 1 + before.count(),
                detail,
            }
        };
        if text.len() > MAX_BYTES {
            let detail = format!("{} bytes where at most {MAX_BYTES} are allowed", text.len());
            return Err(fail(None, detail));
        }
        let read: File = toml::from_str(text)
            .map_err(|error| fail(error.span(), error.message().trim().to_owned()))?;
        read.check(files)
            .map_err(|(span, detail)| fail(Some(span), detail))
    }
}

impl File {
    fn check(self, files: &dyn Fn(&str) -> Result<Vec<u8>, String>) -> Result<Policy, Fault> {
        let version = *self.version.get_ref();
        if version != 1 {
            let detail = format!("version is {version}; this program knows version 1");
            return Err((self.version.span(), detail));
        }
        let roots = all(self.ek.roots.get_ref(), files)?;
        if roots.is_empty() {
            let detail = "name at least one root of a TPM vendor".to_owned();
            return Err((self.ek.roots.span(), detail));
        }
        let challenge_days = days(self.challenge.max_age_days, DEFAULT_CHALLENGE_DAYS)?;
        Ok(Policy {
            anchors: Anchors {
                roots,
                intermediates: all(&self.ek.intermediates, files)?,
            },
            rules: Rules {
                must_name_tpm: self.ek.must_name_tpm.unwrap_or(true),
            },
            vendors: self.ek.vendors,
            max_challenge_age_s: challenge_days.saturating_mul(DAY_S),
            valid_days: days(self.certificate.valid_days, DEFAULT_VALID_DAYS)?,
        })
    }
}

fn days(given: Option<Spanned<u64>>, default: u64) -> Result<u64, Fault> {
    match given {
        None => Ok(default),
        Some(days) if (1..=MAX_DAYS).contains(days.get_ref()) => Ok(*days.get_ref()),
        Some(days) => Err((days.span(), format!("want 1 to {MAX_DAYS} days"))),
    }
}

fn all(
    entries: &[Spanned<String>],
    files: &dyn Fn(&str) -> Result<Vec<u8>, String>,
) -> Result<Vec<Certificate>, Fault> {
    let mut all = Vec::new();
    for entry in entries {
        let text = entry.get_ref().trim_start();
        let bytes = if text.starts_with("-----BEGIN CERTIFICATE") {
            text.as_bytes().to_vec()
        } else {
            files(entry.get_ref()).map_err(|detail| (entry.span(), detail))?
        };
        let found = certificates(&bytes).map_err(|error| (entry.span(), error.to_string()))?;
        all.extend(found);
    }
    Ok(all)
}
