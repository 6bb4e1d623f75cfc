//! `merestone gateway`: a reverse proxy that binds each answer of an inference
//! server to a receipt.
//!
//! Requests and answers pass piece by piece, hashed on the way with a salt that
//! only the client gets. It refuses what has two readings, tunnels nothing,
//! keeps no body, repeats no request, and never says that a receipt exists
//! which the agent did not issue.

mod agent_line;
mod child;
mod door;
#[cfg(fuzzing)]
pub mod doors;
mod exchange;
mod expect;
mod framing;
mod head;
mod metrics;
mod model;
mod own;
mod pass;
mod receipts;
mod record;
mod recorder;
mod serve;
mod tap;
mod upstream;
mod weights;

pub(crate) use pass::RECEIPTS;
pub use serve::{GatewayError, Options, run};
