//! Start, end and what is true of the whole host.

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT,
    nvmlReturn_enum_NVML_ERROR_NOT_FOUND as NOT_FOUND,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED,
    nvmlReturn_enum_NVML_ERROR_UNINITIALIZED as UNINITIALIZED,
    nvmlReturn_enum_NVML_ERROR_UNKNOWN as UNKNOWN, nvmlReturn_t,
};

use super::exports;
use crate::answer::{Answer, Host, Out, gpu_handle};
use crate::scenario::Gpu;
use crate::state;

exports! {
    fn nvmlInit_v2() = |_host| initialise();
    fn nvmlInitWithFlags(_flags: c_uint) = |_host| initialise();
    fn nvmlShutdown() = |_host| shut_down();
    fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) = |host| {
        version.put_text(host.scenario.driver_version.as_deref(), length)
    };
    fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) = |host| {
        version.put_text(host.scenario.nvml_version.as_deref(), length)
    };
    fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) = |host| {
        version.put(host.scenario.cuda_version.ok_or(NOT_SUPPORTED)?)
    };
    fn nvmlDeviceGetCount_v2(count: *mut c_uint) = |host| {
        count.put(c_uint::try_from(host.scenario.gpu.len()).ok().ok_or(UNKNOWN)?)
    };
    fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut nvmlDevice_t) = |host| {
        let index = usize::try_from(index).ok().ok_or(INVALID_ARGUMENT)?;
        give(host, index, device)
    };
    fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut nvmlDevice_t) = |host| {
        let uuid = uuid.ok_or(INVALID_ARGUMENT)?;
        give(host, find(host, |gpu| gpu.uuid == uuid)?, device)
    };
    fn nvmlDeviceGetHandleByPciBusId_v2(address: *const c_char, device: *mut nvmlDevice_t) = |host| {
        let address = address.ok_or(INVALID_ARGUMENT)?;
        let index = find(host, |gpu| {
            gpu.pci_bus_id.as_ref().is_some_and(|id| id.eq_ignore_ascii_case(&address))
        })?;
        give(host, index, device)
    };
}

/// `nvmlErrorString` of nvml.h. It needs no initialisation and cannot fail.
#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(code: nvmlReturn_t) -> *const c_char {
    let text = match code {
        0 => c"Success",
        1 => c"Uninitialized",
        2 => c"Invalid Argument",
        3 => c"Not Supported",
        4 => c"Insufficient Permissions",
        6 => c"Not Found",
        7 => c"Insufficient Size",
        9 => c"Driver Not Loaded",
        10 => c"Timeout",
        15 => c"GPU is lost",
        18 => c"Driver/library version mismatch",
        25 => c"Argument version mismatch",
        999 => c"Unknown Error",
        _ => c"Another Error",
    };
    text.as_ptr()
}

fn initialise() -> Answer {
    let mut state = state::lock();
    state.initialised = state.initialised.checked_add(1).ok_or(UNKNOWN)?;
    state.loaded.get_or_insert_with(std::time::Instant::now);
    Ok(())
}

fn shut_down() -> Answer {
    let mut state = state::lock();
    state.initialised = state.initialised.checked_sub(1).ok_or(UNINITIALIZED)?;
    if state.initialised == 0 {
        state.sets.clear();
    }
    Ok(())
}

fn find(host: &Host, wanted: impl Fn(&Gpu) -> bool) -> Result<usize, nvmlReturn_t> {
    host.scenario.gpu.iter().position(wanted).ok_or(NOT_FOUND)
}

fn give(host: &Host, index: usize, device: Out<nvmlDevice_t>) -> Answer {
    host.gpu_at(index)?;
    device.put(std::ptr::without_provenance_mut(gpu_handle(index)))
}
