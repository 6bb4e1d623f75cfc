//! `merestone run`: the agent's story, from refusing to start to its last quote.
//!
//! Everything that can be refused is refused before anything is attached: the
//! configuration, the boundary, the TPM, the log. Then the kernel side, then
//! the session's quote, then one loop that owns it all. Stopping takes no
//! program away: guarded groups stay held.

mod agent;
mod attribute;
mod entries;
mod jsonl;
mod report;

pub use entries::class_name;

use crate::bpf;
use crate::config::Config;
use crate::flow::Store;
use crate::gpu;
use crate::ledger::Ledger;
use crate::policy::{self, Compiled};
use crate::privilege;
use crate::seal;
use crate::serve;
use agent::Agent;
use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Questions that wait for the loop at most; past that clients wait.
const MOST_CALLS: usize = 64;

/// Runs until SIGTERM or SIGINT.
pub async fn run(config: Config) -> Result<()> {
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    privilege::require_root_capabilities()?;
    let boundary = load_boundary(&config)?;
    let ledger = Ledger::open(&config.state_dir)?;
    let sealer = seal::Sealer::open(&config, ledger)?;
    let control = serve::bind(&config.api.socket)?;
    let (calls, asked) = mpsc::channel(MOST_CALLS);
    let store = Store::default();
    if let Some(listen) = config.metrics.listen {
        let http = serve::http(listen, calls.clone()).await?;
        tokio::spawn(async move {
            if let Err(error) = http.await {
                tracing::error!(%error, "the metrics endpoint ended");
            }
        });
    }
    let gpu = gpu::Monitor::start(&config.gpu)?;
    let (kernel, events) = bpf::Kernel::start(&bpf::Options::from(&config), &boundary)
        .context("the kernel side could not be started")?;
    tokio::spawn(serve::control(control, calls, store.clone()));
    let mut agent = Agent::begin(config, boundary, kernel, sealer, gpu, store).await?;
    sd_notify::notify(&[sd_notify::NotifyState::Ready]).ok();
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    agent
        .serve(events, asked, &mut hangup, async {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        })
        .await
}

/// Reads and compiles the boundary, with the configuration's mode laid over it.
pub(crate) fn load_boundary(config: &Config) -> Result<Compiled, crate::config::Faults> {
    let mut compiled = policy::load(&config.boundary)?;
    if config.enforcement.mode == policy::Mode::Audit {
        compiled.audit = true;
    }
    Ok(compiled)
}
