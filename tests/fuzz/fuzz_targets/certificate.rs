//! Certificates of endorsement keys: never panics, what is read is kept to the byte, and no
//! certificate leads to the pinned root but those that its keys signed.
//!
//! The first byte says what the others are: DER, PEM, changes to a sound certificate, or DER of
//! an issuer offered beside the sound one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merestone_fuzz::edited;
use merestone_verify::ek::{Anchors, Certificate, Rules, certificates};
use std::sync::OnceLock;

const ROOT: &[u8] = include_bytes!("../seeds/certificate/root.der");
const BETWEEN: &[u8] = include_bytes!("../seeds/certificate/between.der");
const LEAF: &[u8] = include_bytes!("../seeds/certificate/leaf.der");
/// In the validity of all three.
const NOW_S: u64 = 1_759_999_400;

fn der(seed: &'static [u8]) -> &'static [u8] {
    // Behind the byte that says what it is.
    seed.get(1..).unwrap_or_default()
}

fn anchors() -> &'static Anchors {
    static ANCHORS: OnceLock<Anchors> = OnceLock::new();
    ANCHORS.get_or_init(|| Anchors {
        roots: vec![Certificate::read(der(ROOT)).expect("a certificate")],
        intermediates: Vec::new(),
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Some((what, rest)) = bytes.split_first() else {
        return;
    };
    match what % 4 {
        0 => one(rest),
        1 => {
            if let Ok(found) = certificates(rest) {
                assert!(!found.is_empty() && found.len() <= rest.len());
            }
        }
        2 => one(&edited(der(LEAF), rest)),
        _ => issuer(rest),
    }
});

fn one(bytes: &[u8]) {
    let trusted = leads(&[bytes, der(BETWEEN)]);
    assert_eq!(trusted, bytes == der(LEAF));
    let Ok(read) = Certificate::read(bytes) else {
        return;
    };
    assert_eq!(read.der(), bytes);
    drop((read.subject(), read.issuer(), read.firmware_id()));
    drop((read.key(), read.p384_point().map(<[u8]>::len)));
    let root = &anchors().roots[0];
    if read.signed_by(root).is_ok() {
        assert!([der(ROOT), der(BETWEEN)].contains(&bytes));
    }
    drop(root.signed_by(&read));
    drop(read.signed_by(&read));
}

fn leads(offered: &[&[u8]]) -> bool {
    [true, false].into_iter().any(|must_name_tpm| {
        let traced = anchors().trace(offered, Rules { must_name_tpm }, NOW_S);
        traced.is_ok_and(|trusted| {
            assert_eq!(trusted.anchor, anchors().roots[0].sha256());
            assert_eq!(
                trusted.chain.first().map(Vec::as_slice),
                offered.first().copied()
            );
            true
        })
    })
}

/// Whatever else is offered, it takes nothing away and adds no way.
fn issuer(bytes: &[u8]) {
    assert!(leads(&[der(LEAF), bytes, der(BETWEEN)]));
    assert_eq!(leads(&[der(LEAF), bytes]), bytes == der(BETWEEN));
}
