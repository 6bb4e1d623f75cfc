//! What the fake host looks like: the drivers, the GPUs and how each call behaves.
//!
//! TOML, or JSON where the file begins with `{`. What is left out is *not there*: the call that
//! would give it answers `NVML_ERROR_NOT_SUPPORTED`, as a GPU without the sensor does. Unknown keys are
//! errors, so a misspelt scenario fails its test instead of testing nothing.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A whole fake host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// `nvmlSystemGetDriverVersion`, for example `590.48.01`.
    pub driver_version: Option<String>,
    /// `nvmlSystemGetNVMLVersion`, for example `13.590.48.01`.
    pub nvml_version: Option<String>,
    /// `nvmlSystemGetCudaDriverVersion_v2`, for example 13010.
    pub cuda_version: Option<i32>,
    /// Confidential computing, which is a property of the whole system.
    pub confidential: Option<Confidential>,
    /// How single functions misbehave, by their exported name.
    pub calls: BTreeMap<String, Call>,
    /// XIDs and other events; each is delivered once.
    pub event: Vec<Event>,
    /// The GPUs, in index order.
    pub gpu: Vec<Gpu>,
}

/// How one function misbehaves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Call {
    /// Answer this `nvmlReturn_t` and touch no argument.
    pub code: Option<u32>,
    /// Only for the GPU with this index; without it, for all and for system calls.
    pub gpu: Option<u32>,
    /// Sleep this long before answering.
    pub delay_ms: u64,
    /// Do not answer until the scenario no longer says so: a wedged driver.
    pub hang: bool,
    /// Panic inside the call: it must come out as `NVML_ERROR_UNKNOWN`, not as an abort.
    pub panic: bool,
}

/// One GPU.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gpu {
    /// `GPU-…`.
    pub uuid: String,
    /// The product name.
    pub name: Option<String>,
    /// `00000000:00:09.0`.
    pub pci_bus_id: Option<String>,
    /// N of `/dev/nvidiaN`.
    pub minor: Option<u32>,
    /// The board's serial number.
    pub serial: Option<String>,
    /// Fallen off the bus: every call on this GPU's handle answers 15.
    pub lost: bool,
    /// Whole-GPU utilisation.
    pub utilization: Option<Utilization>,
    /// Frame buffer.
    pub memory: Option<Memory>,
    /// Power draw.
    pub power_milliwatts: Option<u32>,
    /// The limit in force.
    pub power_limit_milliwatts: Option<u32>,
    /// Energy since the driver was loaded.
    pub energy_millijoules: Option<u64>,
    /// Added to the energy for each second since the library was loaded.
    pub energy_rate_milliwatts: u64,
    /// GPU core temperature.
    pub temperature_celsius: Option<u32>,
    /// Memory temperature, given as field 82.
    pub memory_temperature_celsius: Option<u32>,
    /// Clocks.
    pub clocks_mhz: Clocks,
    /// Performance state, 0 is the fastest.
    pub performance_state: Option<u32>,
    /// Error-correcting memory.
    pub ecc: Option<Ecc>,
    /// Processes that hold a context.
    pub process: Vec<Process>,
    /// The driver's buffer of per-process samples; none of them under MIG.
    pub sample: Vec<Sample>,
    /// Multi-instance mode; absent on a GPU that has none.
    pub mig: Option<Mig>,
}

/// Percent of the last sample period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Utilization {
    /// Time a kernel ran.
    pub gpu: u32,
    /// Time memory was read or written.
    pub memory: u32,
}

/// Bytes of frame buffer, as version 2 of the struct counts them: `used` is without `reserved`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Installed.
    pub total: u64,
    /// Held by the driver.
    pub reserved: u64,
    /// Allocated.
    pub used: u64,
}

/// Megahertz by clock domain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clocks {
    /// Graphics.
    pub graphics: Option<u32>,
    /// Streaming multiprocessors.
    pub sm: Option<u32>,
    /// Memory.
    pub memory: Option<u32>,
    /// Video.
    pub video: Option<u32>,
}

/// Counts of memory errors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ecc {
    /// Whether it is on.
    pub enabled: bool,
    /// Corrected since the driver was loaded.
    pub corrected_volatile: Option<u64>,
    /// Uncorrected since the driver was loaded.
    pub uncorrected_volatile: Option<u64>,
    /// Corrected in the GPU's life.
    pub corrected_aggregate: Option<u64>,
    /// Uncorrected in the GPU's life.
    pub uncorrected_aggregate: Option<u64>,
}

/// A process that holds a context.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Process {
    /// Its id, in the caller's PID namespace.
    pub pid: u32,
    /// Which list it is in.
    pub kind: ProcessKind,
    /// Bytes; absent is the driver's "not available".
    pub memory: Option<u64>,
    /// GPU instance, under MIG.
    pub gpu_instance: Option<u32>,
    /// Compute instance, under MIG.
    pub compute_instance: Option<u32>,
}

/// The three lists of NVML.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessKind {
    /// A compute context.
    #[default]
    Compute,
    /// A graphics context.
    Graphics,
    /// A client of the multi-process service.
    Mps,
}

/// One entry of the driver's sample buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sample {
    /// The process.
    pub pid: u32,
    /// Microseconds since the Unix epoch; absent is "just now, at every call".
    pub time_us: Option<u64>,
    /// Percent of the multiprocessors.
    pub sm: u32,
    /// Percent of memory bandwidth.
    pub memory: u32,
}

/// Multi-instance mode.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mig {
    /// Whether it is on.
    pub enabled: bool,
    /// Whether it is on after the next reset; as `enabled` when absent.
    pub pending: Option<bool>,
    /// How many slots there are, filled or not; 7 when absent.
    pub slots: Option<u32>,
    /// The filled slots.
    pub instance: Vec<MigDevice>,
}

/// One MIG device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MigDevice {
    /// Which slot it fills.
    pub slot: u32,
    /// `MIG-…`.
    pub uuid: String,
    /// The product name with the profile, for example `NVIDIA H100 80GB HBM3 MIG 3g.40gb`.
    pub name: Option<String>,
    /// GPU instance.
    pub gpu_instance: u32,
    /// Compute instance.
    pub compute_instance: u32,
    /// Multiprocessors.
    pub multiprocessors: Option<u32>,
    /// Frame buffer.
    pub memory: Option<Memory>,
}

/// Confidential computing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the switches of nvml.h"
)]
pub struct Confidential {
    /// `ccFeature`.
    pub enabled: bool,
    /// `devToolsMode`: on, nothing is protected.
    pub developer: bool,
    /// `environment` is production.
    pub production: bool,
    /// The GPUs accept work.
    pub ready: bool,
    /// The report's bytes, as hex; absent, the report is not supported.
    pub report: Option<String>,
    /// The certificate chain, as text.
    pub certificate: Option<String>,
}

/// One event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Event {
    /// An event with an id at or below the last delivered one is not delivered again.
    pub id: u64,
    /// The GPU's index.
    pub gpu: u32,
    /// The code.
    pub xid: u64,
    /// GPU instance, under MIG.
    pub gpu_instance: Option<u32>,
}

impl Scenario {
    /// Reads a scenario from TOML, or from JSON where the text begins with `{`.
    ///
    /// # Errors
    ///
    /// The parser's own words, with line and column.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|error| error.to_string())
        } else {
            toml::from_str(text).map_err(|error| error.to_string())
        }
    }

    /// Replaces the scenario file in one step, so that no call reads half of it.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let next = path.with_extension("next");
        std::fs::write(&next, serde_json::to_string_pretty(self)?)?;
        std::fs::rename(next, path)
    }
}
