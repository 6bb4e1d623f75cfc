//! `merestone check`: the preflight.
//!
//! Each thing is tried, not looked up: a hook by a trial load, the TPM by a
//! connection. What is missing is told with what it costs. Nothing is attached
//! and nothing is changed.

use super::{Exit, Failure, Globals, output};
use crate::api::TierInfo;
use crate::config::Config;
use crate::gpu::{GpuState, Monitor};
use crate::{bpf, policy, privilege, run};
use merestone_tpm::{Address, Deadline, EsysTpm, Tpm as _};
use serde::Serialize;
use std::fmt::Write as _;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

/// How long the TPM may take to answer.
const TPM_PATIENCE: Duration = Duration::from_secs(10);
/// How long NVML may take to open; with a sleeping driver it takes seconds.
const GPU_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Loads each program on trial and attaches nothing. Needs root.

Exit status: 0 the agent can run as configured, 1 it would refuse

Example:
  merestone check --json")]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// One thing that was tried.
#[derive(Debug, Serialize)]
struct Item {
    name: &'static str,
    ok: bool,
    /// Whether the agent refuses to start without it.
    required: bool,
    detail: String,
    /// What its absence costs, where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Preflight {
    ready: bool,
    kernel: String,
    items: Vec<Item>,
    tiers: Vec<TierInfo>,
    hooks: Vec<HookInfo>,
    uncovered: Vec<String>,
}

#[derive(Debug, Serialize)]
struct HookInfo {
    name: &'static str,
    tier: &'static str,
    loads: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

pub(super) fn execute(globals: &Globals, args: &Args) -> Result<Exit, Failure> {
    let config = globals.load()?;
    let preflight = preflight(&config);
    if args.json {
        output::json(&preflight)?;
    } else {
        output::say(text(&preflight).trim_end())?;
    }
    Ok(if preflight.ready { Exit::Yes } else { Exit::No })
}

fn preflight(config: &Config) -> Preflight {
    let mut items = vec![
        required(
            "privileges",
            privilege::require_root_capabilities().map(|_| "all there".to_owned()),
        ),
        required(
            "boundary",
            policy::Sources::of(config)
                .and_then(|sources| policy::load_with(&config.boundary, &sources))
                .map(|boundary| format!("{} is sound", boundary.name)),
        ),
        required(
            "bpffs",
            privilege::bpffs(&config.enforcement.pin_dir)
                .map(|()| config.enforcement.pin_dir.display().to_string()),
        ),
    ];
    let root = privilege::cgroup_root(config.enforcement.cgroup_root.as_deref());
    let (mut tiers, mut hooks, mut uncovered) = (Vec::new(), Vec::new(), Vec::new());
    match &root {
        Ok(root) => match bpf::probe(root) {
            Ok(found) => {
                tiers = run::tiers(found.tiers());
                uncovered = found.uncovered();
                hooks = found.hooks.into_iter().map(hook).collect();
            }
            Err(error) => items.push(required("kernel programs", Err::<String, _>(error))),
        },
        Err(_) => items.push(required(
            "cgroup v2",
            root.map(|root| root.display().to_string()),
        )),
    }
    items.extend(tiers.iter().map(|tier| tier_item(tier, config)));
    items.push(required("tpm", tpm(config)));
    items.push(gpu(config));
    Preflight {
        ready: items.iter().all(|item| item.ok || !item.required),
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        items,
        tiers,
        hooks,
        uncovered,
    }
}

fn required<E: std::error::Error + 'static>(name: &'static str, result: Result<String, E>) -> Item {
    let (ok, detail) = match result {
        Ok(detail) => (true, detail),
        Err(error) => {
            let failure = Failure::of(&error);
            let lines: Vec<_> = failure.lines.into_iter().map(|(line, _)| line).collect();
            (false, lines.join("; "))
        }
    };
    Item {
        name,
        ok,
        required: true,
        detail,
        cost: (!ok).then_some("the agent refuses to start"),
    }
}

fn hook(hook: bpf::Hook) -> HookInfo {
    HookInfo {
        name: hook.name,
        tier: hook.tier,
        loads: hook.refused.is_none(),
        refused: hook.refused,
    }
}

fn tier_item(tier: &TierInfo, config: &Config) -> Item {
    let (name, cost) = match tier.name.as_str() {
        "cgroup" => ("tier cgroup", "nothing can be held"),
        "lineage" => (
            "tier lineage",
            "a guarded process's children are held by their cgroup alone",
        ),
        _ => (
            "tier lsm",
            "other socket families and passed sockets are not covered",
        ),
    };
    let required = tier.name == "cgroup" || config.enforcement.require.contains(&tier.name);
    Item {
        name,
        ok: tier.active,
        required,
        detail: tier.detail.clone(),
        cost: (!tier.active).then_some(cost),
    }
}

fn tpm(config: &Config) -> Result<String, merestone_tpm::TpmError> {
    let options = merestone_tpm::Options::at(Address::from_str(&config.tpm.tcti)?);
    let tpm = Deadline::spawn(TPM_PATIENCE, move || EsysTpm::open(&options))?;
    let properties = tpm.properties();
    let kind = if properties.software {
        ", a SOFTWARE TPM: it proves nothing about this machine"
    } else {
        ""
    };
    Ok(format!(
        "{} {}{kind}",
        properties.manufacturer, properties.vendor
    ))
}

fn gpu(config: &Config) -> Item {
    let mut item = Item {
        name: "gpu",
        ok: false,
        required: false,
        detail: String::new(),
        cost: Some("no GPU readings; guarding by device open does not need them"),
    };
    let monitor = match Monitor::start(run::gpu_options(config)) {
        Ok(monitor) => monitor,
        Err(error) => {
            item.required = true;
            item.detail = error.to_string();
            return item;
        }
    };
    let deadline = Instant::now() + GPU_PATIENCE;
    while monitor.latest().state == GpuState::Starting && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let snapshot = monitor.latest();
    item.ok = snapshot.state == GpuState::Ok;
    item.detail = snapshot.sentence();
    if item.ok {
        item.cost = None;
    }
    item
}

fn text(preflight: &Preflight) -> String {
    let mut out = format!("kernel {}\n", preflight.kernel);
    for item in &preflight.items {
        let mark = match (item.ok, item.required) {
            (true, _) => "ok  ",
            (false, true) => "FAIL",
            (false, false) => "--  ",
        };
        // Writing to a string cannot fail.
        writeln!(out, "{mark} {:<16} {}", item.name, item.detail).ok();
        if let Some(cost) = item.cost {
            writeln!(out, "     {:<16} costs: {cost}", "").ok();
        }
    }
    for hook in preflight.hooks.iter().filter(|hook| !hook.loads) {
        let why = hook.refused.as_deref().unwrap_or_default();
        writeln!(
            out,
            "hook {} ({}) does not load: {why}",
            hook.name, hook.tier
        )
        .ok();
    }
    for way in &preflight.uncovered {
        writeln!(out, "not covered here: {way}").ok();
    }
    let verdict = if preflight.ready {
        "the agent can run as configured"
    } else {
        "the agent would refuse to start"
    };
    out.push_str(verdict);
    out
}
