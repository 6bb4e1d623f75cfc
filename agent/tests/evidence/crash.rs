//! Crashes and reboots at every place they can happen.

use crate::{
    host::{Host, export_all, faults, judge},
    inputs::{epoch_inputs, session_inputs},
    support::{Swtpm, start::alone},
};
use merestone_agent::{clock, ledger::Reader};
use merestone_evidence::{Bundle, Cause, Digest, EpochStatement, decode, sha256};
use merestone_tpm::{EsysTpm, Options, Tpm as _};
use merestone_verify::Outcome;
use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};
/// Leave an epoch pending, extended or not, as an agent killed there would.
fn die_with_pending(swtpm: &Swtpm, dir: &Path, is_extended: bool) -> Digest {
    let mut host = Host::start(swtpm, dir);
    host.core.start_session(session_inputs()).unwrap();
    host.record(2);
    host.core.close_epoch(epoch_inputs(1), Cause::Work).unwrap();
    let reader = Reader::open(dir).unwrap();
    let sealed = reader.epochs(1).unwrap().pop().unwrap();
    let last: EpochStatement = decode(&sealed.statement).unwrap();
    host.record(3);
    let (size_after, root) = host.ledger.sync().unwrap();
    let statement = merestone_evidence::encode(&EpochStatement {
        sequence: 1,
        previous: sha256(&sealed.statement),
        opened_ms: last.closed_ms,
        closed_ms: clock::now_ms(),
        size_before: last.size_after,
        size_after,
        root,
        ..last
    });
    host.ledger.write_ahead(&statement).unwrap();
    drop(host);
    if is_extended {
        let mut tpm = EsysTpm::open(&Options::at(swtpm.tcti().parse().unwrap())).unwrap();
        tpm.extend(15, &sha256(&statement)).unwrap();
    }
    sha256(&statement)
}

#[test]
fn an_epoch_that_reached_the_register_before_a_crash_gets_its_quote_after_it() {
    let Some(swtpm) = Swtpm::start_or_skip("an_epoch_that_reached_the_register") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let digest = die_with_pending(&swtpm, dir.path(), true);
    let mut host = Host::start(&swtpm, dir.path());
    let started = host.core.start_session(session_inputs()).unwrap();
    assert_eq!(
        (started.recovered.pending, started.recovered.unsealed),
        (Some(true), 0)
    );
    assert_eq!(
        Reader::open(dir.path()).unwrap().epochs(1).unwrap().len(),
        2
    );
    host.core.close_epoch(epoch_inputs(0), Cause::Work).unwrap();
    let bytes = export_all(dir.path());
    let verdict = judge(&bytes, &host.trust());
    assert_ne!(verdict.verdict, Outcome::Untrusted, "{}", faults(&verdict));
    let bundle: Bundle = decode(&bytes).unwrap();
    assert_eq!(sha256(&bundle.sessions[0].epochs[1].statement), digest);
    assert_eq!(verdict.verdict, Outcome::Pass, "{}", faults(&verdict));
}

/// The agent that `killed_at_any_moment` kills; does nothing by itself.
#[test]
fn victim() {
    let (Ok(tcti), Ok(state_dir)) = (
        std::env::var("MERESTONE_VICTIM_TCTI"),
        std::env::var("MERESTONE_VICTIM_STATE"),
    ) else {
        return;
    };
    let mut host = Host::at(&tcti, Path::new(&state_dir), Duration::from_secs(20), None);
    host.core.start_session(session_inputs()).unwrap();
    for round in 1.. {
        host.record(3);
        host.core
            .close_epoch(epoch_inputs(round), Cause::Work)
            .unwrap();
    }
}

#[test]
fn killed_at_any_moment_the_evidence_goes_on_and_passes() {
    let Some(swtpm) = Swtpm::start_or_skip("killed_at_any_moment_the_evidence_goes_on") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut found = Vec::new();
    for round in 0..12 {
        let mut child = alone(std::env::current_exe().unwrap())
            .args(["--exact", "crash::victim", "--nocapture"])
            .env("MERESTONE_VICTIM_TCTI", swtpm.tcti())
            .env("MERESTONE_VICTIM_STATE", dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // A different moment each time, mostly of an epoch; the first ones of
        // opening and of starting a session.
        let sessions = || {
            Reader::open(dir.path())
                .and_then(|reader| reader.sessions())
                .map_or(0, |found| found.len())
        };
        let (before, deadline) = (sessions(), Instant::now() + Duration::from_secs(20));
        while round > 1 && sessions() == before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(3 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let mut host = Host::start(&swtpm, dir.path());
        found.push(host.core.start_session(session_inputs()).unwrap().recovered);
        host.core
            .close_epoch(epoch_inputs(0), Cause::Shutdown)
            .unwrap();
        assert_eq!(host.ledger.sealed().size, host.ledger.size());
        let verdict = judge(&export_all(dir.path()), &host.trust());
        assert_eq!(
            verdict.verdict,
            Outcome::Pass,
            "{found:?}\n{}",
            faults(&verdict)
        );
    }
    println!("found after each kill: {found:?}");
}

#[test]
fn an_epoch_that_never_reached_the_register_is_sealed_by_the_next_session() {
    let Some(swtpm) = Swtpm::start_or_skip("an_epoch_that_never_reached_the_register") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    die_with_pending(&swtpm, dir.path(), false);
    let mut host = Host::start(&swtpm, dir.path());
    let started = host.core.start_session(session_inputs()).unwrap();
    assert_eq!(
        (started.recovered.pending, started.recovered.unsealed),
        (Some(false), 3)
    );
    host.core.close_epoch(epoch_inputs(0), Cause::Work).unwrap();
    let verdict = judge(&export_all(dir.path()), &host.trust());
    assert_eq!(verdict.verdict, Outcome::Pass, "{}", faults(&verdict));
}

#[test]
fn n28_a_reboot_ends_the_pending_epoch_and_the_session_and_is_seen() {
    for is_extended in [false, true] {
        let Some(mut swtpm) = Swtpm::start_or_skip("a_reboot_ends_the_pending_epoch") else {
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        die_with_pending(&swtpm, dir.path(), is_extended);
        swtpm.reset();
        let mut host = Host::start(&swtpm, dir.path());
        let started = host.core.start_session(session_inputs()).unwrap();
        assert_eq!(
            (started.recovered.pending, started.recovered.unsealed),
            (Some(false), 3)
        );
        host.record(1);
        host.core.close_epoch(epoch_inputs(0), Cause::Work).unwrap();
        let verdict = judge(&export_all(dir.path()), &host.trust());
        assert_ne!(verdict.verdict, Outcome::Untrusted, "{}", faults(&verdict));
    }
}
