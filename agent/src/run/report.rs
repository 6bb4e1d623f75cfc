//! What the agent says of itself: to the TPM, to the operator, to Prometheus.
//!
//! One place, so that status, metrics and evidence carry the same tiers and
//! the same uncovered ways.

use super::agent::Agent;
use super::entries::{class_name, code_name};
use super::exact;
use crate::api::{
    BoundaryInfo, CounterInfo, EvidenceInfo, GuardedGroup, GuardedProcess, Status, TierInfo,
};
use crate::bpf::KernelError;
use crate::canary::Canary;
use crate::clock;
use crate::gpu::{self, Confidential, GpuSnapshot};
use crate::landmark;
use crate::policy::Compiled;
use crate::seal::{EpochInputs, SessionInputs};
use crate::serve::{self, Readings};
use crate::workload;
use merestone_abi::{Event, EventKind, Group, GroupId, Hook, Reason, TREE_GROUP, Task, Verdict};
use merestone_evidence as evidence;
use merestone_evidence::{Digest, FlowVerdict};
use std::collections::BTreeMap;
use std::fs;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// RFC 3339 UTC, of milliseconds since the Unix epoch.
pub(super) fn rfc3339(ms: u64) -> String {
    let ns = i128::from(ms) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(ns)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// When an event happened by the wall clock: the kernel tells boot time.
pub(super) fn event_ms(event: &Event) -> u64 {
    boot_to_ms(event.boot_ns)
}

pub(super) fn boot_to_ms(boot_ns: u64) -> u64 {
    let ago_ms = clock::boot_ns().saturating_sub(boot_ns) / 1_000_000;
    clock::now_ms().saturating_sub(ago_ms)
}

/// `enforce` or `audit`.
pub(super) fn mode_word(boundary: &Compiled) -> &'static str {
    if boundary.audit { "audit" } else { "enforce" }
}

/// The boundary, for people.
pub(super) fn boundary_info(boundary: &Compiled) -> BoundaryInfo {
    BoundaryInfo {
        name: boundary.name.clone(),
        digest: hex::encode(boundary.digest),
    }
}

/// The boundary, for the evidence.
pub(super) fn boundary(boundary: &Compiled) -> evidence::Boundary {
    evidence::Boundary {
        name: boundary.name.clone(),
        sha256: Digest(boundary.digest),
        mode: if boundary.audit {
            evidence::Mode::Audit
        } else {
            evidence::Mode::Enforce
        },
    }
}

/// A text that fits into an entry with room to spare.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(4096).collect()
}

/// What was lost so far, by reason: by the kernel, and by the agent itself.
pub(super) fn losses(agent: &Agent) -> Vec<(String, u64)> {
    let mut lost = agent.exact.losses();
    lost.push(("event_file".to_owned(), agent.jsonl.lost()));
    lost.push(("evidence_log".to_owned(), agent.unlogged));
    lost.push(("disk_full".to_owned(), agent.held.lost()));
    lost
}

/// The statement the TPM signs first.
pub(super) fn session_inputs(agent: &Agent) -> SessionInputs {
    let kernel = &agent.parts.kernel;
    let site = &agent.parts.config.site;
    SessionInputs {
        agent: evidence::Agent {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sha256: own_digest(),
        },
        boundary: boundary(&agent.parts.boundary),
        object_sha256: Agent::object_digest(),
        programs: kernel
            .programs()
            .iter()
            .map(|program| evidence::Program {
                name: program.name.to_owned(),
                tag: program.tag.to_be_bytes(),
                sha256: None,
            })
            .collect(),
        tiers: kernel
            .tiers()
            .into_iter()
            .map(|tier| evidence::Tier {
                name: tier.name.to_owned(),
                active: tier.active,
                detail: tier.detail,
            })
            .collect(),
        uncovered: kernel.uncovered(),
        gpu: inventory(&agent.parts.gpu.latest()),
        kernel: evidence::Kernel {
            release: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            boot_id: clock::boot_id(),
        },
        site: (*site != crate::config::Site::default()).then(|| evidence::Site {
            region: site.region.clone(),
            country: site.country.clone(),
            facility: site.facility.clone(),
        }),
        require: agent.parts.config.enforcement.require.clone(),
    }
}

