//! The states of the GPU view, each with what it means and what the operator can do.

use serde::Serialize;

/// Why the readings are there, or why they are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuState {
    /// No reading was tried yet.
    Starting,
    /// Every GPU answers.
    Ok,
    /// There is no NVML library on this host.
    NoDriver,
    /// The library is there, the kernel driver is not.
    DriverNotLoaded,
    /// Library and kernel driver are of different versions.
    DriverMismatch,
    /// A GPU fell off the bus or needs a reset.
    Lost,
    /// A call into the driver did not return.
    Wedged,
    /// The driver is there, but this process may not talk to it.
    DeviceDenied,
    /// No process is listed, and none could be: this is not the host's PID namespace.
    ProcessInvisible,
    /// NVML was let go on demand.
    Released,
    /// The library is a test library and nobody allowed one.
    Refused,
    /// NVML failed in a way that has no state of its own.
    Failed,
}

impl GpuState {
    /// All states, in the order in which metrics list them.
    pub const ALL: [Self; 12] = [
        Self::Starting,
        Self::Ok,
        Self::NoDriver,
        Self::DriverNotLoaded,
        Self::DriverMismatch,
        Self::Lost,
        Self::Wedged,
        Self::DeviceDenied,
        Self::ProcessInvisible,
        Self::Released,
        Self::Refused,
        Self::Failed,
    ];

    /// The name in metrics, JSON and the evidence.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ok => "ok",
            Self::NoDriver => "no_driver",
            Self::DriverNotLoaded => "driver_not_loaded",
            Self::DriverMismatch => "driver_mismatch",
            Self::Lost => "lost",
            Self::Wedged => "wedged",
            Self::DeviceDenied => "device_denied",
            Self::ProcessInvisible => "process_invisible",
            Self::Released => "released",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }

    /// What it means, in one line.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Starting => "no reading yet",
            Self::Ok => "every GPU answers",
            Self::NoDriver => "there is no NVML library (libnvidia-ml.so.1) on this host",
            Self::DriverNotLoaded => {
                "the NVML library is there, but the kernel driver is not loaded"
            }
            Self::DriverMismatch => {
                "the NVML library and the loaded kernel driver are of different versions"
            }
            Self::Lost => "a GPU fell off the bus or needs a reset",
            Self::Wedged => "a call into the driver did not return in time",
            Self::DeviceDenied => {
                "the driver is there, but this process is denied its device nodes"
            }
            Self::ProcessInvisible => {
                "NVML lists no process, and can list none outside this PID namespace"
            }
            Self::Released => "NVML was let go on demand",
            Self::Refused => "the NVML library is a test library, which was not allowed",
            Self::Failed => "NVML failed",
        }
    }

    /// What the operator can do; empty where there is nothing to do.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Starting | Self::Ok => "",
            Self::NoDriver => {
                "install the NVIDIA driver, or mount its library into the container (runtime class \
                 nvidia); without a GPU nothing is to be done"
            }
            Self::DriverNotLoaded => "load it with: modprobe nvidia",
            Self::DriverMismatch => {
                "the driver was upgraded underneath: unload and load the nvidia modules, or reboot"
            }
            Self::Lost => {
                "look for NVRM: Xid in the kernel log; drain the host and reset the GPU \
                 (nvidia-smi -r) or reboot"
            }
            Self::Wedged => {
                "the driver hangs; guarding goes on without it: drain the host and reboot it"
            }
            Self::DeviceDenied => {
                "give this process /dev/nvidiactl and /dev/nvidiaN (privileged, CDI or DeviceAllow=); \
                 in a container, restart it after systemctl daemon-reload"
            }
            Self::ProcessInvisible => "run the agent in the host's PID namespace (hostPID: true)",
            Self::Released => "resume when the driver work is done",
            Self::Refused => {
                "use the driver's own library, or say --allow-test-nvml; the evidence will show it"
            }
            Self::Failed => "see the detail; nvidia-smi on the host shows whether it is the driver",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::GpuState;

    #[test]
    fn each_state_has_its_own_name_and_its_own_message() {
        for (at, state) in GpuState::ALL.iter().enumerate() {
            for other in &GpuState::ALL[at + 1..] {
                assert_ne!(state.name(), other.name());
                assert_ne!(state.message(), other.message());
            }
            let quiet = matches!(state, GpuState::Starting | GpuState::Ok);
            assert_eq!(state.remedy().is_empty(), quiet, "{}", state.name());
            assert_eq!(
                serde_json::to_string(state).unwrap(),
                format!("\"{}\"", state.name())
            );
        }
    }
}
