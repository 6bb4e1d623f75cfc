//! Receipts: what a session's key signed for single records, and everything else that looks like it.

#[path = "support/receipts.rs"]
mod made;

use crate::support::{self, Maker, NODE, START, demand, judge, judge_bytes, trust_for};
use coset::iana::Algorithm;
use coset::{CoseSign1, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable as _};
use ed25519_dalek::{Signer as _, SigningKey};
use made::{SALT, bound, claims, entry, key, observed, sign, sign_bytes};
use merestone_evidence::{
    Blob, Bundle, Digest, GpuDuring, Grade, GroupEgress, Inference, Onward, Receipt, SessionId,
    answer_digest, encode, leaf_hash, request_digest, sha256,
};
use merestone_verify::enrolment::Kind;
use merestone_verify::{CheckResult, Contents, Purpose, Trust, verify_contents};

/// Four records in the first epoch: two of the kernel's, one joined with a third turn, one that
/// the workload alone tells of.
fn maker() -> Maker {
    let mut maker = Maker::new();
    maker.session = Box::new(|session| session.session_key = key().verifying_key().to_bytes());
    let told = Inference {
        turn: None,
        form: "told".into(),
        ..bound(4, 4, 4)
    };
    maker.told = [observed(1, 1), observed(2, 2), bound(3, 3, 13), told]
        .map(|record| (0, entry(record)))
        .to_vec();
    maker
}

fn receipts(maker: &Maker) -> Vec<Receipt> {
    let told = (0..).zip(&maker.told);
    told.map(|(index, (_, entry))| claims(maker, index, entry))
        .collect()
}

fn carrying(mut bundle: Bundle, receipts: impl IntoIterator<Item = Vec<u8>>) -> Bundle {
    bundle.receipts = Some(receipts.into_iter().map(Blob::from).collect());
    bundle
}

/// The good bundle with one receipt changed, signed again by the right key.
fn changed(change: impl FnOnce(&mut Receipt)) -> Bundle {
    let maker = maker();
    let mut all = receipts(&maker);
    change(&mut all[2]);
    carrying(maker.bundle(), all.iter().map(|one| sign(one, &key())))
}

fn refused(bundle: &Bundle, exit: u8) {
    let verdict = judge(bundle, &maker().trust());
    demand(&verdict, exit, "receipts");
}

/// One record's file as the agent writes it: only the epoch that seals it.
fn single(index: usize) -> Bundle {
    let maker = maker();
    let mut bundle = maker.receipt(index as u64);
    bundle.sessions[0].epochs.truncate(1);
    let size = maker.leaves_each + 4;
    let whole = maker.bundle();
    let leaves: Vec<Digest> = whole.span.unwrap().leaves[..usize::try_from(size).unwrap()]
        .iter()
        .map(|leaf| leaf_hash(leaf))
        .collect();
    bundle.proofs[0].size = size;
    bundle.proofs[0].path =
        merestone_evidence::inclusion_path(&leaves, index as u64, size).unwrap();
    carrying(bundle, [sign(&receipts(&maker)[index], &key())])
}

#[test]
fn receipts_of_both_grades_pass_in_a_bundle_and_each_on_its_own() {
    let maker = maker();
    let bundle = carrying(
        maker.bundle(),
        receipts(&maker).iter().map(|one| sign(one, &key())),
    );
    let verdict = judge(&bundle, &maker.trust());
    demand(&verdict, 0, "receipts");
    let found = verdict.receipts.unwrap();
    assert_eq!((found.checked, found.records), (4, 4));
    let seen: Vec<_> = found
        .shown
        .iter()
        .map(|one| (one.grade, one.seen_by))
        .collect();
    assert_eq!(
        seen,
        [
            ("R1", "kernel"),
            ("R1", "kernel"),
            ("R2", "kernel and workload"),
            ("R2", "workload")
        ]
    );
    for index in 0..4 {
        let bytes = encode(&single(index));
        let verdict = judge_bytes(&bytes, &maker.trust(), Purpose::Receipt);
        demand(&verdict, 0, "receipts");
        assert_eq!(verdict.receipts.unwrap().checked, 1);
    }
}

