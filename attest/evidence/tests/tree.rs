//! The tree against a plain recursive one, and every proof of every small tree.
#![expect(clippy::indexing_slicing, reason = "helpers of tests")]

use merestone_evidence::{
    Digest, Frontier, consistency_path, empty_root, inclusion_path, leaf_hash, node_hash, root_of,
    verify_consistency, verify_inclusion,
};

fn leaves(count: u64) -> Vec<Digest> {
    (0..count)
        .map(|leaf| leaf_hash(&leaf.to_be_bytes()))
        .collect()
}

/// RFC 9162 §2.1.1, word for word.
fn definition(leaves: &[Digest]) -> Digest {
    match leaves.len() {
        0 => empty_root(),
        1 => leaves[0],
        length => {
            let mut split = 1;
            while split * 2 < length {
                split *= 2;
            }
            node_hash(&definition(&leaves[..split]), &definition(&leaves[split..]))
        }
    }
}

#[test]
fn the_frontier_gives_the_root_of_the_definition() {
    for size in 0..70 {
        assert_eq!(root_of(&leaves(size)), definition(&leaves(size)), "{size}");
    }
}

#[test]
fn a_frontier_continues_from_its_peaks() {
    for cut in 0..40 {
        let all = leaves(40);
        let mut first = Frontier::new();
        all[..cut].iter().for_each(|leaf| first.append(*leaf));
        let mut second = Frontier::from_peaks(first.size(), first.peaks().to_vec()).unwrap();
        all[cut..].iter().for_each(|leaf| second.append(*leaf));
        assert_eq!(second.root(), root_of(&all));
    }
    assert!(Frontier::from_peaks(3, leaves(1)).is_err());
    assert!(Frontier::from_peaks(0, leaves(1)).is_err());
}

#[test]
fn every_proof_of_every_small_tree_holds_and_no_other() {
    let all = leaves(33);
    for size in 1..=33 {
        let root = root_of(&all[..usize::try_from(size).unwrap()]);
        for index in 0..size {
            let leaf = all[usize::try_from(index).unwrap()];
            let path = inclusion_path(&all, index, size).unwrap();
            assert_eq!(verify_inclusion(index, size, &leaf, &path, &root), Ok(()));
            assert!(verify_inclusion(index + 1, size, &leaf, &path, &root).is_err());
            assert!(verify_inclusion(size, size, &leaf, &path, &root).is_err());
            if size > 1 {
                assert!(
                    verify_inclusion(index, size, &leaf, &[], &root).is_err(),
                    "N53"
                );
                let mut longer = path.clone();
                longer.push(leaf);
                assert!(verify_inclusion(index, size, &leaf, &longer, &root).is_err());
            }
        }
        for from in 1..=size {
            let first = root_of(&all[..usize::try_from(from).unwrap()]);
            let path = consistency_path(&all, from, size).unwrap();
            assert_eq!(verify_consistency(from, size, &path, &first, &root), Ok(()));
            assert!(verify_consistency(from, size, &path, &root_of(&all[1..3]), &root).is_err());
            assert!(
                verify_consistency(0, size, &path, &empty_root(), &root).is_err(),
                "N51"
            );
            assert!(from == size || verify_consistency(size, from, &path, &root, &first).is_err());
        }
    }
}

#[test]
fn n52_a_node_is_not_a_leaf_and_an_odd_node_is_not_doubled() {
    let all = leaves(3);
    let pair = [all[0].0, all[1].0].concat();
    assert_ne!(leaf_hash(&pair), node_hash(&all[0], &all[1]));
    let doubled = [all[0], all[1], all[2], all[2]];
    assert_ne!(root_of(&all), root_of(&doubled));
}
