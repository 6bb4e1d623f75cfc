//! Quotes and keys: N1–N14, N21, N22, N28, N29, N34.

use crate::support::{ATTRIBUTES, Attest, Key, Log, Maker, START, demand, judge};
use merestone_evidence::{Digest, PcrValue, sha256};

/// A bundle whose second epoch's quote is changed before it is signed.
fn changed(change: impl Fn(&mut Attest) + 'static) -> Maker {
    let mut maker = Maker::new();
    maker.attest = Box::new(move |number, attest| {
        if number == 2 {
            change(attest);
        }
    });
    maker
}

#[track_caller]
fn refused(maker: &Maker, exit: u8, id: &str) {
    demand(&judge(&maker.bundle(), &maker.trust()), exit, id);
}

#[test]
fn n01_a_quote_without_the_magic_is_refused_though_it_is_signed() {
    refused(
        &changed(|attest| attest.magic = 0xff54_4348),
        1,
        "quote.form",
    );
    refused(&changed(|attest| attest.magic = 0), 1, "quote.form");
}

#[test]
fn n02_a_signed_attestation_of_another_type_is_refused() {
    // NV, certify, time, creation.
    for kind in [0x8014, 0x8017, 0x8019, 0x801a] {
        refused(&changed(move |attest| attest.kind = kind), 1, "quote.form");
    }
}

#[test]
fn n03_bytes_after_or_missing_from_a_structure_are_refused() {
    refused(&changed(|attest| attest.after = vec![0]), 1, "quote.form");
    let maker = Maker::new();
    let mut long = maker.bundle();
    long.sessions[0].epochs[1].quote.signature.push(0);
    demand(&judge(&long, &maker.trust()), 1, "quote.signature");
    let mut short = maker.bundle();
    short.sessions[0].epochs[1].quote.signature.pop();
    demand(&judge(&short, &maker.trust()), 1, "quote.signature");
    let mut cut = maker.bundle();
    cut.sessions[0].quote.attest.pop();
    demand(&judge(&cut, &maker.trust()), 1, "quote.signature");
}

#[test]
fn n04_a_quote_whose_signature_is_of_other_bytes_is_refused() {
    let maker = Maker::new();
    let mut bundle = maker.bundle();
    let other = bundle.sessions[0].epochs[2].quote.signature.clone();
    bundle.sessions[0].epochs[1].quote.signature = other;
    demand(&judge(&bundle, &maker.trust()), 1, "quote.signature");
    let mut empty = maker.bundle();
    empty.sessions[0].epochs[1].quote.signature = Vec::new();
    demand(&judge(&empty, &maker.trust()), 1, "quote.signature");
    let mut none = maker.bundle();
    none.sessions[0].epochs[1].quote.signature = vec![0x00, 0x10];
    demand(&judge(&none, &maker.trust()), 1, "quote.signature");
}

#[test]
fn n05_a_pinned_key_of_an_unknown_kind_is_indeterminate_and_never_passes() {
    let mut curve = Key::p256();
    curve.curve = 4;
    refused(&Maker::with(curve), 3, "ak.attributes");
    let maker = Maker::new();
    let mut bundle = maker.bundle();
    bundle.ak_public = vec![1, 2, 3];
    let name = hex::encode(merestone_verify::tpm::Public::name_of(&bundle.ak_public));
    let trust = format!("version = 1\n[[node]]\nid = \"gpu-01\"\nak_name = \"{name}\"\n");
    demand(&judge(&bundle, &trust), 3, "ak.attributes");
}

#[test]
fn n06_a_quote_whose_extra_data_is_not_the_statement_is_refused() {
    refused(
        &changed(|attest| attest.extra = Vec::new()),
        1,
        "quote.binding",
    );
    refused(
        &changed(|attest| attest.extra.truncate(31)),
        1,
        "quote.binding",
    );
    refused(&changed(|attest| attest.extra.push(0)), 1, "quote.binding");
    refused(
        &changed(|attest| attest.extra = vec![0; 32]),
        1,
        "quote.binding",
    );
}

#[test]
fn n07_the_same_challenge_in_every_quote_is_refused() {
    let mut maker = Maker::new();
    maker.attest = Box::new(|_, attest| attest.extra = sha256(b"constant").0.to_vec());
    refused(&maker, 1, "quote.binding");
}

#[test]
fn n08_a_quote_whose_selection_differs_from_the_values_is_refused() {
    // The digest is of the values shown, as in the masquerade; only the selection differs.
    let masquerade = changed(|attest| {
        attest.selected.retain(|register| *register != 0);
        attest.selected.push(16);
    });
    refused(&masquerade, 1, "quote.selection");
    refused(
        &changed(|attest| attest.selected = Vec::new()),
        1,
        "quote.form",
    );
    let maker = Maker::new();
    let mut swapped = maker.bundle();
    swapped.sessions[0].epochs[1].quote.pcrs.swap(0, 1);
    demand(&judge(&swapped, &maker.trust()), 1, "quote.selection");
    let mut doubled = maker.bundle();
    let first = doubled.sessions[0].epochs[1].quote.pcrs[0];
    doubled.sessions[0].epochs[1].quote.pcrs.insert(0, first);
    demand(&judge(&doubled, &maker.trust()), 1, "quote.selection");
}

