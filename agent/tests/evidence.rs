//! From the log through a real software TPM to the verifier's verdict, and what
//! crashes, reboots, slow TPMs and other programs do to it.
#![cfg(test)]

#[path = "../../attest/tpm/tests/support/mod.rs"]
mod support;

use merestone_agent::{
    clock, export,
    ledger::{Ledger, Reader},
    seal::{
        BootLogs, EpochInputs, Metrics, SealCore, SealError, SealOptions, Sealer, SessionInputs,
    },
};
use merestone_evidence::{
    Agent, Body, Boundary, Bundle, Cause, ClockQuality, Counter, Digest, Entry, EntryKind,
    EpochStatement, FlowVerdict, GpuInventory, Kernel, Mode, SessionStatement, decode, sha256,
};
use merestone_tpm::{Deadline, EsysTpm, Options, Tpm as _};
use merestone_verify::{Outcome, Purpose, Trust, Verdict, verify};
use std::{fs, path::Path, sync::Arc, time::Duration};
use support::Swtpm;

fn boundary() -> Boundary {
    Boundary {
        name: "eu".into(),
        sha256: sha256(b"boundary"),
        mode: Mode::Enforce,
    }
}

fn session_inputs() -> SessionInputs {
    SessionInputs {
        agent: Agent {
            version: "0".into(),
            sha256: sha256(b"agent"),
        },
        boundary: boundary(),
        object_sha256: sha256(b"object"),
        programs: vec![],
        tiers: vec![],
        uncovered: vec!["vsock".into()],
        gpu: GpuInventory {
            state: "no_driver".into(),
            driver: None,
            library: None,
            library_sha256: None,
            test_library: false,
            devices: vec![],
        },
        kernel: Kernel {
            release: "6.12".into(),
            boot_id: clock::boot_id(),
        },
        site: None,
        require: vec![],
    }
}

fn epoch_inputs(denied: u64) -> EpochInputs {
    EpochInputs {
        boundary: boundary(),
        object_sha256: sha256(b"object"),
        counters: vec![Counter {
            hook: "connect4".into(),
            verdict: FlowVerdict::Deny,
            protocol: "tcp".into(),
            count: denied,
        }],
        lost: vec![],
        tiers: vec![],
        uncovered: vec!["vsock".into()],
        gpu_state: "no_driver".into(),
        gpu_energy: vec![],
        groups: 1,
        clock: clock::quality(),
    }
}

/// An agent's evidence side, with a TPM that answers within `limit`.
struct Host {
    core: SealCore,
    ledger: Arc<Ledger>,
}

impl Host {
    fn start(swtpm: &Swtpm, state_dir: &Path) -> Self {
        Self::with(swtpm, state_dir, Duration::from_secs(20), BootLogs::none())
    }

    fn with(swtpm: &Swtpm, state_dir: &Path, limit: Duration, boot_logs: BootLogs) -> Self {
        let options = Options::at(swtpm.tcti().parse().unwrap());
        let mut tpm =
            Deadline::spawn(Duration::from_secs(20), move || EsysTpm::open(&options)).unwrap();
        tpm.set_limit(limit);
        let (ledger, opened) = Ledger::open(state_dir).unwrap();
        let ledger = Arc::new(ledger);
        let options = SealOptions {
            boot_logs,
            ..SealOptions::default()
        };
        let core = SealCore::new(
            Box::new(tpm),
            Arc::clone(&ledger),
            opened,
            options,
            Metrics::new().unwrap(),
        );
        Self {
            core: core.unwrap(),
            ledger,
        }
    }

    fn record(&self, count: u64) {
        for number in 0..count {
            self.ledger
                .append(&Entry {
                    kind: EntryKind,
                    time_ms: clock::now_ms(),
                    boot_ns: clock::boot_ns(),
                    body: Body::GuardStop {
                        group: number,
                        cause: "empty".into(),
                    },
                })
                .unwrap();
        }
    }

