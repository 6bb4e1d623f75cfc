//! The record of one exchange, as it is told to the agent.

use super::exchange::Ended;
use super::receipts::Id;
use serde::Serialize;

/// The body of `POST /v1/records`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) request: String,
    pub(super) answer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) model_files: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    pub(super) started_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first_ms: Option<u64>,
    pub(super) ended_ms: u64,
    pub(super) request_bytes: u64,
    pub(super) answer_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connection: Option<Connection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upstream: Option<Connection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) nonce: Option<String>,
}

/// The client's connection, or that to the server: by it the kernel's own turn is found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Connection {
    pub(super) peer: String,
    pub(super) local: String,
}

/// A record and what only the client may know of it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) id: Id,
    pub(super) salt: [u8; 32],
    pub(super) ended: Ended,
    pub(super) has_whole_request: bool,
    pub(super) record: Record,
}