#[test]
fn a_receipt_is_under_a_kibibyte_also_with_everything_in_it() {
    let maker = maker();
    let mut most = receipts(&maker).remove(2);
    most.nonce = Some(vec![1; 64]);
    most.model = Some("m".repeat(128));
    most.index = u64::MAX;
    let bytes = sign(&most, &key());
    assert!(bytes.len() < 1024, "{}", bytes.len());
    let least = sign(&receipts(&maker)[0], &key());
    assert!(least.len() < 400, "{}", least.len());
}

#[test]
fn request_and_answer_in_hand_are_held_against_the_receipt() {
    let trust = Trust::parse(&maker().trust(), "trust.toml").unwrap();
    let held = |index: usize, request: &[u8], answer: &[u8]| {
        let contents = Contents {
            request: Some(request_digest(&SALT, request)),
            answer: Some(answer_digest(&SALT, answer)),
        };
        let bytes = encode(&single(index));
        verify_contents(&bytes, &trust, Purpose::Receipt, &contents, support::NOW)
    };
    let verdict = held(2, b"asked", b"answered");
    demand(&verdict, 0, "receipts");
    assert!(verdict.receipts.unwrap().contents);
    demand(&held(2, b"asked", b"answered?"), 1, "receipts");
    demand(&held(2, b"Asked", b"answered"), 1, "receipts");
    demand(&held(0, b"asked", b"answered"), 3, "receipts");
}

#[test]
fn n34_a_receipt_that_brings_its_own_key_is_refused() {
    let maker = maker();
    let other = SigningKey::from_bytes(&[77; 32]);
    refused(
        &carrying(maker.bundle(), [sign(&receipts(&maker)[0], &other)]),
        1,
    );
}

#[test]
fn n35_a_session_key_that_the_quote_does_not_seal_is_refused() {
    // The statement is swapped for one with another key, beside the old quote.
    let mut with_other = maker();
    let other = SigningKey::from_bytes(&[77; 32]);
    let public = other.verifying_key().to_bytes();
    with_other.session = Box::new(move |session| session.session_key = public);
    let mut bundle = carrying(maker().bundle(), [sign(&receipts(&maker())[0], &other)]);
    bundle.sessions[0].statement = with_other.bundle().sessions[0].statement.clone();
    let verdict = judge(&bundle, &maker().trust());
    demand(&verdict, 1, "quote.binding");
}

/// A receipt signed by the right key under another protected or unprotected header.
fn with_headers(
    protected: impl FnOnce(HeaderBuilder) -> HeaderBuilder,
    unprotected: impl FnOnce(HeaderBuilder) -> HeaderBuilder,
) -> Bundle {
    let maker = maker();
    let message = CoseSign1Builder::new()
        .protected(protected(HeaderBuilder::new()).build())
        .unprotected(unprotected(HeaderBuilder::new()).build())
        .payload(encode(&receipts(&maker)[0]))
        .create_signature(&[], |bytes| key().sign(bytes).to_vec())
        .build();
    carrying(maker.bundle(), [message.to_tagged_vec().unwrap()])
}

fn ours(header: HeaderBuilder) -> HeaderBuilder {
    header
        .content_type(Kind::Receipt.content_type().to_owned())
        .key_id(sha256(key().verifying_key().as_bytes()).0.to_vec())
}

#[test]
fn n36_a_receipt_whose_algorithm_is_none_or_another_is_refused() {
    refused(&with_headers(ours, |header| header), 1);
    refused(
        &with_headers(
            |header| ours(header).algorithm(Algorithm::ES256),
            |header| header,
        ),
        1,
    );
}

