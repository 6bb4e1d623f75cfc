//! Multi-instance GPUs.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlDeviceAttributes_t,
    nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT,
    nvmlReturn_enum_NVML_ERROR_NOT_FOUND as NOT_FOUND,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED,
};

use super::exports;
use crate::answer::{gpu_handle, instance_handle};
use crate::scenario::Mig;

exports! {
    fn nvmlDeviceGetMigMode(device: nvmlDevice_t, current: *mut c_uint, pending: *mut c_uint) = |host| {
        let mig = host.gpu(device)?.mig.as_ref().ok_or(NOT_SUPPORTED)?;
        current.put(mig.enabled.into())?;
        pending.put(mig.pending.unwrap_or(mig.enabled).into())
    };
    fn nvmlDeviceGetMaxMigDeviceCount(device: nvmlDevice_t, count: *mut c_uint) = |host| {
        count.put(host.gpu(device)?.mig.as_ref().map_or(0, slots))
    };
    fn nvmlDeviceGetMigDeviceHandleByIndex(device: nvmlDevice_t, slot: c_uint, instance: *mut nvmlDevice_t) = |host| {
        let parent = host.device(device)?;
        let mig = parent.gpu.mig.as_ref().ok_or(NOT_SUPPORTED)?;
        if slot >= slots(mig) {
            return Err(INVALID_ARGUMENT);
        }
        if !mig.enabled || !mig.instance.iter().any(|instance| instance.slot == slot) {
            return Err(NOT_FOUND);
        }
        instance.put(std::ptr::without_provenance_mut(instance_handle(parent.index, slot)))
    };
    fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance: nvmlDevice_t, device: *mut nvmlDevice_t) = |host| {
        let own = host.device(instance)?;
        own.instance.ok_or(INVALID_ARGUMENT)?;
        device.put(std::ptr::without_provenance_mut(gpu_handle(own.index)))
    };
    fn nvmlDeviceIsMigDeviceHandle(device: nvmlDevice_t, is: *mut c_uint) = |host| {
        is.put(host.device(device)?.instance.is_some().into())
    };
    fn nvmlDeviceGetGpuInstanceId(device: nvmlDevice_t, id: *mut c_uint) = |host| {
        id.put(host.device(device)?.instance.ok_or(NOT_SUPPORTED)?.gpu_instance)
    };
    fn nvmlDeviceGetComputeInstanceId(device: nvmlDevice_t, id: *mut c_uint) = |host| {
        id.put(host.device(device)?.instance.ok_or(NOT_SUPPORTED)?.compute_instance)
    };
    fn nvmlDeviceGetAttributes_v2(device: nvmlDevice_t, attributes: *mut nvmlDeviceAttributes_t) = |host| {
        let device = host.device(device)?;
        let instance = device.instance.ok_or(NOT_SUPPORTED)?;
        attributes.put(nvmlDeviceAttributes_t {
            multiprocessorCount: instance.multiprocessors.ok_or(NOT_SUPPORTED)?,
            sharedCopyEngineCount: 0,
            sharedDecoderCount: 0,
            sharedEncoderCount: 0,
            sharedJpegCount: 0,
            sharedOfaCount: 0,
            gpuInstanceSliceCount: 0,
            computeInstanceSliceCount: 0,
            memorySizeMB: instance.memory.map_or(0, |memory| memory.total >> 20),
        })
    };
}

/// `nvmlDeviceGetMaxMigDeviceCount` gives the slots there are, not the instances that exist.
fn slots(mig: &Mig) -> u32 {
    mig.slots.unwrap_or(7)
}
