//! An IMA list: never panics, and covers no more than it has.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merestone_evidence::Digest;
use merestone_verify::boot::replay_ima;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(covered) = replay_ima(bytes, &Digest::ZERO) {
        assert!(covered.quoted + covered.after <= bytes.len());
    }
});
