//! What was read, at one moment. `None` is "not given": it is never written as 0.

use serde::Serialize;

use super::library::LibraryIdentity;
use super::state::GpuState;

/// Everything known about the GPUs at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GpuSnapshot {
    /// Why readings are there, or not.
    pub state: GpuState,
    /// What NVML said about it, where it said something.
    pub detail: Option<String>,
    /// When this state began, milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When the readings were taken; `None` when there are none.
    pub taken_ms: Option<u64>,
    /// The kernel driver's version.
    pub driver_version: Option<String>,
    /// The library's version.
    pub nvml_version: Option<String>,
    /// Which library was loaded.
    pub library: Option<LibraryIdentity>,
    /// Whether that library is a test library.
    pub test_library: bool,
    /// Whether NVML can list every process of the host; `None` when it is not known.
    pub processes_complete: Option<bool>,
    /// One for each GPU, in NVML's order.
    pub devices: Vec<GpuReading>,
}

/// How one GPU answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    /// It answers.
    Ok,
    /// It fell off the bus or needs a reset.
    Lost,
    /// This process may not talk to it.
    Denied,
    /// It is known from before; there is no reading now.
    #[default]
    Unread,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct GpuReading {
    /// NVML's index.
    pub index: u32,
    /// How it answered.
    pub state: DeviceState,
    /// `GPU-…`; `None` when it was lost before it could be asked.
    pub uuid: Option<String>,
    /// Product name.
    pub name: Option<String>,
    /// PCI address, `00000000:3B:00.0`.
    pub pci_bus_id: Option<String>,
    /// N of `/dev/nvidiaN`.
    pub minor: Option<u32>,
    /// How busy it was in the last sample period; a GPU in MIG mode has none.
    pub utilization: Option<Utilization>,
    /// Its memory.
    pub memory: Option<Memory>,
    /// Power drawn.
    pub power_milliwatts: Option<u32>,
    /// The power limit in force.
    pub power_limit_milliwatts: Option<u32>,
    /// Energy used since the driver was loaded.
    pub energy_millijoules: Option<u64>,
    /// How often the energy counter went backwards (a driver reload) since the agent started.
    pub energy_resets: u32,
    /// Clocks.
    pub clocks: Clocks,
    /// Temperature of the GPU.
    pub temperature_celsius: Option<u32>,
    /// Temperature of its memory.
    pub memory_temperature_celsius: Option<u32>,
    /// Memory errors.
    pub ecc: Option<Ecc>,
    /// XIDs since the agent started; `None` when this GPU was never watched for them.
    pub xids: Option<Xids>,
    /// Multi-instance mode; `None` on a GPU that has none.
    pub mig: Option<Mig>,
    /// Confidential computing; `None` where the driver knows none.
    pub confidential: Option<Confidential>,
    /// Processes with a context; `None` when they could not be asked for, which is not "none".
    pub processes: Option<Vec<ProcessReading>>,
    /// Calls that failed without a reason that means "this GPU does not have it".
    pub faults: Vec<String>,
}

/// Percent of the last sample period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Utilization {
    /// Time in which a kernel ran.
    pub gpu_percent: u32,
    /// Time in which memory was read or written.
    pub memory_percent: u32,
}

/// Bytes of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[expect(
    clippy::struct_field_names,
    reason = "a unit ends the name of what it measures"
)]
pub struct Memory {
    /// Installed.
    pub total_bytes: u64,
    /// Allocated; without the reserved where that is known, with it otherwise.
    pub used_bytes: u64,
    /// Held by the driver; older drivers do not tell.
    pub reserved_bytes: Option<u64>,
}

/// Megahertz.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[expect(
    clippy::struct_field_names,
    reason = "a unit ends the name of what it measures"
)]
pub struct Clocks {
    /// Graphics.
    pub graphics_mhz: Option<u32>,
    /// Streaming multiprocessors.
    pub sm_mhz: Option<u32>,
    /// Memory.
    pub memory_mhz: Option<u32>,
    /// Video.
    pub video_mhz: Option<u32>,
}

