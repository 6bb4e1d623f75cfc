//! A trust policy: never panics, and a fault names a line that is there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merestone_verify::Trust;

fuzz_target!(|text: &str| {
    if let Err(error) = Trust::parse(text, "trust.toml") {
        assert!(error.line >= 1 && error.line <= text.matches('\n').count() + 1);
    }
});
