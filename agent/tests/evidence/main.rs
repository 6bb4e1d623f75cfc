//! From the log through a real software TPM to the verifier's verdict, and what
//! crashes, reboots, slow TPMs and other programs do to it.
#![cfg(test)]

mod counters;
mod crash;
mod host;
mod inputs;
mod landmarks;
mod sound;
#[path = "../../../attest/tpm/tests/support/mod.rs"]
mod support;
mod trouble;
