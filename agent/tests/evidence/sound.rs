//! What a sound run leaves, and that damage to it shows.

use crate::{
    host::{Host, export_all, faults, judge},
    inputs::{epoch_inputs, session_inputs},
    support::Swtpm,
};
use merestone_agent::{
    clock, export,
    ledger::{Reader, StoredLogs},
    seal::{BootLogs, SealError, Sealer},
};
use merestone_evidence::{Bundle, Cause, ClockQuality, EpochStatement, GpuReport, decode, sha256};
use merestone_verify::Outcome;
use std::{fs, time::Duration};
#[test]
fn sessions_and_epochs_across_restarts_and_a_crash_pass_and_damage_does_not() {
    let Some(swtpm) = Swtpm::start_or_skip("sessions_and_epochs_across_restarts_and_a_crash")
    else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(&swtpm, dir.path());
    host.core.start_session(session_inputs()).unwrap();
    for round in 1..=3 {
        host.record(5);
        host.core
            .close_epoch(epoch_inputs(round), Cause::Work)
            .unwrap();
    }
    host.core
        .close_epoch(epoch_inputs(3), Cause::Heartbeat)
        .unwrap();
    host.core
        .close_epoch(epoch_inputs(3), Cause::Shutdown)
        .unwrap();
    drop(host);
    // A second start, which is killed with entries not sealed yet.
    let mut host = Host::start(&swtpm, dir.path());
    let started = host.core.start_session(session_inputs()).unwrap();
    assert_eq!(
        started.recovered,
        merestone_agent::seal::Recovered::default()
    );
    host.record(4);
    host.core.close_epoch(epoch_inputs(1), Cause::Work).unwrap();
    host.record(3);
    drop(host);
    // A third start seals what the second left.
    let mut host = Host::start(&swtpm, dir.path());
    let started = host.core.start_session(session_inputs()).unwrap();
    assert_eq!(started.recovered.unsealed, 3);
    let sealed = host.core.close_epoch(epoch_inputs(0), Cause::Work).unwrap();
    assert_eq!(
        sealed.size,
        1 + 15 + 4 + 3 + 1,
        "the log's key and the note of what was recovered are entries too"
    );

    let bytes = export_all(dir.path());
    let trust = host.trust();
    let verdict = judge(&bytes, &trust);
    assert_eq!(verdict.verdict, Outcome::Pass, "{}", faults(&verdict));
    let bundle: Bundle = decode(&bytes).unwrap();
    assert_eq!(
        bundle
            .sessions
            .iter()
            .map(|session| session.epochs.len())
            .collect::<Vec<_>>(),
        [5, 1, 1]
    );
    let first: EpochStatement = decode(&bundle.sessions[2].epochs[0].statement).unwrap();
    assert_eq!(first.cause, Cause::Recovered);
    // Any bit may be wrong anywhere; a sample of places keeps the test short.
    for at in (0..bytes.len()).step_by(bytes.len() / 150) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert_ne!(judge(&damaged, &trust).verdict, Outcome::Pass, "byte {at}");
    }
}

#[test]
fn tpm2_checkquote_accepts_the_quotes_of_a_bundle() {
    let Some(swtpm) = Swtpm::start_or_skip("tpm2_checkquote_accepts_the_quotes_of_a_bundle") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(&swtpm, dir.path());
    host.core.start_session(session_inputs()).unwrap();
    host.record(2);
    host.core.close_epoch(epoch_inputs(1), Cause::Work).unwrap();
    let bundle: Bundle = decode(&export_all(dir.path())).unwrap();
    drop(host);
    let scratch = tempfile::tempdir().unwrap();
    swtpm
        .tool(
            scratch.path(),
            &[
                "tpm2_readpublic",
                "-c",
                "0x81014D53",
                "-f",
                "pem",
                "-o",
                "ak.pem",
            ],
        )
        .unwrap();
    let session = &bundle.sessions[0];
    let epoch = &session.epochs[0];
    for (statement, quote) in [
        (&session.statement, &session.quote),
        (&epoch.statement, &epoch.quote),
    ] {
        fs::write(scratch.path().join("attest"), &quote.attest).unwrap();
        fs::write(scratch.path().join("sig"), &quote.signature).unwrap();
        let challenge = sha256(statement).to_string();
        let check = [
            "tpm2_checkquote",
            "-u",
            "ak.pem",
            "-m",
            "attest",
            "-s",
            "sig",
            "-g",
            "sha256",
            "-q",
        ];
        swtpm
            .tool(
                scratch.path(),
                &[&check[..], &[challenge.as_str()]].concat(),
            )
            .unwrap();
    }
}

