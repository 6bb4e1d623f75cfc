//! `merestone run`: the agent's story, from refusing to start to its last quote.
//!
//! Everything that can be refused is refused before anything is attached: the
//! privileges, the boundary, the TPM, the log. Then the kernel side, then the
//! session's quote, then one loop that owns it all. Stopping takes no program
//! away: guarded groups stay held.

mod agent;
mod attest;
mod attribute;
mod canary;
#[cfg(fuzzing)]
pub mod doors;
mod entries;
mod exact;
mod gpu_use;
mod held;
mod jsonl;
mod names;
mod pods;
mod records;
mod report;
mod tamper;
mod turns;

pub use entries::class_name;
pub use report::tiers;

use crate::bpf;
use crate::canary::{self as canary_process, Cage};
use crate::config::{Config, Faults, OnAgentLoss, Origin};
use crate::flow::Store;
use crate::gpu;
use crate::landmark;
use crate::ledger::{Ledger, LedgerError};
use crate::policy::{self, Compiled};
use crate::privilege;
use crate::seal::{self, SealCore, SealOptions, Sealer};
use crate::serve;
use crate::tamper::Watch;
use agent::{Agent, Parts};
use anyhow::{Context as _, Result};
use merestone_tpm::{Address, Deadline, EsysTpm};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Questions that wait for the loop at most; past that clients wait.
const MOST_CALLS: usize = 64;
/// A TPM call may take this long; real TPMs sign in under a second.
const TPM_PATIENCE: Duration = Duration::from_secs(20);

/// Runs until SIGTERM or SIGINT. Call it before any thread is started.
pub fn run(config: Config) -> Result<()> {
    privilege::require_root_capabilities()?;
    let boundary = load_boundary(&config).inspect_err(|faults| note_refusal(&config, faults))?;
    let root = privilege::cgroup_root(config.enforcement.cgroup_root.as_deref())?;
    privilege::bpffs(&config.enforcement.pin_dir)?;
    let address = Address::from_str(&config.tpm.tcti)?;
    let device = match &address {
        Address::Device(path) => Some(path.as_path()),
        Address::Swtpm { .. } => None,
    };
    // Before the privileges go, and before there are threads.
    let cage = config.canary.enabled.then(|| {
        let cage = Cage::set(&root);
        cage.map_err(|error| error.to_string())
    });
    privilege::drop_to(&privilege::wanted(device))?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(begin(config, boundary, &root, address, cage))
}

/// The boundary file, audited where the configuration says so.
fn load_boundary(config: &Config) -> Result<Compiled, Faults> {
    let sources = policy::Sources::of(config)?;
    let mut boundary = policy::load_with(&config.boundary, &sources)?;
    if !sources.signers.is_empty() {
        policy::Versions::open(&config.state_dir)?.accept(&boundary)?;
    }
    if boundary.selects_pods() && config.kubernetes.kubelet.is_none() {
        let mut faults = Faults::new();
        let path = config.boundary.clone();
        faults.push(
            Origin::Whole { path },
            "a [[select]] names pods, and nobody says which pods there are",
            "set [kubernetes] kubelet in merestone.toml",
        );
        return Err(faults);
    }
    boundary.audit |= config.enforcement.mode == policy::Mode::Audit;
    Ok(boundary)
}

/// A signed boundary that is refused is evidence, also where the agent does
/// not start for it: the next session's first epoch covers the entry.
fn note_refusal(config: &Config, faults: &Faults) {
    if config.policy.signers.is_empty() {
        return;
    }
    let bytes = std::fs::read(&config.boundary).unwrap_or_default();
    let moment = entries::Moment {
        time_ms: crate::clock::now_ms(),
        boot_ns: crate::clock::boot_ns(),
    };
    let body = merestone_evidence::Body::Boundary {
        name: config.boundary.display().to_string(),
        sha256: merestone_evidence::sha256(&bytes),
        generation: 0,
        accepted: false,
        error: Some(report::cut(&faults.to_string())),
        mode: merestone_evidence::Mode::Enforce,
        detail: None,
    };
    let noted = Ledger::open(&config.state_dir)
        .and_then(|(ledger, _)| ledger.append(&entries::entry(moment, body)).map(|_| ()));
    if let Err(error) = noted {
        tracing::warn!(%error, "the refusal is not in the evidence log");
    }
}

async fn begin(
    config: Config,
    mut boundary: Compiled,
    root: &Path,
    address: Address,
    cage: Option<std::result::Result<Cage, String>>,
) -> Result<()> {
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    let metrics = seal::Metrics::new()?;
    // Refused before anything is attached, though it starts last.
    gpu_options(&config).check()?;
    let (sealer, ledger) = open_evidence(&config, address, metrics.clone())?;
    let control = serve::bind(&config.api.socket)?;
    let (calls, asked) = mpsc::channel(MOST_CALLS);
    if let Some(listen) = config.metrics.listen {
        let http = serve::http(listen, calls.clone()).await?;
        tokio::spawn(async move {
            if let Err(error) = http.await {
                tracing::error!(%error, "the metrics endpoint ended");
            }
        });
    }
    // Whom it lets in is to be known before there is anything to protect.
    let watch = Watch::open(&config)?;
    let pods = pods::Pods::begin(&config.kubernetes, &config.state_dir, &mut boundary);
    let (mut kernel, events) =
        bpf::Kernel::start(&kernel_options(&config, root), &tables(&boundary))?;
    let gpu = gpu::Monitor::start(gpu_options(&config))?;
    let store = Store::default();
    let told = calls.clone();
    tokio::spawn(serve::control(control, calls, store.clone()));
    let location = locate(&config, &sealer)?;
    if let Some(path) = &config.records.socket {
        let listener = serve::bind_for_all(path)?;
        kernel.admit_records(&listener)?;
        let records = serve::records(listener, told, Arc::clone(&ledger));
        tokio::spawn(async move {
            if let Err(error) = records.await {
                tracing::error!(%error, "the records socket ended");
            }
        });
    }
    let parts = Parts {
        config,
        boundary,
        kernel,
        sealer,
        ledger,
        metrics,
        gpu,
        store,
        watch,
        location,
    };
    let mut agent = Box::pin(Agent::begin(parts, pods, root.to_owned())).await?;
    agent.begin_canary(cage);
    // Absent a service manager there is nobody to tell.
    sd_notify::notify(&[sd_notify::NotifyState::Ready]).ok();
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };
    agent.serve(events, asked, &mut hangup, stop).await
}

