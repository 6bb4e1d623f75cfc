//! The key that signs what this log publishes.
//!
//! It is made at the first start and stays; where its file was taken away a new one is made, of
//! the same name. Either is told by an entry, so that a quote seals which key it was. It signs no
//! evidence: a note by it says which tree this log showed, and the quotes say what is in it.

use super::{LedgerError, file};
use merestone_evidence::sha256;
use merestone_tlog::{Algorithm, Signer, VerifierKey, is_key_name};
use rustix::rand::{GetRandomFlags, getrandom};
use std::path::Path;

const MAX_KEY: u64 = 4096;

/// A key that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// The key, as others pin it.
    pub key: String,
    /// The one before, where there was one.
    pub previous: Option<String>,
}

/// The key of a log; `tell` is called before a new one is kept.
pub(super) fn load(
    log: &Path,
    node: &str,
    tell: impl FnOnce(NewKey) -> Result<(), LedgerError>,
) -> Result<Signer, LedgerError> {
    let (secret, public) = (log.join("key"), log.join("vkey"));
    if let Some(bytes) = file::read_if_there(&secret, MAX_KEY)? {
        let text = String::from_utf8_lossy(&bytes);
        let signer = Signer::parse(text.trim_end())
            .map_err(|error| LedgerError::damaged(&secret, 0, error.to_string()))?;
        if signer.algorithm() != Algorithm::Ed25519 {
            return Err(LedgerError::damaged(&secret, 0, "it is a witness's key"));
        }
        // Lost where the power was cut between the two files.
        let vkey = format!("{}\n", signer.verifier());
        if file::read_if_there(&public, MAX_KEY)?.as_deref() != Some(vkey.as_bytes()) {
            file::replace(&public, vkey.as_bytes())?;
        }
        return Ok(signer);
    }
    let previous = match file::read_if_there(&public, MAX_KEY)? {
        None => None,
        Some(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let key = VerifierKey::parse(text.trim_end())
                .map_err(|error| LedgerError::damaged(&public, 0, error.to_string()))?;
            Some(key)
        }
    };
    let mut seed = [0; 32];
    // At most 32 bytes: the kernel gives them whole (random(7), up to 256).
    getrandom(&mut seed, GetRandomFlags::empty())
        .map_err(|error| LedgerError::io("draw random bytes for", &secret)(error.into()))?;
    let name = previous
        .as_ref()
        .map_or_else(|| new_name(node, &seed), |key| key.name().to_owned());
    let signer = Signer::from_seed(&name, Algorithm::Ed25519, &seed)
        .map_err(|error| LedgerError::damaged(&secret, 0, error.to_string()))?;
    let key = signer.verifier().to_string();
    tell(NewKey {
        key: key.clone(),
        previous: previous.map(|key| key.to_string()),
    })?;
    file::replace(&secret, format!("{}\n", signer.secret()).as_bytes())?;
    file::replace(&public, format!("{key}\n").as_bytes())?;
    Ok(signer)
}

/// The log's origin. A log that begins anew on the same node is another log, so the name has a
/// part that no other has.
fn new_name(node: &str, seed: &[u8; 32]) -> String {
    let unique = sha256(&[b"merestone/log-name", &seed[..]].concat()).to_string();
    let unique = unique.get(..8).unwrap_or_default();
    let name = format!("merestone/{node}/{unique}");
    if is_key_name(&name) {
        return name;
    }
    let node = sha256(node.as_bytes()).to_string();
    format!("merestone/{}/{unique}", node.get(..16).unwrap_or_default())
}
