//! Reading one GPU: each call under its deadline, each failure given its meaning.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::NVML_FI_DEV_MEMORY_TEMP;

use super::progress::Progress;
use super::raw;
use super::snapshot::{
    Clocks, Confidential, DeviceState, Ecc, GpuReading, Memory, Mig, MigDevice, ProcessKind,
    ProcessReading, Utilization,
};
use super::trouble::{Meaning, Trouble, meaning, words};

/// Hotter is no temperature: drivers give sentinels for "not available" as values.
const HOTTEST_CELSIUS: u64 = 300;

/// Reads one GPU, and stops asking once it is lost or NVML is closed.
pub(super) struct Reader<'thread> {
    progress: &'thread Progress,
    limit: Duration,
    lost: bool,
    faults: Vec<String>,
    /// NVML must be opened anew.
    pub(super) closed: Option<Trouble>,
}

impl<'thread> Reader<'thread> {
    pub(super) const fn new(progress: &'thread Progress, limit: Duration) -> Self {
        Self {
            progress,
            limit,
            lost: false,
            faults: Vec::new(),
            closed: None,
        }
    }

    /// One call; `None` when there is no value, for whatever reason.
    fn get<T>(
        &mut self,
        call: &'static str,
        job: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Option<T> {
        if self.lost || self.closed.is_some() {
            return None;
        }
        let error = match self.progress.call(call, self.limit, job) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        match meaning(&error) {
            Meaning::Absent => {}
            Meaning::Lost => self.lost = true,
            Meaning::Closed(state) => self.closed = Some(Trouble::new(state, words(call, &error))),
            Meaning::Denied | Meaning::Fault => self.faults.push(words(call, &error)),
        }
        None
    }

    /// One of NVML's version strings.
    pub(super) fn version(
        &mut self,
        call: &'static str,
        job: impl FnOnce() -> Result<String, NvmlError>,
    ) -> Option<String> {
        self.get(call, job)
    }

    /// Everything about one GPU. `samples_after` is when its last process sample was, in µs; it is moved on.
    pub(super) fn read(
        &mut self,
        index: u32,
        device: &Device<'_>,
        proc: &Path,
        samples_after: &mut u64,
    ) -> GpuReading {
        let mut reading = self.identity(index, device);
        reading.utilization = self
            .get("nvmlDeviceGetUtilizationRates", || {
                device.utilization_rates()
            })
            .map(|rates| Utilization {
                gpu_percent: rates.gpu,
                memory_percent: rates.memory,
            });
        reading.memory = self.memory(device);
        reading.power_milliwatts = self.get("nvmlDeviceGetPowerUsage", || device.power_usage());
        reading.power_limit_milliwatts = self.get("nvmlDeviceGetEnforcedPowerLimit", || {
            device.enforced_power_limit()
        });
        reading.energy_millijoules = self.get("nvmlDeviceGetTotalEnergyConsumption", || {
            device.total_energy_consumption()
        });
        reading.clocks = self.clocks(device);
        reading.temperature_celsius = self
            .get("nvmlDeviceGetTemperature", || {
                device.temperature(TemperatureSensor::Gpu)
            })
            .filter(|celsius| u64::from(*celsius) <= HOTTEST_CELSIUS);
        reading.memory_temperature_celsius = self.memory_temperature(device);
        reading.ecc = self.ecc(device);
        reading.confidential = self.confidential(device);
        let (mig, instances) = self.mig(device);
        reading.mig = mig;
        reading.processes = self.processes(device, &instances, proc);
        if let Some(processes) = &mut reading.processes
            && !reading.mig.as_ref().is_some_and(|mig| mig.enabled)
        {
            self.add_samples(device, processes, samples_after);
        }
        if self.lost {
            reading = reading.unread(DeviceState::Lost);
        }
        reading.faults = std::mem::take(&mut self.faults);
        reading
    }

    fn identity(&mut self, index: u32, device: &Device<'_>) -> GpuReading {
        GpuReading {
            index,
            state: DeviceState::Ok,
            uuid: self.get("nvmlDeviceGetUUID", || device.uuid()),
            name: self.get("nvmlDeviceGetName", || device.name()),
            pci_bus_id: self
                .get("nvmlDeviceGetPciInfo_v3", || device.pci_info())
                .map(|pci| pci.bus_id),
            minor: self.get("nvmlDeviceGetMinorNumber", || device.minor_number()),
            ..GpuReading::default()
        }
    }

    fn memory(&mut self, device: &Device<'_>) -> Option<Memory> {
        if let Some(memory) = self.get("nvmlDeviceGetMemoryInfo_v2", || device.memory_info()) {
            return Some(Memory {
                total_bytes: memory.total,
                used_bytes: memory.used,
                reserved_bytes: Some(memory.reserved),
            });
        }
        let (total_bytes, used_bytes) =
            self.get("nvmlDeviceGetMemoryInfo", || raw::memory_v1(device))?;
        Some(Memory {
            total_bytes,
            used_bytes,
            reserved_bytes: None,
        })
    }

    fn clocks(&mut self, device: &Device<'_>) -> Clocks {
        let mut clock = |domain| self.get("nvmlDeviceGetClockInfo", || device.clock_info(domain));
        Clocks {
            graphics_mhz: clock(Clock::Graphics),
            sm_mhz: clock(Clock::SM),
            memory_mhz: clock(Clock::Memory),
            video_mhz: clock(Clock::Video),
        }
    }

    fn memory_temperature(&mut self, device: &Device<'_>) -> Option<u32> {
        let fields = self.get("nvmlDeviceGetFieldValues", || {
            device.field_values_for(&[FieldId(NVML_FI_DEV_MEMORY_TEMP)])
        })?;
        let value = match fields.into_iter().next()?.ok()?.value.ok()? {
            SampleValue::U32(value) => value.into(),
            SampleValue::U64(value) => value,
            SampleValue::I64(value) => u64::try_from(value).ok()?,
            SampleValue::F64(_) => return None,
        };
        (value <= HOTTEST_CELSIUS).then(|| u32::try_from(value).ok())?
    }

    fn ecc(&mut self, device: &Device<'_>) -> Option<Ecc> {
        let enabled = self
            .get("nvmlDeviceGetEccMode", || device.is_ecc_enabled())?
            .currently_enabled;
        let mut count = |error: MemoryError, counter: EccCounter| {
            self.get("nvmlDeviceGetTotalEccErrors", || {
                device.total_ecc_errors(error, counter)
            })
        };
        Some(Ecc {
            enabled,
            corrected_volatile: count(MemoryError::Corrected, EccCounter::Volatile),
            uncorrected_volatile: count(MemoryError::Uncorrected, EccCounter::Volatile),
            corrected_aggregate: count(MemoryError::Corrected, EccCounter::Aggregate),
            uncorrected_aggregate: count(MemoryError::Uncorrected, EccCounter::Aggregate),
        })
    }

    fn confidential(&mut self, device: &Device<'_>) -> Option<Confidential> {
        Some(Confidential {
            enabled: self.get("nvmlSystemGetConfComputeSettings", || {
                device.is_cc_enabled()
            })?,
            developer: self.get("nvmlSystemGetConfComputeSettings", || {
                device.is_cc_dev_mode_enabled()
            }),
            ready: self.get("nvmlSystemGetConfComputeGpusReadyState", || {
                device.get_confidential_compute_state()
            }),
        })
    }

    /// The MIG mode, and the instances' handles to ask for processes.
    fn mig<'nvml>(&mut self, device: &Device<'nvml>) -> (Option<Mig>, Vec<Device<'nvml>>) {
        let Some(mode) = self.get("nvmlDeviceGetMigMode", || device.mig_mode()) else {
            return (None, Vec::new());
        };
        let mut mig = Mig {
            enabled: mode.current == 1,
            pending: mode.pending == 1,
            instances: None,
        };
        if !mig.enabled {
            mig.instances = Some(Vec::new());
            return (Some(mig), Vec::new());
        }
        let slots = self.get("nvmlDeviceGetMaxMigDeviceCount", || {
            device.mig_device_count()
        });
        // The count is of slots; an empty one is "not found", which is absent.
        let instances: Vec<_> = (0..slots.unwrap_or(0))
            .filter_map(|slot| {
                self.get("nvmlDeviceGetMigDeviceHandleByIndex", || {
                    device.mig_device_by_index(slot)
                })
            })
            .collect();
        mig.instances = slots.map(|_| {
            instances
                .iter()
                .map(|instance| self.mig_device(instance))
                .collect()
        });
        (Some(mig), instances)
    }