fn verdict_of(verdict: Verdict) -> Option<FlowVerdict> {
    match verdict {
        Verdict::ALLOW => Some(FlowVerdict::Allow),
        Verdict::DENY => Some(FlowVerdict::Deny),
        Verdict::AUDIT => Some(FlowVerdict::Audit),
        Verdict(_) => None,
    }
}

fn verdict_name(verdict: Verdict) -> String {
    code_name(verdict.name(), verdict.0)
}

fn hook_name(hook: Hook) -> String {
    code_name(hook.name(), hook.0)
}

/// SHA-256 of the program that runs; zero where it cannot be read, which no
/// verifier takes for a program it knows.
fn own_digest() -> Digest {
    fs::read("/proc/self/exe").map_or(Digest([0; 32]), |bytes| evidence::sha256(&bytes))
}

fn inventory(snapshot: &GpuSnapshot) -> evidence::GpuInventory {
    evidence::GpuInventory {
        state: snapshot.state.name().to_owned(),
        driver: snapshot.driver_version.clone(),
        library: snapshot
            .library
            .as_ref()
            .map(|library| library.path.to_string_lossy().into_owned()),
        library_sha256: snapshot
            .library
            .as_ref()
            .and_then(|library| library.sha256.as_deref())
            .and_then(super::entries::digest),
        test_library: snapshot.test_library,
        devices: snapshot
            .devices
            .iter()
            .map(|device| evidence::GpuDevice {
                uuid: super::entries::gpu_id(device),
                name: device.name.clone().unwrap_or_default(),
                pci: device.pci_bus_id.clone(),
                memory_bytes: device.memory.as_ref().map(|memory| memory.total_bytes),
                vbios: None,
                confidential: device
                    .confidential
                    .map(|state| confidential(state).to_owned()),
            })
            .collect(),
    }
}

/// In developer mode nothing is protected, whatever else is switched on.
const fn confidential(state: Confidential) -> &'static str {
    match (state.enabled, state.developer) {
        (_, Some(true)) => "developer mode",
        (true, Some(false)) => "on",
        (true, None) => "on; whether in developer mode is not told",
        (false, _) => "off",
    }
}

/// The statement that closes an epoch.
pub(super) fn epoch_inputs(agent: &Agent) -> EpochInputs {
    let kernel = &agent.parts.kernel;
    let gpu = agent.parts.gpu.latest();
    EpochInputs {
        boundary: boundary(&agent.parts.boundary),
        object_sha256: Agent::object_digest(),
        counters: agent
            .exact
            .counters()
            .iter()
            .filter_map(|counter| {
                Some(evidence::Counter {
                    verdict: verdict_of(counter.verdict)?,
                    hook: hook_name(counter.hook),
                    protocol: counter.protocol.to_owned(),
                    count: counter.count,
                })
            })
            .collect(),
        lost: losses(agent)
            .into_iter()
            .map(|(reason, count)| evidence::Loss { reason, count })
            .collect(),
        tiers: kernel
            .tiers()
            .into_iter()
            .filter(|tier| tier.active)
            .map(|tier| tier.name.to_owned())
            .collect(),
        uncovered: kernel.uncovered(),
        gpu_state: gpu.state.name().to_owned(),
        gpu_energy: gpu
            .devices
            .iter()
            .map(|device| evidence::GpuEnergy {
                uuid: super::entries::gpu_id(device),
                millijoules: device.energy_millijoules,
            })
            .collect(),
        groups: agent.exact.groups(),
        clock: clock::quality(),
        canary: agent.canary.as_ref().map(Canary::counts),
        location: agent
            .parts
            .location
            .as_ref()
            .and_then(landmark::Place::take),
    }
}

/// The tiers, for people.
pub fn tiers(tiers: Vec<crate::bpf::Tier>) -> Vec<TierInfo> {
    tiers
        .into_iter()
        .map(|tier| TierInfo {
            name: tier.name.to_owned(),
            active: tier.active,
            detail: tier.detail,
        })
        .collect()
}

/// Whether the cgroup tier is attached and the boundary enforces.
pub(super) fn enforcing(agent: &Agent) -> bool {
    let tiers = agent.parts.kernel.tiers();
    let attached = tiers
        .iter()
        .any(|tier| tier.name == "cgroup" && tier.active);
    attached && !agent.parts.boundary.audit
}

