//! The canary: a process that is guarded like a workload and tries to get out.
//!
//! The agent starts it ([`Cage`]) before it gives up its privileges, in a cgroup
//! of its own. Once the programs are attached the canary opens a device node
//! that counts as a GPU, so that it is guarded by the very path that guards a
//! workload. From then on it tries, one after the other, the ways out of
//! [`VECTORS`], each in a fresh process, towards addresses that are set aside
//! for documentation (RFC 5737, RFC 3849).
//!
//! It never takes silence for success: "held" is said where the call was
//! refused *and* the kernel's own count for the canary's group says so
//! ([`judge`]). It claims nothing for ways out that are declared uncovered, and
//! a canary that is not guarded, or died, is a failure that status, metric and
//! evidence show.

mod cage;
mod child;
mod choose;
mod counts;
mod judge;
mod ring;
mod runner;
mod sys;
mod tries;
mod vector;
mod words;

pub use cage::{Cage, CageError};
pub use child::main as child;
pub use judge::{Judged, Moved, judge};
pub use runner::{Canary, Context, Told, Wake};
pub use vector::{Needs, VECTORS, Vector};
pub use words::{Answer, Order, Outcome, Result};

use crate::bpf::DeviceRule;

/// The first argument by which the program is a canary and not a command.
pub const CHILD: &str = "canary-child";

/// A character device for local use (Documentation/admin-guide/devices.txt, 60
/// to 63), which no driver has: the canary's GPU. Whoever else opens a node of
/// this number is guarded too, as with any device that the operator names.
pub const DEVICE: DeviceRule = DeviceRule::configured(60, Some(202));