/// Memory errors: volatile since the driver was loaded, aggregate in the GPU's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ecc {
    /// Whether error correction is on.
    pub enabled: bool,
    /// Corrected, volatile.
    pub corrected_volatile: Option<u64>,
    /// Uncorrected, volatile.
    pub uncorrected_volatile: Option<u64>,
    /// Corrected, aggregate.
    pub corrected_aggregate: Option<u64>,
    /// Uncorrected, aggregate.
    pub uncorrected_aggregate: Option<u64>,
}

/// The driver's error reports about one GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Xids {
    /// Whether a new one would be seen now.
    pub watching: bool,
    /// One entry for each code that was seen, in order of code.
    pub seen: Vec<Xid>,
}

/// One XID code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Xid {
    /// The code.
    pub code: u64,
    /// How often. The driver tells only the latest of several that come at once.
    pub count: u64,
    /// When it was last seen, milliseconds since the Unix epoch.
    pub last_ms: u64,
}

/// Multi-instance mode of a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mig {
    /// On now.
    pub enabled: bool,
    /// On after the next reset.
    pub pending: bool,
    /// The instances that exist; `None` when they could not be listed.
    pub instances: Option<Vec<MigDevice>>,
}

/// One MIG device. NVML has no utilisation of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MigDevice {
    /// `MIG-…`.
    pub uuid: Option<String>,
    /// Product name with the profile.
    pub name: Option<String>,
    /// GPU instance.
    pub gpu_instance: Option<u32>,
    /// Compute instance.
    pub compute_instance: Option<u32>,
    /// Multiprocessors.
    pub multiprocessors: Option<u32>,
    /// Its memory.
    pub memory: Option<Memory>,
}

/// Confidential computing, as the driver states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Confidential {
    /// The feature is on.
    pub enabled: bool,
    /// Developer mode is on: nothing is protected. `None` when the driver does not tell.
    pub developer: Option<bool>,
    /// The GPUs accept work. `None` when the driver does not tell.
    pub ready: Option<bool>,
}

/// Which of NVML's lists a process is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessKind {
    /// A compute context.
    Compute,
    /// A graphics context.
    Graphics,
    /// Both.
    ComputeAndGraphics,
    /// A client of the multi-process service.
    Mps,
}

/// A process with a context on a GPU; one for each (process, GPU).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ProcessReading {
    /// Its id in the agent's PID namespace.
    pub pid: u32,
    /// Whether `/proc` had that process when it was read: some drivers list garbage.
    pub in_proc: bool,
    /// Which list.
    pub kind: ProcessKind,
    /// Memory it holds.
    pub memory_bytes: Option<u64>,
    /// Percent of the multiprocessors in the newest sample; NVML has none under MIG.
    pub sm_percent: Option<u32>,
    /// Percent of memory bandwidth in the newest sample.
    pub memory_percent: Option<u32>,
    /// GPU instance, under MIG.
    pub gpu_instance: Option<u32>,
    /// Compute instance, under MIG.
    pub compute_instance: Option<u32>,
}

impl GpuSnapshot {
    /// Before anything was read.
    #[must_use]
    pub const fn starting(since_ms: u64) -> Self {
        Self {
            state: GpuState::Starting,
            detail: None,
            since_ms,
            taken_ms: None,
            driver_version: None,
            nvml_version: None,
            library: None,
            test_library: false,
            processes_complete: None,
            devices: Vec::new(),
        }
    }

    /// The state in one line: what it means, what NVML said, what to do.
    #[must_use]
    pub fn sentence(&self) -> String {
        let mut line = self.state.message().to_owned();
        if let Some(detail) = &self.detail {
            line.push_str(": ");
            line.push_str(detail);
        }
        if !self.state.remedy().is_empty() {
            line.push_str("; ");
            line.push_str(self.state.remedy());
        }
        line
    }
}

impl GpuReading {
    /// The GPU without what was read: for a time in which it cannot be read.
    #[must_use]
    pub fn unread(&self, state: DeviceState) -> Self {
        Self {
            index: self.index,
            state,
            uuid: self.uuid.clone(),
            name: self.name.clone(),
            pci_bus_id: self.pci_bus_id.clone(),
            minor: self.minor,
            energy_resets: self.energy_resets,
            xids: self.xids.clone(),
            ..Self::default()
        }
    }
}
