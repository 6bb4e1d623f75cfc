//! The Merestone host agent.
//!
//! Data flows one way: kernel hook → verdict and event ([`bpf`]) → flow record
//! ([`flow`]) → evidence log ([`ledger`]) → epoch and quote ([`seal`]) → bundle
//! ([`export`]). [`run`] wires the parts; [`serve`] lets the operator look.

pub mod api;
pub mod bpf;
pub mod canary;
pub mod cli;
pub mod clock;
pub mod config;
pub mod enrolment;
pub mod export;
pub mod flow;
pub mod gateway;
pub mod geo;
pub mod gpu;
pub mod grant;
pub mod ledger;
pub mod pods;
pub mod policy;
pub mod privilege;
pub mod run;
pub mod seal;
pub mod serve;
pub mod signed;
pub mod tamper;
pub mod workload;
