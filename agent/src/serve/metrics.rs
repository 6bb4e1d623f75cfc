//! The text exposition: a snapshot of the agent, made anew for each scrape, so
//! that what vanished leaves no stale series.
//!
//! Process ids and command lines are never labels.

use crate::api::Status;
use crate::gpu;
use crate::seal;
use prometheus::{Counter, Encoder as _, Gauge, IntCounter, IntGauge, Opts, Registry, TextEncoder};

/// What one scrape shows.
#[derive(Debug)]
pub struct Readings<'a> {
    /// The agent's state.
    pub status: &'a Status,
    /// The GPU monitor's readings, already named.
    pub gpu: Vec<gpu::Metric>,
    /// How sealing fares.
    pub seal: &'a seal::Metrics,
}

/// Renders the exposition.
pub fn render(readings: &Readings<'_>) -> Result<String, prometheus::Error> {
    let registry = Registry::new();
    state(&registry, readings.status)?;
    coverage(&registry, readings.status)?;
    decisions(&registry, readings.status)?;
    pods(&registry, readings.status)?;
    tamper(&registry, readings.status)?;
    records(&registry, readings.status)?;
    canary(&registry, readings.status)?;
    evidence(&registry, readings)?;
    for metric in &readings.gpu {
        gpu_metric(&registry, metric)?;
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
}

fn state(registry: &Registry, status: &Status) -> Result<(), prometheus::Error> {
    gauge(
        registry,
        "merestone_build_info",
        "Always 1; the version and the kernel object.",
        &[
            ("version", &status.version),
            ("object_digest", &status.object_digest),
        ],
        1,
    )?;
    gauge(
        registry,
        "merestone_enforcing",
        "1 where the cgroup tier is attached and the boundary enforces.",
        &[],
        i64::from(status.enforcing),
    )?;
    gauge(
        registry,
        "merestone_boundary_info",
        "Always 1; the boundary in force.",
        &[
            ("name", &status.boundary.name),
            ("digest", &status.boundary.digest),
        ],
        1,
    )?;
    gauge(
        registry,
        "merestone_config_last_reload_successful",
        "1 where the last reload of the boundary was accepted.",
        &[],
        i64::from(status.reload_error.is_none()),
    )?;
    gauge(
        registry,
        "merestone_guarded_cgroups",
        "Guarded groups: cgroups and process trees.",
        &[],
        to_i64(status.groups as u64),
    )?;
    gauge(
        registry,
        "merestone_guarded_processes",
        "Guarded processes the kernel knows.",
        &[],
        to_i64(status.processes as u64),
    )?;
    gauge(
        registry,
        "merestone_learned_addresses",
        "Addresses that names of the boundary have now.",
        &[],
        to_i64(status.names.addresses as u64),
    )?;
    Ok(())
}

fn coverage(registry: &Registry, status: &Status) -> Result<(), prometheus::Error> {
    for tier in &status.tiers {
        gauge(
            registry,
            "merestone_enforcement_tier",
            "1 where every program of the tier is attached.",
            &[("tier", &tier.name)],
            i64::from(tier.active),
        )?;
    }
    for way in &status.uncovered {
        gauge(
            registry,
            "merestone_uncovered_info",
            "Always 1; a way out that nothing on this host covers.",
            &[("way", way)],
            1,
        )?;
    }
    Ok(())
}

fn decisions(registry: &Registry, status: &Status) -> Result<(), prometheus::Error> {
    for count in &status.counters {
        counter(
            registry,
            "merestone_flows_total",
            "Decisions on guarded groups' traffic; exact, from per-CPU maps.",
            &[
                ("verdict", &count.verdict),
                ("hook", &count.hook),
                ("protocol", &count.protocol),
            ],
            count.count,
        )?;
    }
    for (reason, count) in &status.lost {
        counter(
            registry,
            "merestone_events_lost_total",
            "Events and entries lost, by reason; no verdict depends on them.",
            &[("reason", reason)],
            *count,
        )?;
    }
    Ok(())
}

/// Nothing where the kubelet is not asked.
fn pods(registry: &Registry, status: &Status) -> Result<(), prometheus::Error> {
    let Some(pods) = &status.pods else {
        return Ok(());
    };
    gauge(
        registry,
        "merestone_kubelet_up",
        "1 where the kubelet's last answer said which pods there are.",
        &[],
        i64::from(pods.error.is_none() && pods.last_ms.is_some()),
    )?;
    gauge(
        registry,
        "merestone_pods_known",
        "Pods that are known; a pod that is not is denied everything where a boundary selects pods.",
        &[],
        to_i64(pods.known as u64),
    )?;
    gauge(
        registry,
        "merestone_pods_selected",
        "Known pods that a [[select]] names by labels.",
        &[],
        to_i64(pods.selected as u64),
    )?;
    gauge(
        registry,
        "merestone_pods_left_out",
        "Pods that the kubelet named and that stay unknown: no room in the kernel, or no uid.",
        &[],
        to_i64((pods.without_room + pods.left_out) as u64),
    )
}

fn tamper(registry: &Registry, status: &Status) -> Result<(), prometheus::Error> {
    for count in &status.tamper.attempts {
        counter(
            registry,
            "merestone_tamper_attempts_total",
            "Attempts on enforcement itself; not refused: found afterwards, or let through.",
            &[
                ("attempt", &count.attempt),
                ("refused", if count.refused { "true" } else { "false" }),
            ],
            count.count,
        )?;
    }
    gauge(
        registry,
        "merestone_break_glass_open",
        "1 while an operator is let past the protection.",
        &[],
        i64::from(status.tamper.break_glass.is_some()),
    )
}

fn records(registry: &Registry, status: &Status) -> Result<(), prometheus::Error> {
    let records = &status.records;
    for (grade, count) in [("R1", records.observed), ("R2", records.bound)] {
        counter(
            registry,
            "merestone_records_total",
            "Requests that guarded servers answered, told in the log.",
            &[("grade", grade)],
            count,
        )?;
    }
    counter(
        registry,
        "merestone_receipts_total",
        "Receipts that the session's key signed.",
        &[],
        records.receipts,
    )?;
    counter(
        registry,
        "merestone_receipts_missing_total",
        "Records that no receipt was issued for: no session was open, or the disk refused.",
        &[],
        records.unreceipted,
    )?;
    counter(
        registry,
        "merestone_records_left_out_total",
        "Requests for health and metrics, which are not told.",
        &[],
        records.left_out,
    )?;
    gauge(
        registry,
        "merestone_records_open",
        "Requests under way on guarded servers.",
        &[],
        to_i64(records.open),
    )
}

/// Nothing where it is switched off: an alert on absence then fires.
fn canary(registry: &Registry, status: &Status) -> Result<(), prometheus::Error> {
    let Some(canary) = &status.canary else {
        return Ok(());
    };
    for (result, count) in &canary.runs {
        counter(
            registry,
            "merestone_canary_runs_total",
            "Tries of the canary and of drills in this session, by what they came to.",
            &[("result", result)],
            *count,
        )?;
    }
    counter(
        registry,
        "merestone_canary_denied_total",
        "Decisions refused to the canary; merestone_flows_total has them, too.",
        &[],
        canary.denied,
    )?;
    gauge(
        registry,
        "merestone_canary_guarded",
        "1 where the canary is guarded as a workload is.",
        &[],
        i64::from(canary.guarded),
    )
}

fn gpu_metric(registry: &Registry, metric: &gpu::Metric) -> Result<(), prometheus::Error> {
    let labels: Vec<_> = metric
        .labels
        .iter()
        .map(|(label, value)| (*label, value.as_str()))
        .collect();
    let options = options(metric.name, metric.help, &labels);
    match metric.kind {
        gpu::Kind::Gauge => {
            let gauge = Gauge::with_opts(options)?;
            gauge.set(metric.value);
            registry.register(Box::new(gauge))
        }
        gpu::Kind::Counter => {
            let counter = Counter::with_opts(options)?;
            // A counter below zero is none; the library would panic on it.
            counter.inc_by(metric.value.max(0.0));
            registry.register(Box::new(counter))
        }
    }
}

fn evidence(registry: &Registry, readings: &Readings<'_>) -> Result<(), prometheus::Error> {
    let evidence = &readings.status.evidence;
    counter(
        registry,
        "merestone_log_entries_total",
        "Entries in the evidence log.",
        &[],
        evidence.entries,
    )?;
    if let Some(last) = evidence.last_quote_ms {
        #[expect(
            clippy::cast_precision_loss,
            reason = "milliseconds fit 2^53 until the year 287396"
        )]
        float(
            registry,
            "merestone_last_quote_timestamp_seconds",
            "When the last quote was made.",
            &[],
            last as f64 / 1000.0,
        )?;
    }
    readings.seal.register(registry)
}

fn options(name: &str, help: &str, labels: &[(&str, &str)]) -> Opts {
    let labels = labels
        .iter()
        .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
        .collect();
    Opts::new(name, help).const_labels(labels)
}

fn to_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn gauge(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[(&str, &str)],
    value: i64,
) -> Result<(), prometheus::Error> {
    let metric = IntGauge::with_opts(options(name, help, labels))?;
    metric.set(value);
    registry.register(Box::new(metric))
}

fn counter(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[(&str, &str)],
    value: u64,
) -> Result<(), prometheus::Error> {
    let metric = IntCounter::with_opts(options(name, help, labels))?;
    metric.inc_by(value);
    registry.register(Box::new(metric))
}

fn float(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[(&str, &str)],
    value: f64,
) -> Result<(), prometheus::Error> {
    let metric = Gauge::with_opts(options(name, help, labels))?;
    metric.set(value);
    registry.register(Box::new(metric))
}
