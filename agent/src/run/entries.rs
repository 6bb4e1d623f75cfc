//! What the agent's loop sees, in the words of the evidence log.
//!
//! One function a kind of fact. What is unknown stays absent: an entry never
//! carries a guess.

use crate::flow::ProcessInfo;
use crate::gpu::GpuSnapshot;
use merestone_abi::{DeviceClass, Event, EventKind, Reason, Verdict};
use merestone_evidence::{
    Body, DeviceNode, Digest, Entry, EntryKind, FlowVerdict, GpuReading, GpuUse, Process,
};

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Milliseconds since the Unix epoch.
    pub(super) time_ms: u64,
    /// Nanoseconds since boot.
    pub(super) boot_ns: u64,
}

/// An entry of `body` at `moment`.
pub(super) fn entry(moment: Moment, body: Body) -> Entry {
    Entry {
        kind: EntryKind,
        time_ms: moment.time_ms,
        boot_ns: moment.boot_ns,
        body,
    }
}

/// The name of a code, or its number.
pub(super) fn code_name(name: Option<&str>, number: u8) -> String {
    name.map_or_else(|| number.to_string(), str::to_ascii_lowercase)
}

/// The device's class, as the log names it.
pub fn class_name(class: DeviceClass) -> String {
    match class {
        DeviceClass::CONTROL => "control".to_owned(),
        DeviceClass::GRAPHICS => "graphics".to_owned(),
        DeviceClass::COMPUTE => "compute".to_owned(),
        DeviceClass::MIG => "mig".to_owned(),
        DeviceClass::CONFIGURED => "configured".to_owned(),
        DeviceClass::DIRECT => "direct".to_owned(),
        DeviceClass::TUNNEL => "tunnel".to_owned(),
        DeviceClass(other) => other.to_string(),
    }
}

/// A process, where it could be named at all.
pub(super) fn process(info: &ProcessInfo) -> Option<Process> {
    if info.pid == 0 {
        return None;
    }
    Some(Process {
        pid: info.pid,
        start_ticks: info.start_time.unwrap_or(0),
        exe: info.exe.clone().unwrap_or_default(),
        exe_sha256: info.exe_sha256.as_deref().and_then(digest),
        comm: info.comm.clone(),
        cgroup: info.cgroup.clone().unwrap_or_default(),
        container_id: info.container_id.clone(),
        pod_uid: info.pod_uid.clone(),
    })
}

/// A digest from its hexadecimal form.
pub(super) fn digest(text: &str) -> Option<Digest> {
    let bytes = hex::decode(text).ok()?;
    Some(Digest(bytes.try_into().ok()?))
}

/// The log's form of an event, where it belongs in the log: flows that were
/// refused or audited, guards and leavings. Allowed flows are in the epoch's
/// exact counters.
pub(super) fn from_event(
    event: &Event,
    info: &ProcessInfo,
    name: Option<&str>,
    count: u64,
) -> Option<Body> {
    let cgroup = || info.cgroup.clone().unwrap_or_default();
    match event.kind {
        EventKind::FLOW => {
            let verdict = match event.verdict {
                Verdict::DENY => FlowVerdict::Deny,
                Verdict::AUDIT => FlowVerdict::Audit,
                _ => return None,
            };
            Some(Body::Flow {
                verdict,
                hook: code_name(event.hook.name(), event.hook.0),
                reason: code_name(event.reason.name(), event.reason.0),
                group: event.group,
                process: process(info),
                address: event.address,
                port: event.port,
                protocol: event.protocol,
                rule: event.rule,
                count,
                family: (event.reason == Reason::FAMILY).then_some(event.family),
                name: name.map(ToOwned::to_owned),
            })
        }
        EventKind::GUARD => Some(Body::GuardStart {
            group: event.group,
            cgroup: cgroup(),
            process: process(info),
            device: DeviceNode {
                major: event.major,
                minor: event.minor,
                class: class_name(event.class),
            },
        }),
        EventKind::DEPUTY => Some(Body::Deputy {
            refused: event.verdict == Verdict::DENY,
            hook: code_name(event.hook.name(), event.hook.0),
            group: event.group,
            process: process(info),
            deputy: deputy(event),
            count,
        }),
        EventKind::LEFT => Some(Body::Left {
            group: event.group,
            cgroup: cgroup(),
            process: process(info),
        }),
        _ => None,
    }
}

/// Who was asked: a local address and port, or a Unix socket's owner.
fn deputy(event: &Event) -> String {
    let owner = match (event.other, event.cookie) {
        (0, cgroup) => format!("cgroup {cgroup}"),
        (pid, cgroup) => format!("pid {pid}, cgroup {cgroup}"),
    };
    if event.address == [0; 16] {
        return format!("unix socket of {owner}");
    }
    let address = std::net::Ipv6Addr::from(event.address).to_canonical();
    let at = std::net::SocketAddr::new(address, event.port);
    format!("{at} of {owner}")
}

/// A GPU's UUID; where the driver gives none, its place.
pub(super) fn gpu_id(device: &crate::gpu::GpuReading) -> String {
    device
        .uuid
        .clone()
        .unwrap_or_else(|| format!("index-{}", device.index))
}

/// A reading of the GPUs, as far as the log keeps it.
pub(super) fn from_gpu(snapshot: &GpuSnapshot) -> Body {
    Body::Gpu {
        state: snapshot.state.name().to_owned(),
        devices: snapshot
            .devices
            .iter()
            .map(|device| GpuReading {
                uuid: gpu_id(device),
                utilisation_percent: device.utilization.as_ref().map(|use_| use_.gpu_percent),
                memory_used_bytes: device.memory.as_ref().map(|memory| memory.used_bytes),
                power_milliwatts: device.power_milliwatts.map(u64::from),
                energy_millijoules: device.energy_millijoules,
                processes: device
                    .processes
                    .iter()
                    .flatten()
                    .map(|one| GpuUse {
                        pid: one.pid,
                        memory_bytes: one.memory_bytes,
                    })
                    .collect(),
            })
            .collect(),
    }
}