    fn mig_device(&mut self, instance: &Device<'_>) -> MigDevice {
        MigDevice {
            uuid: self.get("nvmlDeviceGetUUID", || instance.uuid()),
            name: self.get("nvmlDeviceGetName", || instance.name()),
            gpu_instance: self.get("nvmlDeviceGetGpuInstanceId", || raw::gpu_instance(instance)),
            compute_instance: self.get("nvmlDeviceGetComputeInstanceId", || {
                raw::compute_instance(instance)
            }),
            multiprocessors: self
                .get("nvmlDeviceGetAttributes_v2", || instance.attributes())
                .map(|attributes| attributes.multiprocessor_count),
            memory: self.memory(instance),
        }
    }

    /// The processes of the GPU and of its instances, one entry a process. Without the compute list
    /// there is no list: the others alone would look like an idle GPU.
    fn processes(
        &mut self,
        device: &Device<'_>,
        instances: &[Device<'_>],
        proc: &Path,
    ) -> Option<Vec<ProcessReading>> {
        let mut merged = BTreeMap::new();
        let compute = self.list(COMPUTE, || device.running_compute_processes())?;
        merge(&mut merged, compute, ProcessKind::Compute, proc);
        for instance in instances {
            let inside = self.list(COMPUTE, || instance.running_compute_processes());
            merge(
                &mut merged,
                inside.unwrap_or_default(),
                ProcessKind::Compute,
                proc,
            );
        }
        let graphics = self.list(GRAPHICS, || device.running_graphics_processes());
        merge(
            &mut merged,
            graphics.unwrap_or_default(),
            ProcessKind::Graphics,
            proc,
        );
        let mps = self.list(MPS, || device.mps_running_compute_processes());
        merge(&mut merged, mps.unwrap_or_default(), ProcessKind::Mps, proc);
        Some(merged.into_values().collect())
    }

    /// A list; asked again when it grew between the two calls that the wrapper makes.
    fn list(
        &mut self,
        call: &'static str,
        job: impl Fn() -> Result<Vec<ProcessInfo>, NvmlError>,
    ) -> Option<Vec<ProcessInfo>> {
        self.get(call, || {
            let grew = |list: &Result<_, _>| matches!(list, Err(NvmlError::InsufficientSize(_)));
            let mut list = job();
            for _ in 0..3 {
                if !grew(&list) {
                    break;
                }
                list = job();
            }
            list
        })
    }

    /// Adds the newest sample of each process: the driver gives several of each, in no order.
    fn add_samples(
        &mut self,
        device: &Device<'_>,
        processes: &mut [ProcessReading],
        samples_after: &mut u64,
    ) {
        let samples = self.get("nvmlDeviceGetProcessUtilization", || {
            device.process_utilization_stats(*samples_after)
        });
        let mut newest = BTreeMap::new();
        for sample in samples.unwrap_or_default() {
            *samples_after = sample.timestamp.max(*samples_after);
            let entry = newest.entry(sample.pid).or_insert_with(|| sample.clone());
            if sample.timestamp > entry.timestamp {
                *entry = sample;
            }
        }
        for process in processes {
            if let Some(sample) = newest.get(&process.pid) {
                process.sm_percent = Some(sample.sm_util);
                process.memory_percent = Some(sample.mem_util);
            }
        }
    }
}

const COMPUTE: &str = "nvmlDeviceGetComputeRunningProcesses_v3";
const GRAPHICS: &str = "nvmlDeviceGetGraphicsRunningProcesses_v3";
const MPS: &str = "nvmlDeviceGetMPSComputeRunningProcesses_v3";

/// Adds a list to what is known by pid. The driver may list a pid twice, and a MIG GPU's own list
/// may lack the instance that the instance's list tells.
fn merge(
    merged: &mut BTreeMap<u32, ProcessReading>,
    list: Vec<ProcessInfo>,
    kind: ProcessKind,
    proc: &Path,
) {
    for info in list {
        let memory = match info.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        };
        let entry = merged.entry(info.pid).or_insert_with(|| ProcessReading {
            pid: info.pid,
            in_proc: proc.join(info.pid.to_string()).exists(),
            kind,
            memory_bytes: None,
            sm_percent: None,
            memory_percent: None,
            gpu_instance: None,
            compute_instance: None,
        });
        entry.kind = both(entry.kind, kind);
        entry.memory_bytes = entry.memory_bytes.max(memory);
        entry.gpu_instance = entry.gpu_instance.or(info.gpu_instance_id);
        entry.compute_instance = entry.compute_instance.or(info.compute_instance_id);
    }
}

const fn both(known: ProcessKind, also: ProcessKind) -> ProcessKind {
    match (known, also) {
        (ProcessKind::Compute, ProcessKind::Graphics)
        | (ProcessKind::Graphics, ProcessKind::Compute)
        | (ProcessKind::ComputeAndGraphics, _) => ProcessKind::ComputeAndGraphics,
        (_, ProcessKind::Mps) => ProcessKind::Mps,
        (known, _) => known,
    }
}
