//! What an NVML error means for the GPU view.

use nvml_wrapper::error::NvmlError;

use super::library::LibraryIdentity;
use super::state::GpuState;

/// Why there are no readings at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", state.message())]
pub(super) struct Trouble {
    /// The state it puts the view in.
    pub(super) state: GpuState,
    /// The call and NVML's words.
    pub(super) detail: String,
    /// The library it is about, where it was loaded.
    pub(super) library: Option<LibraryIdentity>,
}

impl Trouble {
    /// A state with NVML's words.
    pub(super) const fn new(state: GpuState, detail: String) -> Self {
        Self {
            state,
            detail,
            library: None,
        }
    }
}

/// What an error of one call on one GPU means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// This GPU, driver or moment does not have it.
    Absent,
    /// The GPU is gone or needs a reset.
    Lost,
    /// The process may not.
    Denied,
    /// NVML is no longer usable; it must be opened anew.
    Closed(GpuState),
    /// None of these.
    Fault,
}

/// What an error of one call means.
pub(super) fn meaning(error: &NvmlError) -> Meaning {
    match error {
        NvmlError::NotSupported
        | NvmlError::NotFound
        | NvmlError::NoData
        | NvmlError::FunctionNotFound
        | NvmlError::FailedToLoadSymbol(_)
        // DEPRECATED and NOT_READY of nvml.h, which the wrapper does not name.
        | NvmlError::UnexpectedVariant(26 | 27) => Meaning::Absent,
        NvmlError::GpuLost | NvmlError::ResetRequired => Meaning::Lost,
        NvmlError::NoPermission | NvmlError::OperatingSystem => Meaning::Denied,
        NvmlError::LibRmVersionMismatch => Meaning::Closed(GpuState::DriverMismatch),
        NvmlError::DriverNotLoaded | NvmlError::Uninitialized => {
            Meaning::Closed(GpuState::DriverNotLoaded)
        }
        _ => Meaning::Fault,
    }
}

/// What an error while opening NVML means.
pub(super) fn at_opening(call: &str, error: &NvmlError) -> Trouble {
    let state = match error {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => GpuState::NoDriver,
        // 999 is what a container gets whose device cgroup lost the nodes; 4 and 17 say it outright.
        NvmlError::Unknown => GpuState::DeviceDenied,
        other => match meaning(other) {
            Meaning::Closed(state) => state,
            Meaning::Denied => GpuState::DeviceDenied,
            Meaning::Lost => GpuState::Lost,
            Meaning::Absent | Meaning::Fault => GpuState::Failed,
        },
    };
    Trouble::new(state, words(call, error))
}

/// The call and NVML's words.
pub(super) fn words(call: &str, error: &NvmlError) -> String {
    match error {
        // The loader's own words name the file and the reason; the wrapper's leave them out.
        NvmlError::LibloadingError(loader) => std::error::Error::source(loader)
            .map_or_else(|| loader.to_string(), ToString::to_string),
        NvmlError::UnexpectedVariant(code) => format!("{call} answered with code {code}"),
        other => format!("{call}: {other}"),
    }
}
