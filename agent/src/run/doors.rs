//! Ways in for the fuzz targets, compiled for them alone.

use super::{records, turns};
use crate::serve::{Post, RecordRefused};
use merestone_abi::Turn;
use merestone_evidence::Binding;

/// What of a post may stand in the log.
#[derive(Debug)]
pub struct Told {
    /// Its id.
    pub id: Option<[u8; 16]>,
    /// What it binds.
    pub binding: Binding,
    /// Method and path.
    pub words: [Option<String>; 2],
    /// The client's nonce.
    pub nonce: Option<Vec<u8>>,
}

/// Judges a post as the records socket does.
pub fn post(post: Post, now_ms: u64) -> Result<Told, RecordRefused> {
    records::Told::parse(post, now_ms).map(|told| Told {
        id: told.id,
        binding: told.binding,
        words: [told.method, told.path],
        nonce: told.nonce,
    })
}

/// Method and path of a turn's first bytes.
#[must_use]
pub fn request_line(turn: &Turn) -> (Option<String>, Option<String>) {
    turns::request_line(turn)
}