#[test]
fn n37_a_receipt_whose_algorithm_nobody_signed_is_refused() {
    refused(
        &with_headers(ours, |header| header.algorithm(Algorithm::EdDSA)),
        1,
    );
    let critical = |header: HeaderBuilder| {
        ours(header)
            .algorithm(Algorithm::EdDSA)
            .add_critical(coset::iana::HeaderParameter::ContentType)
    };
    refused(&with_headers(critical, |header| header), 1);
    let both = |header: HeaderBuilder| ours(header).algorithm(Algorithm::EdDSA);
    refused(
        &with_headers(both, |header| header.algorithm(Algorithm::EdDSA)),
        1,
    );
}

#[test]
fn n38_another_spelling_of_a_receipt_is_refused_though_it_is_signed() {
    let maker = maker();
    let mut payload = encode(&receipts(&maker)[0]);
    // The map's length in two bytes; the first key in two.
    for spelled in [vec![0xb8, payload[0] & 0x1f], vec![payload[0], 0x18, 0x06]] {
        let rest = if spelled.len() == 2 { 1 } else { 2 };
        let other = [spelled.as_slice(), &payload[rest..]].concat();
        refused(&carrying(maker.bundle(), [sign_bytes(other, &key())]), 1);
    }
    payload.push(0);
    refused(&carrying(maker.bundle(), [sign_bytes(payload, &key())]), 1);
    let mut after = sign(&receipts(&maker)[0], &key());
    after.push(0);
    refused(&carrying(maker.bundle(), [after]), 1);
    let untagged = sign(&receipts(&maker)[0], &key())[1..].to_vec();
    refused(&carrying(maker.bundle(), [untagged]), 1);
}

/// The order of the group (RFC 8032 5.1).
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

#[test]
fn n41_a_signature_in_a_second_form_and_a_key_of_small_order_are_refused() {
    let maker = maker();
    let good = sign(&receipts(&maker)[0], &key());
    let mut message = CoseSign1::from_tagged_slice(&good).unwrap();
    // S plus the group's order: the same point, another number.
    let mut carry = 0;
    for (byte, order) in message.signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = u8::try_from(sum & 0xff).unwrap();
        carry = sum >> 8;
    }
    refused(
        &carrying(maker.bundle(), [message.to_tagged_vec().unwrap()]),
        1,
    );
    // The neutral element as the session's key: R = neutral, S = 0 would hold for everything.
    let mut weak = self::maker();
    let mut neutral = [0; 32];
    neutral[0] = 1;
    weak.session = Box::new(move |session| session.session_key = neutral);
    let header = HeaderBuilder::new()
        .algorithm(Algorithm::EdDSA)
        .content_type(Kind::Receipt.content_type().to_owned())
        .key_id(sha256(&neutral).0.to_vec())
        .build();
    let forged = CoseSign1Builder::new()
        .protected(header)
        .payload(encode(&receipts(&weak)[0]))
        .signature([neutral.as_slice(), &[0; 32]].concat())
        .build();
    refused(
        &carrying(weak.bundle(), [forged.to_tagged_vec().unwrap()]),
        1,
    );
}

#[test]
fn n43_two_receipts_of_one_id_or_of_one_leaf_are_refused() {
    let maker = maker();
    let one = sign(&receipts(&maker)[0], &key());
    refused(&carrying(maker.bundle(), [one.clone(), one]), 1);
    let mut nonce = receipts(&maker).remove(0);
    nonce.nonce = Some(vec![3; 8]);
    let plain = sign(&receipts(&maker)[0], &key());
    refused(&carrying(maker.bundle(), [plain, sign(&nonce, &key())]), 1);
}

#[test]
fn n43_a_receipt_of_another_time_than_its_record_is_refused() {
    refused(&changed(|receipt| receipt.issued_s += 1), 1);
    refused(&changed(|receipt| receipt.issued_s = 0), 1);
}

#[test]
fn n44_a_receipt_that_calls_itself_verified_is_refused() {
    let maker = maker();
    let mut payload = encode(&receipts(&maker)[0]);
    payload[0] += 1;
    payload.extend([0x3a, 0x00, 0x01, 0x11, 0x11, 0xf5]);
    refused(&carrying(maker.bundle(), [sign_bytes(payload, &key())]), 1);
}

