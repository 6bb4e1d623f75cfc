//! Each refusal of a signed file.

use super::*;
use coset::CborSerializable as _;
use coset::cbor::Value;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn signers(seeds: &[u8]) -> Signers {
    use base64ct::{Base64, Encoding as _};
    let names: Vec<String> = seeds
        .iter()
        .map(|seed| {
            let public = key(*seed).verifying_key();
            format!("ed25519:{}", Base64::encode_string(public.as_bytes()))
        })
        .collect();
    Signers::load(&names).unwrap()
}

/// A message by key 1 whose headers `change` has changed before it was signed.
fn odd(change: impl FnOnce(&mut Header, &mut Header)) -> Vec<u8> {
    let mut protected = HeaderBuilder::new()
        .algorithm(Algorithm::EdDSA)
        .content_type(Kind::Grant.content_type().to_owned())
        .key_id(key_id(&key(1).verifying_key()).to_vec())
        .build();
    let mut unprotected = Header::default();
    change(&mut protected, &mut unprotected);
    CoseSign1Builder::new()
        .protected(protected)
        .unprotected(unprotected)
        .payload(b"payload".to_vec())
        .create_signature(&[], |bytes| key(1).sign(bytes).to_vec())
        .build()
        .to_tagged_vec()
        .unwrap()
}

fn refusal(message: &[u8]) -> SignedError {
    signers(&[1])
        .verify(Kind::Grant, message, None)
        .unwrap_err()
}

#[test]
fn what_a_pinned_key_signed_is_returned_with_its_signer() {
    let message = sign(Kind::Grant, &key(1), b"payload").unwrap();
    let signed = signers(&[2, 1])
        .verify(Kind::Grant, &message, None)
        .unwrap();
    assert_eq!(signed.payload, b"payload");
    assert_eq!(signed.signer, key_id(&key(1).verifying_key()));
    assert_eq!(signed.sha256, <[u8; 32]>::from(Sha256::digest(&message)));
}

#[test]
fn a_boundary_is_signed_beside_its_file() {
    let message = sign(Kind::Boundary, &key(1), b"name = \"eu\"\n").unwrap();
    let all = signers(&[1]);
    let signed = all
        .verify(Kind::Boundary, &message, Some(b"name = \"eu\"\n"))
        .unwrap();
    assert_eq!(signed.payload, b"name = \"eu\"\n");
    assert_eq!(
        all.verify(Kind::Boundary, &message, Some(b"name = \"us\"\n")),
        Err(SignedError::Signature)
    );
    assert_eq!(
        all.verify(Kind::Boundary, &message, None),
        Err(SignedError::Detached)
    );
    assert_eq!(
        beside(Path::new("/etc/b.toml")),
        Path::new("/etc/b.toml.cose")
    );
}

#[test]
fn a_payload_inside_is_refused_where_it_was_to_be_detached() {
    let message = sign(Kind::Grant, &key(1), b"payload").unwrap();
    let outcome = signers(&[1]).verify(Kind::Grant, &message, Some(b"payload"));
    assert_eq!(outcome, Err(SignedError::NotDetached));
}

#[test]
fn one_kind_does_not_pass_for_another() {
    let message = sign(Kind::Grant, &key(1), b"payload").unwrap();
    let outcome = signers(&[1]).verify(Kind::BreakGlass, &message, None);
    assert!(matches!(outcome, Err(SignedError::Kind { .. })));
}

#[test]
fn a_key_that_is_not_pinned_is_refused_also_when_nobody_is() {
    let message = sign(Kind::Grant, &key(1), b"payload").unwrap();
    for pinned in [signers(&[2]), Signers::default()] {
        let outcome = pinned.verify(Kind::Grant, &message, None);
        assert!(matches!(outcome, Err(SignedError::Unknown { .. })));
    }
}

#[test]
fn a_change_of_any_bit_is_refused() {
    let message = sign(Kind::Grant, &key(1), b"payload").unwrap();
    let pinned = signers(&[1]);
    for at in 0..message.len() {
        for bit in 0..8 {
            let mut changed = message.clone();
            changed[at] ^= 1 << bit;
            assert!(
                pinned.verify(Kind::Grant, &changed, None).is_err(),
                "{at} {bit}"
            );
        }
    }
}

