//! Each way in which NVML fails is its own state, and the agent survives all of them.

#![expect(clippy::unwrap_used, reason = "a failing helper is a failing test")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fake_nvml::install::{Installed, install};
use fake_nvml::scenario::{
    Call, Confidential, Event, Gpu, Memory, Process, Sample, Scenario, Utilization,
};
use merestone_agent::gpu::{
    Config, DeviceState, GpuSnapshot, GpuState, Monitor, ProcessKind, metrics,
};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_mins(1);

fn one_gpu() -> Scenario {
    Scenario {
        driver_version: Some("590.48.01".into()),
        nvml_version: Some("13.590.48.01".into()),
        gpu: vec![Gpu {
            uuid: "GPU-one".into(),
            name: Some("Test GPU".into()),
            pci_bus_id: Some("00000000:3B:00.0".into()),
            minor: Some(0),
            utilization: Some(Utilization { gpu: 40, memory: 9 }),
            memory: Some(Memory {
                total: 1000,
                reserved: 10,
                used: 300,
            }),
            ..Gpu::default()
        }],
        ..Scenario::default()
    }
}

fn failing(call: &str, code: u32) -> Scenario {
    let mut scenario = one_gpu();
    let call = (
        call.to_owned(),
        Call {
            code: Some(code),
            ..Call::default()
        },
    );
    scenario.calls.extend([call]);
    scenario
}

struct Rig {
    fake: Installed,
    monitor: Monitor,
    folder: TempDir,
}

fn config(library: PathBuf) -> Config {
    Config {
        library: Some(library),
        allow_test_library: true,
        interval: Duration::from_millis(20),
        deadline: Duration::from_secs(2),
        init_deadline: Duration::from_secs(10),
        retry: Duration::from_millis(30),
        retry_max: Duration::from_millis(200),
        ..Config::default()
    }
}

fn start(scenario: &Scenario) -> Rig {
    start_with(scenario, &[], |config| config)
}

fn start_with(scenario: &Scenario, missing: &[&str], change: impl FnOnce(Config) -> Config) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let fake = install(folder.path(), scenario, missing).unwrap();
    let monitor = Monitor::start(change(config(fake.library.clone()))).unwrap();
    Rig {
        fake,
        monitor,
        folder,
    }
}

impl Rig {
    fn until(&self, wanted: impl Fn(&GpuSnapshot) -> bool) -> Arc<GpuSnapshot> {
        until(&self.monitor, wanted)
    }

    fn until_state(&self, state: GpuState) -> Arc<GpuSnapshot> {
        self.until(|snapshot| snapshot.state == state)
    }
}

