//! The library as a real client sees it: loaded by `dlopen` through `nvml-wrapper`.

#![expect(clippy::unwrap_used, reason = "a failing helper is a failing test")]

use fake_nvml::install::{Installed, install};
use fake_nvml::scenario::{Call, Gpu, Mig, MigDevice, Process, Sample, Scenario, Utilization};
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::NVML_FI_DEV_MEMORY_TEMP;
use tempfile::TempDir;

fn one_gpu() -> Scenario {
    Scenario {
        driver_version: Some("590.48.01".into()),
        gpu: vec![Gpu {
            uuid: "GPU-one".into(),
            name: Some("Test GPU".into()),
            pci_bus_id: Some("00000000:3B:00.0".into()),
            utilization: Some(Utilization { gpu: 7, memory: 3 }),
            ..Gpu::default()
        }],
        ..Scenario::default()
    }
}

fn start(scenario: &Scenario, missing: &[&str]) -> (TempDir, Installed, Nvml) {
    let folder = tempfile::tempdir().unwrap();
    let fake = install(folder.path(), scenario, missing).unwrap();
    let nvml = open(&fake).unwrap();
    (folder, fake, nvml)
}

fn open(fake: &Installed) -> Result<Nvml, NvmlError> {
    Nvml::builder().lib_path(fake.library.as_os_str()).init()
}

#[test]
fn a_reading_that_the_scenario_lacks_is_not_supported_and_never_zero() {
    let (_folder, _fake, nvml) = start(&one_gpu(), &[]);
    let gpu = nvml.device_by_index(0).unwrap();
    assert_eq!(gpu.name().unwrap(), "Test GPU");
    assert_eq!(gpu.pci_info().unwrap().bus_id, "00000000:3B:00.0");
    assert_eq!(gpu.utilization_rates().unwrap().gpu, 7);
    assert!(matches!(gpu.power_usage(), Err(NvmlError::NotSupported)));
    assert!(matches!(gpu.memory_info(), Err(NvmlError::NotSupported)));
    assert!(matches!(
        gpu.temperature(TemperatureSensor::Gpu),
        Err(NvmlError::NotSupported)
    ));
    let fields = gpu
        .field_values_for(&[FieldId(NVML_FI_DEV_MEMORY_TEMP)])
        .unwrap();
    assert!(fields[0].as_ref().unwrap().value.is_err());
}

#[test]
fn the_count_query_answers_insufficient_size_so_that_processes_are_seen() {
    let mut scenario = one_gpu();
    scenario.gpu[0].process = [11, 12]
        .map(|pid| Process {
            pid,
            memory: Some(1 << 20),
            ..Process::default()
        })
        .into();
    let (_folder, _fake, nvml) = start(&scenario, &[]);
    let gpu = nvml.device_by_index(0).unwrap();
    let processes = gpu.running_compute_processes().unwrap();
    assert_eq!(
        processes
            .iter()
            .map(|process| process.pid)
            .collect::<Vec<_>>(),
        [11, 12]
    );
    assert!(gpu.running_graphics_processes().unwrap().is_empty());
}

#[test]
fn samples_older_than_the_last_seen_are_not_found() {
    let mut scenario = one_gpu();
    scenario.gpu[0].sample = vec![Sample {
        pid: 11,
        time_us: Some(1000),
        sm: 40,
        memory: 2,
    }];
    let (_folder, _fake, nvml) = start(&scenario, &[]);
    let gpu = nvml.device_by_index(0).unwrap();
    assert_eq!(gpu.process_utilization_stats(999).unwrap()[0].sm_util, 40);
    assert!(matches!(
        gpu.process_utilization_stats(1000),
        Err(NvmlError::NotFound)
    ));
}

