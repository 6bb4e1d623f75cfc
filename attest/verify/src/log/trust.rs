//! `[log]` of the trust policy: whose signature makes a checkpoint this log's, and who else has
//! to have seen it.

use crate::trust::{Fault, OneOrMany};
use merestone_tlog::{Algorithm, Checkpoint, Note, VerifierKey};
use serde::Deserialize;
use toml::Spanned;

/// How far the end of a period may lie behind what witnesses saw.
const DEFAULT_MAX_UNWITNESSED_S: u64 = 3600;

/// Whom a checkpoint has to be of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogTrust {
    /// Keys of logs; each is named as its log's origin.
    pub keys: Vec<VerifierKey>,
    /// Keys of witnesses, all of them different.
    pub witnesses: Vec<VerifierKey>,
    /// How many of the witnesses have to have signed one checkpoint.
    pub quorum: usize,
    /// Longest stretch at the end of a period that no witness saw.
    pub max_unwitnessed_s: u64,
    /// Checkpoints that came from witnesses and not with the evidence.
    pub checkpoints: Vec<(String, Note, Checkpoint)>,
}

/// The table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    key: Spanned<OneOrMany>,
    #[serde(default)]
    witnesses: Vec<Spanned<String>>,
    quorum: Option<Spanned<usize>>,
    max_unwitnessed_s: Option<u64>,
    #[serde(default)]
    checkpoints: Vec<Spanned<String>>,
}

impl Table {
    pub(crate) fn check(
        self,
        files: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<LogTrust, Fault> {
        let span = self.key.span();
        let mut keys: Vec<VerifierKey> = Vec::new();
        for text in self.key.into_inner().all() {
            let key = read(&text, Algorithm::Ed25519).map_err(|why| (span.clone(), why))?;
            keys.push(key);
        }
        if keys.is_empty() {
            return Err((span, "name at least one key of a log".to_owned()));
        }
        let mut witnesses: Vec<VerifierKey> = Vec::new();
        for text in self.witnesses {
            let fail = |why: &str| (text.span(), why.to_owned());
            let key = read(text.get_ref(), Algorithm::Cosignature).map_err(|why| fail(&why))?;
            // One witness under two names would be counted twice (N55).
            if witnesses.iter().any(|other| other.is_same_key(&key)) {
                return Err(fail("this witness's key is named twice"));
            }
            if keys.iter().any(|log| log.is_same_key(&key)) {
                return Err(fail("a log is no witness of itself"));
            }
            witnesses.push(key);
        }
        let quorum = match self.quorum {
            None => witnesses.len(),
            Some(quorum) => {
                let (span, quorum) = (quorum.span(), quorum.into_inner());
                if quorum == 0 || quorum > witnesses.len() {
                    let detail = format!("quorum is 1 to {} witnesses", witnesses.len());
                    return Err((span, detail));
                }
                quorum
            }
        };
        let mut checkpoints = Vec::new();
        for entry in self.checkpoints {
            let read = checkpoint(entry.get_ref(), &keys, files);
            let (note, checkpoint) = read.map_err(|why| (entry.span(), why))?;
            checkpoints.push((entry.into_inner(), note, checkpoint));
        }
        Ok(LogTrust {
            keys,
            witnesses,
            quorum,
            max_unwitnessed_s: self.max_unwitnessed_s.unwrap_or(DEFAULT_MAX_UNWITNESSED_S),
            checkpoints,
        })
    }
}

fn read(text: &str, algorithm: Algorithm) -> Result<VerifierKey, String> {
    let key = VerifierKey::parse(text).map_err(|error| error.to_string())?;
    match (key.algorithm() == algorithm, algorithm) {
        (true, _) => Ok(key),
        (false, Algorithm::Ed25519) => Err("a log's key is of type 0x01, this is of 0x04".into()),
        (false, Algorithm::Cosignature) => {
            Err("a witness's key is of type 0x04 (cosignatures), this is of 0x01".into())
        }
    }
}

/// A note that the policy names: one that its own keys do not sign is a fault of the policy.
fn checkpoint(
    entry: &str,
    keys: &[VerifierKey],
    files: &dyn Fn(&str) -> Result<Vec<u8>, String>,
) -> Result<(Note, Checkpoint), String> {
    let bytes = if entry.contains('\n') {
        entry.as_bytes().to_vec()
    } else {
        files(entry)?
    };
    let note = Note::parse(&bytes).map_err(|error| error.to_string())?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| error.to_string())?;
    let mut signed = false;
    for key in keys.iter().filter(|key| key.name() == checkpoint.origin) {
        signed |= note
            .signed_by(key)
            .map_err(|error| error.to_string())?
            .is_some();
    }
    if signed {
        return Ok((note, checkpoint));
    }
    Err(format!(
        "the checkpoint of {} is not signed by a key of [log]",
        checkpoint.origin
    ))
}
