//! Attempts on enforcement: told by the kernel where BPF LSM refuses them,
//! found by the agent's own watch where it does not, and let through for an
//! operator with a break-glass token.
//!
//! Everything here ends in an entry of the evidence log. It refuses a token
//! that was used before, is for another host, or for longer than four hours;
//! and it never calls kept what it found changed.

mod glass;
mod left;
mod token;
mod used;
mod watch;

pub use glass::Refusal;
pub use left::{Record, found};
pub use token::{Token, TokenError};
pub use watch::{Told, Watch, attempt_name};
