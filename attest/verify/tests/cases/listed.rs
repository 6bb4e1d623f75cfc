//! Cases of the list that no other file has: N32, N35, N40, N44, N46, N47, N65, N67, N68, N75.

use crate::incidents::entry;
use crate::support::{Key, Log, Maker, START, SpellHook, Tpm, demand, judge, judge_bytes};
use merestone_evidence::{Blob, Body, Digest, GpuDevice, Site, encode, inclusion_path, sha256};
use merestone_verify::{CheckResult, Purpose, Source};

fn spelled(spell: SpellHook) -> Maker {
    let mut maker = Maker::new();
    maker.spell = spell;
    maker
}

#[test]
fn n32_two_sessions_of_one_id_are_refused() {
    for (second_id, exit) in [(2, 0), (1, 1)] {
        let maker = Maker::new();
        let (mut tpm, mut log) = (maker.tpm.clone(), Log::default());
        let first = maker.seal_session(&mut tpm, &mut log, None, START, 1);
        let last = sha256(&first.epochs.last().unwrap().statement);
        let start = START + 50_000;
        let second = maker.seal_session(&mut tpm, &mut log, Some(last), start, second_id);
        let bundle = maker.pack(vec![first, second], &log, START, START + 90_000);
        demand(&judge(&bundle, &maker.trust()), exit, "chain.order");
    }
}

#[test]
fn n35_a_session_key_put_beside_the_quote_is_refused() {
    let maker = Maker::new();
    let mut bundle = maker.bundle();
    let statement: &mut Vec<u8> = &mut bundle.sessions[0].statement;
    let at = statement.windows(32).position(|part| part == [9; 32]);
    statement[at.unwrap()] ^= 1;
    demand(&judge(&bundle, &maker.trust()), 1, "quote.binding");
}

#[test]
fn n40_a_place_in_another_form_of_unicode_is_another_place() {
    let mut maker = Maker::new();
    maker.session = Box::new(|session| {
        session.site = Some(Site {
            region: Some("\u{e5}land".into()),
            country: Some("FI".into()),
            facility: None,
        });
    });
    for (region, exit) in [("\u{e5}land", 0), ("a\u{30a}land", 2)] {
        let trust = maker.trust() + &format!("[require]\nregion = \"{region}\"\n");
        demand(&judge(&maker.bundle(), &trust), exit, "location");
    }
}

/// A map with one more key than its kind has: 99, whose value is a word.
fn boasting(mut bytes: Vec<u8>) -> Vec<u8> {
    assert!((0xa0..0xb6).contains(&bytes[0]), "{:#x}", bytes[0]);
    bytes[0] += 1;
    bytes.extend([0x18, 0x63, 0x68]);
    bytes.extend(b"verified");
    bytes
}

#[test]
fn n44_a_producer_that_states_its_own_verdict_is_refused() {
    let maker = spelled(Box::new(boasting));
    demand(&judge(&maker.bundle(), &maker.trust()), 1, "statements");
    let maker = Maker::new();
    let bytes = boasting(encode(&maker.bundle()));
    let verdict = judge_bytes(&bytes, &maker.trust(), Purpose::Period);
    demand(&verdict, 1, "frame");
    let mut maker = Maker::new();
    maker.extra_leaf = Some(boasting(encode(&crate::support::flow(START, 0))));
    demand(&judge(&maker.bundle(), &maker.trust()), 1, "log.entries");
}

#[test]
fn n46_a_leaf_of_a_tree_that_nobody_sealed_is_refused() {
    let maker = Maker::new();
    let (mut tpm, mut log) = (maker.tpm.clone(), Log::default());
    let session = maker.seal_session(&mut tpm, &mut log, None, START, 1);
    // The log went on after the last seal; the proof is right, and nobody vouches for its tree.
    log.append(encode(&crate::support::flow(START + 41_000, 0)));
    let mut receipt = maker.receipt(5);
    receipt.sessions = vec![session];
    for index in [5, log.size() - 1] {
        let proof = &mut receipt.proofs[0];
        (proof.index, proof.size) = (index, log.size());
        proof.leaf = log.leaves[usize::try_from(index).unwrap()].clone();
        proof.path = inclusion_path(&log.hashes, index, log.size()).unwrap();
        let bytes = encode(&receipt);
        let verdict = judge_bytes(&bytes, &maker.trust(), Purpose::Receipt);
        demand(&verdict, 1, "log.inclusion");
    }
}

#[test]
fn n47_an_entry_of_a_time_after_its_epoch_fails() {
    let late = |after_ms: u64| {
        let mut maker = Maker::new();
        let body = Body::AgentStart {
            version: "0.1.0".into(),
        };
        maker.told = vec![(1, entry(after_ms, body))];
        maker
    };
    // The second epoch closes 20 s after the start; a clock may be off by a minute.
    for (after_ms, exit) in [(80_000, 0), (80_001, 2), (0, 0)] {
        let maker = late(after_ms);
        let verdict = judge(&maker.bundle(), &maker.trust());
        demand(&verdict, exit, "log.entries");
    }
}

