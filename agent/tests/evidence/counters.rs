//! Counters of a real software TPM over restarts, crashes, power cuts and an older disk.

use crate::{
    host::{Host, export_all, faults, judge},
    inputs::{epoch_inputs, session_inputs},
    support::Swtpm,
};
use merestone_agent::{clock, ledger::Reader, seal};
use merestone_evidence::{Bundle, Cause, EpochStatement, SessionStatement, decode};
use merestone_tpm::{EPOCHS_INDEX, EsysTpm, Options, SESSIONS_INDEX, Tpm as _};
use merestone_verify::{CheckResult, Purpose, Trust, Verdict, verify};
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

fn start(swtpm: &Swtpm, dir: &Path) -> Host {
    let mut host = Host::counting(&swtpm.tcti(), dir);
    host.core.start_session(session_inputs()).unwrap();
    host
}

fn work(host: &mut Host, epochs: u64) {
    for round in 1..=epochs {
        host.record(2);
        host.core
            .close_epoch(epoch_inputs(round), Cause::Work)
            .unwrap();
    }
}

fn stop(mut host: Host) -> Trust {
    let trust = required(&host);
    host.core
        .close_epoch(epoch_inputs(100), Cause::Shutdown)
        .unwrap();
    trust
}

/// The host's own trust policy, with counters asked for.
fn required(host: &Host) -> Trust {
    let mut trust = host.trust();
    trust.require.counters = true;
    trust
}

fn tail(verdict: &Verdict) -> (CheckResult, String) {
    let found = verdict.checks.iter().find(|check| check.id == "log.tail");
    let found = found.unwrap();
    (found.result, found.detail.clone())
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.unwrap().success());
}

/// Where the last frame of an epoch file begins: each is its length, eight bytes, the record.
fn last_record(bytes: &[u8]) -> usize {
    let (mut at, mut last) = (0, 0);
    while at < bytes.len() {
        last = at;
        let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        at += usize::try_from(length).unwrap() + 12;
    }
    last
}

fn last_session(dir: &Path) -> SessionStatement {
    let sessions = Reader::open(dir).unwrap().sessions().unwrap();
    decode(&sessions.last().unwrap().statement).unwrap()
}

#[test]
fn every_epoch_is_counted_and_the_end_is_checked_over_restarts_and_a_killed_agent() {
    let Some(swtpm) = Swtpm::start_or_skip("every_epoch_is_counted") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut host = start(&swtpm, dir.path());
    work(&mut host, 3);
    let trust = stop(host);
    // Killed: neither an end nor a last epoch.
    let mut host = start(&swtpm, dir.path());
    work(&mut host, 2);
    drop(host);
    let mut host = start(&swtpm, dir.path());
    work(&mut host, 1);
    // While it still runs, and after it stopped.
    let verdict = judge(&export_all(dir.path()), &trust);
    assert_eq!(verdict.exit, 0, "{}", faults(&verdict));
    assert!(
        tail(&verdict).1.contains("still going on"),
        "{:?}",
        tail(&verdict)
    );
    stop(host);
    let bytes = export_all(dir.path());
    let verdict = judge(&bytes, &trust);
    assert_eq!(verdict.exit, 0, "{}", faults(&verdict));
    assert_eq!(tail(&verdict).0, CheckResult::Pass);
    assert!(tail(&verdict).1.contains("1 sessions have no end"));
    let bundle: Bundle = decode(&bytes).unwrap();
    for session in &bundle.sessions {
        assert_eq!(session.nv_start.as_ref().unwrap().len(), 2);
        for epoch in &session.epochs {
            assert_eq!(epoch.nv.as_ref().unwrap().len(), 1);
            let statement: EpochStatement = decode(&epoch.statement).unwrap();
            assert!(statement.counter.is_some());
        }
    }
}

#[test]
fn a_power_cut_is_named_and_its_epochs_are_bounded() {
    let Some(mut swtpm) = Swtpm::start_or_skip("a_power_cut_is_named") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut host = start(&swtpm, dir.path());
    work(&mut host, 3);
    drop(host);
    swtpm.reset();
    let mut host = start(&swtpm, dir.path());
    work(&mut host, 1);
    let trust = stop(host);
    let verdict = judge(&export_all(dir.path()), &trust);
    assert_eq!(verdict.exit, 0, "{}", faults(&verdict));
    let (result, said) = tail(&verdict);
    assert!(
        said.contains("lost power before session 1: up to"),
        "{said}"
    );
    assert_ne!(result, CheckResult::Fail);
}

