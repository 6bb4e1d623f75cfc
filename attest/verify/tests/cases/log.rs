//! Chain, log and proofs: N32, N33, N48, N50–N54, N58, N59.

use crate::support::{Log, Maker, START, Tpm, demand, flow, judge, judge_bytes};
use merestone_evidence::{
    Blob, Bundle, ConsistencyProof, Digest, InclusionProof, encode, inclusion_path, leaf_hash,
    node_hash, sha256,
};
use merestone_verify::Purpose;

#[track_caller]
fn spoiled(spoil: impl FnOnce(&mut Bundle), exit: u8, id: &str) {
    let maker = Maker::new();
    let mut bundle = maker.bundle();
    spoil(&mut bundle);
    demand(&judge(&bundle, &maker.trust()), exit, id);
}

#[track_caller]
fn bad_receipt(spoil: impl FnOnce(&mut InclusionProof), id: &str) {
    let maker = Maker::new();
    let mut receipt = maker.receipt(5);
    spoil(&mut receipt.proofs[0]);
    demand(
        &judge_bytes(&encode(&receipt), &maker.trust(), Purpose::Receipt),
        1,
        id,
    );
}

#[test]
fn n32_two_epochs_with_one_sequence_number_are_refused() {
    spoiled(
        |bundle| {
            let fork = bundle.sessions[0].epochs[2].clone();
            bundle.sessions[0].epochs.insert(3, fork);
        },
        1,
        "chain.order",
    );
    let mut maker = Maker::new();
    maker.epoch = Box::new(|sequence, epoch| epoch.sequence = sequence.min(2));
    demand(&judge(&maker.bundle(), &maker.trust()), 1, "chain.order");
}

#[test]
fn n33_an_extend_that_no_statement_explains_fails_the_policy() {
    let mut maker = Maker::new();
    maker.between = Box::new(|sequence, tpm: &mut Tpm| {
        if sequence == 2 {
            tpm.extend(15, sha256(b"foreign"));
        }
    });
    demand(&judge(&maker.bundle(), &maker.trust()), 2, "chain.replay");
}

#[test]
fn n33_an_extend_between_two_sessions_of_one_boot_fails_the_policy() {
    let maker = Maker::new();
    let (mut tpm, mut log) = (maker.tpm.clone(), Log::default());
    let first = maker.seal_session(&mut tpm, &mut log, None, START, 1);
    let last = sha256(&first.epochs.last().unwrap().statement);
    tpm.extend(15, sha256(b"foreign"));
    let second = maker.seal_session(&mut tpm, &mut log, Some(last), START + 60_000, 2);
    let bundle = maker.pack(vec![first, second], &log, START, START + 100_000);
    demand(&judge(&bundle, &maker.trust()), 2, "chain.replay");
}

#[test]
fn n48_a_leaf_beyond_its_limit_is_refused() {
    let mut maker = Maker::new();
    maker.extra_leaf = Some(vec![0; (64 << 10) + 1]);
    demand(&judge(&maker.bundle(), &maker.trust()), 1, "log.entries");
}

#[test]
fn a_sealed_leaf_that_is_no_entry_is_refused() {
    let mut maker = Maker::new();
    maker.extra_leaf = Some(b"free text".to_vec());
    demand(&judge(&maker.bundle(), &maker.trust()), 1, "log.entries");
}

#[test]
fn n50_an_inclusion_proof_with_a_wrong_index_leaf_or_hash_is_refused() {
    bad_receipt(|proof| proof.index = 4, "log.inclusion");
    bad_receipt(|proof| proof.index = 12, "log.inclusion");
    bad_receipt(|proof| proof.index = u64::MAX, "log.inclusion");
    bad_receipt(|proof| proof.path.swap(0, 1), "log.inclusion");
    bad_receipt(|proof| proof.path.push(Digest::ZERO), "log.inclusion");
    bad_receipt(
        |proof| proof.path.truncate(proof.path.len() - 1),
        "log.inclusion",
    );
    bad_receipt(|proof| proof.path[0].0[0] ^= 1, "log.inclusion");
    bad_receipt(|proof| proof.size = 11, "log.inclusion");
    bad_receipt(|proof| proof.size = 9, "log.inclusion");
}

