//! The library as NVIDIA's own Python bindings see it.
//!
//! The fake and the agent take their struct layouts from one generated source; a mistake there would
//! cancel out. `pynvml` (the package `nvidia-ml-py`) has its own, so it is the second opinion. The
//! test is skipped, and says so, where no Python with that package is found: `$MERESTONE_PYNVML`
//! names an interpreter, `python3` is tried otherwise.

use std::process::Command;

use fake_nvml::install::install;
use fake_nvml::scenario::{
    Clocks, Confidential, Gpu, Memory, Mig, MigDevice, Process, Scenario, Utilization,
};

const SCRIPT: &str = r"
import sys, pynvml as n
n._LoadNvmlLibrary = lambda: None
import ctypes
n.nvmlLib = ctypes.CDLL(sys.argv[1])
n.nvmlInitWithFlags(0)
h = n.nvmlDeviceGetHandleByIndex(0)
m = n.nvmlDeviceGetMemoryInfo(h, version=n.nvmlMemory_v2)
u = n.nvmlDeviceGetUtilizationRates(h)
p = n.nvmlDeviceGetComputeRunningProcesses(h)
pci = n.nvmlDeviceGetPciInfo(h)
text = lambda t: t.decode() if isinstance(t, bytes) else t
print(text(n.nvmlSystemGetDriverVersion()), text(n.nvmlDeviceGetUUID(h)), text(n.nvmlDeviceGetName(h)))
print(m.total, m.reserved, m.used, m.free, u.gpu, u.memory)
print([(q.pid, q.usedGpuMemory, q.gpuInstanceId, q.computeInstanceId) for q in p])
print(text(pci.busId), pci.domain, pci.bus, pci.device)
print(n.nvmlDeviceGetTotalEnergyConsumption(h), n.nvmlDeviceGetPowerUsage(h), n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_MEM))
f = n.nvmlDeviceGetFieldValues(h, [n.NVML_FI_DEV_MEMORY_TEMP])[0]
print(f.nvmlReturn, f.value.uiVal)
g = n.nvmlDeviceGetHandleByIndex(1)
i = n.nvmlDeviceGetMigDeviceHandleByIndex(g, 0)
print(n.nvmlDeviceGetMigMode(g), n.nvmlDeviceGetGpuInstanceId(i), n.nvmlDeviceGetAttributes(i).multiprocessorCount)
s = n.nvmlSystemGetConfComputeState()
print(s.environment, s.ccFeature, s.devToolsMode)
e = n.nvmlEventSetCreate()
n.nvmlDeviceRegisterEvents(h, n.nvmlEventTypeXidCriticalError, e)
d = n.nvmlEventSetWait_v2(e, 1000)
print(d.eventType, d.eventData, d.gpuInstanceId)
n.nvmlShutdown()
";

fn host() -> Scenario {
    Scenario {
        driver_version: Some("590.48.01".into()),
        confidential: Some(Confidential {
            enabled: true,
            production: true,
            ..Confidential::default()
        }),
        event: vec![fake_nvml::scenario::Event {
            id: 1,
            xid: 79,
            ..Default::default()
        }],
        gpu: vec![
            Gpu {
                uuid: "GPU-a".into(),
                name: Some("A".into()),
                pci_bus_id: Some("00000001:3B:02.0".into()),
                utilization: Some(Utilization { gpu: 91, memory: 8 }),
                memory: Some(Memory {
                    total: 100,
                    reserved: 7,
                    used: 60,
                }),
                energy_millijoules: Some(5_000_000_000),
                power_milliwatts: Some(433_780),
                memory_temperature_celsius: Some(59),
                clocks_mhz: Clocks {
                    memory: Some(2619),
                    ..Clocks::default()
                },
                process: vec![Process {
                    pid: 4_000_000,
                    memory: Some(1 << 40),
                    gpu_instance: Some(2),
                    compute_instance: Some(1),
                    ..Process::default()
                }],
                ..Gpu::default()
            },
            Gpu {
                uuid: "GPU-b".into(),
                mig: Some(Mig {
                    enabled: true,
                    instance: vec![MigDevice {
                        uuid: "MIG-c".into(),
                        gpu_instance: 9,
                        multiprocessors: Some(16),
                        ..MigDevice::default()
                    }],
                    ..Mig::default()
                }),
                ..Gpu::default()
            },
        ],
        ..Scenario::default()
    }
}

const EXPECTED: &str = "590.48.01 GPU-a A
100 7 60 33 91 8
[(4000000, 1099511627776, 2, 1)]
00000001:3B:02.0 1 59 2
5000000000 433780 2619
0 59
[1, 1] 9 16
2 1 0
8 79 4294967295
";

#[test]
fn nvidias_own_python_bindings_read_what_the_scenario_says() {
    let python = std::env::var("MERESTONE_PYNVML").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python)
        .args(["-c", "import pynvml"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !has {
        println!(
            "skipped: nvidias_own_python_bindings_read_what_the_scenario_says \
             ({python} has no pynvml: pip install nvidia-ml-py)"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let fake = install(folder.path(), &host(), &[]).unwrap();
    let output = Command::new(&python)
        .args(["-c", SCRIPT])
        .arg(&fake.library)
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        EXPECTED,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