#[test]
fn n58_an_older_disk_is_found_out_by_the_counters_after_a_reboot() {
    let Some(mut swtpm) = Swtpm::start_or_skip("n58_an_older_disk_is_found_out") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (state, kept) = (dir.path().join("state"), dir.path().join("kept"));
    let mut host = start(&swtpm, &state);
    work(&mut host, 2);
    stop(host);
    copy(&state, &kept);
    // What is to be forgotten: a whole session.
    let mut host = start(&swtpm, &state);
    work(&mut host, 3);
    stop(host);
    let tools = tempfile::tempdir().unwrap();
    swtpm.tool(tools.path(), &["tpm2_shutdown", "-c"]).unwrap();
    swtpm.reset();
    std::fs::remove_dir_all(&state).unwrap();
    copy(&kept, &state);
    let mut host = start(&swtpm, &state);
    work(&mut host, 1);
    let trust = stop(host);
    let verdict = judge(&export_all(&state), &trust);
    let (result, said) = tail(&verdict);
    assert_eq!((verdict.exit, result), (2, CheckResult::Fail), "{said}");
    // Nothing else would have told.
    let other = verdict
        .checks
        .iter()
        .filter(|check| check.result == CheckResult::Fail && check.id != "log.tail");
    assert_eq!(other.count(), 0, "{}", faults(&verdict));
}

#[test]
fn n30d_a_stranger_who_counts_is_seen_and_the_agent_goes_on() {
    let Some(swtpm) = Swtpm::start_or_skip("n30d_a_stranger_who_counts") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut host = start(&swtpm, dir.path());
    work(&mut host, 1);
    let trust = stop(host);
    {
        let auth = seal::nv_auth(dir.path()).unwrap();
        let mut tpm = EsysTpm::open(&Options::at(swtpm.tcti().parse().unwrap())).unwrap();
        tpm.nv_increment(EPOCHS_INDEX, &auth).unwrap();
        tpm.nv_increment(SESSIONS_INDEX, &auth).unwrap();
    }
    let mut host = start(&swtpm, dir.path());
    work(&mut host, 1);
    stop(host);
    let verdict = judge(&export_all(dir.path()), &trust);
    assert_eq!(verdict.exit, 2, "{}", faults(&verdict));
    assert_eq!(tail(&verdict).0, CheckResult::Fail);
}

#[test]
fn a_step_that_a_crash_left_out_is_taken_at_the_next_start() {
    let Some(swtpm) = Swtpm::start_or_skip("a_step_that_a_crash_left_out") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut host = start(&swtpm, dir.path());
    work(&mut host, 1);
    std::fs::copy(dir.path().join("log/checkpoint"), dir.path().join("before")).unwrap();
    work(&mut host, 1);
    drop(host);
    // As if the agent had died before the counter was stored: the last record of the epochs cut.
    let epochs = dir.path().join("log/sessions/00000001/epochs");
    let bytes = std::fs::read(&epochs).unwrap();
    let certified = last_record(&bytes);
    std::fs::write(&epochs, &bytes[..certified]).unwrap();
    std::fs::copy(dir.path().join("before"), dir.path().join("log/checkpoint")).unwrap();
    let trust = stop(start(&swtpm, dir.path()));
    let bytes = export_all(dir.path());
    let verdict = judge(&bytes, &trust);
    assert_eq!(verdict.exit, 0, "{}", faults(&verdict));
    let bundle: Bundle = decode(&bytes).unwrap();
    assert!(bundle.sessions[0].epochs[1].nv.is_some());
}

#[test]
fn a_tpm_without_counters_is_declared_and_a_policy_that_asks_is_not_met() {
    let Some(swtpm) = Swtpm::start_or_skip("a_tpm_without_counters") else {
        return;
    };
    let tools = tempfile::tempdir().unwrap();
    // Somebody else's index under our handle.
    let index = format!("{SESSIONS_INDEX:#x}");
    let words = ["tpm2_nvdefine", &index, "-C", "o", "-s", "8"];
    swtpm.tool(tools.path(), &words).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut host = start(&swtpm, dir.path());
    work(&mut host, 1);
    let mut lenient = host.trust();
    let trust = stop(host);
    let said = last_session(dir.path()).counters.unwrap().absent.unwrap();
    assert!(said.contains("is not ours"), "{said}");
    let bytes = export_all(dir.path());
    assert_eq!(judge(&bytes, &trust).exit, 3);
    lenient.require.counters = false;
    let verdict = verify(&bytes, &lenient, Purpose::Period, clock::now_ms());
    assert_eq!(verdict.exit, 0, "{}", faults(&verdict));
    let told = verdict.not_checked.iter().find(|one| one.id == "log.tail");
    assert!(told.unwrap().detail.contains("is not ours"));
}

/// `cargo test -p merestone-agent --test evidence measured -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn measured() {
    let Some(swtpm) = Swtpm::start_or_skip("measured") else {
        return;
    };
    for counts in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut host = if counts {
            Host::counting(&swtpm.tcti(), dir.path())
        } else {
            Host::start(&swtpm, dir.path())
        };
        host.core.start_session(session_inputs()).unwrap();
        let mut times: Vec<Duration> = (1..=200)
            .map(|round| {
                host.record(2);
                let began = Instant::now();
                host.core
                    .close_epoch(epoch_inputs(round), Cause::Work)
                    .unwrap();
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        println!(
            "epoch seal, counted: {counts}: p50 {:?} p99 {:?}",
            times[100], times[197]
        );
    }
}
