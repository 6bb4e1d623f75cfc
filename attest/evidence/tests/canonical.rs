//! One value, one spelling (N38, N48).

use merestone_evidence::{
    Body, DecodeError, Entry, EntryKind, FlowVerdict, decode, encode, sha256,
};

fn entry() -> Entry {
    Entry {
        kind: EntryKind,
        time_ms: 1_760_000_000_000,
        boot_ns: 7,
        body: Body::Flow {
            verdict: FlowVerdict::Deny,
            hook: "connect4".into(),
            reason: "no_rule".into(),
            group: 12,
            process: None,
            address: [0xff; 16],
            port: 443,
            protocol: 6,
            rule: 0,
            count: 1,
            family: None,
            name: None,
        },
    }
}

#[test]
fn an_entry_survives_the_round_trip() {
    let bytes = encode(&entry());
    assert_eq!(decode::<Entry>(&bytes).unwrap(), entry());
    assert_eq!(sha256(&bytes), sha256(&encode(&entry())));
}

#[test]
fn n38_unknown_repeated_and_disordered_keys_are_refused() {
    let good = encode(&entry());
    // {0: "merestone/entry/v1", 1: .., 2: .., 3: ..}: four pairs; the first pair is 20 bytes.
    assert_eq!(good[..2], [0xa4, 0x00]);
    let mut unknown = good.clone();
    unknown[0] = 0xa5;
    unknown.extend([0x18, 0x63, 0x00]);
    assert!(matches!(
        decode::<Entry>(&unknown),
        Err(DecodeError::NotCanonical { .. })
    ));

    let mut repeated = good.clone();
    repeated[0] = 0xa5;
    let first_pair = good[1..21].to_vec();
    repeated.splice(1..1, first_pair);
    assert!(decode::<Entry>(&repeated).is_err());

    let mut moved = good[..1].to_vec();
    moved.extend(&good[21..]);
    moved.extend(&good[1..21]);
    assert!(matches!(
        decode::<Entry>(&moved),
        Err(DecodeError::NotCanonical { .. })
    ));
}

#[test]
fn n48_a_leaf_beyond_its_limit_is_refused_before_it_is_decoded() {
    let big = vec![0; (64 << 10) + 1];
    assert!(matches!(
        decode::<Entry>(&big),
        Err(DecodeError::Shape { .. })
    ));
}

#[test]
fn no_flip_cut_or_addition_decodes_to_the_same_entry() {
    let good = encode(&entry());
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            if let Ok(other) = decode::<Entry>(&bad) {
                assert_ne!(other, entry());
                assert_eq!(encode(&other), bad);
            }
        }
        assert!(decode::<Entry>(&good[..at]).is_err());
    }
    let mut longer = good;
    longer.push(0);
    assert!(decode::<Entry>(&longer).is_err());
}

#[test]
fn a_canary_is_counted_from_key_one_and_a_last_try_that_was_not_is_absent() {
    let canary = merestone_evidence::Canary {
        runs: 3,
        held: 1,
        escaped: 1,
        not_applicable: 0,
        last_ms: None,
        escaped_vectors: vec!["tcp_connect".into()],
        errors: 1,
        guarded: true,
    };
    let bytes = minicbor::to_vec(&canary).unwrap();
    assert_eq!(bytes[..3], [0xa7, 0x01, 0x03], "seven keys, the first is 1");
    let again: merestone_evidence::Canary = minicbor::decode(&bytes).unwrap();
    assert_eq!(again, canary);
}
