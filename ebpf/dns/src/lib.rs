//! Reads DNS messages as far as the boundary needs them: whether a question
//! has the one form that can be judged, which name it asks for, and which
//! addresses an answer gives that name.
//!
//! The kernel programs and user space compile the same code, so that what is
//! fuzzed and tested outside is what holds inside. There is no allocation, no
//! recursion and no unbounded loop: each index is masked into a fixed array,
//! because the kernel's verifier takes nothing else.
//!
//! It refuses to guess: whatever is not exactly one plain question, of letters,
//! digits, `-` and `_`, is [`Refused`], and an answer's record counts only if
//! its owner is the question's name or the target of an alias before it.
#![no_std]
#![forbid(unsafe_code)]
#![expect(
    clippy::inline_always,
    reason = "a call in a kernel program costs stack, of which there are 512 bytes"
)]
#![expect(
    clippy::indexing_slicing,
    reason = "each index is masked below the array's length; a check that could panic would not load"
)]

mod answer;
mod name;
mod question;

pub use answer::{Address, Message, Standing, Step, Walk};
pub use name::{KEY_BYTES, Key, OPEN_KEY, key_text, pattern_key};
pub use question::{Asked, HEADER_BYTES, Lookup, MESSAGE_BYTES, Refused, Work, answered, question};

/// The port of DNS over UDP and TCP (RFC 1035 §4.2).
pub const PORT: u16 = 53;
/// The port of DNS over TLS, DTLS and QUIC (RFC 7858, RFC 8094, RFC 9250).
pub const SECURE_PORT: u16 = 853;
