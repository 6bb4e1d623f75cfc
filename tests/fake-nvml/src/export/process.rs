//! Processes on a GPU, their samples, and accounting (which is off, as on every captured host).

use std::ffi::{c_uint, c_ulonglong};
use std::time::{SystemTime, UNIX_EPOCH};

use nvml_wrapper_sys::bindings::{
    nvmlAccountingStats_t, nvmlDevice_t, nvmlEnableState_enum_NVML_FEATURE_DISABLED as OFF,
    nvmlEnableState_t, nvmlProcessInfo_t, nvmlProcessUtilizationSample_t,
    nvmlReturn_enum_NVML_ERROR_NOT_FOUND as NOT_FOUND,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED,
};

use super::exports;
use crate::answer::{Device, put_list};
use crate::scenario::{Gpu, ProcessKind};

exports! {
    fn nvmlDeviceGetComputeRunningProcesses_v3(device: nvmlDevice_t, count: *mut c_uint, infos: *mut nvmlProcessInfo_t) = |host| {
        put_list(count, infos, &processes(&host.device(device)?, ProcessKind::Compute))
    };
    fn nvmlDeviceGetGraphicsRunningProcesses_v3(device: nvmlDevice_t, count: *mut c_uint, infos: *mut nvmlProcessInfo_t) = |host| {
        put_list(count, infos, &processes(&host.device(device)?, ProcessKind::Graphics))
    };
    fn nvmlDeviceGetMPSComputeRunningProcesses_v3(device: nvmlDevice_t, count: *mut c_uint, infos: *mut nvmlProcessInfo_t) = |host| {
        put_list(count, infos, &processes(&host.device(device)?, ProcessKind::Mps))
    };
    fn nvmlDeviceGetProcessUtilization(device: nvmlDevice_t, samples: *mut nvmlProcessUtilizationSample_t, count: *mut c_uint, last_seen: c_ulonglong) = |host| {
        let gpu = host.gpu(device)?;
        // nvml.h: not available on a GPU in MIG mode.
        if gpu.mig.as_ref().is_some_and(|mig| mig.enabled) {
            return Err(NOT_SUPPORTED);
        }
        let newer = newer_samples(gpu, last_seen);
        if newer.is_empty() {
            count.put(0)?;
            return Err(NOT_FOUND);
        }
        put_list(count, samples, &newer)
    };
    fn nvmlDeviceGetAccountingMode(device: nvmlDevice_t, mode: *mut nvmlEnableState_t) = |host| {
        host.gpu(device)?;
        mode.put(OFF)
    };
    fn nvmlDeviceGetAccountingPids(device: nvmlDevice_t, count: *mut c_uint, pids: *mut c_uint) = |host| {
        host.gpu(device)?;
        put_list(count, pids, &[])
    };
    fn nvmlDeviceGetAccountingStats(device: nvmlDevice_t, _pid: c_uint, _stats: *mut nvmlAccountingStats_t) = |host| {
        host.gpu(device).and(Err(NOT_FOUND))
    };
}

/// One of the three lists; of a MIG device, those inside it.
fn processes(device: &Device<'_>, kind: ProcessKind) -> Vec<nvmlProcessInfo_t> {
    let inside = |process: &&crate::scenario::Process| {
        device.instance.is_none_or(|instance| {
            process.gpu_instance == Some(instance.gpu_instance)
                && process.compute_instance == Some(instance.compute_instance)
        })
    };
    device
        .gpu
        .process
        .iter()
        .filter(|process| process.kind == kind)
        .filter(inside)
        .map(|process| nvmlProcessInfo_t {
            pid: process.pid,
            // NVML_VALUE_NOT_AVAILABLE, and 0xffffffff for "not in an instance".
            usedGpuMemory: process.memory.unwrap_or(u64::MAX),
            gpuInstanceId: process.gpu_instance.unwrap_or(u32::MAX),
            computeInstanceId: process.compute_instance.unwrap_or(u32::MAX),
        })
        .collect()
}

fn newer_samples(gpu: &Gpu, last_seen: u64) -> Vec<nvmlProcessUtilizationSample_t> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX));
    gpu.sample
        .iter()
        .map(|sample| nvmlProcessUtilizationSample_t {
            pid: sample.pid,
            timeStamp: sample.time_us.unwrap_or(now),
            smUtil: sample.sm,
            memUtil: sample.memory,
            encUtil: 0,
            decUtil: 0,
        })
        .filter(|sample| sample.timeStamp > last_seen)
        .collect()
}
