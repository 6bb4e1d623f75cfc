//! Real hosts, replayed: what the agent reads from a capture of `nvidia-smi` is compared with what an
//! independent exporter read from the same host (`*.metrics`).
//!
//! A capture becomes a scenario of the fake library; the parser of both files is here, for tests only.
//! Skipped, by name, where the vectors are not there.

#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing helper is a failing test"
)]
#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fake_nvml::install::install;
use fake_nvml::scenario::{
    Clocks, Ecc, Gpu, Memory, Mig, MigDevice, Process, Sample, Scenario, Utilization,
};
use merestone_agent::gpu::{Config, GpuReading, GpuSnapshot, Monitor, metrics};

const MIB: u64 = 1 << 20;

fn captures(test: &str) -> Option<PathBuf> {
    let root = std::env::var_os("MERESTONE_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
        PathBuf::from,
    );
    let folder = root.join("gpu-captures");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("SKIPPED: {test} (no {})", folder.display());
    None
}

/// A capture's sections by title, for example `load :: query (-q)`.
struct Capture(BTreeMap<String, String>);

impl Capture {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let mut sections = BTreeMap::new();
        let mut title = String::new();
        for line in text.lines() {
            match line.strip_prefix("# ").filter(|rest| rest.contains(" :: ")) {
                Some(new) => new.clone_into(&mut title),
                None if !line.starts_with("# $") && !line.starts_with("####") => {
                    let body: &mut String = sections.entry(title.clone()).or_default();
                    body.push_str(line);
                    body.push('\n');
                }
                None => {}
            }
        }
        Self(sections)
    }

    fn section(&self, begins: &str) -> &str {
        let (_, text) = self
            .0
            .iter()
            .find(|(title, _)| title.starts_with(begins))
            .unwrap();
        text
    }

    /// The one data row of the CSV, by column.
    fn row(&self, load: &str) -> BTreeMap<String, String> {
        let mut lines = self.section(&format!("{load} :: query-gpu (csv")).lines();
        let head = lines.next().unwrap().split(", ");
        let values = lines.next().unwrap().split(", ");
        // A column's head has its unit after the name: "power.draw [W]".
        head.map(|name| name.split(" [").next().unwrap().to_owned())
            .zip(values.map(str::to_owned))
            .collect()
    }
}

/// A number with its unit cut off; "[N/A]" is none.
fn number(row: &BTreeMap<String, String>, column: &str) -> Option<f64> {
    let value = row
        .get(column)
        .unwrap_or_else(|| panic!("no column {column}"));
    value.split(' ').next().unwrap().parse().ok()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the captures hold small natural numbers"
)]
fn natural(row: &BTreeMap<String, String>, column: &str) -> Option<u64> {
    number(row, column).map(|value| value.round() as u64)
}

fn small(row: &BTreeMap<String, String>, column: &str) -> Option<u32> {
    natural(row, column).map(|value| u32::try_from(value).unwrap())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the captures hold small natural numbers"
)]
fn milliwatts(row: &BTreeMap<String, String>, column: &str) -> Option<u32> {
    number(row, column).map(|watts| (watts * 1000.0).round() as u32)
}

fn scenario(capture: &Capture, load: &str) -> Scenario {
    let row = capture.row(load);
    let mib = |column| natural(&row, column).map(|mib| mib * MIB);
    let ecc =
        |kind: &str, counter: &str| natural(&row, &format!("ecc.errors.{kind}.{counter}.total"));
    let query = capture.section(&format!("{load} :: query (-q)"));
    Scenario {
        driver_version: row.get("driver_version").cloned(),
        gpu: vec![Gpu {
            uuid: row["uuid"].clone(),
            name: row.get("name").cloned(),
            pci_bus_id: row.get("pci.bus_id").cloned(),
            minor: field(query, "Minor Number").and_then(|value| value.parse().ok()),
            utilization: small(&row, "utilization.gpu")
                .zip(small(&row, "utilization.memory"))
                .map(|(gpu, memory)| Utilization { gpu, memory }),
            memory: Some(Memory {
                total: mib("memory.total").unwrap(),
                reserved: mib("memory.reserved").unwrap(),
                used: mib("memory.used").unwrap(),
            }),
            power_milliwatts: milliwatts(&row, "power.draw"),
            power_limit_milliwatts: milliwatts(&row, "enforced.power.limit"),
            temperature_celsius: small(&row, "temperature.gpu"),
            memory_temperature_celsius: small(&row, "temperature.memory"),
            clocks_mhz: Clocks {
                graphics: small(&row, "clocks.current.graphics"),
                sm: small(&row, "clocks.current.sm"),
                memory: small(&row, "clocks.current.memory"),
                video: small(&row, "clocks.current.video"),
            },
            ecc: Some(Ecc {
                enabled: row["ecc.mode.current"] == "Enabled",
                corrected_volatile: ecc("corrected", "volatile"),
                uncorrected_volatile: ecc("uncorrected", "volatile"),
                corrected_aggregate: ecc("corrected", "aggregate"),
                uncorrected_aggregate: ecc("uncorrected", "aggregate"),
            }),
            process: processes(query),
            sample: samples(capture.section(&format!("{load} :: pmon"))),
            mig: Some(Mig {
                enabled: row["mig.mode.current"] == "Enabled",
                instance: instances(query, capture.section("capabilities :: list")),
                ..Mig::default()
            }),
            ..Gpu::default()
        }],
        ..Scenario::default()
    }
}

