//! What one machine left over three boots, the second of which ended with a loss of power, and
//! what another TPM left on the same disk: one bundle that verifies with the crash named, and each
//! way to make it say something else, refused.
//!
//! `cargo xtask vm --boots` runs this after the boots, with `XTASK_VM_OUT` naming what they left.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test says what it needs by panicking"
)]

mod support;

use merestone_evidence::{Bundle, decode, encode};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::{env, fs};
use support::verify;

fn left(boot: u32, name: &str) -> PathBuf {
    let out = env::var_os("XTASK_VM_OUT").expect("`cargo xtask vm` sets XTASK_VM_OUT");
    let path = Path::new(&out).join(boot.to_string()).join(name);
    assert!(path.is_file(), "boot {boot} left no {name}");
    path
}

/// A trust policy that asks for everything that such a machine can show, and files to judge.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::copy(left(3, "authority.pem.pub"), folder.path().join("key.pub")).expect("copies");
        let text = "version = 1\n\n[authority]\nkeys = [\"key.pub\"]\n\n[require]\n\
                    boot_log = true\nima = true\ncounters = true\nsoftware_tpm = true\n\
                    country = \"DE\"\nlocation_level = \"L1\"\nmax_gap_s = 3600\n";
        fs::write(folder.path().join("trust.toml"), text).expect("writes");
        Self(folder)
    }

    fn judge(&self, bundle: &[u8]) -> (Option<i32>, Value) {
        let file = self.0.path().join("bundle.merestone");
        fs::write(&file, bundle).expect("writes");
        let output = verify(&file, &self.0.path().join("trust.toml"));
        let verdict = serde_json::from_slice(&output.stdout).expect("JSON");
        (output.status.code(), verdict)
    }

    #[track_caller]
    fn refused(&self, bundle: &Bundle, exit: i32, id: &str) {
        let (code, verdict) = self.judge(&encode(bundle));
        assert_eq!(code, Some(exit), "{:#}", told(&verdict));
        let found = check(&verdict, id);
        assert_ne!(found["result"], "pass", "{found:#}");
        assert!(
            !found["detail"]
                .as_str()
                .expect("text")
                .starts_with("not reached"),
            "{:#}",
            told(&verdict)
        );
    }
}

fn told(verdict: &Value) -> Value {
    let checks = verdict["checks"].as_array().cloned().unwrap_or_default();
    checks
        .into_iter()
        .filter(|check| check["result"] != "pass")
        .collect()
}

#[expect(clippy::panic, reason = "says which check is not there")]
fn check<'v>(verdict: &'v Value, id: &str) -> &'v Value {
    let checks = verdict["checks"].as_array().expect("a list");
    let found = checks.iter().find(|check| check["id"] == id);
    found.unwrap_or_else(|| panic!("no check {id}"))
}

fn good() -> Bundle {
    let bytes = fs::read(left(3, "report.merestone")).expect("reads");
    decode(&bytes).expect("a bundle")
}

#[test]
fn one_bundle_over_three_boots_verifies_and_names_the_loss_of_power() {
    let desk = Desk::new();
    let bytes = fs::read(left(3, "report.merestone")).expect("reads");
    let (code, verdict) = desk.judge(&bytes);
    assert_eq!(code, Some(0), "{:#}", told(&verdict));
    let passed = [
        "ek.chain",
        "enrolment",
        "quote.signature",
        "nv.certified",
        "boot.log",
        "boot.ima",
        "clock.counters",
        "chain.order",
        "log.leaves",
        "location",
    ];
    for id in passed.into_iter().filter(|id| *id != "ek.chain") {
        assert_eq!(
            check(&verdict, id)["result"],
            "pass",
            "{:#}",
            check(&verdict, id)
        );
    }
    assert_eq!(
        verdict["location"]["level"], "L1",
        "{:#}",
        verdict["location"]
    );
    let tail = check(&verdict, "log.tail")["detail"]
        .as_str()
        .expect("text");
    assert!(tail.contains("lost power before session 2"), "{tail}");
    assert!(!tail.contains("before session 1"), "{tail}");
    println!("log.tail: {tail}");
    let boots = check(&verdict, "clock.counters")["detail"].as_str();
    assert!(boots.expect("text").contains("3 boots"), "{boots:?}");
}

#[test]
fn a_record_cut_out_is_refused() {
    let mut bundle = good();
    let span = bundle.span.as_mut().expect("a span");
    span.leaves.remove(span.leaves.len() / 2);
    Desk::new().refused(&bundle, 1, "log.leaves");
}

#[test]
fn an_epoch_cut_off_the_end_is_refused() {
    // As whoever cuts it would do it: its leaves too, and with or without the certified end.
    let mut bundle = good();
    let last = bundle.sessions.last_mut().expect("a session");
    let cut = last.epochs.pop().expect("an epoch");
    let cut: merestone_evidence::EpochStatement = decode(&cut.statement).expect("a statement");
    let leaves = usize::try_from(cut.size_after - cut.size_before).expect("few");
    let span = bundle.span.as_mut().expect("a span");
    span.leaves.truncate(span.leaves.len() - leaves);
    Desk::new().refused(&bundle, 1, "nv.certified");
    bundle.sessions.last_mut().expect("a session").nv_end = None;
    Desk::new().refused(&bundle, 3, "log.tail");
}

#[test]
fn an_epoch_cut_off_before_the_loss_of_power_is_refused() {
    let mut bundle = good();
    bundle.sessions[1].epochs.pop().expect("an epoch");
    Desk::new().refused(&bundle, 1, "chain.order");
}

#[test]
fn a_boot_log_of_another_boot_is_refused() {
    let mut bundle = good();
    let own = bundle.sessions[0].boot_log.clone().expect("a log");
    let other = bundle.sessions[2].boot_log.clone().expect("a log");
    assert_ne!(own, other, "the boots are measured differently");
    bundle.sessions[0].boot_log = Some(other);
    Desk::new().refused(&bundle, 1, "boot.log");
}

#[test]
fn another_tpm_is_refused_alone_and_among_the_others() {
    let desk = Desk::new();
    let bytes = fs::read(left(4, "report.merestone")).expect("reads");
    let (code, verdict) = desk.judge(&bytes);
    assert!(
        matches!(code, Some(1 | 3)),
        "{code:?}: {:#}",
        told(&verdict)
    );
    let other: Bundle = decode(&bytes).expect("a bundle");
    let mut joined = good();
    joined.sessions.extend(other.sessions);
    desk.refused(&joined, 1, "quote.signature");
}