#[test]
fn n08_a_selection_other_than_the_session_declares_is_refused() {
    let mut maker = Maker::new();
    maker.session = Box::new(|session| session.pcrs = (0..16).collect());
    let mut tpm = maker.tpm.clone();
    let mut log = Log::default();
    let mut sealed = maker.seal_session(&mut tpm, &mut log, None, START, 1);
    // A quote over fewer registers, honestly shown, of the right statement.
    let statement = sealed.epochs[1].statement.clone();
    let values: Vec<PcrValue> = sealed.epochs[1].quote.pcrs[8..].to_vec();
    let digest: Vec<u8> = values.iter().flat_map(|pcr| pcr.value.0).collect();
    let attest = Attest {
        magic: crate::support::MAGIC,
        kind: crate::support::QUOTE,
        signer: maker.key.qualified_name(0x4000_000b),
        extra: sha256(&statement).0.to_vec(),
        clock: 25_000,
        resets: 7,
        restarts: 0,
        safe: 1,
        bank: 0x000b,
        selected: (8..16).collect(),
        digest: sha256(&digest).0.to_vec(),
        after: Vec::new(),
    }
    .bytes();
    sealed.epochs[1].quote.signature = maker.key.sign(&attest);
    sealed.epochs[1].quote.attest = attest;
    sealed.epochs[1].quote.pcrs = values;
    let bundle = maker.pack(vec![sealed], &log, START, START + 40_000);
    demand(&judge(&bundle, &maker.trust()), 1, "statements");
}

#[test]
fn n09_n19_a_register_that_the_policy_names_and_no_quote_selects_is_indeterminate() {
    let maker = Maker::new();
    let trust = maker.trust() + &format!("[require.pcr]\n17 = \"{}\"\n", Digest::ZERO);
    demand(&judge(&maker.bundle(), &trust), 3, "policy.pcrs");
}

#[test]
fn n10_one_bad_quote_among_good_ones_spoils_the_file() {
    for quote in 0..4 {
        let maker = Maker::new();
        let mut bundle = maker.bundle();
        let signature = &mut bundle.sessions[0].epochs[quote].quote.signature;
        let last = signature.len() - 1;
        signature[last] ^= 1;
        demand(&judge(&bundle, &maker.trust()), 1, "quote.signature");
    }
}

#[test]
fn n11_a_session_quote_with_a_forged_magic_is_refused() {
    let mut maker = Maker::new();
    maker.attest = Box::new(|number, attest| {
        if number == 0 {
            attest.magic = 0x4641_5049;
        }
    });
    refused(&maker, 1, "quote.form");
}

#[test]
fn n12_a_sha1_bank_and_a_sha1_signature_are_refused() {
    refused(&changed(|attest| attest.bank = 0x0004), 1, "quote.form");
    let maker = Maker::new();
    let mut bundle = maker.bundle();
    bundle.sessions[0].epochs[1].quote.signature[2..4].copy_from_slice(&[0x00, 0x04]);
    demand(&judge(&bundle, &maker.trust()), 1, "quote.signature");
    let mut key = Key::p256();
    key.hash = 0x0004;
    refused(&Maker::with(key), 3, "ak.attributes");
}

#[test]
fn values_that_do_not_hash_to_the_signed_digest_are_refused() {
    let maker = Maker::new();
    let mut bundle = maker.bundle();
    bundle.sessions[0].epochs[1].quote.pcrs[3].value.0[0] ^= 1;
    demand(&judge(&bundle, &maker.trust()), 1, "quote.pcrs");
    refused(
        &changed(|attest| attest.digest.truncate(20)),
        1,
        "quote.form",
    );
}

#[test]
fn n14_a_chain_in_a_resettable_register_is_refused() {
    for register in [16, 17, 22, 23] {
        let mut maker = Maker::new();
        maker.session = Box::new(move |session| {
            session.pcrs = (0..16).chain([register]).collect();
            session.chain_pcr = register;
        });
        refused(&maker, 1, "chain.register");
    }
    let mut unselected = Maker::new();
    unselected.session = Box::new(|session| session.pcrs = (0..15).collect());
    refused(&unselected, 1, "chain.register");
}

#[test]
fn n21_a_key_that_is_no_attestation_key_is_refused() {
    // Not fixedTPM, not fixedParent, imported, not restricted, not sign, decrypt.
    for bit in [1, 4, 5, 16, 18, 17] {
        let mut key = Key::p256();
        key.attributes = ATTRIBUTES ^ 1 << bit;
        refused(&Maker::with(key), 1, "ak.attributes");
    }
}

