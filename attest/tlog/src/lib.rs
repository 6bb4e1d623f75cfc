//! The log as others read it: C2SP signed notes, checkpoints, cosignatures and tiles.
//!
//! Specifications: c2sp.org/signed-note@v1.0.0, tlog-checkpoint@v1.0.0, tlog-cosignature and
//! tlog-tiles. The agent writes these forms, a witness reads and cosigns them, the verifier
//! judges them; all three use this crate, so that there is one reader of each form.
//!
//! It does no input or output, reads no clock and draws no random numbers: tiles come through
//! [`TileSource`], times and seeds are arguments. It believes no key for being in a note, and
//! knows Ed25519 alone: other signatures are passed over, as the specification asks.
#![forbid(unsafe_code)]

mod checkpoint;
mod entries;
mod key;
mod note;
mod path;
mod replay;
mod rows;
mod tile;

pub use checkpoint::{Checkpoint, CheckpointError, Sealed};
pub use entries::{EntriesError, MAX_ENTRY, entries, entry};
pub use key::{Algorithm, KeyError, Signer, VerifierKey, is_key_name};
pub use note::{MAX_NOTE, Note, NoteError, NoteSignature};
pub use path::{NodeError, Nodes, TileNodes, consistency_proof, inclusion_proof, peaks};
pub use replay::{ReplayError, TileSource, replay};
pub use rows::Rows;
pub use tile::{TILE_WIDTH, Tile, TileLength, entries_path, tiles_of};