#[test]
fn n51_consistency_proofs_from_nothing_and_to_less_are_refused() {
    for (from_size, to_size) in [(0, 3), (6, 3), (3, 3), (0, 0)] {
        spoiled(
            |bundle| {
                let path = vec![Digest::ZERO];
                bundle.consistency.push(ConsistencyProof {
                    from_size,
                    to_size,
                    path,
                });
            },
            1,
            "log.consistency",
        );
    }
    let mut maker = Maker::new();
    maker.span_from = 6;
    let mut bundle = maker.bundle();
    bundle.from_ms = START + 20_001;
    bundle.consistency[0].path[0].0[0] ^= 1;
    demand(&judge(&bundle, &maker.trust()), 1, "log.consistency");
    bundle.consistency.clear();
    demand(&judge(&bundle, &maker.trust()), 3, "log.consistency");
}

#[test]
fn n52_an_inner_node_shown_as_a_leaf_is_refused() {
    let maker = Maker::new();
    let mut log = Log::default();
    let mut tpm = maker.tpm.clone();
    maker.seal_session(&mut tpm, &mut log, None, START, 1);
    // The node over leaves 4 and 5, whose preimage an attacker knows.
    let pair = [log.hashes[4].0, log.hashes[5].0].concat();
    let path = inclusion_path(&log.hashes, 4, 12).unwrap();
    bad_receipt(
        move |proof| {
            proof.leaf = pair;
            proof.index = 2;
            proof.path = path[1..].to_vec();
        },
        "log.inclusion",
    );
}

#[test]
fn n52b_a_last_leaf_that_is_paired_with_itself_is_refused() {
    let mut maker = Maker::new();
    (maker.epochs, maker.leaves_each) = (3, 3);
    let mut receipt = maker.receipt(8);
    demand(
        &judge_bytes(&encode(&receipt), &maker.trust(), Purpose::Receipt),
        0,
        "log.inclusion",
    );
    let proof = &mut receipt.proofs[0];
    let mut own = leaf_hash(&proof.leaf);
    for level in 0..3 {
        proof.path.insert(level, own);
        own = node_hash(&own, &own);
    }
    demand(
        &judge_bytes(&encode(&receipt), &maker.trust(), Purpose::Receipt),
        1,
        "log.inclusion",
    );
}

#[test]
fn n53_an_empty_path_is_refused_for_a_tree_of_more_than_one() {
    bad_receipt(|proof| proof.path.clear(), "log.inclusion");
    bad_receipt(
        |proof| {
            proof.path.clear();
            proof.index = 0;
            proof.size = 1;
        },
        "log.inclusion",
    );
}

#[test]
fn n54_a_valid_proof_beside_another_leaf_is_refused() {
    bad_receipt(
        |proof| proof.leaf = encode(&flow(START, 1)),
        "log.inclusion",
    );
    let maker = Maker::new();
    let mut receipt = maker.receipt(5);
    receipt.proofs[0].leaf = maker.receipt(4).proofs[0].leaf.clone();
    demand(
        &judge_bytes(&encode(&receipt), &maker.trust(), Purpose::Receipt),
        1,
        "log.inclusion",
    );
}

#[test]
fn n54_a_quote_beside_another_statement_is_refused() {
    spoiled(
        |bundle| {
            let other = bundle.sessions[0].epochs[0].statement.clone();
            bundle.sessions[0].epochs[1].statement = other;
        },
        1,
        "quote.binding",
    );
}

#[test]
fn leaves_that_are_changed_swapped_dropped_or_added_are_refused() {
    let span = |bundle: &mut Bundle| bundle.span.clone().unwrap();
    spoiled(
        |bundle| {
            let mut changed = span(bundle);
            changed.leaves[4] = Blob::from(encode(&flow(START, 77)));
            bundle.span = Some(changed);
        },
        1,
        "log.leaves",
    );
    spoiled(
        |bundle| {
            let mut changed = span(bundle);
            changed.leaves.swap(0, 1);
            bundle.span = Some(changed);
        },
        1,
        "log.leaves",
    );
    spoiled(
        |bundle| {
            let mut changed = span(bundle);
            changed.leaves.pop();
            bundle.span = Some(changed);
        },
        1,
        "log.leaves",
    );
    spoiled(
        |bundle| {
            let mut changed = span(bundle);
            changed.leaves.push(Blob::from(encode(&flow(START, 3))));
            bundle.span = Some(changed);
        },
        1,
        "log.leaves",
    );
    spoiled(
        |bundle| {
            let mut changed = span(bundle);
            changed.start = 1;
            bundle.span = Some(changed);
        },
        1,
        "log.leaves",
    );
}

