//! Writes bundles of many inference records, sealed by a key in software: what the verifier's
//! speed and memory are measured on.
//!
//! `records NUMBER EACH FOLDER`: so many records, so many of them in each epoch; `bundle.merestone`,
//! `receipt.merestone` of one record of the middle with every epoch, `one.merestone` of the same as
//! the agent writes it (its receipt, and only the epoch that seals it), and `trust.toml`. The last
//! line says how big the record, the proofs and receipts are, and how long the library takes to
//! judge `one.merestone`.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "makes what measurements need, and stops where it cannot"
)]
#![expect(
    dead_code,
    unused_imports,
    reason = "the support of the tests has more than is needed here"
)]

#[path = "../tests/cases/support/inference.rs"]
mod inference;
#[path = "../tests/cases/support/mod.rs"]
mod support;

use coset::{CoseSign1Builder, TaggedCborSerializable as _};
use ed25519_dalek::{Signer as _, SigningKey};
use inference::inference;
use merestone_evidence::{
    Blob, Body, Bundle, Digest, Entry, EntryKind, Grade, Receipt, SessionId, consistency_path,
    decode, encode, inclusion_path, leaf_hash, receipt_id, sha256, ueid,
};
use merestone_verify::enrolment::{Kind, protected_header};
use merestone_verify::{Purpose, Trust, verify};
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;
use support::{Maker, START};

/// The time of the verdicts, as `bench attest` has it: 2025-10-20.
const AT: u64 = 1_760_918_400_000;

fn record(opened: u64, number: u64) -> Vec<u8> {
    let started_ms = opened + number % 9_000;
    let mut id = [0; 16];
    id.copy_from_slice(&sha256(&(opened + number).to_be_bytes()).0[..16]);
    encode(&Entry {
        kind: EntryKind,
        time_ms: started_ms + 800,
        boot_ns: (started_ms - START) * 1_000_000 + 86_400_000_000_000,
        body: Body::Inference(Box::new(inference(id, opened, started_ms, number))),
    })
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn sign(claims: &Receipt) -> Vec<u8> {
    CoseSign1Builder::new()
        .protected(protected_header(Kind::Receipt, &key().verifying_key()))
        .payload(encode(claims))
        .create_signature(&[], |bytes| key().sign(bytes).to_vec())
        .build()
        .to_tagged_vec()
        .unwrap()
}

/// What the agent signs of a record that the kernel saw.
fn observed(index: u64, leaf: &[u8], ak_name: &[u8]) -> Receipt {
    let entry: Entry = decode(leaf).unwrap();
    let Body::Inference(record) = &entry.body else {
        panic!("not a record");
    };
    let hash = leaf_hash(leaf);
    Receipt {
        issued_s: entry.time_ms / 1000,
        id: receipt_id(record, &hash),
        nonce: None,
        ueid: ueid(ak_name),
        session: SessionId([1; 16]),
        index,
        leaf: hash,
        grade: record.grade,
        request: None,
        response: None,
        model: None,
        model_sha256: None,
    }
}

/// Of a bound record, with every claim that one can have.
fn fullest(claims: &Receipt) -> Receipt {
    Receipt {
        nonce: Some(vec![0x5a; 32]),
        grade: Grade::Bound,
        request: Some(sha256(b"asked")),
        response: Some(sha256(b"answered")),
        model: Some("meta-llama/Llama-3.1-70B-Instruct".into()),
        model_sha256: Some(sha256(b"weights")),
        ..claims.clone()
    }
}

/// The file as the agent writes it: the epoch that seals the record, and no other.
fn one(mut file: Bundle, hashes: &[Digest], each: u64, receipt: Vec<u8>) -> Bundle {
    let index = file.proofs[0].index;
    let sealer = index / each;
    let size = (sealer + 1) * each;
    let epochs = &mut file.sessions[0].epochs;
    let sealer = epochs.swap_remove(usize::try_from(sealer).unwrap());
    *epochs = vec![sealer];
    let tree = &hashes[..usize::try_from(size).unwrap()];
    file.proofs[0].size = size;
    file.proofs[0].path = inclusion_path(tree, index, size).unwrap();
    file.receipts = Some(vec![Blob::from(receipt)]);
    file
}

/// Microseconds of one judgement by the library: the median of many.
#[expect(clippy::disallowed_methods, reason = "a measurement has a clock")]
fn judged_us(bytes: &[u8], trust: &str) -> f64 {
    let trust = Trust::parse(trust, "trust.toml").unwrap();
    let mut times: Vec<f64> = (0..101)
        .map(|_round| {
            let began = Instant::now();
            let verdict = black_box(verify(bytes, &trust, Purpose::Receipt, AT));
            let took = began.elapsed().as_secs_f64() * 1e6;
            assert_eq!(verdict.exit, 0, "{:#?}", verdict.checks);
            assert_eq!(verdict.receipts.unwrap().checked, 1);
            took
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [records, each, folder] = &arguments[..] else {
        panic!("records NUMBER EACH FOLDER");
    };
    let (records, each): (u64, u64) = (records.parse().unwrap(), each.parse().unwrap());
    let folder = PathBuf::from(folder);
    std::fs::create_dir_all(&folder).unwrap();
    let mut maker = Maker::new();
    maker.epochs = records / each;
    maker.leaves_each = each;
    maker.leaf = Box::new(record);
    maker.session = Box::new(|session| session.session_key = key().verifying_key().to_bytes());
    // An hour of slack after the last epoch: a host whose clock is behind the verifier's.
    std::fs::write(folder.join("trust.toml"), maker.trust()).unwrap();
    let mut bundle = maker.bundle();
    let bytes = encode(&bundle);
    std::fs::write(folder.join("bundle.merestone"), &bytes).unwrap();
    drop(bytes);
    let leaves: Vec<Blob> = bundle.span.take().unwrap().leaves;
    let hashes: Vec<Digest> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
    drop(leaves);
    let receipt = maker.receipt(records / 2);
    std::fs::write(folder.join("receipt.merestone"), encode(&receipt)).unwrap();
    let proof = receipt.proofs[0].clone();
    let claims = observed(proof.index, &proof.leaf, &maker.key.name());
    let message = sign(&claims);
    let receipt_bytes = message.len();
    let bytes = encode(&one(receipt, &hashes, each, message));
    std::fs::write(folder.join("one.merestone"), &bytes).unwrap();
    let joined = consistency_path(&hashes, records / 2 + 1, records).unwrap();
    println!(
        "{{\"record_bytes\": {}, \"proof_bytes\": {}, \"consistency_bytes\": {}, \"receipt_bytes\": {}, \"observed_receipt_bytes\": {}, \"one_bytes\": {}, \"one_us\": {:.1}}}",
        proof.leaf.len(),
        proof.path.len() * 34 + 16,
        joined.len() * 34 + 16,
        sign(&fullest(&claims)).len(),
        receipt_bytes,
        bytes.len(),
        judged_us(&bytes, &maker.trust()),
    );
}