#[test]
fn counts_of_another_time_than_their_record_or_of_a_gpu_that_it_does_not_name_fail() {
    let record = observed(1, 1);
    let (began, ended) = (record.started_ms, record.ended_ms);
    let sent = |from_ms, to_ms| GroupEgress {
        from_ms,
        to_ms,
        allowed: 3,
        allowed_bytes: 4_000,
        denied: 2,
        audited: 0,
    };
    let used = |gpu, from_ms, to_ms| GpuDuring {
        gpu,
        from_ms,
        to_ms,
        energy_millijoules: Some(7),
        busy_percent: None,
        group_percent: None,
        group_memory_bytes: None,
    };
    let judged = |egress, gpu_use: Option<GpuDuring>| {
        let mut maker = maker();
        maker.told[0].1 = entry(Inference {
            egress,
            gpus: vec!["GPU-a".into()],
            gpu_use: gpu_use.map(|one| vec![one]),
            ..observed(1, 1)
        });
        judge(&maker.bundle(), &maker.trust())
    };
    let good = sent(began - 900, ended + 100);
    let verdict = judged(Some(good), Some(used(0, began - 900, ended + 100)));
    demand(&verdict, 0, "policy.age");
    let told = verdict.account.unwrap().inferences.told;
    let told = told.iter().find_map(|one| one.egress.clone()).unwrap();
    assert_eq!((told.allowed_bytes, told.denied), (4_000, 2));
    // It is told as soon as it ended, so GPUs may have been read last before that.
    let early = used(0, began - 900, began + 1);
    demand(&judged(None, Some(early)), 0, "policy.age");
    for (egress, gpu_use) in [
        (Some(sent(began + 61_000, ended + 62_000)), None),
        (Some(sent(began - 90_000, ended - 61_000)), None),
        (None, Some(used(0, began - 90_000, began - 61_000))),
        (None, Some(used(1, began, ended))),
    ] {
        demand(&judged(egress, gpu_use), 2, "receipts");
    }
}

#[test]
fn n45_a_record_called_bound_without_digests_fails() {
    let mut maker = maker();
    maker.told[2].1 = entry(Inference {
        binding: None,
        ..bound(3, 3, 13)
    });
    demand(&judge(&maker.bundle(), &maker.trust()), 2, "receipts");
    let mut maker = self::maker();
    maker.told[0].1 = entry(Inference {
        grade: Grade::Observed,
        turn: None,
        ..bound(1, 1, 1)
    });
    demand(&judge(&maker.bundle(), &maker.trust()), 2, "receipts");
}

#[test]
fn n45_a_receipt_without_the_digests_of_its_bound_record_is_refused() {
    refused(&changed(|receipt| receipt.request = None), 1);
    refused(&changed(|receipt| receipt.response = None), 1);
}

#[test]
fn n46_a_receipt_for_a_leaf_that_no_epoch_sealed_is_not_called_checked() {
    let maker = maker();
    let late = entry(observed(8, 8));
    let receipt = claims(&maker, 1000, &late);
    refused(&carrying(maker.bundle(), [sign(&receipt, &key())]), 3);
    // Nor one for a sealed leaf that is not shown.
    let mut bundle = single(0);
    bundle.receipts = Some(vec![Blob::from(sign(&receipts(&maker)[1], &key()))]);
    let verdict = judge_bytes(&encode(&bundle), &maker.trust(), Purpose::Receipt);
    demand(&verdict, 3, "receipts");
}

