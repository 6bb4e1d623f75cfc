//! What a TPM marshals: never panics, and no structure is taken for another.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merestone_verify::tpm::{Attest, EkPublic, NvAttest, NvPublic, NvUse, Public, Signature};

fuzz_target!(|bytes: &[u8]| {
    let quote = Attest::parse(bytes).is_ok();
    let certified = NvAttest::parse(bytes).is_ok();
    assert!(!(quote && certified));
    if let Ok(nv) = NvPublic::parse(bytes) {
        let uses = [NvUse::Counter, NvUse::Geotag];
        assert!(
            uses.into_iter()
                .filter(|used| nv.check(*used).is_ok())
                .count()
                <= 1
        );
    }
    drop(EkPublic::parse(bytes));
    let public = Public::parse(bytes);
    let signature = Signature::parse(bytes);
    if let (Ok(public), Ok(signature)) = (public, signature) {
        drop(signature.check(&public.key, bytes));
    }
});
