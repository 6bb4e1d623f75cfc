//! Signed files: no panic, and nothing holds but what a pinned key signed, byte
//! for byte. The first byte says what the others are: a message, changes to a
//! sound one, a payload whose signature held, or a key.
#![no_main]

use base64ct::{Base64, Encoding as _};
use ed25519_dalek::SigningKey;
use libfuzzer_sys::fuzz_target;
use merestone_agent::grant::Terms;
use merestone_agent::signed::{Kind, Signers, key_id, sign};
use merestone_agent::tamper::Token;
use std::sync::OnceLock;

const KINDS: [Kind; 3] = [Kind::Boundary, Kind::Grant, Kind::BreakGlass];
const PAYLOAD: &[u8] = b"name = \"eu\"\n";
/// 2026-01-01.
const NOW_MS: u64 = 1_767_225_600_000;

fn key() -> &'static SigningKey {
    static KEY: OnceLock<SigningKey> = OnceLock::new();
    KEY.get_or_init(|| SigningKey::from_bytes(&[1; 32]))
}

fn pinned() -> &'static Signers {
    static PINNED: OnceLock<Signers> = OnceLock::new();
    PINNED.get_or_init(|| {
        let public = Base64::encode_string(key().verifying_key().as_bytes());
        Signers::load(&[format!("ed25519:{public}")]).expect("a sound key")
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Some((what, rest)) = bytes.split_first() else {
        return;
    };
    match what % 4 {
        0 => message(rest),
        1 => changes(rest),
        2 => payload(rest),
        _ => a_key(rest),
    }
});

/// The key is known here, so a message that passes can be made again: Ed25519
/// has one signature for a key and a text.
fn message(bytes: &[u8]) {
    for kind in KINDS {
        for detached in [None, Some(PAYLOAD)] {
            let Ok(signed) = pinned().verify(kind, bytes, detached) else {
                continue;
            };
            assert_eq!(signed.signer, key_id(&key().verifying_key()));
            let again = sign(kind, key(), &signed.payload).expect("it was small enough");
            assert_eq!(again, bytes);
            assert!(kind.is_detached() == detached.is_some());
        }
    }
}

/// Each three bytes: where, and what to write there; `ff` cuts the end off.
fn changes(bytes: &[u8]) {
    for kind in KINDS {
        let sound = sign(kind, key(), PAYLOAD).expect("it is small");
        let detached = kind.is_detached().then_some(PAYLOAD);
        assert!(pinned().verify(kind, &sound, detached).is_ok());
        let mut changed = sound.clone();
        for change in bytes.chunks_exact(3).take(64) {
            let at = usize::from(change[0]) << 8 | usize::from(change[1]);
            if change[0] == 0xff {
                changed.truncate(usize::from(change[1]));
            } else if change[0] >= 0x80 && changed.len() < 1024 {
                let at = (at & 0x7fff) % (changed.len() + 1);
                changed.insert(at, change[2]);
            } else if !changed.is_empty() {
                let at = at % changed.len();
                changed[at] = change[2];
            }
        }
        let passes = pinned().verify(kind, &changed, detached).is_ok();
        assert_eq!(passes, changed == sound);
        message(&changed);
    }
}

/// What a signer may have written by mistake.
fn payload(bytes: &[u8]) {
    if let Ok(terms) = Terms::parse(bytes) {
        assert!(terms.until_ms > terms.from_ms && terms.bytes > 0);
        assert!(terms.group.starts_with('/') && !terms.group.contains("/../"));
        assert!(!terms.until().is_empty());
        let text = serde_json::to_string(&terms).expect("terms are JSON");
        assert_eq!(
            serde_json::from_str::<Terms>(&text).ok().as_ref(),
            Some(&terms)
        );
        drop(terms.compile(1, 2, 3, NOW_MS));
        for protocol in [1, 6, 17] {
            assert!(!(terms.matches([0xff; 16], protocol, 443) && terms.to.starts_with("198.")));
        }
    }
    if let Ok(token) = Token::read(bytes, "node", NOW_MS) {
        assert!(token.until_ms > NOW_MS && token.until_ms <= NOW_MS + 4 * 3_600_000);
        assert!(token.actions != 0);
    }
}

fn a_key(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    // Never a path: a name without the word is a file to be read.
    if let Ok(signers) = Signers::load(&[format!("ed25519:{text}")]) {
        assert_eq!(signers.ids().count(), 1);
        assert!(signers.verify(Kind::Grant, bytes, None).is_err());
    }
}
