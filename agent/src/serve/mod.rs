//! Lets the operator look: the control socket and the metrics endpoint.
//!
//! Neither holds state: a request becomes a [`Call`] to the agent's one loop,
//! which owns the kernel maps and the sealer, so an answer is never half of
//! one moment and half of another.

mod client;
mod control;
mod http;
mod metrics;

pub use client::{Client, ClientError};
pub use control::{ServeError, answer, bind, control};
pub use http::{HttpError, http};
pub use metrics::{Readings, render};

use crate::api::{Reply, Request};
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
    /// From the readiness probe: why it is not ready, if it is not.
    Ready {
        /// Where the answer goes.
        reply: oneshot::Sender<Result<(), String>>,
    },
}
