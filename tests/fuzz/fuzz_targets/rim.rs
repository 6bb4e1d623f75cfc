//! What a GPU's maker published: never panics, and what is read is what the recorded manifest's
//! signer signed, wherever it was changed.
//!
//! The first byte says what the others are: a manifest, changes to the recorded one, or what
//! stands in its payload.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merestone_fuzz::edited;
use merestone_verify::gpu::{Manifest, RimError};
use std::sync::OnceLock;

const MANIFEST: &[u8] = include_bytes!("../../vectors/gpu/vbios-96.00.9F.00.01.rim.xml");

fn sound() -> &'static Manifest {
    static SOUND: OnceLock<Manifest> = OnceLock::new();
    SOUND.get_or_init(|| Manifest::read(MANIFEST).expect("a manifest"))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((what, rest)) = bytes.split_first() else {
        return;
    };
    match what % 3 {
        0 => manifest(rest),
        1 => manifest(&edited(MANIFEST, rest)),
        _ => payload(rest),
    }
});

/// With a key that nobody has, nothing but the recorded one is signed.
fn manifest(bytes: &[u8]) {
    let Ok(read) = Manifest::read(bytes) else {
        return;
    };
    assert!(!read.values.is_empty() && !read.certificates.is_empty());
    assert!(read.values.values().all(|values| !values.is_empty()));
    let key = |one: &Manifest| one.certificates[0].p384_point().map(<[u8]>::to_vec).ok();
    if key(&read) == key(sound()) {
        assert_eq!(read.values, sound().values);
        assert_eq!(read.version, sound().version);
        assert_eq!(read.product, sound().product);
    }
}

/// The input in place of the payload: read as far as the digest, which is another's.
fn payload(bytes: &[u8]) {
    let text = String::from_utf8_lossy(MANIFEST);
    let (start, rest) = text.split_once("<ns0:Payload").expect("a payload");
    let (_, end) = rest.split_once("</ns0:Payload>").expect("its end");
    let mut changed = start.as_bytes().to_vec();
    changed.extend(bytes);
    changed.extend(end.as_bytes());
    let read = Manifest::read(&changed);
    assert!(
        !matches!(read, Err(RimError::Signature)),
        "the digest is before the signature"
    );
    assert!(read.is_err() || bytes.starts_with(b"<ns0:Payload"));
}
