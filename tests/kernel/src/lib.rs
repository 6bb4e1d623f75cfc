//! The egress suite: proves from outside that a guarded process cannot speak
//! beyond the boundary.
//!
//! One child process a way out ([`catalog`]), a packet sniffer in another
//! network namespace as the only judge ([`sniffer`]), and three runs of each:
//! unguarded (the way must be open), guarded, and opened without an agent (the
//! suite must notice). It refuses to count a case whose control did not leak,
//! and a sniffer that dropped a frame. What came of each vector is committed
//! ([`outcomes`]) and shown in docs/bypasses.md ([`bypasses`]); a run that differs
//! fails.

pub mod bypasses;
pub mod catalog;
pub mod cgroup;
pub mod cleanup;
pub mod holder;
pub mod job;
pub mod lab;
pub mod outcomes;
pub mod probe;
pub mod sniffer;
pub mod suite;
pub mod sys;
pub mod wire;
