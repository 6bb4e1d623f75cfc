//! A bundle: never panics, never passes without a pinned key, and what decodes encodes the same,
//! each of the forms that are in one. Read in place it is the same bundle, leaf by leaf.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merestone_evidence::{
    Blob, Bundle, Entry, EpochStatement, Geotag, LandmarkStatement, LocationEvidence,
    SessionStatement, Source, decode, encode, open_bundle,
};
use merestone_verify::{Purpose, Trust, verify};

fuzz_target!(|bytes: &[u8]| {
    let trust = Trust::parse("version = 1\n", "trust.toml").expect("a policy that trusts nobody");
    for purpose in [Purpose::Period, Purpose::Receipt] {
        assert_eq!(verify(bytes, &trust, purpose, 0).exit, 1);
    }
    let whole = decode::<Bundle>(bytes);
    if let Ok(bundle) = &whole {
        assert_eq!(encode(bundle), bytes);
    }
    match (whole, open_bundle(Source::Memory(bytes))) {
        (Ok(mut bundle), Ok((opened, leaves))) => {
            let mut there: Vec<Blob> = Vec::new();
            for run in leaves.runs() {
                let read = leaves.read(run).expect("it is in memory");
                there.extend(read.leaves().map(|leaf| Blob::from(leaf.to_vec())));
            }
            let span = bundle.span.as_mut();
            let held = span.map(|span| std::mem::take(&mut span.leaves));
            assert_eq!(held.unwrap_or_default(), there);
            assert!(leaves.count() == there.len() as u64 && bundle == opened);
        }
        (whole, opened) => assert!(whole.is_err() && opened.is_err()),
    }
    macro_rules! same {
        ($($form:ty),*) => {$(
            if let Ok(value) = decode::<$form>(bytes) {
                assert_eq!(encode(&value), bytes);
            }
        )*};
    }
    same!(
        SessionStatement,
        EpochStatement,
        Entry,
        LocationEvidence,
        LandmarkStatement,
        Geotag
    );
});
