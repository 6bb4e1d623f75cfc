//! Writes bundles of many inference records, sealed by a key in software: what the verifier's
//! speed and memory are measured on.
//!
//! `records NUMBER EACH FOLDER`: so many records, so many of them in each epoch; `bundle.merestone`,
//! `receipt.merestone` of one record of the middle, and `trust.toml`. The last line says how big
//! the record, the proof in the receipt's file, and a receipt of a bound record are.
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
    Blob, Body, Entry, EntryKind, Grade, Receipt, SessionId, encode, leaf_hash, sha256, ueid,
};
use merestone_verify::enrolment::{Kind, protected_header};
use std::path::PathBuf;
use support::{Maker, START};

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

/// Bytes of the receipt of a bound record with every claim that one can have.
fn receipt_bytes(index: u64, leaf: &[u8], ak_name: &[u8]) -> usize {
    let key = SigningKey::from_bytes(&[9; 32]);
    let claims = Receipt {
        issued_s: START / 1000,
        id: [0xa5; 16],
        nonce: Some(vec![0x5a; 32]),
        ueid: ueid(ak_name),
        session: SessionId([1; 16]),
        index,
        leaf: leaf_hash(leaf),
        grade: Grade::Bound,
        request: Some(sha256(b"asked")),
        response: Some(sha256(b"answered")),
        model: Some("meta-llama/Llama-3.1-70B-Instruct".into()),
        model_sha256: Some(sha256(b"weights")),
    };
    let message = CoseSign1Builder::new()
        .protected(protected_header(Kind::Receipt, &key.verifying_key()))
        .payload(encode(&claims))
        .create_signature(&[], |bytes| key.sign(bytes).to_vec())
        .build();
    message.to_tagged_vec().unwrap().len()
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
    // An hour of slack after the last epoch: a host whose clock is behind the verifier's.
    std::fs::write(folder.join("trust.toml"), maker.trust()).unwrap();
    let mut bundle = maker.bundle();
    let bytes = encode(&bundle);
    std::fs::write(folder.join("bundle.merestone"), &bytes).unwrap();
    drop(bytes);
    let leaves: Vec<Blob> = bundle.span.take().unwrap().leaves;
    drop(leaves);
    let receipt = maker.receipt(records / 2);
    let bytes = encode(&receipt);
    std::fs::write(folder.join("receipt.merestone"), &bytes).unwrap();
    let proof = &receipt.proofs[0];
    println!(
        "{{\"record_bytes\": {}, \"proof_hashes\": {}, \"proof_bytes\": {}, \"receipt_bytes\": {}, \"receipt_file_bytes\": {}}}",
        proof.leaf.len(),
        proof.path.len(),
        proof.path.len() * 34 + 16,
        receipt_bytes(records / 2, &proof.leaf, &maker.key.name()),
        bytes.len()
    );
}