#[test]
fn n47_a_receipt_of_another_session_is_refused() {
    refused(&changed(|receipt| receipt.session = SessionId([2; 16])), 1);
    // A later session's key under an epoch that was sealed before it began.
    let maker = maker();
    let mut log = support::Log::default();
    let mut tpm = maker.tpm.clone();
    let first = maker.seal_session(&mut tpm, &mut log, None, START, 1);
    let last = sha256(&first.epochs.last().unwrap().statement);
    let mut later = self::maker();
    let other = SigningKey::from_bytes(&[21; 32]);
    let public = other.verifying_key().to_bytes();
    later.session = Box::new(move |session| session.session_key = public);
    later.told.clear();
    let second = later.seal_session(&mut tpm, &mut log, Some(last), START + 40_000, 2);
    let bundle = maker.pack(vec![first, second], &log, START, START + 80_000);
    let mut receipt = receipts(&maker).remove(0);
    receipt.session = SessionId([2; 16]);
    let verdict = judge(&carrying(bundle, [sign(&receipt, &other)]), &maker.trust());
    demand(&verdict, 1, "receipts");
}

#[test]
fn n47_a_receipt_issued_outside_its_epoch_is_refused() {
    let mut maker = maker();
    maker.told[0].1.time_ms = START - 3_600_000;
    let receipt = claims(&maker, 0, &maker.told[0].1);
    refused(&carrying(maker.bundle(), [sign(&receipt, &key())]), 1);
}

#[test]
fn a_record_that_the_next_session_sealed_after_a_crash_keeps_its_receipt() {
    let mut before = maker();
    before.told.clear();
    let mut log = support::Log::default();
    let mut tpm = before.tpm.clone();
    let first = before.seal_session(&mut tpm, &mut log, None, START, 1);
    let last = sha256(&first.epochs.last().unwrap().statement);
    let at = log.size();
    let mut late = entry(observed(1, 1));
    late.time_ms = START + 45_000;
    let mut after = maker();
    after.session = Box::new(|session| session.session_key = [9; 32]);
    after.told = vec![(0, late.clone())];
    let second = after.seal_session(&mut tpm, &mut log, Some(last), START + 50_000, 2);
    let bundle = before.pack(vec![first, second], &log, START, START + 90_000);
    let receipt = claims(&before, at, &late);
    let verdict = judge(&carrying(bundle, [sign(&receipt, &key())]), &before.trust());
    demand(&verdict, 0, "receipts");
}

#[test]
fn n48_an_oversized_receipt_is_refused_before_it_is_parsed() {
    let maker = maker();
    for message in [
        vec![0xd2; 70_000],
        [vec![0xd2, 0x84], vec![0x81; 900]].concat(),
        vec![0xd2, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ] {
        refused(&carrying(maker.bundle(), [message]), 1);
    }
    let mut long = receipts(&maker).remove(2);
    long.model = Some("m".repeat(800));
    refused(&carrying(maker.bundle(), [sign(&long, &key())]), 1);
}

#[test]
fn a_receipt_that_says_anything_else_than_its_leaf_is_refused() {
    type Change = fn(&mut Receipt);
    let changes: [Change; 9] = [
        |receipt| receipt.id[0] ^= 1,
        |receipt| receipt.ueid[32] ^= 1,
        |receipt| receipt.ueid[0] = 2,
        |receipt| receipt.index = 4,
        |receipt| receipt.leaf.0[0] ^= 1,
        |receipt| receipt.grade = Grade::Observed,
        |receipt| receipt.response = receipt.request,
        |receipt| receipt.model = Some("maxi".to_owned()),
        |receipt| receipt.model_sha256 = None,
    ];
    for change in changes {
        refused(&changed(change), 1);
    }
}

#[test]
fn every_byte_of_a_receipt_matters() {
    let maker = maker();
    let good = sign(&receipts(&maker)[2], &key());
    let policy = Trust::parse(&trust_for(&maker.key), "trust.toml").unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x01;
        let bundle = carrying(maker.bundle(), [bad]);
        let verdict =
            merestone_verify::verify(&encode(&bundle), &policy, Purpose::Period, support::NOW);
        assert_eq!(verdict.exit, 1, "byte {at}");
    }
}

