//! A TPM that is slow, reset, used by others, or asked for the wrong register.

use crate::{
    host::{Host, export_all, faults, judge},
    inputs::{epoch_inputs, session_inputs},
    support::Swtpm,
};
use merestone_agent::{
    ledger::Ledger,
    seal::{Metrics, SealCore, SealError, SealOptions},
};
use merestone_evidence::{Cause, sha256};
use merestone_tpm::{EsysTpm, Options, Tpm as _};
use merestone_verify::Outcome;
use std::{sync::Arc, time::Duration};
#[test]
fn a_tpm_that_hangs_delays_an_epoch_and_loses_nothing() {
    let Some(swtpm) = Swtpm::start_or_skip("a_tpm_that_hangs_delays_an_epoch") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::with(&swtpm, dir.path(), Duration::from_millis(400), None);
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
    assert_eq!(sealed.unwrap().size, 1 + 8, "the log's key is an entry too");
    assert!(!host.core.status().is_pending && host.core.status().error.is_none());
    let verdict = judge(&export_all(dir.path()), &host.trust());
    assert_eq!(verdict.verdict, Outcome::Pass, "{}", faults(&verdict));
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
    assert_eq!(started.recovered.unsealed, 1 + 2, "the log's key is one");
    assert_eq!(
        host.core
            .close_epoch(epoch_inputs(1), Cause::Work)
            .unwrap()
            .size,
        1 + 3
    );
    let verdict = judge(&export_all(dir.path()), &host.trust());
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
