//! `[authority]` of the trust policy: whose word that a key lives in a TPM is believed.

use super::{Kind, open, public_key};
use crate::ek::{Anchors, Rules, certificates};
use base64ct::{Base64, Encoding as _};
use core::ops::Range;
use ed25519_dalek::VerifyingKey;
use merestone_evidence::{Revocations, decode};
use serde::Deserialize;
use toml::Spanned;

/// How a list stands in the policy itself.
const INLINE: &str = "base64:";

/// Enrolment authorities, and what is asked of their certificates.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Authority {
    /// Keys of the authorities.
    pub keys: Vec<VerifyingKey>,
    /// Vendors' roots to trace endorsement certificates to; `None` leaves that to the authority.
    pub anchors: Option<Anchors>,
    /// What an endorsement certificate has to say.
    pub rules: Rules,
    /// An enrolment certificate is asked for even where the key is pinned.
    pub required: bool,
    /// Lists of revoked certificates, each with the key that signed it.
    pub revocations: Vec<(VerifyingKey, Revocations)>,
    /// Greatest age of the newest list at the time of the verdict; `None` asks for no list.
    pub max_revocation_age_s: Option<u64>,
}

/// The table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    keys: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    ek_roots: Vec<Spanned<String>>,
    #[serde(default)]
    ek_intermediates: Vec<Spanned<String>>,
    #[serde(default = "yes")]
    ek_must_name_tpm: bool,
    #[serde(default)]
    required: bool,
    #[serde(default)]
    revocations: Vec<Spanned<String>>,
    max_revocation_age_s: Option<u64>,
}

const fn yes() -> bool {
    true
}

type Fault = (Range<usize>, String);

/// How a file that the policy names is had.
pub(crate) type Files<'f> = &'f dyn Fn(&str) -> Result<Vec<u8>, String>;

impl Table {
    pub(crate) fn check(self, files: Files<'_>) -> Result<Authority, Fault> {
        let mut keys = Vec::new();
        let span = self.keys.span();
        for key in self.keys.into_inner() {
            let text = key.get_ref().as_str();
            let text = if text.starts_with("ed25519:") {
                text.to_owned()
            } else {
                let bytes = content(&key, "-----BEGIN PUBLIC KEY", files)?;
                String::from_utf8_lossy(&bytes).into_owned()
            };
            let read = public_key(&text).map_err(|detail| (key.span(), detail))?;
            if !keys.contains(&read) {
                keys.push(read);
            }
        }
        if keys.is_empty() {
            return Err((span, "name at least one key of an authority".to_owned()));
        }
        let roots = all_certificates(&self.ek_roots, files)?;
        let intermediates = all_certificates(&self.ek_intermediates, files)?;
        if let Some(first) = self.ek_intermediates.first().filter(|_| roots.is_empty()) {
            let detail = "ek_intermediates without ek_roots lead nowhere".to_owned();
            return Err((first.span(), detail));
        }
        let anchors = (!roots.is_empty()).then_some(Anchors {
            roots,
            intermediates,
        });
        Ok(Authority {
            revocations: lists(&self.revocations, &keys, files)?,
            keys,
            anchors,
            rules: Rules {
                must_name_tpm: self.ek_must_name_tpm,
            },
            required: self.required,
            max_revocation_age_s: self.max_revocation_age_s,
        })
    }
}

/// The text itself where it begins as what it should be, else the file that it names.
pub(crate) fn content(
    entry: &Spanned<String>,
    inline: &str,
    files: Files<'_>,
) -> Result<Vec<u8>, Fault> {
    let text = entry.get_ref();
    if text.trim_start().starts_with(inline) {
        return Ok(text.trim_start().as_bytes().to_vec());
    }
    files(text).map_err(|detail| (entry.span(), detail))
}

pub(crate) fn all_certificates(
    entries: &[Spanned<String>],
    files: Files<'_>,
) -> Result<Vec<crate::ek::Certificate>, Fault> {
    let mut all = Vec::new();
    for entry in entries {
        let bytes = content(entry, "-----BEGIN CERTIFICATE", files)?;
        let found = certificates(&bytes).map_err(|error| (entry.span(), error.to_string()))?;
        all.extend(found);
    }
    Ok(all)
}

fn lists(
    entries: &[Spanned<String>],
    keys: &[VerifyingKey],
    files: Files<'_>,
) -> Result<Vec<(VerifyingKey, Revocations)>, Fault> {
    let mut lists: Vec<(VerifyingKey, Revocations)> = Vec::new();
    for entry in entries {
        let fail = |detail: String| (entry.span(), detail);
        let bytes = match entry.get_ref().strip_prefix(INLINE) {
            Some(text) => {
                Base64::decode_vec(text).map_err(|_base64| fail("not base64".to_owned()))?
            }
            None => files(entry.get_ref()).map_err(fail)?,
        };
        let opened =
            open(Kind::Revocations, &bytes, keys).map_err(|error| fail(error.to_string()))?;
        let list: Revocations = decode(&opened.payload).map_err(|error| fail(error.to_string()))?;
        let signer = keys.iter().find(|key| super::key_id(key) == opened.signer);
        let Some(&signer) = signer else {
            continue;
        };
        // An older list of the same authority would forget what a newer one says.
        if lists.iter().any(|(key, _)| *key == signer) {
            return Err(fail(
                "a second list of one authority: name the newest alone".to_owned(),
            ));
        }
        lists.push((signer, list));
    }
    Ok(lists)
}
