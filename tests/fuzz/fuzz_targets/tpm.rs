//! What a TPM marshals: never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merestone_verify::tpm::{Attest, Public, Signature};

fuzz_target!(|bytes: &[u8]| {
    drop(Attest::parse(bytes));
    let public = Public::parse(bytes);
    let signature = Signature::parse(bytes);
    if let (Ok(public), Ok(signature)) = (public, signature) {
        drop(signature.check(&public.key, bytes));
    }
});
