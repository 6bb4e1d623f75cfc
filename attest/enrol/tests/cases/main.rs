//! Enrolment from the request to the verdict, and every way we know to spoil it. Case numbers are
//! those of `tests/vectors/README.md`.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod bundle;
mod chain;
mod forms;
mod geotag;
mod hostile;
mod steps;
mod support;
mod vendors;

#[path = "../../../verify/tests/cases/support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "the verifier's tests use the rest of it"
)]
mod evidence;
