//! Proofs that another project made, each with the outcome it wants (N50, N51, N53).
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests")]

use merestone_evidence::{Digest, sha256, verify_consistency, verify_inclusion};
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Inclusion {
    leaf_idx: u64,
    tree_size: u64,
    root: Option<String>,
    leaf_hash: Option<String>,
    proof: Option<Vec<String>>,
    want_err: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Consistency {
    size1: u64,
    size2: u64,
    root1: Option<String>,
    root2: Option<String>,
    proof: Option<Vec<String>>,
    want_err: bool,
}

/// The folder of shared vectors, or `None` (said by name) where it is absent.
fn vectors(folder: &str) -> Option<PathBuf> {
    let base = std::env::var_os("MERESTONE_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"),
        PathBuf::from,
    );
    let found = Some(base.join(folder)).filter(|path| path.is_dir());
    if found.is_none() {
        eprintln!("SKIPPED: {} is absent", base.join(folder).display());
    }
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Standard base64. What is not 32 bytes stands as its digest: equal only to itself.
/// Nothing stands for nothing: an empty string is no hash.
fn hash(text: Option<&str>) -> Option<Digest> {
    let mut bits = 0_u32;
    let mut held = 0;
    let mut bytes = Vec::new();
    for byte in text?.bytes().filter(|byte| *byte != b'=') {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let value = alphabet.iter().position(|letter| *letter == byte)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    if bytes.is_empty() {
        return None;
    }
    Some(match bytes.try_into() {
        Ok(bytes) => Digest(bytes),
        Err(bytes) => sha256(&bytes),
    })
}

fn path(proof: Option<Vec<String>>) -> Option<Vec<Digest>> {
    proof
        .unwrap_or_default()
        .iter()
        .map(|text| hash(Some(text)))
        .collect()
}

#[test]
fn n50_n53_every_inclusion_vector_has_the_wanted_outcome() {
    let Some(folder) = vectors("merkle/inclusion") else {
        return;
    };
    let mut seen = (0, 0);
    for file in files(&folder) {
        let case: Inclusion = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let accepted = (|| {
            let leaf = hash(case.leaf_hash.as_deref())?;
            let root = hash(case.root.as_deref())?;
            let path = path(case.proof)?;
            verify_inclusion(case.leaf_idx, case.tree_size, &leaf, &path, &root).ok()
        })();
        assert_eq!(accepted.is_none(), case.want_err, "{}", file.display());
        if case.want_err {
            seen.1 += 1;
        } else {
            seen.0 += 1;
        }
    }
    eprintln!("inclusion: {} accepted, {} refused", seen.0, seen.1);
    assert!(seen.0 > 0 && seen.1 > 0);
}

#[test]
fn n51_every_consistency_vector_has_the_wanted_outcome() {
    let Some(folder) = vectors("merkle/consistency") else {
        return;
    };
    let mut seen = (0, 0, 0);
    for file in files(&folder) {
        let case: Consistency = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let accepted = (|| {
            let first = hash(case.root1.as_deref())?;
            let second = hash(case.root2.as_deref())?;
            let path = path(case.proof)?;
            verify_consistency(case.size1, case.size2, &path, &first, &second).ok()
        })();
        // Stricter than the vectors on purpose: the empty tree is the beginning of every tree, so
        // a proof from it shows nothing and N51 wants it refused.
        if case.size1 == 0 {
            assert!(accepted.is_none(), "{}", file.display());
            seen.2 += 1;
            continue;
        }
        assert_eq!(accepted.is_none(), case.want_err, "{}", file.display());
        if case.want_err {
            seen.1 += 1;
        } else {
            seen.0 += 1;
        }
    }
    eprintln!(
        "consistency: {} accepted, {} refused, {} from the empty tree",
        seen.0, seen.1, seen.2
    );
    assert!(seen.0 > 0 && seen.1 > 0);
}
