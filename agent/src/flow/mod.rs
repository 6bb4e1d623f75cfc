//! Turns the kernel's events into flow records: one alert per violation.
//!
//! The kernel reports each decision; this module names the process, container,
//! GPU, destination and rule, and folds repeats of the same flow into a count.
//! It never decides: what is wrong here can spoil a report, not a verdict.

mod fold;
mod record;
mod store;

pub use fold::{Fold, Key};
pub use record::{CANARY, Destination, FlowEvent, Names, ProcessInfo};
pub use store::Store;