/// The value of the first `key : value` line of `nvidia-smi -q`.
fn field<'text>(text: &'text str, key: &str) -> Option<&'text str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(" : ")?;
        (name.trim() == key).then(|| value.trim())
    })
}

fn whole(value: &str) -> Option<u64> {
    value.split(' ').next()?.parse().ok()
}

/// The processes of `nvidia-smi -q`, which unlike the CSV tells the instances.
fn processes(query: &str) -> Vec<Process> {
    let mut list: Vec<Process> = Vec::new();
    let (mut gpu, mut compute) = (None, None);
    let inside = query.split("    Processes\n").nth(1).unwrap_or_default();
    for (key, value) in inside.lines().filter_map(|line| line.split_once(" : ")) {
        let value = value.trim();
        match key.trim() {
            "GPU instance ID" => gpu = value.parse().ok(),
            "Compute instance ID" => compute = value.parse().ok(),
            "Process ID" => list.push(Process {
                pid: value.parse().unwrap(),
                gpu_instance: gpu,
                compute_instance: compute,
                ..Process::default()
            }),
            "Used GPU Memory" => {
                list.last_mut().unwrap().memory = whole(value).map(|mib| mib * MIB);
            }
            _ => {}
        }
    }
    list
}

/// The rows of `nvidia-smi pmon` with numbers, as samples in the order of time.
fn samples(pmon: &str) -> Vec<Sample> {
    let soon = 4_000_000_000_000_000;
    pmon.lines()
        .zip(0..)
        .filter_map(|(line, at)| {
            let mut words = line.split_ascii_whitespace().skip(1);
            Some(Sample {
                pid: words.next()?.parse().ok()?,
                sm: words.nth(1)?.parse().ok()?,
                memory: words.next()?.parse().ok()?,
                time_us: Some(soon + at),
            })
        })
        .collect()
}

fn instances(query: &str, list: &str) -> Vec<MigDevice> {
    let names = list.lines().filter(|line| line.contains("MIG "));
    query
        .split("    MIG Device\n")
        .skip(1)
        .zip(names)
        .map(|(text, name)| {
            let memory = text.split("Shared FB Memory Usage").nth(1).unwrap();
            let bytes = |key| field(memory, key).and_then(whole).unwrap() * MIB;
            MigDevice {
                slot: field(text, "Index").unwrap().parse().unwrap(),
                uuid: name
                    .split("UUID: ")
                    .nth(1)
                    .unwrap()
                    .trim_end_matches(')')
                    .into(),
                gpu_instance: field(text, "GPU Instance ID").unwrap().parse().unwrap(),
                compute_instance: field(text, "Compute Instance ID").unwrap().parse().unwrap(),
                multiprocessors: field(text, "Multiprocessor count").and_then(|n| n.parse().ok()),
                memory: Some(Memory {
                    total: bytes("Total"),
                    reserved: bytes("Reserved"),
                    used: bytes("Used"),
                }),
                ..MigDevice::default()
            }
        })
        .collect()
}

/// The independent exporter's values by name; the processes' ones by pid.
struct Reference {
    values: BTreeMap<String, f64>,
    process_memory: BTreeMap<u32, f64>,
}

impl Reference {
    fn read(path: &Path) -> Self {
        let mut reference = Self {
            values: BTreeMap::new(),
            process_memory: BTreeMap::new(),
        };
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let Some((series, value)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))
            else {
                continue;
            };
            let name = series.split('{').next().unwrap();
            let value = value.parse().unwrap();
            if name == "nvidia_smi_compute_app_used_memory_bytes" {
                let pid = series
                    .split("pid=\"")
                    .nth(1)
                    .unwrap()
                    .split('"')
                    .next()
                    .unwrap();
                reference.process_memory.insert(pid.parse().unwrap(), value);
            }
            reference
                .values
                .insert(name.trim_start_matches("nvidia_smi_").to_owned(), value);
        }
        reference
    }
}

