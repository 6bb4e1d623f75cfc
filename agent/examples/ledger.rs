//! How many inference records a second reach the disk, with a receipt's signature each and a
//! quote over every epoch: what `cargo xtask bench attest` measures on a software TPM.
//!
//! `ledger TCTI SECONDS EPOCH_MS FOLDER [RATE]`: the log, the sealer and the TPM are the agent's
//! own; only who makes the records is not. Without a rate it goes as fast as it can. Prints one
//! JSON object.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement, and stops where it cannot"
)]

#[path = "../../attest/verify/tests/cases/support/inference.rs"]
mod inference;
#[path = "../tests/evidence/inputs.rs"]
mod inputs;

use ed25519_dalek::{Signer as _, SigningKey};
use inference::inference;
use inputs::{epoch_inputs, session_inputs};
use merestone_agent::{
    clock,
    ledger::Ledger,
    seal::{Metrics, SealCore, SealOptions},
};
use merestone_evidence::{Body, Cause, Entry, EntryKind, encode, leaf_hash};
use merestone_tpm::{Deadline, EsysTpm, Options};
use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Records between two looks at the clock, and the most that a steady source sends at once.
const BATCH: u64 = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (needed, rate) = arguments.split_at(4.min(arguments.len()));
    let [tcti, seconds, epoch_ms, folder] = needed else {
        panic!("ledger TCTI SECONDS EPOCH_MS FOLDER [RATE]");
    };
    let rate: Option<f64> = rate.first().map(|rate| rate.parse().unwrap());
    let length = Duration::from_secs(seconds.parse().unwrap());
    let epoch = Duration::from_millis(epoch_ms.parse().unwrap());
    let folder = Path::new(folder);
    let (mut core, ledger) = open(tcti, folder);
    core.start_session(session_inputs()).unwrap();
    let before = ledger.size();
    let done = Arc::new(AtomicBool::new(false));
    let sealer = thread::spawn({
        let done = Arc::clone(&done);
        move || seal(core, epoch, &done)
    });
    let began = Instant::now();
    let (records, mut took) = write(&ledger, length, rate);
    done.store(true, Ordering::Release);
    let mut seals = sealer.join().unwrap();
    let all = began.elapsed();
    seals.sort_unstable();
    took.sort_unstable();
    let sealed = ledger.sealed().size;
    assert_eq!(sealed, before + records, "every record is under a quote");
    let at = |sorted: &[Duration], part: f64| {
        let place = (sorted.len() as f64 * part) as usize;
        let found = sorted.get(place.min(sorted.len().saturating_sub(1)));
        found.map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    let bytes: u64 = fs::read_dir(folder.join("log"))
        .unwrap()
        .fold(0, |sum, entry| {
            let about = entry.unwrap().metadata().unwrap();
            sum + if about.is_file() { about.len() } else { 0 }
        });
    println!(
        "{{\"records\": {records}, \"seconds\": {:.3}, \"per_second\": {:.0}, \"epochs\": {}, \
         \"seal_ms_p50\": {:.2}, \"seal_ms_p99\": {:.2}, \"batch_ms_p50\": {:.3}, \
         \"batch_ms_p99\": {:.3}, \"batch\": {BATCH}, \"bytes_per_record\": {:.0}, \
         \"peak_kib\": {}}}",
        all.as_secs_f64(),
        records as f64 / all.as_secs_f64(),
        seals.len(),
        at(&seals, 0.5),
        at(&seals, 0.99),
        at(&took, 0.5),
        at(&took, 0.99),
        bytes as f64 / records as f64,
        peak_kib(),
    );
}

fn open(tcti: &str, folder: &Path) -> (SealCore, Arc<Ledger>) {
    let options = Options::at(tcti.parse().unwrap());
    let limit = Duration::from_secs(60);
    let tpm = Deadline::spawn(limit, move || EsysTpm::open(&options)).unwrap();
    let (ledger, opened) = Ledger::open(folder).unwrap();
    let ledger = Arc::new(ledger);
    let core = SealCore::new(
        Box::new(tpm),
        Arc::clone(&ledger),
        opened,
        SealOptions::default(),
        Metrics::new().unwrap(),
    );
    (core.unwrap(), ledger)
}

/// One quote an epoch, and a last one over what came after; how long each took, with the sync
/// of what it covers.
fn seal(mut core: SealCore, epoch: Duration, done: &AtomicBool) -> Vec<Duration> {
    let mut took = Vec::new();
    loop {
        let last = done.load(Ordering::Acquire);
        let began = Instant::now();
        core.close_epoch(epoch_inputs(0), Cause::Work).unwrap();
        took.push(began.elapsed());
        if last {
            return took;
        }
        let until = began + epoch;
        while Instant::now() < until && !done.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(5).min(epoch));
        }
    }
}

/// Records, each signed, until the time is over; how many, and how long each batch took.
fn write(ledger: &Ledger, length: Duration, rate: Option<f64>) -> (u64, Vec<Duration>) {
    let key = SigningKey::from_bytes(&[7; 32]);
    let mut took = Vec::new();
    let mut number = 0;
    let began = Instant::now();
    while began.elapsed() < length {
        let batch = Instant::now();
        for _ in 0..BATCH {
            let entry = record(number);
            let index = ledger.append(&entry).unwrap();
            receipt(&key, index, &entry);
            number += 1;
        }
        took.push(batch.elapsed());
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(number as f64 / rate);
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
    }
    (number, took)
}

/// As many bytes signed as a receipt has: its header, the leaf's hash and number, the session.
fn receipt(key: &SigningKey, index: u64, entry: &Entry) {
    let leaf = leaf_hash(&encode(entry));
    let mut signed = vec![0x84; 160];
    signed.extend(index.to_be_bytes());
    signed.extend(leaf.0);
    std::hint::black_box(key.sign(&signed));
}

fn record(number: u64) -> Entry {
    let now = clock::now_ms();
    let started_ms = now.saturating_sub(800);
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(number.to_be_bytes()) {
        *to = from;
    }
    Entry {
        kind: EntryKind,
        time_ms: now,
        boot_ns: clock::boot_ns(),
        body: Body::Inference(Box::new(inference(id, started_ms, started_ms, number))),
    }
}

/// The most memory this process had at once.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}
