//! The evidence side of an agent, and the judge of what it leaves.

use crate::inputs::boundary;
use crate::support::Swtpm;
use merestone_agent::{
    clock, export,
    ledger::{Ledger, LedgerError, Opened, Reader},
    seal::{BootLogs, Metrics, SealCore, SealOptions, nv_auth},
};
use merestone_evidence::{Body, Entry, EntryKind, EpochStatement, SessionStatement, decode};
use merestone_tpm::{Deadline, EsysTpm, Options};
use merestone_verify::{Purpose, Trust, Verdict, verify};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// An agent's evidence side, with a TPM that answers within `limit`.
pub(crate) struct Host {
    pub(crate) core: SealCore,
    pub(crate) ledger: Arc<Ledger>,
}

impl Host {
    pub(crate) fn start(swtpm: &Swtpm, state_dir: &Path) -> Self {
        Self::with(swtpm, state_dir, Duration::from_secs(20), None)
    }

    pub(crate) fn with(
        swtpm: &Swtpm,
        state_dir: &Path,
        limit: Duration,
        boot_logs: Option<BootLogs>,
    ) -> Self {
        Self::at(&swtpm.tcti(), state_dir, limit, boot_logs)
    }

    pub(crate) fn at(
        tcti: &str,
        state_dir: &Path,
        limit: Duration,
        boot_logs: Option<BootLogs>,
    ) -> Self {
        let options = SealOptions {
            boot_logs,
            ..SealOptions::default()
        };
        Self::of(tcti, state_dir, limit, options)
    }

    /// One that counts its epochs in the TPM.
    pub(crate) fn counting(tcti: &str, state_dir: &Path) -> Self {
        let options = SealOptions {
            nv: Some(nv_auth(state_dir).unwrap()),
            ..SealOptions::default()
        };
        Self::of(tcti, state_dir, Duration::from_secs(20), options)
    }

    fn of(tcti: &str, state_dir: &Path, limit: Duration, seal: SealOptions) -> Self {
        let options = Options::at(tcti.parse().unwrap());
        let mut tpm =
            Deadline::spawn(Duration::from_secs(20), move || EsysTpm::open(&options)).unwrap();
        tpm.set_limit(limit);
        let (ledger, opened) = open(state_dir);
        let ledger = Arc::new(ledger);
        let core = SealCore::new(
            Box::new(tpm),
            Arc::clone(&ledger),
            opened,
            seal,
            Metrics::new().unwrap(),
        );
        Self {
            core: core.unwrap(),
            ledger,
        }
    }

    pub(crate) fn record(&self, count: u64) {
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

    pub(crate) fn trust(&self) -> Trust {
        Trust::parse(&self.trust_text(""), "trust.toml").unwrap()
    }

    /// The trust policy for this host, with more keys of `[require]`.
    pub(crate) fn trust_text(&self, require: &str) -> String {
        let status = self.core.status();
        let text = export::trust_file(&export::TrustInputs {
            log_key: self.ledger.log_key(),
            node: status.node.clone(),
            ak_name: hex::decode(&status.ak_name).unwrap(),
            boundaries: vec![boundary().sha256],
            software_tpm: true,
            test_gpu_library: false,
            require: vec![],
        });
        text.replace("[require]\n", &format!("[require]\n{require}"))
    }
}

/// Judged by a trust policy as it is written.
pub(crate) fn judge_with(bytes: &[u8], trust: &str) -> Verdict {
    judge(bytes, &Trust::parse(trust, "trust.toml").unwrap())
}

pub(crate) fn judge(bytes: &[u8], trust: &Trust) -> Verdict {
    verify(bytes, trust, Purpose::Period, clock::now_ms())
}

pub(crate) fn faults(verdict: &Verdict) -> String {
    let bad = verdict
        .checks
        .iter()
        .filter(|check| check.result == merestone_verify::CheckResult::Fail);
    bad.map(|check| format!("{}: {}", check.id, check.detail))
        .collect::<Vec<_>>()
        .join(
            "
",
        )
}

/// Everything sealed so far.
pub(crate) fn export_all(state_dir: &Path) -> Vec<u8> {
    let reader = Reader::open(state_dir).unwrap();
    let sessions = reader.sessions().unwrap();
    let first: SessionStatement = decode(&sessions[0].statement).unwrap();
    let last = sessions
        .iter()
        .rev()
        .find_map(|session| reader.epochs(session.number).unwrap().pop())
        .unwrap();
    let last: EpochStatement = decode(&last.statement).unwrap();
    export::bundle(state_dir, first.started_ms, last.closed_ms, false).unwrap()
}

/// A child that another test makes holds this process's locks, too, until it runs its own program.
fn open(state_dir: &Path) -> (Ledger, Opened) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match Ledger::open(state_dir) {
            Err(LedgerError::InUse { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            opened => return opened.unwrap(),
        }
    }
}