#[test]
fn leaves_of_the_period_that_are_not_shown_fail_the_policy() {
    let mut maker = Maker::new();
    maker.span_from = 6;
    demand(&judge(&maker.bundle(), &maker.trust()), 2, "log.leaves");
    spoiled(
        |bundle| {
            let mut changed = bundle.span.clone().unwrap();
            changed.leaves.truncate(9);
            bundle.span = Some(changed);
        },
        2,
        "log.leaves",
    );
}

#[test]
fn n58_epochs_cut_before_a_later_session_are_refused() {
    let maker = Maker::new();
    let (mut tpm, mut log) = (maker.tpm.clone(), Log::default());
    let mut first = maker.seal_session(&mut tpm, &mut log, None, START, 1);
    let last = sha256(&first.epochs.last().unwrap().statement);
    let second = maker.seal_session(&mut tpm, &mut log, Some(last), START + 60_000, 2);
    first.epochs.pop();
    let bundle = maker.pack(vec![first, second], &log, START, START + 100_000);
    demand(&judge(&bundle, &maker.trust()), 1, "chain.order");
}

#[test]
fn n59_an_epoch_that_is_missing_in_the_middle_is_refused() {
    spoiled(
        |bundle| drop(bundle.sessions[0].epochs.remove(1)),
        1,
        "chain.order",
    );
    spoiled(
        |bundle| drop(bundle.sessions[0].epochs.remove(0)),
        1,
        "chain.order",
    );
    spoiled(
        |bundle| bundle.sessions[0].epochs.swap(1, 2),
        1,
        "clock.counters",
    );
}

#[test]
fn a_session_that_is_missing_between_two_is_refused() {
    let maker = Maker::new();
    let (mut tpm, mut log) = (maker.tpm.clone(), Log::default());
    let first = maker.seal_session(&mut tpm, &mut log, None, START, 1);
    let last = |session: &merestone_evidence::SealedSession| {
        sha256(&session.epochs.last().unwrap().statement)
    };
    let second = maker.seal_session(&mut tpm, &mut log, Some(last(&first)), START + 50_000, 2);
    let third = maker.seal_session(&mut tpm, &mut log, Some(last(&second)), START + 100_000, 3);
    let bundle = maker.pack(vec![first, third], &log, START, START + 140_000);
    demand(&judge(&bundle, &maker.trust()), 1, "chain.order");
}

#[test]
fn a_statement_that_lies_about_sizes_roots_or_counts_is_refused() {
    let lie = |change: fn(&mut merestone_evidence::EpochStatement)| {
        let mut maker = Maker::new();
        maker.epoch = Box::new(move |sequence, epoch| {
            if sequence == 2 {
                change(epoch);
            }
        });
        judge(&maker.bundle(), &maker.trust())
    };
    demand(&lie(|epoch| epoch.size_before = 5), 1, "log.sizes");
    demand(&lie(|epoch| epoch.size_after = 5), 1, "log.sizes");
    demand(&lie(|epoch| epoch.root = Digest::ZERO), 1, "log.leaves");
    demand(&lie(|epoch| epoch.counters[0].count = 1), 1, "log.sizes");
    demand(&lie(|epoch| epoch.counters.clear()), 1, "log.sizes");
    demand(&lie(|epoch| epoch.node = "gpu-02".into()), 1, "statements");
    demand(&lie(|epoch| epoch.session.0[0] = 9), 1, "statements");
    demand(
        &lie(|epoch| epoch.previous = Digest::ZERO),
        1,
        "chain.order",
    );
    demand(
        &lie(|epoch| epoch.closed_ms = epoch.opened_ms - 1),
        2,
        "chain.order",
    );
}

#[test]
fn a_frontier_that_is_not_of_its_tree_is_refused() {
    let mut maker = Maker::new();
    maker.span_from = 6;
    let mut bundle = maker.bundle();
    bundle.from_ms = START + 20_001;
    let mut span = bundle.span.clone().unwrap();
    span.frontier.pop();
    bundle.span = Some(span.clone());
    demand(&judge(&bundle, &maker.trust()), 1, "log.leaves");
    span.frontier.push(leaf_hash(b"other"));
    bundle.span = Some(span);
    demand(&judge(&bundle, &maker.trust()), 1, "log.leaves");
}

#[test]
fn a_receipt_is_not_taken_for_a_period_nor_a_period_for_a_receipt() {
    let maker = Maker::new();
    demand(&judge(&maker.receipt(5), &maker.trust()), 1, "frame");
    let bytes = encode(&maker.bundle());
    demand(
        &judge_bytes(&bytes, &maker.trust(), Purpose::Receipt),
        1,
        "frame",
    );
}