/// Asks the landmarks and the cloud that are configured; where none is, nobody is asked.
fn locate(config: &Config, sealer: &Sealer) -> Result<Option<landmark::Place>> {
    let location = &config.location;
    if location.landmarks.is_empty() && location.cloud.is_none() {
        return Ok(None);
    }
    let answerer = sealer.answerer();
    let place = landmark::Asker::spawn(
        &location.landmarks,
        location.cloud,
        location.interval,
        answerer,
    )?;
    Ok(Some(place))
}

/// The log and the TPM that seals it.
fn open_evidence(
    config: &Config,
    address: Address,
    metrics: seal::Metrics,
) -> Result<(Sealer, Arc<Ledger>)> {
    let mut options = merestone_tpm::Options::at(address);
    if let Some(handle) = config.tpm.ak_handle {
        options.ak_handle = handle;
    }
    let tpm = Deadline::spawn(TPM_PATIENCE, move || EsysTpm::open(&options))?;
    let (ledger, opened) = Ledger::open(&config.state_dir).map_err(|error: LedgerError| error)?;
    let ledger = Arc::new(ledger);
    let options = SealOptions {
        node: Some(config.node.clone()),
        chain_pcr: config.evidence.chain_pcr,
        nv: Some(seal::nv_auth(&config.state_dir)?),
        ..SealOptions::default()
    };
    let core = SealCore::new(Box::new(tpm), Arc::clone(&ledger), opened, options, metrics)?;
    Ok((Sealer::spawn(core)?, ledger))
}

/// What nothing may be mounted over: what the agent knows and is told by.
fn places(config: &Config) -> Vec<PathBuf> {
    let mut places = vec![config.state_dir.clone()];
    places.extend(std::env::current_exe());
    places.extend(config.api.socket.parent().map(Path::to_owned));
    for file in [&config.path, &config.boundary] {
        places.extend(file.ancestors().take(2).map(Path::to_owned));
    }
    places
}

/// What the kernel side needs of the configuration.
pub fn kernel_options(config: &Config, root: &Path) -> bpf::Options {
    let mut options = bpf::Options::new(config.enforcement.pin_dir.clone());
    root.clone_into(&mut options.cgroup_root);
    options.require.clone_from(&config.enforcement.require);
    options.tamper = config.enforcement.tamper;
    options.records = config.records.enabled;
    options.places = places(config);
    options.on_loss = match config.enforcement.on_agent_loss {
        OnAgentLoss::Hold => bpf::OnLoss::Hold,
        OnAgentLoss::DenyAll => bpf::OnLoss::DenyAll,
    };
    options.kill_families = config.enforcement.kill_families;
    options.devices = config
        .gpu
        .devices
        .iter()
        .map(|device| bpf::DeviceRule {
            major: device.major,
            minor: device.minor,
            class: merestone_abi::DeviceClass::CONFIGURED,
        })
        .collect();
    if config.canary.enabled {
        options.devices.push(canary_process::DEVICE);
    }
    options.tree_roots = config
        .enforcement
        .login_scopes
        .iter()
        .map(|scope| root.join(scope.trim_start_matches('/')))
        .collect();
    options
}

/// What the GPU monitor needs of the configuration.
pub fn gpu_options(config: &Config) -> gpu::Config {
    gpu::Config {
        library: config.gpu.nvml_library.clone(),
        interval: config.gpu.interval,
        allow_test_library: config.gpu.allow_test_library,
        ..gpu::Config::default()
    }
}

/// The boundary as the kernel takes it.
pub fn tables(compiled: &Compiled) -> bpf::Tables {
    bpf::Tables {
        audit: compiled.audit,
        deputies: compiled.deputies,
        selects: table_selects(compiled),
        prefixes: compiled
            .prefixes
            .iter()
            .map(|prefix| bpf::TablePrefix {
                boundary: prefix.boundary,
                address: prefix.address,
                bits: prefix.bits,
                set: prefix.set,
            })
            .collect(),
        sets: compiled.sets.clone(),
        names: compiled.names.iter().filter_map(table_name).collect(),
        resolvers: compiled
            .resolvers
            .iter()
            .map(|resolver| bpf::TableResolver {
                boundary: resolver.boundary,
                address: resolver.network.address,
                bits: resolver.network.bits,
                trusted: resolver.trusted,
            })
            .collect(),
    }
}

/// Which groups which boundary judges.
pub fn table_selects(compiled: &Compiled) -> Vec<bpf::TableSelect> {
    let selects = compiled.selects.iter();
    selects
        .map(|select| bpf::TableSelect {
            selector: select.selector.clone(),
            boundary: select.boundary,
        })
        .collect()
}

/// A name as the kernel takes it. The parser has seen to it that it has a key.
fn table_name(name: &policy::CompiledName) -> Option<bpf::TableName> {
    let (key, bits) = name.pattern.key()?;
    Some(bpf::TableName {
        boundary: name.boundary,
        name: key,
        bits,
        set: name.set,
        denied: name.denied,
    })
}