#[test]
fn a_period_shows_its_own_leaves_and_proofs_for_the_rest() {
    let Some(swtpm) = Swtpm::start_or_skip("a_period_shows_its_own_leaves") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(&swtpm, dir.path());
    host.core.start_session(session_inputs()).unwrap();
    let mut middle = (0, 0);
    for round in 1..=6 {
        host.record(round * 3);
        if round == 4 {
            middle.0 = clock::now_ms();
            std::thread::sleep(Duration::from_millis(5));
        }
        host.core
            .close_epoch(epoch_inputs(round), Cause::Work)
            .unwrap();
        if round == 4 {
            middle.1 = clock::now_ms();
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let bytes = export::bundle(dir.path(), middle.0, middle.1, false).unwrap();
    let verdict = judge(&bytes, &host.trust());
    assert_eq!(verdict.verdict, Outcome::Pass, "{}", faults(&verdict));
    let bundle: Bundle = decode(&bytes).unwrap();
    let span = bundle.span.unwrap();
    assert_eq!(span.start, 1 + 3 + 6 + 9, "the log's key is an entry too");
    assert_eq!(
        bundle.sessions[0].epochs.len(),
        5,
        "up to the last that touches the period"
    );
    assert_eq!(bundle.consistency.len(), 2 + 1, "one joins the checkpoint");
    let nothing = export::bundle(dir.path(), 1, 2, false).unwrap_err();
    assert!(
        matches!(nothing, export::ExportError::Nothing { .. }),
        "{nothing}"
    );
}

#[test]
fn boot_logs_are_kept_and_the_measurement_list_follows_its_register() {
    let Some(swtpm) = Swtpm::start_or_skip("boot_logs_are_kept") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let logs = BootLogs {
        boot: dir.path().join("bios"),
        ima: dir.path().join("ima"),
    };
    fs::write(&logs.boot, b"firmware").unwrap();
    fs::write(&logs.ima, b"one").unwrap();
    let mut host = Host::with(
        &swtpm,
        dir.path(),
        Duration::from_secs(20),
        Some(logs.clone()),
    );
    host.core.start_session(session_inputs()).unwrap();
    fs::write(&logs.ima, b"one two").unwrap();
    host.core.close_epoch(epoch_inputs(1), Cause::Work).unwrap();
    let stored = || Reader::open(dir.path()).unwrap().boot_logs(1).unwrap();
    assert_eq!(
        stored(),
        StoredLogs {
            boot: Some(b"firmware".to_vec()),
            ima: Some(b"one".to_vec())
        },
        "the register did not move"
    );
    let extend = format!("10:sha256={}", sha256(b"two"));
    swtpm
        .tool(dir.path(), &["tpm2_pcrextend", &extend])
        .unwrap();
    host.core.close_epoch(epoch_inputs(1), Cause::Work).unwrap();
    assert_eq!(stored().ima, Some(b"one two".to_vec()));
}

#[tokio::test]
async fn the_thread_answers_and_shows_its_state() {
    let Some(swtpm) = Swtpm::start_or_skip("the_thread_answers_and_shows_its_state") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let Host { core, ledger } = Host::start(&swtpm, dir.path());
    let sealer = Sealer::spawn(core).unwrap();
    let refused = sealer
        .close_epoch(epoch_inputs(0), Cause::Work)
        .await
        .unwrap_err();
    assert!(matches!(refused, SealError::NoSession), "{refused}");
    let started = sealer.start_session(session_inputs()).await.unwrap();
    sealer
        .close_epoch(epoch_inputs(0), Cause::Heartbeat)
        .await
        .unwrap();
    let status = sealer.status();
    assert_eq!((status.session, status.epochs), (Some(started.session), 1));
    assert!(
        status.node.starts_with("node-") && status.node.len() == 21,
        "{}",
        status.node
    );
    assert_eq!(ledger.size(), 1, "the log's key is an entry");
}

#[test]
fn a_clock_without_a_service_is_not_called_synchronised() {
    let ClockQuality {
        synchronised,
        error_us,
    } = clock::quality();
    assert!(!synchronised || error_us.is_some());
}

#[test]
fn what_gpus_attest_lies_with_its_session_and_goes_into_the_bundle() {
    let Some(swtpm) = Swtpm::start_or_skip("what_gpus_attest_lies_with_its_session") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(&swtpm, dir.path());
    let started = host.core.start_session(session_inputs()).unwrap();
    assert_eq!(host.core.status().statement, Some(started.digest));
    let reports = [GpuReport {
        uuid: "GPU-one".into(),
        report: b"signed by nobody".to_vec(),
        certificates: b"-----BEGIN CERTIFICATE-----".to_vec(),
    }];
    let other = host
        .ledger
        .keep_gpu_reports(&sha256(b"another session"), &reports);
    assert!(other.is_err(), "an answer that came too late is not kept");
    host.ledger
        .keep_gpu_reports(&started.digest, &reports)
        .unwrap();
    host.record(1);
    host.core.close_epoch(epoch_inputs(0), Cause::Work).unwrap();
    let bytes = export_all(dir.path());
    let bundle: Bundle = decode(&bytes).unwrap();
    let kept = bundle.sessions[0].gpu_reports.as_deref();
    assert_eq!(kept, Some(&reports[..]));
    let verdict = judge(&bytes, &host.trust());
    assert_eq!(verdict.verdict, Outcome::Pass, "{}", faults(&verdict));
    let told = verdict
        .not_checked
        .iter()
        .find(|one| one.id == "gpu.attestation");
    assert!(told.unwrap().detail.contains("no maker's root is pinned"));
}
