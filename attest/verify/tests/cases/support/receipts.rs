//! Records that have receipts, and what a session's key signs for one of them.

use crate::support::{Maker, START};
use coset::{CoseSign1Builder, TaggedCborSerializable as _};
use ed25519_dalek::{Signer as _, SigningKey};
use merestone_evidence::{
    Binding, Body, End, Entry, EntryKind, Grade, Inference, Receipt, SessionId, answer_digest,
    encode, leaf_hash, receipt_id, request_digest, sha256, ueid,
};
use merestone_verify::enrolment::{Kind, protected_header};

pub(crate) const SALT: [u8; 32] = [5; 32];

pub(crate) fn key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

pub(crate) fn observed(id: u8, number: u16) -> Inference {
    Inference {
        id: [id; 16],
        grade: Grade::Observed,
        started_ms: START + 1000,
        answered_ms: Some(START + 1500),
        ended_ms: START + 2000,
        request_bytes: 100,
        response_bytes: 900,
        group: 42,
        process: None,
        peer: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 18, 0, 2],
        peer_port: number,
        port: 8000,
        peer_inside: true,
        form: "http/1".into(),
        method: Some("POST".into()),
        path: Some("/v1/chat/completions".into()),
        end: End::Next,
        gpus: vec!["GPU-0".into()],
        egress: None,
        amends: false,
        binding: None,
        turn: None,
        onward: None,
        gpu_use: None,
    }
}

pub(crate) fn bound(id: u8, number: u16, turn: u8) -> Inference {
    Inference {
        grade: Grade::Bound,
        turn: Some([turn; 16]),
        binding: Some(Binding {
            request: request_digest(&SALT, b"asked"),
            response: answer_digest(&SALT, b"answered"),
            model: Some("mini".into()),
            model_sha256: Some(sha256(b"weights")),
            process: None,
            status: Some(200),
        }),
        ..observed(id, number)
    }
}

pub(crate) fn entry(record: Inference) -> Entry {
    Entry {
        kind: EntryKind,
        time_ms: START + 2000,
        boot_ns: 1,
        body: Body::Inference(Box::new(record)),
    }
}

pub(crate) fn claims(maker: &Maker, index: u64, entry: &Entry) -> Receipt {
    let Body::Inference(record) = &entry.body else {
        panic!("not a record");
    };
    let leaf = leaf_hash(&encode(entry));
    let binding = record.binding.as_ref();
    Receipt {
        issued_s: entry.time_ms / 1000,
        id: receipt_id(record, &leaf),
        nonce: None,
        ueid: ueid(&maker.key.name()),
        session: SessionId([1; 16]),
        index,
        leaf,
        grade: record.grade,
        request: binding.map(|bound| bound.request),
        response: binding.map(|bound| bound.response),
        model: binding.and_then(|bound| bound.model.clone()),
        model_sha256: binding.and_then(|bound| bound.model_sha256),
    }
}

pub(crate) fn sign(claims: &Receipt, key: &SigningKey) -> Vec<u8> {
    sign_bytes(encode(claims), key)
}

pub(crate) fn sign_bytes(payload: Vec<u8>, key: &SigningKey) -> Vec<u8> {
    CoseSign1Builder::new()
        .protected(protected_header(Kind::Receipt, &key.verifying_key()))
        .payload(payload)
        .create_signature(&[], |bytes| key.sign(bytes).to_vec())
        .build()
        .to_tagged_vec()
        .unwrap()
}