fn read(scenario: &Scenario) -> Arc<GpuSnapshot> {
    let folder = tempfile::tempdir().unwrap();
    let fake = install(folder.path(), scenario, &[]).unwrap();
    let monitor = Monitor::start(Config {
        library: Some(fake.library),
        allow_test_library: true,
        interval: Duration::from_mins(1),
        ..Config::default()
    })
    .unwrap();
    let begin = Instant::now();
    loop {
        let snapshot = monitor.latest();
        if snapshot.taken_ms.is_some() {
            return snapshot;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{snapshot:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Our metric's name with its own labels, and the exporter's name of the same.
type Pair = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
);

const SAME: &[Pair] = &[
    (
        "merestone_gpu_utilization_ratio",
        &[],
        "utilization_gpu_ratio",
    ),
    (
        "merestone_gpu_memory_utilization_ratio",
        &[],
        "utilization_memory_ratio",
    ),
    (
        "merestone_gpu_memory_total_bytes",
        &[],
        "memory_total_bytes",
    ),
    ("merestone_gpu_memory_used_bytes", &[], "memory_used_bytes"),
    (
        "merestone_gpu_memory_reserved_bytes",
        &[],
        "memory_reserved_bytes",
    ),
    ("merestone_gpu_processes", &[], "compute_apps"),
    ("merestone_gpu_power_watts", &[], "power_draw_watts"),
    (
        "merestone_gpu_power_limit_watts",
        &[],
        "enforced_power_limit_watts",
    ),
    (
        "merestone_gpu_temperature_celsius",
        &[("sensor", "gpu")],
        "temperature_gpu",
    ),
    (
        "merestone_gpu_temperature_celsius",
        &[("sensor", "memory")],
        "temperature_memory",
    ),
    (
        "merestone_gpu_clock_hertz",
        &[("domain", "graphics")],
        "clocks_current_graphics_clock_hz",
    ),
    (
        "merestone_gpu_clock_hertz",
        &[("domain", "sm")],
        "clocks_current_sm_clock_hz",
    ),
    (
        "merestone_gpu_clock_hertz",
        &[("domain", "memory")],
        "clocks_current_memory_clock_hz",
    ),
    (
        "merestone_gpu_clock_hertz",
        &[("domain", "video")],
        "clocks_current_video_clock_hz",
    ),
    ("merestone_gpu_ecc_enabled", &[], "ecc_mode_current"),
    ("merestone_gpu_mig_enabled", &[], "mig_mode_current"),
    (
        "merestone_gpu_ecc_errors_total",
        &[("error", "corrected"), ("counter", "volatile")],
        "ecc_errors_corrected_volatile_total",
    ),
    (
        "merestone_gpu_ecc_errors_total",
        &[("error", "uncorrected"), ("counter", "aggregate")],
        "ecc_errors_uncorrected_aggregate_total",
    ),
    // In none of the captures, so absent on both sides: absent is not 0.
    (
        "merestone_gpu_energy_joules_total",
        &[],
        "energy_joules_total",
    ),
    ("merestone_gpu_xid_errors_total", &[], "xid_errors_total"),
];

fn compare(snapshot: &GpuSnapshot, reference: &Reference, what: &str) -> usize {
    let ours = metrics(snapshot);
    let mut equal = 0;
    for (name, labels, theirs) in SAME {
        let own = ours.iter().find(|metric| {
            let has = |(label, value): &(&'static str, &str)| {
                metric
                    .labels
                    .iter()
                    .any(|(key, given)| key == label && given == value)
            };
            metric.name == *name && labels.iter().all(has)
        });
        let own = own.map(|metric| metric.value);
        let theirs = reference.values.get(*theirs).copied();
        let near = match (own, theirs) {
            (Some(own), Some(theirs)) => (own - theirs).abs() <= theirs.abs() * 1e-9,
            (None, None) => true,
            _ => false,
        };
        assert!(
            near,
            "{what}: {name} {labels:?}: ours {own:?}, theirs {theirs:?}"
        );
        equal += usize::from(own.is_some());
    }
    equal
}

fn process_memory(gpu: &GpuReading) -> BTreeMap<u32, f64> {
    let processes = gpu.processes.as_ref().unwrap().iter();
    processes
        .map(|process| {
            (
                process.pid,
                f64::from(u32::try_from(process.memory_bytes.unwrap() / MIB).unwrap())
                    * 1_048_576.0,
            )
        })
        .collect()
}

#[test]
fn the_agent_and_an_independent_exporter_read_the_same_from_each_captured_host() {
    let Some(folder) =
        captures("the_agent_and_an_independent_exporter_read_the_same_from_each_captured_host")
    else {
        return;
    };
    let mut hosts = 0;
    let mut equal = 0;
    for file in std::fs::read_dir(&folder).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let capture = Capture::read(&file);
        for load in ["idle", "load"] {
            let name = file.file_stem().unwrap().to_str().unwrap();
            let what = format!("{name} {load}");
            let reference = Reference::read(&folder.join(format!("{name}__{load}.metrics")));
            let snapshot = read(&scenario(&capture, load));
            equal += compare(&snapshot, &reference, &what);
            let gpu = &snapshot.devices[0];
            assert_eq!(process_memory(gpu), reference.process_memory, "{what}");
            if load == "load" {
                assert_eq!(gpu.processes.as_ref().unwrap().len(), 3, "{what}");
            }
            hosts += 1;
        }
    }
    assert!(hosts >= 6, "{hosts} readings were compared");
    println!("{hosts} readings of captured hosts, {equal} values equal");
}

#[test]
fn a_captured_mig_gpu_has_instances_and_memory_but_no_utilisation_at_all() {
    let Some(folder) =
        captures("a_captured_mig_gpu_has_instances_and_memory_but_no_utilisation_at_all")
    else {
        return;
    };
    let capture = Capture::read(&folder.join("nvidia-h100-mig__590.48.01.txt"));
    let snapshot = read(&scenario(&capture, "load"));
    let gpu = &snapshot.devices[0];
    assert_eq!(gpu.utilization, None);
    let mig = gpu.mig.as_ref().unwrap();
    assert!(mig.enabled);
    let instances = mig.instances.as_ref().unwrap();
    let ids: Vec<_> = instances
        .iter()
        .map(|instance| instance.gpu_instance.unwrap())
        .collect();
    assert_eq!(ids, [2, 3, 9, 10]);
    assert_eq!(instances[0].multiprocessors, Some(60));
    assert_eq!(instances[0].memory.unwrap().used_bytes, 11_091 * MIB);
    assert_eq!(gpu.processes.as_ref().map(Vec::len), Some(3));
    for process in gpu.processes.iter().flatten() {
        assert_eq!(process.gpu_instance, Some(2));
        assert_eq!(process.compute_instance, Some(0));
        assert_eq!(process.sm_percent, None);
    }
    let names: BTreeSet<_> = metrics(&snapshot)
        .iter()
        .map(|metric| metric.name)
        .collect();
    assert!(!names.contains("merestone_gpu_utilization_ratio"));
    assert!(names.contains("merestone_gpu_mig_memory_used_bytes"));
}

#[test]
fn the_newest_captured_sample_of_each_process_is_its_utilisation() {
    let Some(folder) = captures("the_newest_captured_sample_of_each_process_is_its_utilisation")
    else {
        return;
    };
    let capture = Capture::read(&folder.join("nvidia-h200__590.48.01.txt"));
    let snapshot = read(&scenario(&capture, "load"));
    let percent: BTreeMap<_, _> = snapshot.devices[0]
        .processes
        .as_ref()
        .unwrap()
        .iter()
        .map(|process| (process.pid, process.sm_percent))
        .collect();
    // pmon prints "-" for a process without a sample: absent, not 0.
    let expected = [(10_291, Some(19)), (10_293, None), (10_309, Some(99))];
    assert_eq!(percent, BTreeMap::from(expected));
}

#[test]
fn every_function_of_the_fake_is_one_that_a_real_driver_exports() {
    let Some(folder) = captures("every_function_of_the_fake_is_one_that_a_real_driver_exports")
    else {
        return;
    };
    let text = std::fs::read_to_string(folder.join("nvidia-h100-mig__590.48.01.txt")).unwrap();
    let real: BTreeSet<_> = text
        .lines()
        .filter(|line| line.starts_with("nvml"))
        .collect();
    let bytes = std::fs::read(fake_nvml::install::built().unwrap()).unwrap();
    let own: BTreeSet<_> = bytes
        .split(|byte| *byte == 0)
        .filter(|word| word.starts_with(b"nvmlDevice") || word.starts_with(b"nvmlSystem"))
        .filter_map(|word| std::str::from_utf8(word).ok())
        .filter(|word| {
            word.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
        .filter(|word| !word.contains("_t") && !word.contains("_enum"))
        .collect();
    assert!(own.len() > 40, "{own:?}");
    let unknown: Vec<_> = own.difference(&real).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
