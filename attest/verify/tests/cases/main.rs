//! A good bundle, and every way we know to spoil it. Case numbers are those of
//! `tests/vectors/README.md`.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod boot;
mod clouds;
mod counters;
mod coverage;
mod every_byte;
mod good;
mod gpu;
mod hostile;
mod incidents;
mod kept;
mod listed;
mod location;
mod log;
mod policy;
mod quote;
mod real;
mod receipts;
mod rims;
mod stored;
mod support;
mod witness;
