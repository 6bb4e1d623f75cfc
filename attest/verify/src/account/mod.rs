//! What the sealed statements and entries tell, session by session: the matter of a report.
//!
//! It judges nothing: that is done by the checks. It is made only after every stage up to the
//! log has held, so each word of it is what this node's agent sealed; whether the agent told the
//! truth is another question, which the policy's digests are for.

mod inferences;
mod seen;

pub use inferences::{EgressTold, GpuUseTold, InferenceTold, Inferences, OnwardTold};
pub use seen::{Destination, Happening};
pub(crate) use seen::{FirstReading, Seen, kind};

use crate::coverage::Coverage;
use crate::log::LogChecked;
use crate::quote::{Epoch, Session};
use merestone_evidence::{Cause, GpuDevice, Mode};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What the sealed statements and entries tell.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Account {
    /// The node.
    pub node: String,
    /// Start of the period, as the file has it.
    pub from_ms: u64,
    /// End of the period.
    pub to_ms: u64,
    /// The sessions, in order.
    pub sessions: Vec<SessionAccount>,
    /// Stretches of the period that epochs cover and in which nothing speaks against enforcement, in
    /// order; touching ones are one.
    pub attested_ms: Vec<(u64, u64)>,
    /// Entries by kind.
    pub entries: BTreeMap<&'static str, u64>,
    /// Entries that a reader should know of one by one, in order.
    pub happenings: Vec<Happening>,
    /// Those beyond what is kept here.
    pub happenings_left_out: u64,
    /// Single inferences, as far as the log tells of them.
    pub inferences: Inferences,
    /// Where guarded processes tried to go and were refused or only watched, most attempts first.
    pub refused: Vec<Destination>,
    /// Attempts to further destinations.
    pub refused_left_out: u64,
}

/// One session: from a start of the agent to its end.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct SessionAccount {
    /// Its id.
    pub id: String,
    /// When it began.
    pub started_ms: u64,
    /// When its last epoch closed.
    pub last_ms: Option<u64>,
    /// How it ended, as far as the file shows.
    pub end: &'static str,
    /// The TPM's count of resets: one number a boot.
    pub boot: u32,
    /// Epochs.
    pub epochs: u64,
    /// Entries sealed in them.
    pub entries: u64,
    /// Digest of the session statement.
    pub statement_sha256: String,
    /// Digest of the last epoch statement.
    pub last_epoch_sha256: Option<String>,
    /// The agent's version.
    pub agent: String,
    /// Digest of its executable.
    pub agent_sha256: String,
    /// Digest of the eBPF object.
    pub object_sha256: String,
    /// Programs loaded.
    pub programs: u64,
    /// Boundary at the start: name, digest, mode; then those it was changed to.
    pub boundaries: Vec<(String, String, &'static str)>,
    /// Tiers of enforcement.
    pub tiers: Vec<TierAccount>,
    /// Kernel release.
    pub kernel: String,
    /// TPM: maker and firmware.
    pub tpm: String,
    /// The TPM is a program.
    pub tpm_software: bool,
    /// Most groups guarded at the end of an epoch.
    pub groups: u64,
    /// Epochs whose host clock was not synchronised.
    pub unsynchronised_epochs: u64,
    /// The GPUs.
    pub gpu: GpuAccount,
}

/// One tier of enforcement.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct TierAccount {
    /// Its name.
    pub name: String,
    /// Active at the start.
    pub active: bool,
    /// In words.
    pub detail: String,
    /// Epochs in which it was not in force.
    pub epochs_without: u64,
}

/// What the agent read of the GPUs. No GPU signed any of it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct GpuAccount {
    /// States of the monitor, in the order they first came.
    pub states: Vec<String>,
    /// Driver version.
    pub driver: Option<String>,
    /// The library is a test double.
    pub test_library: bool,
    /// Devices found at the start.
    #[serde(skip)]
    pub devices: Vec<GpuDevice>,
    /// Energy over the session's epochs, by device.
    pub energy: Vec<EnergyUsed>,
}

/// Energy that a GPU's own counter rose by between the first and the last epoch that has it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct EnergyUsed {
    /// The device.
    pub uuid: String,
    /// Millijoules; absent where it was read less than twice or went back.
    pub millijoules: Option<u64>,
}

