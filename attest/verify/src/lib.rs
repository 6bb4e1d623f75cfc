//! Bundle bytes and a trust policy in, a verdict out.
//!
//! A check that passed is a value that the next step asks for:
//! bytes → [`Unverified`] → [`KeyTrusted`] → [`QuoteChecked`] → [`BootChecked`] →
//! [`LogChecked`] → policy → [`Verdict`]. No step can be reached around another.
//!
//! This crate does no input or output and reads no clock: the time of the verdict is an
//! argument. It trusts no key for being in the file, decodes no statement before the
//! signature over it, and never says "pass" with a required check left out.
#![forbid(unsafe_code)]

mod account;
pub mod boot;
mod chain;
mod clock;
mod counters;
mod coverage;
pub mod ear;
pub mod ek;
pub mod enrolment;
pub mod escape;
mod frame;
mod geotag;
pub mod gpu;
pub mod html;
mod incidents;
mod key;
mod leaves;
pub mod location;
mod log;
mod network;
mod pipeline;
mod policy;
mod quote;
mod receipts;
mod refusal;
mod report;
pub mod tpm;
mod trust;
mod verdict;
mod wire;

pub use account::{
    Account, Destination, EgressTold, EnergyUsed, GpuAccount, GpuUseTold, Happening, InferenceTold,
    Inferences, OnwardTold, SessionAccount, TierAccount,
};
pub use boot::BootChecked;
pub use coverage::{ClockJump, Coverage, Dark, Gap, Reboot, Share};
pub use frame::{Purpose, Unverified};
pub use geotag::GeotagError;
pub use incidents::{
    Attempt, BreakGlass, CanaryReport, Deputies, Deputy, GrantUsed, Grants, Opening, Tamper,
    Unkept, Who,
};
pub use key::KeyTrusted;
pub use leaves::{OneByOne, Workers};
pub use location::Location;
pub use log::{LogChecked, LogTrust};
pub use pipeline::{verify, verify_contents, verify_stored};
pub use quote::QuoteChecked;
pub use receipts::{Contents, ReceiptError, ReceiptShown, Receipts};
pub use refusal::{Grade, Refusal};
pub use report::{Egress, ReceiptEntry};
pub use trust::{DeputyRule, GpuTrust, Permit, Require, Trust, TrustError};
pub use verdict::{CHECKS, Check, CheckId, CheckResult, NotChecked, Outcome, Source, Verdict};
pub use wire::WireError;
