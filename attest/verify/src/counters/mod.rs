//! Counters in the TPM's memory: what was certified, and what follows from it for the log.
//!
//! A counter never goes back, whoever owns the host: not by undefining it, not by an older disk.
//! So a session that begins above where the one shown before it ended tells that something
//! between them is not shown. It does not tell who counted: a stranger with the counter's
//! password looks the same as epochs left out.

mod certified;
mod error;
mod tail;

pub(crate) use certified::{Held, Indices, Role, tell};
pub(crate) use error::{NvError, TailError};
pub(crate) use tail::tail;
