//! Lets the operator look: the control socket and the metrics endpoint.
//!
//! Neither holds state: a request becomes a [`Call`] to the agent's one loop,
//! which owns the kernel maps and the sealer, so an answer is never half of
//! one moment and half of another.

mod client;
mod control;
mod http;
mod metrics;
mod peer;
mod records;

pub use client::{Client, ClientError};
pub use control::{ServeError, answer, bind, bind_for_all, control};
pub use http::{HttpError, http};
pub use metrics::{Readings, render};
pub use peer::Peer;
pub use records::{Connection, Issued, Post, RecordRefused, records};

use crate::api::{Reply, Request};
use std::sync::Arc;
use tokio::sync::oneshot;

/// A question to the agent's loop.
#[derive(Debug)]
pub enum Call {
    /// From the control socket.
    Control {
        /// What is asked.
        request: Request,
        /// Where the answer goes.
        reply: oneshot::Sender<Reply>,
    },
    /// From the metrics endpoint: the text exposition.
    Scrape {
        /// Where the text goes.
        reply: oneshot::Sender<String>,
    },
    /// From the records socket: whether a process is in a guarded group now.
    Guarded {
        /// The process.
        peer: Arc<Peer>,
        /// Where the answer goes.
        reply: oneshot::Sender<bool>,
    },
    /// From the records socket: a record of a process's own answer.
    Record {
        /// The process.
        peer: Arc<Peer>,
        /// What it tells, or why that cannot be read.
        post: Box<Result<Post, String>>,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Issued, RecordRefused>>,
    },
    /// From the readiness probe: why it is not ready, if it is not.
    Ready {
        /// Where the answer goes.
        reply: oneshot::Sender<Result<(), String>>,
    },
}