#[test]
fn entries_that_tell_of_one_turn_fit_together() {
    let with = |records: Vec<Inference>| {
        let mut maker = maker();
        maker.told = records.into_iter().map(|one| (0, entry(one))).collect();
        judge(&maker.bundle(), &maker.trust())
    };
    let amends = |record: Inference| Inference {
        amends: true,
        ..record
    };
    // The kernel's own entry first, and bound afterwards; or the other way round.
    let verdict = with(vec![observed(1, 1), amends(bound(2, 1, 1))]);
    assert_eq!(verdict.exit, 0, "{:#?}", verdict.checks);
    let verdict = with(vec![bound(2, 1, 1), amends(observed(1, 1))]);
    assert_eq!(verdict.exit, 0);
    // One inference told twice.
    demand(&with(vec![observed(1, 1), bound(2, 1, 1)]), 2, "receipts");
    // Two records bound to one turn.
    let twice = vec![bound(2, 1, 1), amends(bound(3, 1, 1))];
    demand(&with(twice), 2, "receipts");
    // A turn of another connection.
    let other = vec![observed(1, 1), amends(bound(2, 7, 1))];
    demand(&with(other), 2, "receipts");
    // On a connection that cannot be read, as many as there were.
    let tls = |record: Inference| Inference {
        form: "tls".into(),
        ..record
    };
    let many = vec![
        tls(bound(2, 1, 1)),
        tls(bound(3, 1, 1)),
        tls(amends(observed(1, 1))),
    ];
    assert_eq!(with(many).exit, 0);
}

#[test]
fn what_a_gateway_passed_on_is_held_by_one_record_and_told_by_no_other() {
    let with = |records: Vec<Inference>| {
        let mut maker = maker();
        maker.told = records.into_iter().map(|one| (0, entry(one))).collect();
        judge(&maker.bundle(), &maker.trust())
    };
    let onward = |turn: u8, amends: bool| Onward {
        turn: [turn; 16],
        started_ms: START + 1010,
        ended_ms: START + 1990,
        request_bytes: 120,
        response_bytes: 880,
        process: None,
        peer: observed(1, 1).peer,
        peer_port: 9,
        port: 8000,
        amends,
    };
    let held = |amends| Inference {
        onward: Some(onward(9, amends)),
        ..bound(2, 1, 1)
    };
    let verdict = with(vec![held(false)]);
    assert_eq!(verdict.exit, 0, "{:#?}", verdict.checks);
    // The turn was told before, or tells more later.
    let verdict = with(vec![observed(9, 9), held(true)]);
    assert_eq!(verdict.exit, 0, "{:#?}", verdict.checks);
    let counted = verdict.account.unwrap().inferences;
    assert_eq!(
        (counted.observed, counted.bound, counted.passed_on),
        (1, 1, 1)
    );
    let later = Inference {
        amends: true,
        ..observed(9, 9)
    };
    assert_eq!(with(vec![held(false), later]).exit, 0);
    // Told besides, of another connection, or held by two.
    demand(&with(vec![observed(9, 9), held(false)]), 2, "receipts");
    demand(&with(vec![observed(9, 8), held(true)]), 2, "receipts");
    let other = Inference {
        onward: Some(onward(9, true)),
        ..bound(3, 3, 3)
    };
    demand(&with(vec![held(false), other]), 2, "receipts");
    // Nobody was seen to ask for it.
    let alone = Inference {
        turn: None,
        form: "told".into(),
        ..held(false)
    };
    demand(&with(vec![alone]), 2, "receipts");
}

#[test]
fn a_bundle_without_receipts_says_that_none_was_checked() {
    let maker = maker();
    let verdict = judge(&maker.bundle(), &maker.trust());
    assert_eq!(verdict.exit, 0);
    let check = verdict.checks.iter().find(|check| check.id == "receipts");
    assert_eq!(check.unwrap().result, CheckResult::NotChecked);
    assert!(check.unwrap().detail.contains("4 records"), "{NODE}");
}