#[test]
fn a_mig_gpu_has_instances_in_slots_and_no_utilisation_of_its_own() {
    let mut scenario = one_gpu();
    scenario.gpu[0].mig = Some(Mig {
        enabled: true,
        instance: vec![MigDevice {
            slot: 1,
            uuid: "MIG-b".into(),
            gpu_instance: 3,
            ..MigDevice::default()
        }],
        ..Mig::default()
    });
    scenario.gpu[0].process = [(11, 3), (12, 4)]
        .map(|(pid, instance)| Process {
            pid,
            gpu_instance: Some(instance),
            compute_instance: Some(0),
            ..Process::default()
        })
        .into();
    let (_folder, _fake, nvml) = start(&scenario, &[]);
    let gpu = nvml.device_by_index(0).unwrap();
    assert_eq!(gpu.mig_device_count().unwrap(), 7);
    assert!(matches!(
        gpu.mig_device_by_index(0),
        Err(NvmlError::NotFound)
    ));
    let instance = gpu.mig_device_by_index(1).unwrap();
    assert_eq!(instance.uuid().unwrap(), "MIG-b");
    let parent = instance.mig_parent_device().unwrap();
    assert_eq!(parent.uuid().unwrap(), "GPU-one");
    assert_eq!(instance.running_compute_processes().unwrap().len(), 1);
    assert!(matches!(
        gpu.utilization_rates(),
        Err(NvmlError::NotSupported)
    ));
    assert!(matches!(
        gpu.process_utilization_stats(0),
        Err(NvmlError::NotSupported)
    ));
}

#[test]
fn a_scenario_that_changes_under_a_loaded_library_is_read_again() {
    let mut scenario = one_gpu();
    let (_folder, fake, nvml) = start(&scenario, &[]);
    let gpu = nvml.device_by_index(0).unwrap();
    scenario.gpu[0].lost = true;
    fake.set(&scenario).unwrap();
    assert!(matches!(gpu.utilization_rates(), Err(NvmlError::GpuLost)));
    assert!(matches!(gpu.uuid(), Err(NvmlError::GpuLost)));
    scenario.gpu[0].lost = false;
    fake.set(&scenario).unwrap();
    assert_eq!(gpu.utilization_rates().unwrap().gpu, 7);
}

#[test]
fn a_panic_in_a_call_is_an_unknown_error_and_not_an_abort() {
    let mut scenario = one_gpu();
    scenario.calls.insert(
        "nvmlDeviceGetUUID".into(),
        Call {
            gpu: Some(0),
            panic: true,
            ..Call::default()
        },
    );
    let (_folder, _fake, nvml) = start(&scenario, &[]);
    let gpu = nvml.device_by_index(0).unwrap();
    assert!(matches!(gpu.uuid(), Err(NvmlError::Unknown)));
    assert!(gpu.name().is_ok());
}

#[test]
fn a_symbol_left_out_is_missing_as_in_an_older_driver() {
    let mut scenario = one_gpu();
    scenario.gpu[0].energy_millijoules = Some(5);
    let (_folder, _fake, nvml) = start(&scenario, &["nvmlDeviceGetTotalEnergyConsumption"]);
    let gpu = nvml.device_by_index(0).unwrap();
    assert!(matches!(
        gpu.total_energy_consumption(),
        Err(NvmlError::FailedToLoadSymbol(_))
    ));
}

#[test]
fn an_unknown_key_fails_instead_of_testing_nothing() {
    let error = Scenario::parse("[[gpu]]\nuuid = 'a'\npowr = 3\n").unwrap_err();
    assert!(error.contains("powr"), "{error}");
    assert!(Scenario::parse("{\"gpu\": [{\"uuid\": \"a\"}]}").is_ok());
}

#[test]
fn an_init_code_of_the_scenario_comes_out_as_the_clients_error() {
    let (_folder, fake, nvml) = start(&one_gpu(), &[]);
    nvml.shutdown().unwrap();
    let mut failing = one_gpu();
    failing.calls.insert(
        "nvmlInit_v2".into(),
        Call {
            code: Some(18),
            ..Call::default()
        },
    );
    fake.set(&failing).unwrap();
    assert!(matches!(open(&fake), Err(NvmlError::LibRmVersionMismatch)));
}
