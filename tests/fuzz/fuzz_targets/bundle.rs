//! A bundle: never panics, never passes without a pinned key, and what decodes encodes the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merestone_evidence::{Bundle, Entry, EpochStatement, SessionStatement, decode, encode};
use merestone_verify::{Purpose, Trust, verify};

fuzz_target!(|bytes: &[u8]| {
    let trust = Trust::parse("version = 1\n", "trust.toml").expect("a policy that trusts nobody");
    for purpose in [Purpose::Period, Purpose::Receipt] {
        assert_eq!(verify(bytes, &trust, purpose, 0).exit, 1);
    }
    if let Ok(bundle) = decode::<Bundle>(bytes) {
        assert_eq!(encode(&bundle), bytes);
    }
    drop(decode::<SessionStatement>(bytes));
    drop(decode::<EpochStatement>(bytes));
    drop(decode::<Entry>(bytes));
});