#[test]
fn a_shortened_or_lengthened_message_is_refused() {
    let message = sign(Kind::Grant, &key(1), b"payload").unwrap();
    for length in 0..message.len() {
        assert!(matches!(
            refusal(&message[..length]),
            SignedError::Parse { .. }
        ));
    }
    let longer = [message.as_slice(), &[0]].concat();
    assert!(matches!(refusal(&longer), SignedError::Parse { .. }));
    let twice = [message.as_slice(), &message].concat();
    assert!(matches!(refusal(&twice), SignedError::Parse { .. }));
    assert!(matches!(
        refusal(&vec![0; LIMIT_BYTES + 1]),
        SignedError::Size { .. }
    ));
}

#[test]
fn a_message_has_one_encoding() {
    let message = sign(Kind::Grant, &key(1), b"payload").unwrap();
    // d2 84 58..: the tag 18 in two bytes, the array's length in two.
    let tag = [&[0xd8, 18], &message[1..]].concat();
    assert_eq!(refusal(&tag), SignedError::Encoding);
    let array = [&[0xd2, 0x98, 4], &message[2..]].concat();
    assert_eq!(refusal(&array), SignedError::Encoding);
    // Without its tag it could be another COSE type.
    assert!(matches!(refusal(&message[1..]), SignedError::Parse { .. }));
}

#[test]
fn an_algorithm_that_nobody_signed_is_refused() {
    let message = odd(|protected, unprotected| unprotected.alg = protected.alg.take());
    assert_eq!(refusal(&message), SignedError::Unprotected);
    let message = odd(|protected, _| protected.alg = None);
    assert!(matches!(refusal(&message), SignedError::Algorithm { .. }));
    let message = odd(|protected, _| {
        protected.alg = Some(Label::Assigned(Algorithm::ES256));
    });
    assert!(matches!(refusal(&message), SignedError::Algorithm { .. }));
}

#[test]
fn more_in_the_header_than_is_understood_is_refused() {
    let message = odd(|protected, _| {
        protected
            .rest
            .push((coset::Label::Text("x".to_owned()), Value::Bool(true)));
    });
    assert_eq!(refusal(&message), SignedError::Header);
    let message = odd(|_, unprotected| unprotected.key_id = vec![1]);
    assert_eq!(refusal(&message), SignedError::Unprotected);
    let message = odd(|protected, _| protected.key_id = vec![1]);
    assert_eq!(refusal(&message), SignedError::KeyId { got: 1 });
}

#[test]
fn a_signature_of_another_length_is_refused() {
    let message = sign(Kind::Grant, &key(1), b"payload").unwrap();
    let mut parsed = CoseSign1::from_tagged_slice(&message).unwrap();
    parsed.signature.pop();
    let message = parsed.to_tagged_vec().unwrap();
    assert_eq!(refusal(&message), SignedError::Length { got: 63 });
}

#[test]
fn an_untagged_message_is_not_taken() {
    let message = sign(Kind::Grant, &key(1), b"payload").unwrap();
    let untagged = CoseSign1::from_tagged_slice(&message)
        .unwrap()
        .to_vec()
        .unwrap();
    assert!(matches!(refusal(&untagged), SignedError::Parse { .. }));
}

#[test]
fn keys_travel_as_pem_files_and_as_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let (private, public, inline) = generate().unwrap();
    let (private_path, public_path) = (
        directory.path().join("key.pem"),
        directory.path().join("key.pub.pem"),
    );
    std::fs::write(&private_path, private).unwrap();
    std::fs::write(&public_path, public).unwrap();
    let own = signing_key(&private_path).unwrap();
    let public = public_path.to_string_lossy().into_owned();
    let both = Signers::load(&[public, inline]).unwrap();
    let ids: Vec<_> = both.ids().copied().collect();
    assert_eq!(ids, [key_id(&own.verifying_key())], "one key, named twice");
}

#[test]
fn a_bad_key_is_refused_by_its_name() {
    // The second is a point of small order.
    for name in [
        "ed25519:AAAA",
        "ed25519:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "ed25519:***",
        "/nonexistent/key.pem",
        "",
    ] {
        let error = Signers::load(&[name]).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}
