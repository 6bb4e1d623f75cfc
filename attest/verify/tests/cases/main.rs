//! A good bundle, and every way we know to spoil it. Case numbers are those of
//! `docs/formats/cases.md`.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod boot;
mod good;
mod hostile;
mod log;
mod policy;
mod quote;
mod real;
mod support;