fn until(monitor: &Monitor, wanted: impl Fn(&GpuSnapshot) -> bool) -> Arc<GpuSnapshot> {
    let begin = Instant::now();
    loop {
        let snapshot = monitor.latest();
        if wanted(&snapshot) {
            return snapshot;
        }
        assert!(begin.elapsed() < PATIENCE, "still {snapshot:#?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_gpu_in_confidential_computing_attests_itself_over_the_nonce_it_is_asked_for_n60() {
    let mut scenario = one_gpu();
    scenario.confidential = Some(Confidential {
        enabled: true,
        ready: true,
        report: Some("a1b2".into()),
        certificate: Some("-----BEGIN CERTIFICATE-----".into()),
        ..Confidential::default()
    });
    let rig = start(&scenario);
    rig.until_state(GpuState::Ok);
    assert_eq!(rig.monitor.attested(), None, "nothing was asked");
    rig.monitor.attest([1; 32]);
    rig.monitor.attest([2; 32]);
    let begin = Instant::now();
    let (nonce, answers) = loop {
        if let Some(answered) = rig.monitor.attested() {
            break answered;
        }
        assert!(begin.elapsed() < PATIENCE, "no answer");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(nonce, [2; 32], "the last question");
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].uuid, "GPU-one");
    assert_eq!(answers[0].report, [&[2; 32][..], &[0xa1, 0xb2]].concat());
    assert_eq!(answers[0].certificates, b"-----BEGIN CERTIFICATE-----");
    assert_eq!(rig.monitor.attested(), None, "it is told once");
}

#[test]
fn a_gpu_without_confidential_computing_is_not_asked_and_the_question_is_answered() {
    let rig = start(&one_gpu());
    rig.until_state(GpuState::Ok);
    rig.monitor.attest([3; 32]);
    let begin = Instant::now();
    let answers = loop {
        if let Some((_, answers)) = rig.monitor.attested() {
            break answers;
        }
        assert!(begin.elapsed() < PATIENCE, "no answer");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(answers.is_empty());
}

#[test]
fn a_gpu_that_answers_is_read_and_what_it_lacks_is_absent() {
    let rig = start(&one_gpu());
    let snapshot = rig.until_state(GpuState::Ok);
    let gpu = &snapshot.devices[0];
    assert_eq!(snapshot.driver_version.as_deref(), Some("590.48.01"));
    assert_eq!(snapshot.nvml_version.as_deref(), Some("13.590.48.01"));
    assert_eq!(gpu.uuid.as_deref(), Some("GPU-one"));
    assert_eq!(gpu.minor, Some(0));
    assert_eq!(gpu.utilization.unwrap().gpu_percent, 40);
    assert_eq!(gpu.memory.unwrap().reserved_bytes, Some(10));
    assert_eq!(gpu.power_milliwatts, None);
    assert_eq!(gpu.energy_millijoules, None);
    assert_eq!(gpu.ecc, None);
    assert_eq!(gpu.mig, None);
    assert_eq!(gpu.confidential, None);
    assert_eq!(gpu.temperature_celsius, None);
    assert_eq!(gpu.memory_temperature_celsius, None);
    assert_eq!(gpu.processes, Some(vec![]));
    assert_eq!(gpu.faults, Vec::<String>::new());
    let names: Vec<_> = metrics(&snapshot)
        .iter()
        .map(|metric| metric.name)
        .collect();
    assert!(names.contains(&"merestone_gpu_utilization_ratio"));
    assert!(!names.contains(&"merestone_gpu_power_watts"));
    assert!(!names.contains(&"merestone_gpu_energy_joules_total"));
}

#[test]
fn the_library_that_was_loaded_is_named_with_its_digest_and_as_a_test_library() {
    let rig = start(&one_gpu());
    let snapshot = rig.until_state(GpuState::Ok);
    let library = snapshot.library.as_ref().unwrap();
    assert!(snapshot.test_library && library.test);
    assert_eq!(library.path, rig.fake.library);
    let output = std::process::Command::new("sha256sum")
        .arg(&rig.fake.library)
        .output()
        .unwrap();
    let expected = String::from_utf8(output.stdout).unwrap();
    assert!(expected.starts_with(library.sha256.as_deref().unwrap()));
}

#[test]
fn a_host_without_the_library_has_no_driver_and_says_which_file_is_missing() {
    let monitor = Monitor::start(config("/nonexistent/libnvidia-ml.so.1".into())).unwrap();
    let snapshot = until(&monitor, |snapshot| snapshot.state == GpuState::NoDriver);
    assert!(
        snapshot.sentence().contains("/nonexistent"),
        "{}",
        snapshot.sentence()
    );
    assert!(snapshot.devices.is_empty());
    assert_eq!(snapshot.taken_ms, None);
}

#[test]
fn the_codes_of_init_are_different_states() {
    for (code, state) in [
        (9, GpuState::DriverNotLoaded),
        (18, GpuState::DriverMismatch),
        (999, GpuState::DeviceDenied),
        (4, GpuState::DeviceDenied),
        (15, GpuState::Lost),
        (8, GpuState::Failed),
        (23, GpuState::Failed),
    ] {
        let rig = start(&failing("nvmlInit_v2", code));
        let snapshot = rig.until(|snapshot| snapshot.state != GpuState::Starting);
        assert_eq!(
            snapshot.state,
            state,
            "code {code}: {}",
            snapshot.sentence()
        );
    }
}

#[test]
fn a_driver_that_is_loaded_late_is_found() {
    let rig = start(&failing("nvmlInit_v2", 9));
    rig.until_state(GpuState::DriverNotLoaded);
    rig.fake.set(&one_gpu()).unwrap();
    rig.until_state(GpuState::Ok);
}

#[test]
fn a_driver_upgraded_underneath_is_a_mismatch_and_its_end_is_found() {
    let rig = start(&one_gpu());
    rig.until_state(GpuState::Ok);
    let mut upgraded = failing("nvmlInit_v2", 18);
    upgraded
        .calls
        .extend(failing("nvmlDeviceGetCount_v2", 18).calls);
    rig.fake.set(&upgraded).unwrap();
    let snapshot = rig.until_state(GpuState::DriverMismatch);
    assert!(snapshot.devices.iter().all(|gpu| gpu.memory.is_none()));
    rig.fake.set(&one_gpu()).unwrap();
    rig.until_state(GpuState::Ok);
}

#[test]
fn a_lost_gpu_keeps_its_name_and_loses_its_readings_while_the_others_go_on() {
    let mut scenario = one_gpu();
    scenario.gpu.push(Gpu {
        uuid: "GPU-two".into(),
        power_milliwatts: Some(70_000),
        ..Gpu::default()
    });
    let rig = start(&scenario);
    rig.until_state(GpuState::Ok);
    scenario.gpu[0].lost = true;
    rig.fake.set(&scenario).unwrap();
    let snapshot = rig.until_state(GpuState::Lost);
    assert!(
        snapshot.sentence().contains("GPU-one"),
        "{}",
        snapshot.sentence()
    );
    assert_eq!(snapshot.devices[0].state, DeviceState::Lost);
    assert_eq!(snapshot.devices[0].uuid.as_deref(), Some("GPU-one"));
    assert_eq!(snapshot.devices[0].memory, None);
    assert_eq!(snapshot.devices[0].processes, None);
    assert_eq!(snapshot.devices[1].power_milliwatts, Some(70_000));
    scenario.gpu[0].lost = false;
    rig.fake.set(&scenario).unwrap();
    rig.until_state(GpuState::Ok);
}

#[test]
fn a_call_that_does_not_return_is_named_and_nobody_waits_for_it() {
    let rig = start(&one_gpu());
    rig.until_state(GpuState::Ok);
    let mut hung = one_gpu();
    hung.calls.insert(
        "nvmlDeviceGetPowerUsage".into(),
        Call {
            gpu: Some(0),
            hang: true,
            ..Call::default()
        },
    );
    rig.fake.set(&hung).unwrap();
    let begin = Instant::now();
    let snapshot = rig.until_state(GpuState::Wedged);
    assert!(begin.elapsed() >= Duration::from_secs(2));
    let sentence = snapshot.sentence();
    assert!(sentence.contains("nvmlDeviceGetPowerUsage"), "{sentence}");
    assert_eq!(snapshot.devices[0].uuid.as_deref(), Some("GPU-one"));
    assert_eq!(snapshot.devices[0].memory, None);
    assert_eq!(snapshot.driver_version.as_deref(), Some("590.48.01"));
    let begin = Instant::now();
    assert_eq!(rig.monitor.latest().state, GpuState::Wedged);
    rig.monitor.release();
    assert!(begin.elapsed() < Duration::from_millis(100));
    rig.monitor.resume();
    rig.fake.set(&one_gpu()).unwrap();
    rig.until_state(GpuState::Ok);
}

#[test]
fn a_driver_that_stays_wedged_costs_a_bounded_number_of_threads() {
    let mut hung = one_gpu();
    hung.calls.insert(
        "nvmlInit_v2".into(),
        Call {
            hang: true,
            ..Call::default()
        },
    );
    let rig = start_with(&hung, &[], |config| Config {
        init_deadline: Duration::from_millis(500),
        retry: Duration::from_millis(5),
        retry_max: Duration::from_millis(10),
        ..config
    });
    rig.until_state(GpuState::Wedged);
    std::thread::sleep(Duration::from_secs(4));
    // The other tests of this process have threads of that name too; none has stuck ones.
    let stuck = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .filter(|name| name.trim() == "gpu-nvml")
        .count();
    assert!(stuck <= 20, "{stuck} threads");
    rig.fake.set(&one_gpu()).unwrap();
    rig.until_state(GpuState::Ok);
}

#[test]
fn a_slow_call_within_the_deadline_is_not_wedged() {
    let mut slow = one_gpu();
    slow.calls.insert(
        "nvmlDeviceGetPowerUsage".into(),
        Call {
            gpu: Some(0),
            delay_ms: 100,
            ..Call::default()
        },
    );
    let rig = start(&slow);
    rig.until_state(GpuState::Ok);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(1) {
        assert_eq!(rig.monitor.latest().state, GpuState::Ok);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn outside_the_hosts_pid_namespace_an_empty_list_is_not_an_idle_gpu() {
    let proc = tempfile::tempdir().unwrap();
    let ns = proc.path().join("self/ns");
    std::fs::create_dir_all(&ns).unwrap();
    std::os::unix::fs::symlink("pid:[4026532841]", ns.join("pid")).unwrap();
    let mut scenario = one_gpu();
    let rig = start_with(&scenario, &[], |config| Config {
        proc: proc.path().to_owned(),
        ..config
    });
    let snapshot = rig.until_state(GpuState::ProcessInvisible);
    assert_eq!(snapshot.processes_complete, Some(false));
    assert!(snapshot.sentence().contains("hostPID"));
    scenario.gpu[0].process = vec![Process {
        pid: 7,
        ..Process::default()
    }];
    rig.fake.set(&scenario).unwrap();
    let snapshot = rig.until_state(GpuState::Ok);
    assert_eq!(snapshot.processes_complete, Some(false));
}

#[test]
fn nvml_is_let_go_on_demand_and_taken_again() {
    let rig = start(&one_gpu());
    rig.until_state(GpuState::Ok);
    rig.monitor.release();
    let snapshot = rig.until_state(GpuState::Released);
    assert_eq!(snapshot.devices[0].uuid.as_deref(), Some("GPU-one"));
    assert_eq!(snapshot.devices[0].utilization, None);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(rig.monitor.latest().state, GpuState::Released);
    rig.monitor.resume();
    rig.until_state(GpuState::Ok);
}

#[test]
fn a_process_in_two_lists_is_one_process_with_the_newest_sample() {
    let me = std::process::id();
    let mut scenario = one_gpu();
    let process = Process {
        pid: me,
        memory: Some(64),
        ..Process::default()
    };
    scenario.gpu[0].process = vec![
        process,
        process,
        Process {
            kind: fake_nvml::scenario::ProcessKind::Graphics,
            ..process
        },
        Process {
            pid: u32::MAX - 1,
            ..Process::default()
        },
    ];
    scenario.gpu[0].sample = [(2, 90), (3, 55), (1, 10)]
        .map(|(at, sm)| Sample {
            pid: me,
            time_us: Some(4_000_000_000_000_000 + at),
            sm,
            memory: 1,
        })
        .into();
    let rig = start(&scenario);
    let snapshot = rig.until(|snapshot| {
        let processes = snapshot
            .devices
            .first()
            .and_then(|gpu| gpu.processes.clone());
        processes.is_some_and(|list| list.iter().any(|process| process.sm_percent.is_some()))
    });
    let processes = snapshot.devices[0].processes.as_ref().unwrap();
    assert_eq!(processes.len(), 2);
    let own = processes.iter().find(|process| process.pid == me).unwrap();
    assert_eq!(own.kind, ProcessKind::ComputeAndGraphics);
    assert_eq!(own.sm_percent, Some(55));
    assert_eq!(own.memory_bytes, Some(64));
    assert!(own.in_proc);
    let garbage = processes.iter().find(|process| process.pid != me).unwrap();
    assert!(!garbage.in_proc);
    assert_eq!(garbage.memory_bytes, None);
    assert_eq!(garbage.sm_percent, None);
}

#[test]
fn a_process_query_that_fails_is_absent_and_told_and_not_an_empty_list() {
    let mut scenario = one_gpu();
    scenario.calls.insert(
        "nvmlDeviceGetComputeRunningProcesses_v3".into(),
        Call {
            gpu: Some(0),
            code: Some(4),
            ..Call::default()
        },
    );
    let rig = start(&scenario);
    let snapshot = rig.until_state(GpuState::Ok);
    assert_eq!(snapshot.devices[0].processes, None);
    assert!(snapshot.devices[0].faults[0].contains("ComputeRunningProcesses"));
}

#[test]
fn xids_are_counted_by_code_also_of_a_gpu_that_is_lost_by_them() {
    let mut scenario = one_gpu();
    let rig = start(&scenario);
    rig.until(|snapshot| {
        let xids = snapshot.devices.first().and_then(|gpu| gpu.xids.clone());
        xids.is_some_and(|xids| xids.watching && xids.seen.is_empty())
    });
    let xid = |id, xid| Event {
        id,
        xid,
        ..Event::default()
    };
    scenario.event = vec![xid(1, 31), xid(2, 31), xid(3, 79)];
    scenario.gpu[0].lost = true;
    rig.fake.set(&scenario).unwrap();
    let seen = |snapshot: &GpuSnapshot| {
        let xids = snapshot.devices.first().and_then(|gpu| gpu.xids.clone());
        let seen = xids.map(|xids| xids.seen).unwrap_or_default();
        seen.iter()
            .map(|xid| (xid.code, xid.count))
            .collect::<Vec<_>>()
    };
    let snapshot = rig.until(|snapshot| seen(snapshot) == [(31, 2), (79, 1)]);
    assert!(metrics(&snapshot).iter().any(|metric| {
        metric.name == "merestone_gpu_xid_errors_total"
            && metric.labels.contains(&("xid", "79".to_owned()))
    }));
}

#[test]
fn energy_grows_and_a_driver_reload_is_seen_as_a_reset() {
    let mut scenario = one_gpu();
    scenario.gpu[0].energy_millijoules = Some(1_000_000);
    scenario.gpu[0].energy_rate_milliwatts = 500_000;
    let rig = start(&scenario);
    let energy = |snapshot: &GpuSnapshot| {
        let gpu = snapshot.devices.first();
        gpu.and_then(|gpu| gpu.energy_millijoules)
    };
    let mut last = energy(&rig.until(|snapshot| energy(snapshot).is_some())).unwrap();
    for _ in 0..10 {
        let next = rig.until(|snapshot| energy(snapshot).is_some_and(|now| now > last));
        assert_eq!(next.devices[0].energy_resets, 0);
        last = energy(&next).unwrap();
    }
    scenario.gpu[0].energy_millijoules = Some(1);
    scenario.gpu[0].energy_rate_milliwatts = 0;
    rig.fake.set(&scenario).unwrap();
    rig.until(|snapshot| snapshot.devices[0].energy_resets == 1);
}

#[test]
fn an_older_driver_without_newer_symbols_gives_what_it_has() {
    let mut scenario = one_gpu();
    scenario.gpu[0].energy_millijoules = Some(5);
    let rig = start_with(
        &scenario,
        &[
            "nvmlDeviceGetMemoryInfo_v2",
            "nvmlDeviceGetTotalEnergyConsumption",
        ],
        |config| config,
    );
    let snapshot = rig.until_state(GpuState::Ok);
    let memory = snapshot.devices[0].memory.unwrap();
    assert_eq!(memory.used_bytes, 310);
    assert_eq!(memory.reserved_bytes, None);
    assert_eq!(snapshot.devices[0].energy_millijoules, None);
}

#[test]
fn a_dropped_monitor_ends_its_threads() {
    let rig = start(&one_gpu());
    rig.until_state(GpuState::Ok);
    let mut snapshots = rig.monitor.subscribe();
    drop(rig.monitor);
    let begin = Instant::now();
    while snapshots.has_changed().is_ok() {
        snapshots.borrow_and_update();
        assert!(begin.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(rig.folder);
}
