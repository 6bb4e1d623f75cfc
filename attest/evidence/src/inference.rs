//! One inference, as far as it was seen.
//!
//! Two grades, never mixed up. *Observed*: the kernel saw a request and its
//! answer pass on a guarded server's socket; nobody told anything. *Bound*: a
//! process of the group gave digests of the request, the answer and the model
//! besides. What was not seen is absent.

use crate::{Digest, Process};
use minicbor::{Decode, Encode};

/// How much is known.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(index_only)]
pub enum Grade {
    /// R1: the kernel saw it pass.
    #[n(1)]
    Observed,
    /// R2: digests were given besides.
    #[n(2)]
    Bound,
}

/// Why it counts as over.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(index_only)]
pub enum End {
    /// The next request came on the connection.
    #[n(0)]
    Next,
    /// The server closed the connection, or the stream.
    #[n(1)]
    Server,
    /// The client closed the connection.
    #[n(2)]
    Client,
    /// The client reset the connection; either side the stream, or the connection ended before it.
    #[n(3)]
    Reset,
    /// Nothing more came for a while.
    #[n(4)]
    Idle,
}

/// What the group sent to anywhere during it, by the kernel's exact counters.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct GroupEgress {
    /// The counters were read then, before it began.
    #[n(0)]
    pub from_ms: u64,
    /// And then, after it ended.
    #[n(1)]
    pub to_ms: u64,
    /// Packets let through.
    #[n(2)]
    pub allowed: u64,
    /// Their bytes.
    #[n(3)]
    pub allowed_bytes: u64,
    /// Refusals.
    #[n(4)]
    pub denied: u64,
    /// What would have been refused.
    #[n(5)]
    pub audited: u64,
}

/// What a process of the group said of it.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Binding {
    /// SHA-256 of the receipt's salt and the request's body.
    #[n(0)]
    pub request: Digest,
    /// SHA-256 of the receipt's salt and the answer's body.
    #[n(1)]
    pub response: Digest,
    /// The model's name, as it was asked for.
    #[n(2)]
    pub model: Option<String>,
    /// The digest of its weight files.
    #[n(3)]
    pub model_sha256: Option<Digest>,
    /// Who said so.
    #[n(4)]
    pub process: Option<Process>,
    /// The answer's HTTP status.
    #[n(5)]
    pub status: Option<u16>,
}

/// The same exchange once more, as a gateway of the group passed it on to its server: what the
/// kernel saw on that connection. It is no inference of its own.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Onward {
    /// The id of that turn's own entry.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub turn: [u8; 16],
    /// First byte of the request.
    #[n(1)]
    pub started_ms: u64,
    /// Last byte of either.
    #[n(2)]
    pub ended_ms: u64,
    /// TCP payload of the request.
    #[n(3)]
    pub request_bytes: u64,
    /// TCP payload of the answer.
    #[n(4)]
    pub response_bytes: u64,
    /// The server's process, where it is known.
    #[n(5)]
    pub process: Option<Process>,
    /// The gateway's end of the connection, IPv4 mapped.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub peer: [u8; 16],
    /// Its port.
    #[n(7)]
    pub peer_port: u16,
    /// The server's port.
    #[n(8)]
    pub port: u16,
    /// The turn had an entry of its own before; else it has none but in amendments.
    #[n(9)]
    pub amends: bool,
}

/// One request and its answer; on a connection that cannot be read, all of it.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Inference {
    /// Which one: the same in an amendment.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub id: [u8; 16],
    /// How much is known.
    #[n(1)]
    pub grade: Grade,
    /// First byte of the request.
    #[n(2)]
    pub started_ms: u64,
    /// First byte of the answer; absent where there was none.
    #[n(3)]
    pub answered_ms: Option<u64>,
    /// Last byte of either.
    #[n(4)]
    pub ended_ms: u64,
    /// TCP payload of the request, retransmissions counted again.
    #[n(5)]
    pub request_bytes: u64,
    /// TCP payload of the answer, likewise.
    #[n(6)]
    pub response_bytes: u64,
    /// The guarded group that served.
    #[n(7)]
    pub group: u64,
    /// The process that listens, where it is known.
    #[n(8)]
    pub process: Option<Process>,
    /// Who asked, IPv4 mapped.
    #[cbor(n(9), with = "minicbor::bytes")]
    pub peer: [u8; 16],
    /// The client's port.
    #[n(10)]
    pub peer_port: u16,
    /// The server's port.
    #[n(11)]
    pub port: u16,
    /// Whether the boundary lets the group send there.
    #[n(12)]
    pub peer_inside: bool,
    /// `http/1`, `http/2 stream`, `http/2`, `tls`, `upgraded` or `other`; only the first two have
    /// one entry a request, the others one a connection, or for the rest of it. `told` where the
    /// kernel saw no turn and a process of the group told of it.
    #[n(13)]
    pub form: String,
    /// The request's method, where it could be read.
    #[n(14)]
    pub method: Option<String>,
    /// The request's path without its query, where it could be read.
    #[n(15)]
    pub path: Option<String>,
    /// Why it counts as over.
    #[n(16)]
    pub end: End,
    /// GPUs that processes of the group used when it ended.
    #[n(17)]
    pub gpus: Vec<String>,
    /// What the group sent meanwhile, where that is known.
    #[n(18)]
    pub egress: Option<GroupEgress>,
    /// It was told before: with fewer bytes, or without digests.
    #[n(19)]
    pub amends: bool,
    /// What a process of the group said of it; only with [`Grade::Bound`].
    #[n(20)]
    pub binding: Option<Binding>,
    /// The kernel's turn that it was joined with: the id of that turn's own entry. Absent in an
    /// entry of the kernel's own, and where the kernel saw none: the rest then is the workload's
    /// word.
    #[cbor(n(21), with = "minicbor::bytes")]
    pub turn: Option<[u8; 16]>,
    /// Where a gateway bound it, what the kernel saw between the gateway and its server.
    #[n(22)]
    pub onward: Option<Onward>,
}
