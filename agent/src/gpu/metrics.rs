//! The snapshot as metrics: plain values, with units in the names.
//!
//! What is absent is left out, so a failed query never looks like an idle GPU. Process ids are never
//! labels: they are without bound, and they say more than a metrics store should know.

use super::snapshot::{GpuReading, GpuSnapshot};
use super::state::GpuState;

/// How a value behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only grows, until the driver is loaded anew.
    Counter,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// The name.
    pub name: &'static str,
    /// One line on what it is.
    pub help: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Labels, in order.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

/// Every metric of a snapshot.
#[must_use]
pub fn metrics(snapshot: &GpuSnapshot) -> Vec<Metric> {
    let mut out = Out {
        metrics: Vec::new(),
        labels: Vec::new(),
    };
    for state in GpuState::ALL {
        let label = [("state", state.name().to_owned())];
        let on = Some(u64::from(snapshot.state == state));
        out.gauge(
            "merestone_gpu_state",
            "Whether the GPU view is in this state.",
            &label,
            on,
        );
    }
    if let Some(taken_ms) = snapshot.taken_ms {
        out.scaled(
            "merestone_gpu_last_reading_timestamp_seconds",
            "When the readings were taken.",
            &[],
            Some(taken_ms),
            1000.0,
        );
    }
    out.gauge(
        "merestone_gpu_process_visibility",
        "Whether NVML can list every process of the host.",
        &[],
        snapshot.processes_complete.map(u64::from),
    );
    for device in &snapshot.devices {
        out.labels = [
            ("index", Some(device.index.to_string())),
            ("uuid", device.uuid.clone()),
            ("name", device.name.clone()),
        ]
        .into_iter()
        .map(|(label, value)| (label, value.unwrap_or_default()))
        .collect();
        load(&mut out, device);
        physics(&mut out, device);
        errors(&mut out, device);
        instances(&mut out, device);
    }
    out.metrics
}

fn load(out: &mut Out, device: &GpuReading) {
    let up = matches!(device.state, super::snapshot::DeviceState::Ok);
    out.gauge(
        "merestone_gpu_up",
        "Whether the GPU answers.",
        &[],
        Some(u64::from(up)),
    );
    let utilization = device.utilization;
    out.scaled(
        "merestone_gpu_utilization_ratio",
        "Share of the sample period in which a kernel ran.",
        &[],
        utilization.map(|utilization| utilization.gpu_percent),
        100.0,
    );
    out.scaled(
        "merestone_gpu_memory_utilization_ratio",
        "Share of the sample period in which memory was read or written.",
        &[],
        utilization.map(|utilization| utilization.memory_percent),
        100.0,
    );
    let memory = device.memory;
    out.gauge(
        "merestone_gpu_memory_total_bytes",
        "Memory installed.",
        &[],
        memory.map(|memory| memory.total_bytes),
    );
    out.gauge(
        "merestone_gpu_memory_used_bytes",
        "Memory allocated.",
        &[],
        memory.map(|memory| memory.used_bytes),
    );
    out.gauge(
        "merestone_gpu_memory_reserved_bytes",
        "Memory held by the driver.",
        &[],
        memory.and_then(|memory| memory.reserved_bytes),
    );
    let processes = device.processes.as_ref();
    out.gauge(
        "merestone_gpu_processes",
        "Processes with a context on the GPU.",
        &[],
        processes.and_then(|processes| u64::try_from(processes.len()).ok()),
    );
}

fn physics(out: &mut Out, device: &GpuReading) {
    out.scaled(
        "merestone_gpu_power_watts",
        "Power drawn.",
        &[],
        device.power_milliwatts,
        1e3,
    );
    out.scaled(
        "merestone_gpu_power_limit_watts",
        "Power limit in force.",
        &[],
        device.power_limit_milliwatts,
        1e3,
    );
    out.counter(
        "merestone_gpu_energy_joules_total",
        "Energy used since the driver was loaded.",
        &[],
        device.energy_millijoules,
        1e3,
    );
    for (sensor, value) in [
        ("gpu", device.temperature_celsius),
        ("memory", device.memory_temperature_celsius),
    ] {
        let label = [("sensor", sensor.to_owned())];
        out.gauge(
            "merestone_gpu_temperature_celsius",
            "Temperature.",
            &label,
            value,
        );
    }
    for (domain, value) in [
        ("graphics", device.clocks.graphics_mhz),
        ("sm", device.clocks.sm_mhz),
        ("memory", device.clocks.memory_mhz),
        ("video", device.clocks.video_mhz),
    ] {
        let label = [("domain", domain.to_owned())];
        out.scaled("merestone_gpu_clock_hertz", "Clock.", &label, value, 1e-6);
    }
}

