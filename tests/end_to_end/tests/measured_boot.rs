//! What a guest with a measured boot handed over, judged on another machine:
//! the boot event log and the IMA list are replayed to the registers that the
//! TPM signed.
//!
//! `cargo xtask vm` runs this after each guest, with `XTASK_VM_OUT` naming
//! what the guest left.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test says what it needs by panicking"
)]

mod support;

use std::{env, fs, path::PathBuf};

use serde_json::Value;
use support::verify;

fn handed_over(name: &str) -> PathBuf {
    let out = env::var_os("XTASK_VM_OUT").expect("`cargo xtask vm` sets XTASK_VM_OUT");
    let path = PathBuf::from(out).join(name);
    assert!(path.is_file(), "the guest left no {name}");
    path
}

#[test]
fn the_boot_log_and_the_ima_list_replay_to_what_the_tpm_signed() {
    let output = verify(&handed_over("report.merestone"), &handed_over("trust.toml"));
    let verdict: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(0), "{verdict:#}");
    assert_eq!(verdict["verdict"], "pass", "{verdict:#}");
    let checks = verdict["checks"].as_array().expect("a list");
    for id in [
        "quote.signature",
        "quote.pcrs",
        "boot.log",
        "boot.ima",
        "chain.replay",
        "log.leaves",
    ] {
        let check = checks.iter().find(|check| check["id"] == id);
        let check = check.unwrap_or_else(|| panic!("no check `{id}` in {verdict:#}"));
        assert_eq!(check["result"], "pass", "{check:#}");
    }
    // What cannot be known of a software TPM in a virtual machine is said.
    assert!(
        !verdict["not_checked"]
            .as_array()
            .expect("a list")
            .is_empty()
    );
}

/// Every region of the file is met: statements, quotes, both logs, leaves. Only
/// what firmware wrote *about* an event may change, for the registers hold the
/// events' digests; then the verifier must not say anything else than before.
#[test]
fn one_changed_byte_is_refused_or_is_a_remark_that_the_verifier_does_not_repeat() {
    let (bundle, trust) = (handed_over("report.merestone"), handed_over("trust.toml"));
    let good = fs::read(&bundle).expect("reads");
    let said = findings(&verify(&bundle, &trust).stdout);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("changed.merestone");
    let (mut refused, mut remarks) = (0, 0);
    for at in (0..good.len()).step_by(good.len() / 200 + 1) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&path, bad).expect("writes");
        let output = verify(&path, &trust);
        match output.status.code() {
            Some(1..=3) => refused += 1,
            Some(0) => {
                remarks += 1;
                assert_eq!(
                    findings(&output.stdout),
                    said,
                    "byte {at} changed a finding"
                );
            }
            code => panic!("byte {at} of {} changed: exit {code:?}", good.len()),
        }
    }
    assert!(
        refused > 2 * remarks,
        "{refused} refused, {remarks} accepted"
    );
}

/// All that the verifier says but of which file it says it.
fn findings(output: &[u8]) -> Value {
    let verdict: Value = serde_json::from_slice(output).expect("JSON");
    let kept = [
        "verdict",
        "exit",
        "checks",
        "not_checked",
        "coverage",
        "location",
        "egress",
    ];
    kept.map(|key| (key, verdict[key].clone()))
        .into_iter()
        .collect()
}

#[test]
fn the_guest_had_both_tiers_in_force() {
    let status = fs::read(handed_over("status.json")).expect("reads");
    let status: Value = serde_json::from_slice(&status).expect("JSON");
    for tier in ["cgroup", "lsm"] {
        let tiers = status["tiers"].as_array().expect("a list");
        let found = tiers
            .iter()
            .any(|found| found["name"] == tier && found["active"] == true);
        assert!(found, "{tier}: {status:#}");
    }
}
