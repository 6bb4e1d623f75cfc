//! A receipt: nothing holds but what the session's key signed, a file with another receipt in it
//! never passes, and what a file that passes shows of its receipt is what was signed.
//!
//! The first byte says what the others are: a message, changes to a sound one, claims that are
//! signed and put into the sound file, a message put into it, or a whole file.
#![no_main]

use coset::{CoseSign1Builder, TaggedCborSerializable as _};
use ed25519_dalek::{Signer as _, SigningKey};
use libfuzzer_sys::fuzz_target;
use merestone_evidence::{Blob, Bundle, RECEIPT_BYTES, Receipt, decode, encode};
use merestone_verify::enrolment::{Kind, open, protected_header};
use merestone_verify::{Purpose, Trust, verify};
use std::sync::OnceLock;

const FILE: &[u8] = include_bytes!("../seeds/receipt/file");
const CLAIMS: &[u8] = include_bytes!("../seeds/receipt/claims");
const TRUST: &str = "version = 1\n[[node]]\nid = \"gpu-01\"\n\
    ak_name = \"000b18b749f49e75be0a340c50962411d3b2c9ad7746138c727e7a52ded03911738a\"\n";
const NOW_MS: u64 = 1_760_000_600_000;

struct Sound {
    key: SigningKey,
    trust: Trust,
    bundle: Bundle,
    bytes: Vec<u8>,
    message: Vec<u8>,
}

fn sound() -> &'static Sound {
    static SOUND: OnceLock<Sound> = OnceLock::new();
    SOUND.get_or_init(|| {
        let key = SigningKey::from_bytes(&[9; 32]);
        let bytes = FILE[1..].to_vec();
        let sound = Sound {
            message: signed(&key, &CLAIMS[1..]),
            key,
            trust: Trust::parse(TRUST, "trust.toml").expect("a policy"),
            bundle: decode(&bytes).expect("a bundle"),
            bytes,
        };
        let verdict = verify(&sound.bytes, &sound.trust, Purpose::Receipt, NOW_MS);
        assert_eq!(verdict.exit, 0, "{:?}", verdict.checks);
        sound
    })
}

fn signed(key: &SigningKey, payload: &[u8]) -> Vec<u8> {
    CoseSign1Builder::new()
        .protected(protected_header(Kind::Receipt, &key.verifying_key()))
        .payload(payload.to_vec())
        .create_signature(&[], |bytes| key.sign(bytes).to_vec())
        .build()
        .to_tagged_vec()
        .expect("it encodes")
}

fuzz_target!(|bytes: &[u8]| {
    let Some((what, rest)) = bytes.split_first() else {
        return;
    };
    match what % 5 {
        0 => message(rest),
        1 => message(&changed(&sound().message, rest)),
        2 => claims(rest),
        3 => carried(rest),
        _ => file(rest),
    }
});

/// Each three bytes: where, and what to write there; `ff` cuts the end off.
fn changed(sound: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut changed = sound.to_vec();
    for change in bytes.chunks_exact(3).take(32) {
        let at = usize::from(change[0] & 0x7f) << 8 | usize::from(change[1]);
        if change[0] == 0xff {
            changed.truncate(at);
        } else if change[0] >= 0x80 {
            changed.insert(at % (changed.len() + 1), change[2]);
        } else if let Some(byte) = changed.get_mut(at) {
            *byte = change[2];
        }
    }
    changed
}

/// The key is known here, and Ed25519 has one signature for a key and a text.
fn message(bytes: &[u8]) {
    let keys = [sound().key.verifying_key()];
    if let Ok(opened) = open(Kind::Receipt, bytes, &keys) {
        assert!(bytes.len() <= RECEIPT_BYTES);
        assert_eq!(signed(&sound().key, &opened.payload), bytes);
    }
    for kind in [Kind::Enrolment, Kind::Revocations, Kind::Landmark] {
        let opened = open(kind, bytes, &keys);
        assert!(opened.is_err() || open(Kind::Receipt, bytes, &keys).is_err());
    }
}

fn claims(bytes: &[u8]) {
    if let Ok(receipt) = decode::<Receipt>(bytes) {
        assert_eq!(encode(&receipt), bytes);
    }
    let message = signed(&sound().key, bytes);
    let has_nonce_alone = match (decode::<Receipt>(bytes), decode::<Receipt>(&CLAIMS[1..])) {
        // The client's nonce is the receipt's own word; the record does not have it.
        (Ok(told), Ok(sound)) => {
            told == Receipt {
                nonce: told.nonce.clone(),
                ..sound
            }
        }
        _ => false,
    };
    assert_eq!(passes(&message), has_nonce_alone);
}

fn carried(bytes: &[u8]) {
    message(bytes);
    assert_eq!(passes(bytes), bytes == sound().message);
}

fn passes(message: &[u8]) -> bool {
    let bundle = Bundle {
        receipts: Some(vec![Blob::from(message.to_vec())]),
        ..sound().bundle.clone()
    };
    let verdict = verify(&encode(&bundle), &sound().trust, Purpose::Receipt, NOW_MS);
    verdict.exit == 0
}

/// The times of the frame are nobody's word; everything else is sealed or signed.
fn file(bytes: &[u8]) {
    let verdict = verify(bytes, &sound().trust, Purpose::Receipt, NOW_MS);
    if verdict.exit == 0 {
        let mut bundle: Bundle = decode(bytes).expect("it passed");
        (bundle.created_ms, bundle.from_ms, bundle.to_ms) = {
            let sound = &sound().bundle;
            (sound.created_ms, sound.from_ms, sound.to_ms)
        };
        // A receipt may be left out, and a boot's log has data that no register has.
        if bundle.receipts.is_none() {
            bundle.receipts.clone_from(&sound().bundle.receipts);
        }
        assert!(bundle == sound().bundle);
    }
}