#[test]
fn n22_n24_a_key_whose_name_is_not_the_pinned_one_is_refused() {
    let maker = Maker::with(Key::p256_from(8));
    let pinned = Maker::new().trust();
    demand(&judge(&maker.bundle(), &pinned), 1, "ak.name");
    let mut bundle = maker.bundle();
    bundle.ak_public = Key::p256().public();
    demand(&judge(&bundle, &pinned), 1, "quote.signature");
}

#[test]
fn n28_a_clock_that_goes_back_and_a_reset_inside_a_session_are_refused() {
    refused(&changed(|attest| attest.clock = 1), 1, "clock.counters");
    refused(&changed(|attest| attest.resets = 6), 1, "clock.counters");
    refused(&changed(|attest| attest.resets = 8), 1, "clock.counters");
    refused(&changed(|attest| attest.restarts = 1), 1, "clock.counters");
    refused(&changed(|attest| attest.safe = 2), 1, "quote.form");
}

#[test]
fn n28_resets_that_go_back_between_sessions_are_refused() {
    let maker = Maker::new();
    let (mut tpm, mut log) = (maker.tpm.clone(), Log::default());
    let first = maker.seal_session(&mut tpm, &mut log, None, START, 1);
    let last = sha256(&first.epochs.last().unwrap().statement);
    tpm.resets -= 1;
    let second = maker.seal_session(&mut tpm, &mut log, Some(last), START + 60_000, 2);
    let bundle = maker.pack(vec![first, second], &log, START, START + 100_000);
    demand(&judge(&bundle, &maker.trust()), 1, "clock.counters");
}

#[test]
fn n28_an_unsafe_clock_is_shown_and_is_not_a_pass_of_that_check() {
    let maker = changed(|attest| attest.safe = 0);
    let verdict = judge(&maker.bundle(), &maker.trust());
    assert_eq!(verdict.exit, 0);
    assert!(
        verdict
            .not_checked
            .iter()
            .any(|skipped| skipped.id == "clock.safe")
    );
}

#[test]
fn n29_a_key_outside_the_endorsement_hierarchy_fails_the_policy() {
    let mut maker = Maker::new();
    let owner = maker.key.qualified_name(0x4000_0001);
    maker.attest = Box::new(move |_, attest| attest.signer.clone_from(&owner));
    refused(&maker, 2, "ak.hierarchy");
}

#[test]
fn n34_a_key_is_never_trusted_for_being_in_the_file() {
    let maker = Maker::new();
    demand(&judge(&maker.bundle(), "version = 1\n"), 1, "trust.node");
    let mut bundle = maker.bundle();
    bundle.node = "gpu-02".into();
    demand(&judge(&bundle, &maker.trust()), 1, "trust.node");
}

#[test]
fn n24_a_file_that_takes_another_nodes_name_is_refused() {
    // Both nodes are known; the statements are of the first.
    let maker = Maker::new();
    let mut bundle = maker.bundle();
    bundle.node = "gpu-02".into();
    let trust = maker.trust() + &maker.trust().replace("version = 1", "").replace("01", "02");
    let trust = trust.replace(
        &hex::encode(maker.key.name()).replace("01", "02"),
        &hex::encode(maker.key.name()),
    );
    demand(&judge(&bundle, &trust), 1, "statements");
}

#[test]
fn n42_numbers_of_zero_or_beyond_the_order_are_no_signature_and_a_high_s_is_one() {
    let maker = Maker::new();
    for value in [0x00, 0xff] {
        for half in [6, 40] {
            let mut bundle = maker.bundle();
            let signature = &mut bundle.sessions[0].quote.signature;
            signature[half..half + 32].fill(value);
            demand(&judge(&bundle, &maker.trust()), 1, "quote.signature");
        }
    }
    let mut high = maker.bundle();
    let signature = &mut high.sessions[0].quote.signature;
    let s: [u8; 32] = signature[40..72].try_into().unwrap();
    signature[40..72].copy_from_slice(&negated(s));
    demand(&judge(&high, &maker.trust()), 0, "quote.signature");
}

/// The order of P-256 minus `s`: the other valid second half.
fn negated(s: [u8; 32]) -> [u8; 32] {
    let order: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63,
        0x25, 0x51,
    ];
    let mut out = [0; 32];
    let mut borrow = 0_i32;
    for at in (0..32).rev() {
        let difference = i32::from(order[at]) - i32::from(s[at]) - borrow;
        borrow = i32::from(difference < 0);
        out[at] = u8::try_from(difference & 0xff).unwrap();
    }
    out
}

#[test]
fn an_rsa_signature_that_is_changed_or_short_is_refused() {
    let maker = Maker::with(Key::rsa());
    let mut flipped = maker.bundle();
    flipped.sessions[0].quote.signature[100] ^= 1;
    demand(&judge(&flipped, &maker.trust()), 1, "quote.signature");
    let mut other = maker.bundle();
    other.sessions[0].quote.signature = Maker::new().bundle().sessions[0].quote.signature.clone();
    demand(&judge(&other, &maker.trust()), 1, "quote.signature");
}
