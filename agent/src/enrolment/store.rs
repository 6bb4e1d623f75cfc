//! Enrolment certificates on this host's disk: `enrolment/SERIAL.cose` in the state folder.

use super::EnrolmentError;
use coset::{CoseSign1, TaggedCborSerializable as _};
use ed25519_dalek::{Signature, VerifyingKey};
use merestone_evidence::{Blob, Enrolment, Record as _, decode};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The folder in the state folder.
const FOLDER: &str = "enrolment";
/// Most bytes of a certificate: its payload's limit, and what is around it.
const MAX_BYTES: usize = Enrolment::LIMITS.bytes + 512;
/// Most certificates in a bundle, the newest.
const MAX_HELD: usize = 64;

/// A certificate that was put in its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Installed {
    /// Where.
    pub path: PathBuf,
    /// What it says; its signature is the verifier's to check.
    pub claims: Enrolment,
}

/// Keeps a certificate for this node and key. With `authority` its signature is checked first.
pub fn install(
    state_dir: &Path,
    message: &[u8],
    node: &str,
    ak_name: &[u8],
    authority: Option<&VerifyingKey>,
) -> Result<Installed, EnrolmentError> {
    let claims = read(message, authority)?;
    if claims.node != node {
        return Err(EnrolmentError::Node {
            got: claims.node,
            want: node.to_owned(),
        });
    }
    if claims.ak_name != ak_name {
        return Err(EnrolmentError::Key {
            what: "certificate",
            got: hex::encode(&claims.ak_name),
            want: hex::encode(ak_name),
        });
    }
    let folder = state_dir.join(FOLDER);
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| EnrolmentError::Io { path, source }
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(io(&folder))?;
    let path = folder.join(format!("{}.cose", claims.serial));
    let part = folder.join(format!("{}.part", claims.serial));
    fs::write(&part, message).map_err(io(&part))?;
    let written = fs::File::open(&part).and_then(|file| file.sync_all());
    written.map_err(io(&part))?;
    fs::rename(&part, &path).map_err(io(&path))?;
    Ok(Installed { path, claims })
}

/// The certificates of the key with this public area, oldest first; `None` where there are none.
pub fn held(state_dir: &Path, ak_public: &[u8]) -> Result<Option<Vec<Blob>>, EnrolmentError> {
    let folder = state_dir.join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(EnrolmentError::Io {
                path: folder,
                source,
            });
        }
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|source| EnrolmentError::Io {
                path: folder.clone(),
                source,
            })?
            .path();
        if path.extension().is_none_or(|extension| extension != "cose") {
            continue;
        }
        let io = |source| EnrolmentError::Io {
            path: path.clone(),
            source,
        };
        let mut message = Vec::new();
        let file = fs::File::open(&path).map_err(io)?;
        file.take(MAX_BYTES as u64 + 1)
            .read_to_end(&mut message)
            .map_err(io)?;
        let claims = read(&message, None).map_err(|source| EnrolmentError::Kept {
            path: path.clone(),
            source: Box::new(source),
        })?;
        // One of an earlier TPM says nothing about this key.
        if claims.ak_public == ak_public {
            found.push((claims.from_ms, claims.serial, message));
        }
    }
    found.sort();
    let surplus = found.len().saturating_sub(MAX_HELD);
    let newest = found.drain(surplus..);
    let held: Vec<_> = newest.map(|(.., message)| Blob::from(message)).collect();
    Ok((!held.is_empty()).then_some(held))
}

/// What a certificate says.
fn read(message: &[u8], authority: Option<&VerifyingKey>) -> Result<Enrolment, EnrolmentError> {
    let refused = |detail: String| EnrolmentError::Signed { detail };
    if message.len() > MAX_BYTES {
        return Err(refused(format!("more than {MAX_BYTES} bytes")));
    }
    let parsed =
        CoseSign1::from_tagged_slice(message).map_err(|error| refused(error.to_string()))?;
    if let Some(key) = authority {
        let signature = Signature::from_slice(&parsed.signature)
            .map_err(|_length| EnrolmentError::Authority)?;
        key.verify_strict(&parsed.tbs_data(&[]), &signature)
            .map_err(|_opaque| EnrolmentError::Authority)?;
    }
    let payload = parsed
        .payload
        .ok_or_else(|| refused("it carries no payload".to_owned()))?;
    Ok(decode(&payload)?)
}
