//! `merestone gateway` as a process of its own, between a server and an agent
//! that the tests play, byte for byte.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_cmp,
    reason = "helpers of tests; metrics that are counts"
)]

mod agent;
mod ends;
mod models;
mod passing;
mod smuggling;
mod stage;
mod volume;