/// All that `merestone status` shows.
pub(super) fn status(agent: &Agent) -> Status {
    let kernel = &agent.parts.kernel;
    let gpu = agent.parts.gpu.latest();
    let tiers = tiers(kernel.tiers());
    Status {
        enforcing: enforcing(agent),
        mode: mode_word(&agent.parts.boundary).to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started: rfc3339(agent.started_ms),
        boundary: boundary_info(&agent.parts.boundary),
        generation: agent.generation,
        reload_error: agent.reload_error.clone(),
        tiers,
        uncovered: kernel.uncovered(),
        groups: usize::try_from(agent.exact.groups()).unwrap_or(usize::MAX),
        processes: agent.exact.processes(),
        counters: agent
            .exact
            .counters()
            .iter()
            .map(|counter| CounterInfo {
                hook: hook_name(counter.hook),
                verdict: verdict_name(counter.verdict),
                protocol: counter.protocol.to_owned(),
                count: counter.count,
            })
            .collect(),
        lost: losses(agent),
        names: super::names::count(agent),
        pods: agent.pods.info(&agent.parts.boundary),
        tamper: agent.parts.watch.info(),
        records: agent.issuing.add_to(agent.turns.info()),
        canary: agent.canary.as_ref().map(|canary| canary.info(kernel)),
        gpu: gpu.state.name().to_owned(),
        gpu_detail: gpu.sentence(),
        gpus: gpu
            .devices
            .iter()
            .map(|device| {
                let name = device.name.as_deref().unwrap_or("GPU");
                format!("{name} {}", super::entries::gpu_id(device))
            })
            .collect(),
        evidence: evidence_info(agent),
        object_digest: Agent::object_digest().to_string(),
    }
}

fn evidence_info(agent: &Agent) -> EvidenceInfo {
    let seal = agent.parts.sealer.status();
    EvidenceInfo {
        session: seal
            .session
            .map(|session| hex::encode(session.0))
            .unwrap_or_default(),
        entries: agent.parts.ledger.size(),
        epochs: seal.epochs,
        last_quote_ms: seal.last_epoch_ms,
        quote_error: seal.error.or_else(|| match agent.held.waiting() {
            0 => None,
            waiting => Some(format!(
                "the disk is full: {waiting} entries wait in memory"
            )),
        }),
        tpm: format!(
            "{} {} firmware {}",
            seal.tpm.manufacturer, seal.tpm.vendor, seal.tpm.firmware
        ),
        software_tpm: seal.tpm.software,
        node: seal.node,
        ak_name: seal.ak_name,
    }
}

/// The guarded groups, with who is in them now.
pub(super) fn guarded(agent: &mut Agent) -> Result<Vec<GuardedGroup>, KernelError> {
    let groups: BTreeMap<_, _> = agent.parts.kernel.groups()?.into_iter().collect();
    let tasks = agent.parts.kernel.tasks()?;
    let counts: BTreeMap<_, _> = agent.parts.kernel.group_counts()?.into_iter().collect();
    let ids = exact::group_ids(&agent.parts.kernel)?;
    let found = ids
        .into_iter()
        .map(|id| {
            let cgroup = agent.attributor.cgroup(id);
            let container = cgroup
                .as_deref()
                .map(|path| workload::classify_cgroup(std::path::Path::new(path)))
                .unwrap_or_default();
            let count = counts.get(&id).copied().unwrap_or_default();
            let origin = groups
                .get(&id)
                .copied()
                .unwrap_or_else(|| tree_origin(agent, id, &tasks));
            GuardedGroup {
                id,
                kind: if agent.canary.as_ref().and_then(Canary::group) == Some(id) {
                    "canary"
                } else if id & TREE_GROUP == 0 {
                    "cgroup"
                } else {
                    "tree"
                }
                .to_owned(),
                container_id: container.container_id,
                pod_uid: container.pod_uid,
                processes: processes(agent, id, cgroup.as_deref(), &tasks),
                cgroup,
                since: rfc3339(boot_to_ms(origin.since_boot_ns)),
                device: format!("{}:{}", origin.major, origin.minor),
                class: class_name(origin.class),
                opener: origin.tgid,
                allowed: count.allowed,
                denied: count.denied,
                audited: count.audited,
            }
        })
        .collect();
    Ok(found)
}

