//! A list of revoked certificates → the next one.

use crate::{SignError, sign};
use ed25519_dalek::SigningKey;
use merestone_evidence::{DecodeError, Revocation, Revocations, RevocationsKind, decode, encode};
use merestone_verify::enrolment::{CoseError, Kind, open};

/// Why there is no next list.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RevokeError {
    /// The list so far is not this authority's.
    #[error("the list so far: {0}")]
    Signature(#[from] CoseError),
    /// The list so far is none.
    #[error("the list so far: {0}")]
    Form(#[from] DecodeError),
    /// Nothing could be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// The list with `entries` added, signed; where a certificate is revoked twice, the earlier time
/// counts.
pub fn revoke(
    before: Option<&[u8]>,
    entries: Vec<Revocation>,
    key: &SigningKey,
    now_ms: u64,
) -> Result<(Vec<u8>, Revocations), RevokeError> {
    let mut list = match before {
        Some(message) => {
            let opened = open(Kind::Revocations, message, &[key.verifying_key()])?;
            decode(&opened.payload)?
        }
        None => Revocations {
            kind: RevocationsKind,
            issued_ms: now_ms,
            number: 0,
            revoked: Vec::new(),
        },
    };
    list.issued_ms = now_ms;
    list.number = list.number.saturating_add(1);
    for entry in entries {
        let known = list
            .revoked
            .iter_mut()
            .find(|known| known.serial == entry.serial);
        match known {
            Some(known) if known.from_ms <= entry.from_ms => {}
            Some(known) => *known = entry,
            None => list.revoked.push(entry),
        }
    }
    list.revoked.sort_by_key(|entry| entry.serial);
    let message = sign(Kind::Revocations, key, &encode(&list))?;
    Ok((message, list))
}