    fn trust(&self) -> Trust {
        let status = self.core.status();
        let text = export::trust_file(&export::TrustInputs {
            node: status.node.clone(),
            ak_name: hex::decode(&status.ak_name).unwrap(),
            boundary: boundary().sha256,
            software_tpm: true,
            test_gpu_library: false,
            require: vec![],
        });
        Trust::parse(&text, "trust.toml").unwrap()
    }
}

fn judge(bytes: &[u8], trust: &Trust) -> Verdict {
    verify(bytes, trust, Purpose::Period, clock::now_ms())
}

fn faults(verdict: &Verdict) -> String {
    let bad = verdict
        .checks
        .iter()
        .filter(|check| check.result == merestone_verify::CheckResult::Fail);
    bad.map(|check| format!("{}: {}\n", check.id, check.detail))
        .collect()
}

/// Everything sealed so far.
fn export_all(state_dir: &Path) -> Vec<u8> {
    let reader = Reader::open(state_dir).unwrap();
    let sessions = reader.sessions().unwrap();
    let first: SessionStatement = decode(&sessions[0].statement).unwrap();
    let last = sessions.iter().rev().find_map(|session| reader.epochs(session.number).unwrap().pop()).unwrap();
    let last: EpochStatement = decode(&last.statement).unwrap();
    export::bundle(state_dir, first.started_ms, last.closed_ms).unwrap()
}

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
        15 + 4 + 3 + 1,
        "the note of what was recovered is an entry too"
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
    let bytes = export::bundle(dir.path(), middle.0, middle.1).unwrap();
    let verdict = judge(&bytes, &host.trust());
    assert_eq!(verdict.verdict, Outcome::Pass, "{}", faults(&verdict));
    let bundle: Bundle = decode(&bytes).unwrap();
    let span = bundle.span.unwrap();
    assert_eq!(span.start, 3 + 6 + 9);
    assert_eq!(
        bundle.sessions[0].epochs.len(),
        5,
        "up to the last that touches the period"
    );
    assert_eq!(bundle.consistency.len(), 2);
    let nothing = export::bundle(dir.path(), 1, 2).unwrap_err();
    assert!(
        matches!(nothing, export::ExportError::Nothing { .. }),
        "{nothing}"
    );
}

#[test]
fn a_tpm_that_hangs_delays_an_epoch_and_loses_nothing() {
    let Some(swtpm) = Swtpm::start_or_skip("a_tpm_that_hangs_delays_an_epoch") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::with(
        &swtpm,
        dir.path(),
        Duration::from_millis(400),
        BootLogs::none(),
    );
    host.core.start_session(session_inputs()).unwrap();
    host.record(2);
    host.core.close_epoch(epoch_inputs(1), Cause::Work).unwrap();
    swtpm.pause();
    for round in 2..5 {
        host.record(2);
        let error = host
            .core
            .close_epoch(epoch_inputs(round), Cause::Work)
            .unwrap_err();
        assert_eq!(error.reason(), "tpm_slow", "{error}");
        assert!(host.core.status().is_pending && host.core.status().error.is_some());
    }
    swtpm.resume();
    let sealed = (0..100).find_map(|_| {
        std::thread::sleep(Duration::from_millis(20));
        host.core.close_epoch(epoch_inputs(5), Cause::Work).ok()
    });
    assert_eq!(sealed.unwrap().size, 8);
    assert!(!host.core.status().is_pending && host.core.status().error.is_none());
    let verdict = judge(&export_all(dir.path()), &host.trust());
    assert_eq!(verdict.verdict, Outcome::Pass, "{}", faults(&verdict));
}

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
    let verdict = judge(
        &export_all(dir.path()),
        &host.trust(),
    );
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
        let verdict = judge(
            &export_all(dir.path()),
            &host.trust(),
        );
        assert_ne!(verdict.verdict, Outcome::Untrusted, "{}", faults(&verdict));
    }
}