impl Account {
    pub(crate) fn of(log: &LogChecked, coverage: &Coverage) -> Self {
        let bundle = &log.bundle;
        let (from_ms, to_ms) = (bundle.from_ms, bundle.to_ms.max(bundle.from_ms));
        let mut account = Self {
            node: bundle.node.clone(),
            from_ms,
            to_ms,
            sessions: log.sessions.iter().map(session).collect(),
            attested_ms: coverage.attested_ms.clone(),
            entries: BTreeMap::new(),
            happenings: Vec::new(),
            happenings_left_out: 0,
            inferences: Inferences::default(),
            refused: Vec::new(),
            refused_left_out: 0,
        };
        log.seen.tell(&mut account);
        account
    }
}

fn session(session: &Session) -> SessionAccount {
    let statement = &session.statement;
    let epochs = &session.epochs;
    let last = epochs.last();
    let sealed = epochs
        .iter()
        .map(|epoch| epoch.statement.size_after - epoch.statement.size_before);
    SessionAccount {
        id: statement.session.to_string(),
        started_ms: statement.started_ms,
        last_ms: last.map(|epoch| epoch.statement.closed_ms),
        end: end(last),
        boot: session.said.clock.resets,
        epochs: epochs.len() as u64,
        entries: sealed.sum(),
        statement_sha256: session.said.digest.to_string(),
        last_epoch_sha256: last.map(|epoch| epoch.said.digest.to_string()),
        agent: statement.agent.version.clone(),
        agent_sha256: statement.agent.sha256.to_string(),
        object_sha256: statement.object_sha256.to_string(),
        programs: statement.programs.len() as u64,
        boundaries: boundaries(session),
        tiers: tiers(session),
        kernel: statement.kernel.release.clone(),
        tpm: format!("{} {}", statement.tpm.manufacturer, statement.tpm.firmware),
        tpm_software: statement.tpm.software,
        groups: epochs
            .iter()
            .map(|epoch| epoch.statement.groups)
            .max()
            .unwrap_or(0),
        unsynchronised_epochs: count(epochs, |epoch| !epoch.statement.clock.synchronised),
        gpu: gpu(session),
    }
}

fn count(epochs: &[Epoch], which: impl Fn(&Epoch) -> bool) -> u64 {
    epochs.iter().filter(|epoch| which(epoch)).count() as u64
}

fn end(last: Option<&Epoch>) -> &'static str {
    match last.map(|epoch| epoch.statement.cause) {
        None => "no epoch is shown",
        Some(Cause::Shutdown) => "the agent was stopped",
        Some(_) => "the last epoch shown is not of a stop",
    }
}

fn boundaries(session: &Session) -> Vec<(String, String, &'static str)> {
    let epochs = session.epochs.iter();
    let all = core::iter::once(&session.statement.boundary)
        .chain(epochs.map(|epoch| &epoch.statement.boundary));
    let mut out: Vec<(String, String, &'static str)> = Vec::new();
    for boundary in all {
        let mode = match boundary.mode {
            Mode::Enforce => "enforce",
            Mode::Audit => "audit",
        };
        let one = (boundary.name.clone(), boundary.sha256.to_string(), mode);
        if out.last() != Some(&one) {
            out.push(one);
        }
    }
    out
}

fn tiers(session: &Session) -> Vec<TierAccount> {
    let tiers = session.statement.tiers.iter();
    tiers
        .map(|tier| TierAccount {
            name: tier.name.clone(),
            active: tier.active,
            detail: tier.detail.clone(),
            epochs_without: count(&session.epochs, |epoch| {
                !epoch.statement.tiers.contains(&tier.name)
            }),
        })
        .collect()
}

fn gpu(session: &Session) -> GpuAccount {
    let inventory = &session.statement.gpu;
    let mut known = BTreeSet::new();
    let epochs = session.epochs.iter();
    let states = core::iter::once(&inventory.state)
        .chain(epochs.map(|epoch| &epoch.statement.gpu_state))
        .filter(|state| known.insert((*state).clone()))
        .cloned()
        .collect();
    let mut read: BTreeMap<&str, (Option<u64>, Option<u64>)> = BTreeMap::new();
    for energy in session
        .epochs
        .iter()
        .flat_map(|epoch| &epoch.statement.gpu_energy)
    {
        let (first, last) = read.entry(energy.uuid.as_str()).or_default();
        if first.is_none() {
            *first = energy.millijoules;
        } else {
            *last = energy.millijoules.or(*last);
        }
    }
    let energy = read.into_iter().map(|(uuid, (first, last))| EnergyUsed {
        uuid: uuid.to_owned(),
        millijoules: first
            .zip(last)
            .and_then(|(first, last)| last.checked_sub(first)),
    });
    GpuAccount {
        states,
        driver: inventory.driver.clone(),
        test_library: inventory.test_library,
        devices: inventory.devices.clone(),
        energy: energy.collect(),
    }
}