fn errors(out: &mut Out, device: &GpuReading) {
    for xid in device.xids.iter().flat_map(|xids| &xids.seen) {
        let label = [("xid", xid.code.to_string())];
        out.counter(
            "merestone_gpu_xid_errors_total",
            "Errors the driver reported since the agent started, by XID.",
            &label,
            Some(xid.count),
            1.0,
        );
        out.scaled(
            "merestone_gpu_xid_last_timestamp_seconds",
            "When the driver last reported this XID.",
            &label,
            Some(xid.last_ms),
            1e3,
        );
    }
    out.gauge(
        "merestone_gpu_xid_watching",
        "Whether an XID would be seen now.",
        &[],
        device.xids.as_ref().map(|xids| u64::from(xids.watching)),
    );
    let Some(ecc) = device.ecc else { return };
    out.gauge(
        "merestone_gpu_ecc_enabled",
        "Whether memory errors are corrected.",
        &[],
        Some(u64::from(ecc.enabled)),
    );
    for (kind, counter, value) in [
        ("corrected", "volatile", ecc.corrected_volatile),
        ("uncorrected", "volatile", ecc.uncorrected_volatile),
        ("corrected", "aggregate", ecc.corrected_aggregate),
        ("uncorrected", "aggregate", ecc.uncorrected_aggregate),
    ] {
        let labels = [("error", kind.to_owned()), ("counter", counter.to_owned())];
        out.counter(
            "merestone_gpu_ecc_errors_total",
            "Memory errors: volatile since the driver was loaded, aggregate in the GPU's life.",
            &labels,
            value,
            1.0,
        );
    }
}

fn instances(out: &mut Out, device: &GpuReading) {
    out.gauge(
        "merestone_gpu_confidential_computing_enabled",
        "Whether the driver says that confidential computing is on.",
        &[],
        device
            .confidential
            .map(|confidential| u64::from(confidential.enabled)),
    );
    let Some(mig) = &device.mig else { return };
    out.gauge(
        "merestone_gpu_mig_enabled",
        "Whether the GPU is cut into instances.",
        &[],
        Some(u64::from(mig.enabled)),
    );
    for instance in mig.instances.iter().flatten() {
        let (Some(gpu), Some(compute)) = (instance.gpu_instance, instance.compute_instance) else {
            continue;
        };
        let labels = [
            ("gpu_instance", gpu.to_string()),
            ("compute_instance", compute.to_string()),
        ];
        for (name, help, value) in [
            (
                "merestone_gpu_mig_memory_total_bytes",
                "Memory of a MIG device.",
                instance.memory.map(|memory| memory.total_bytes),
            ),
            (
                "merestone_gpu_mig_memory_used_bytes",
                "Memory allocated in a MIG device.",
                instance.memory.map(|memory| memory.used_bytes),
            ),
        ] {
            out.gauge(name, help, &labels, value);
        }
    }
}

/// Collects metrics with the labels of the GPU at hand.
struct Out {
    metrics: Vec<Metric>,
    labels: Vec<(&'static str, String)>,
}

impl Out {
    fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, String)],
        value: Option<impl Into<u64>>,
    ) {
        self.scaled(name, help, labels, value, 1.0);
    }

    fn scaled(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, String)],
        value: Option<impl Into<u64>>,
        divisor: f64,
    ) {
        self.push(name, help, Kind::Gauge, labels, value, divisor);
    }

    fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, String)],
        value: Option<impl Into<u64>>,
        divisor: f64,
    ) {
        self.push(name, help, Kind::Counter, labels, value, divisor);
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "metrics are floating point; 2^53 is not reached"
    )]
    fn push(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        labels: &[(&'static str, String)],
        value: Option<impl Into<u64>>,
        divisor: f64,
    ) {
        let Some(value) = value else { return };
        let value: u64 = value.into();
        self.metrics.push(Metric {
            name,
            help,
            kind,
            labels: self.labels.iter().chain(labels).cloned().collect(),
            value: value as f64 / divisor,
        });
    }
}