#[test]
fn a_tpm_reset_under_a_running_agent_ends_the_session_and_a_new_one_goes_on() {
    let Some(mut swtpm) = Swtpm::start_or_skip("a_tpm_reset_under_a_running_agent") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(&swtpm, dir.path());
    host.core.start_session(session_inputs()).unwrap();
    // Nothing is in the register yet, so its value does not tell of the reset.
    swtpm.reset();
    host.record(2);
    let error = host
        .core
        .close_epoch(epoch_inputs(1), Cause::Work)
        .unwrap_err();
    assert!(error.ends_session(), "{error}");
    let started = host.core.start_session(session_inputs()).unwrap();
    assert_eq!(started.recovered.unsealed, 2);
    assert_eq!(
        host.core
            .close_epoch(epoch_inputs(1), Cause::Work)
            .unwrap()
            .size,
        3
    );
    let verdict = judge(
        &export_all(dir.path()),
        &host.trust(),
    );
    assert_ne!(verdict.verdict, Outcome::Untrusted, "{}", faults(&verdict));
}

#[test]
fn n33_an_extend_by_another_program_ends_the_session_and_shows() {
    let Some(swtpm) = Swtpm::start_or_skip("an_extend_by_another_program") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(&swtpm, dir.path());
    host.core.start_session(session_inputs()).unwrap();
    host.record(2);
    host.core.close_epoch(epoch_inputs(1), Cause::Work).unwrap();
    drop(host);
    let mut tpm = EsysTpm::open(&Options::at(swtpm.tcti().parse().unwrap())).unwrap();
    tpm.extend(15, &sha256(b"foreign")).unwrap();
    drop(tpm);
    let mut host = Host::start(&swtpm, dir.path());
    host.core.start_session(session_inputs()).unwrap();
    host.core.close_epoch(epoch_inputs(1), Cause::Work).unwrap();
    let verdict = judge(&export_all(dir.path()), &host.trust());
    assert_eq!(verdict.verdict, Outcome::Failed, "{}", faults(&verdict));
    assert!(
        faults(&verdict).contains("foreign extend"),
        "{}",
        faults(&verdict)
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
    let mut host = Host::with(&swtpm, dir.path(), Duration::from_secs(20), logs.clone());
    host.core.start_session(session_inputs()).unwrap();
    fs::write(&logs.ima, b"one two").unwrap();
    host.core.close_epoch(epoch_inputs(1), Cause::Work).unwrap();
    let stored = || Reader::open(dir.path()).unwrap().boot_logs(1).unwrap();
    assert_eq!(
        stored(),
        (Some(b"firmware".to_vec()), Some(b"one".to_vec())),
        "the register did not move"
    );
    let extend = format!("10:sha256={}", sha256(b"two"));
    swtpm.tool(dir.path(), &["tpm2_pcrextend", &extend]).unwrap();
    host.core.close_epoch(epoch_inputs(1), Cause::Work).unwrap();
    assert_eq!(stored().1, Some(b"one two".to_vec()));
}

#[test]
fn a_chain_register_that_anyone_may_reset_is_refused() {
    let Some(swtpm) = Swtpm::start_or_skip("a_chain_register_that_anyone_may_reset") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (ledger, opened) = Ledger::open(dir.path()).unwrap();
    let ledger = Arc::new(ledger);
    for (chain_pcr, pcrs) in [
        (16, vec![16]),
        (23, vec![23]),
        (15, vec![0, 1]),
        (15, vec![15, 0]),
    ] {
        let tpm = EsysTpm::open(&Options::at(swtpm.tcti().parse().unwrap())).unwrap();
        let options = SealOptions {
            chain_pcr,
            pcrs,
            ..SealOptions::default()
        };
        let refused = SealCore::new(
            Box::new(tpm),
            Arc::clone(&ledger),
            opened.clone(),
            options,
            Metrics::new().unwrap(),
        );
        let error = refused.unwrap_err();
        assert!(
            matches!(error, SealError::Tpm(_) | SealError::Selection { .. }),
            "{error}"
        );
    }
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
    assert_eq!(ledger.size(), 0);
}

#[test]
fn a_clock_without_a_service_is_not_called_synchronised() {
    let ClockQuality {
        synchronised,
        error_us,
    } = clock::quality();
    assert!(!synchronised || error_us.is_some());
}