#[test]
fn n47_an_epoch_of_another_session_is_refused() {
    let mut maker = Maker::new();
    maker.epoch = Box::new(|sequence, epoch| {
        if sequence == 2 {
            epoch.session.0[0] ^= 1;
        }
    });
    demand(&judge(&maker.bundle(), &maker.trust()), 1, "statements");
}

#[test]
fn n65_an_inventory_of_gpus_is_never_called_proven_by_a_gpu() {
    let mut maker = Maker::new();
    maker.session = Box::new(|session| {
        session.gpu.devices = vec![GpuDevice {
            uuid: "GPU-0".into(),
            name: "H200".into(),
            pci: None,
            memory_bytes: None,
            vbios: None,
            confidential: Some("on, attested, verified".into()),
        }];
    });
    let verdict = judge(&maker.bundle(), &maker.trust());
    demand(&verdict, 0, "gpu.attestation");
    let mut gpu = verdict
        .checks
        .iter()
        .filter(|check| check.source == Source::Gpu);
    assert!(gpu.all(|check| check.result == CheckResult::NotChecked));
    let skipped = verdict.not_checked.iter();
    assert_eq!(skipped.filter(|one| one.id == "gpu.attestation").count(), 1);
    assert!(verdict.gpus_attested.is_empty());
}

#[test]
fn n67_the_chain_starts_with_what_was_quoted_and_not_with_zeroes() {
    for baseline in [Digest::ZERO, sha256(b"what another program left")] {
        let mut maker = Maker::new();
        maker.tpm.pcrs.insert(15, baseline);
        demand(&judge(&maker.bundle(), &maker.trust()), 0, "chain.replay");
    }
    let mut maker = Maker::new();
    maker.between = Box::new(|sequence, tpm: &mut Tpm| {
        if sequence == 0 {
            tpm.pcrs.insert(15, Digest::ZERO);
        }
    });
    demand(&judge(&maker.bundle(), &maker.trust()), 2, "chain.replay");
}

#[test]
fn n68_a_statement_with_its_keys_in_another_order_is_refused() {
    for kind in ["merestone/session/v1", "merestone/epoch/v1"] {
        let maker = spelled(Box::new(move |bytes| {
            // {0: kind, 1: "gpu-01", ..}: the first two pairs change places.
            let first = 3 + kind.len() - usize::from(kind.len() < 24);
            if !bytes[1..=first].ends_with(kind.as_bytes()) {
                return bytes;
            }
            let second = first + 1 + 8;
            let parts = [
                &bytes[..1],
                &bytes[first + 1..second],
                &bytes[1..=first],
                &bytes[second..],
            ];
            let moved = parts.concat();
            assert_ne!(moved, bytes);
            moved
        }));
        demand(&judge(&maker.bundle(), &maker.trust()), 1, "statements");
    }
}

/// The same bytes, with one version for another in their type string.
fn of_version(bytes: &[u8], kind: &str, version: u8) -> Vec<u8> {
    let name = format!("merestone/{kind}/v1");
    let mut bytes = bytes.to_vec();
    let mut windows = bytes.windows(name.len());
    if let Some(at) = windows.position(|part| part == name.as_bytes()) {
        bytes[at + name.len() - 1] = version;
    }
    bytes
}

#[test]
fn n75_an_object_of_another_version_is_refused() {
    for version in [b'0', b'2'] {
        for kind in ["session", "epoch"] {
            let maker = spelled(Box::new(move |bytes| of_version(&bytes, kind, version)));
            demand(&judge(&maker.bundle(), &maker.trust()), 1, "statements");
        }
        let mut maker = Maker::new();
        let leaf = encode(&crate::support::flow(START, 0));
        maker.extra_leaf = Some(of_version(&leaf, "entry", version));
        demand(&judge(&maker.bundle(), &maker.trust()), 1, "log.entries");
        let bytes = of_version(&encode(&Maker::new().bundle()), "bundle", version);
        let verdict = judge_bytes(&bytes, &Maker::new().trust(), Purpose::Period);
        demand(&verdict, 1, "frame");
    }
}

#[test]
fn n75_an_object_of_one_kind_is_not_taken_for_another() {
    // An entry sealed as a statement, and a statement sealed as a leaf.
    let maker = spelled(Box::new(|_| encode(&crate::support::flow(START, 0))));
    demand(&judge(&maker.bundle(), &maker.trust()), 1, "statements");
    let other = Maker::with(Key::p256()).bundle();
    let mut maker = Maker::new();
    let statement: Blob = other.sessions[0].statement.clone().into();
    maker.extra_leaf = Some(statement.to_vec());
    demand(&judge(&maker.bundle(), &maker.trust()), 1, "log.entries");
}
