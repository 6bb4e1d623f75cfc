//! The few NVML calls that the wrapper does not have, or has with a loss.

#![expect(unsafe_code, reason = "functions of a C library, called by pointer")]

use std::ffi::c_uint;

use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper::{Device, EventSet, Nvml};
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlEventData_t, nvmlMemory_t, nvmlReturn_t};

/// The symbol that a test library exports.
const MARKER: &[u8] = b"merestone_fake_nvml\0";

/// An event with what the wrapper drops.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawEvent {
    /// The device's handle as a number: the GPU may be too lost to be asked for its UUID.
    pub(super) device: usize,
    /// The event type's bit.
    pub(super) kind: u64,
    /// For an XID, its code.
    pub(super) data: u64,
}

/// The address of a function of the library, by which its file is found.
pub(super) fn code_address(nvml: &Nvml) -> Option<usize> {
    let init = nvml.lib().nvmlInit_v2.as_ref().ok()?;
    Some(*init as *const () as usize)
}

/// Whether the library says of itself that it is a test library.
pub(super) fn is_marked_as_test(nvml: &Nvml) -> bool {
    // SAFETY: only the symbol's presence is asked for; it is neither called nor read.
    unsafe { nvml.lib().__library.get::<*const u32>(MARKER) }.is_ok()
}

/// The device's handle as a number.
pub(super) fn handle_number(device: &Device<'_>) -> usize {
    handle(device).addr()
}

fn handle(device: &Device<'_>) -> nvmlDevice_t {
    // SAFETY: the handle is used within the device's lifetime only, or compared as a number.
    unsafe { device.handle() }
}

/// The GPU instance of a MIG device.
pub(super) fn gpu_instance(device: &Device<'_>) -> Result<u32, NvmlError> {
    number(
        device,
        device
            .nvml()
            .lib()
            .nvmlDeviceGetGpuInstanceId
            .as_ref()
            .ok()
            .copied(),
    )
}

/// The compute instance of a MIG device.
pub(super) fn compute_instance(device: &Device<'_>) -> Result<u32, NvmlError> {
    number(
        device,
        device
            .nvml()
            .lib()
            .nvmlDeviceGetComputeInstanceId
            .as_ref()
            .ok()
            .copied(),
    )
}

fn number(
    device: &Device<'_>,
    function: Option<unsafe extern "C" fn(nvmlDevice_t, *mut c_uint) -> nvmlReturn_t>,
) -> Result<u32, NvmlError> {
    let function = function.ok_or(NvmlError::FunctionNotFound)?;
    let mut value = 0;
    // SAFETY: the handle is of this library and `value` is valid for writes.
    nvml_try(unsafe { function(handle(device), &raw mut value) })?;
    Ok(value)
}

/// Total and used memory as drivers before 510 give it: `used` has the reserved in it.
pub(super) fn memory_v1(device: &Device<'_>) -> Result<(u64, u64), NvmlError> {
    let function = device
        .nvml()
        .lib()
        .nvmlDeviceGetMemoryInfo
        .as_ref()
        .ok()
        .copied();
    let function = function.ok_or(NvmlError::FunctionNotFound)?;
    let mut memory = nvmlMemory_t {
        total: 0,
        free: 0,
        used: 0,
    };
    // SAFETY: the handle is of this library and `memory` is valid for writes.
    nvml_try(unsafe { function(handle(device), &raw mut memory) })?;
    Ok((memory.total, memory.used))
}

/// Waits for an event of the set.
pub(super) fn wait(set: &EventSet<'_>, timeout_ms: u32) -> Result<RawEvent, NvmlError> {
    let function = set.nvml.lib().nvmlEventSetWait_v2.as_ref().ok().copied();
    let function = function.ok_or(NvmlError::FunctionNotFound)?;
    let mut data = nvmlEventData_t {
        device: std::ptr::null_mut(),
        eventType: 0,
        eventData: 0,
        gpuInstanceId: u32::MAX,
        computeInstanceId: u32::MAX,
    };
    // SAFETY: the handle is used while the set lives, and no second set is made of it.
    let handle = unsafe { set.handle() };
    // SAFETY: the set is of this library and `data` is valid for writes.
    nvml_try(unsafe { function(handle, &raw mut data, timeout_ms) })?;
    Ok(RawEvent {
        device: data.device.addr(),
        kind: data.eventType,
        data: data.eventData,
    })
}