/// A tree has no entry of its own: its root's event and its oldest task say
/// where it comes from.
fn tree_origin(agent: &Agent, id: GroupId, tasks: &[(u32, Task)]) -> Group {
    let since = tasks
        .iter()
        .filter(|(_, task)| task.group == id)
        .map(|(_, task)| task.since_boot_ns)
        .min();
    let guard = agent.guards.get(&id).copied().unwrap_or_default();
    Group {
        since_boot_ns: since.unwrap_or(guard.boot_ns),
        tgid: u32::try_from(id & !TREE_GROUP).unwrap_or_default(),
        major: guard.major,
        minor: guard.minor,
        class: guard.class,
        ..Group::default()
    }
}

/// A cgroup's processes as the kernel lists them, and those that belong to the
/// group wherever they are now.
fn processes(
    agent: &Agent,
    id: GroupId,
    cgroup: Option<&str>,
    tasks: &[(u32, Task)],
) -> Vec<GuardedProcess> {
    let mut pids: Vec<u32> = tasks
        .iter()
        .filter(|(_, task)| task.group == id)
        .map(|(tgid, _)| *tgid)
        .collect();
    if let Some(cgroup) = cgroup {
        let file = agent
            .attributor
            .root()
            .join(cgroup.trim_start_matches('/'))
            .join("cgroup.procs");
        let listed = fs::read_to_string(file).unwrap_or_default();
        pids.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
    }
    pids.sort_unstable();
    pids.dedup();
    pids.into_iter()
        .filter_map(|pid| {
            let found = workload::inspect(pid)?;
            Some(GuardedProcess {
                pid,
                exe: found.exe,
                comm: found.comm,
            })
        })
        .collect()
}

/// The GPUs an event is about: those that NVML says the process uses; else the
/// node whose opening guarded the group.
pub(super) fn gpus_of(agent: &Agent, event: &Event) -> Vec<String> {
    let snapshot = agent.parts.gpu.latest();
    let used: Vec<String> = snapshot
        .devices
        .iter()
        .filter(|device| {
            device
                .processes
                .iter()
                .flatten()
                .any(|process| event.tgid != 0 && process.pid == event.tgid)
        })
        .map(super::entries::gpu_id)
        .collect();
    if !used.is_empty() {
        return used;
    }
    let is_digest = event.kind == EventKind::ANSWER || event.reason == Reason::NAME;
    let node = match (event.major, event.minor) {
        (major, _) if major == 0 || is_digest => agent
            .guards
            .get(&event.group)
            .map(|guard| (guard.major, guard.minor)),
        node => Some(node),
    };
    node.map(|(major, minor)| format!("{major}:{minor}"))
        .into_iter()
        .collect()
}

/// The GPUs that processes of a group use, as NVML says.
pub(super) fn gpus_of_group(agent: &Agent, group: GroupId) -> Vec<String> {
    let kernel = &agent.parts.kernel;
    let snapshot = agent.parts.gpu.latest();
    let is_of_group = |pid: u32| kernel.task(pid).is_some_and(|task| task.group == group);
    snapshot
        .devices
        .iter()
        .filter(|device| {
            let mut processes = device.processes.iter().flatten();
            processes.any(|process| is_of_group(process.pid))
        })
        .map(super::entries::gpu_id)
        .collect()
}

/// What of a turn the kernel's programs do not say.
pub(super) fn turn_facts(agent: &mut Agent, turn: &merestone_abi::Turn) -> super::turns::Facts {
    let event = super::turns::as_event(turn);
    let info = if turn.owner == 0 {
        crate::flow::ProcessInfo::default()
    } else {
        agent.attributor.process(&event)
    };
    let mut gpus = gpus_of_group(agent, turn.group);
    if gpus.is_empty() {
        gpus = gpus_of(agent, &event);
    }
    let peer_inside = agent.is_inside(turn.group, turn.peer, turn.peer_port);
    // Of a receipt that was not issued here it is told like anything else.
    let fetches_receipt = super::turns::receipt_asked(turn)
        .is_some_and(|id| agent.parts.ledger.has_receipt(&id).unwrap_or(false));
    super::turns::Facts {
        fetches_receipt,
        process: super::entries::process(&info),
        peer_inside,
        gpus,
        boot_ms: boot_to_ms(0),
    }
}

/// The text exposition.
pub(super) fn exposition(agent: &Agent) -> String {
    let status = status(agent);
    let readings = Readings {
        status: &status,
        gpu: gpu::metrics(&agent.parts.gpu.latest()),
        seal: &agent.parts.metrics,
    };
    serve::render(&readings).unwrap_or_else(|error| {
        tracing::error!(%error, "the metrics cannot be rendered");
        String::new()
    })
}
