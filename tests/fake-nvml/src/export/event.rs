//! Event sets: the wait blocks as the real one does, up to its timeout.

use std::ffi::{c_uint, c_ulonglong};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t, nvmlEventTypeXidCriticalError,
    nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED,
    nvmlReturn_enum_NVML_ERROR_TIMEOUT as TIMEOUT,
    nvmlReturn_enum_NVML_ERROR_UNINITIALIZED as UNINITIALIZED,
    nvmlReturn_enum_NVML_ERROR_UNKNOWN as UNKNOWN, nvmlReturn_t,
};

use super::exports;
use crate::answer::gpu_handle;
use crate::state;

/// The mask of what the fake delivers.
const XID: u64 = nvmlEventTypeXidCriticalError as u64;

exports! {
    fn nvmlEventSetCreate(set: *mut nvmlEventSet_t) = |_host| {
        let mut state = state::lock();
        let handle = state.next_set;
        state.next_set += 1;
        state.sets.insert(handle, std::collections::BTreeMap::new());
        set.put(std::ptr::without_provenance_mut(handle))
    };
    fn nvmlDeviceGetSupportedEventTypes(device: nvmlDevice_t, mask: *mut c_ulonglong) = |host| {
        host.gpu(device)?;
        mask.put(XID)
    };
    fn nvmlDeviceRegisterEvents(device: nvmlDevice_t, mask: c_ulonglong, set: nvmlEventSet_t) = |host| {
        let device = host.device(device)?;
        if device.instance.is_some() || mask & !XID != 0 {
            return Err(NOT_SUPPORTED);
        }
        let mut state = state::lock();
        let registered = state.sets.get_mut(&set.number()).ok_or(INVALID_ARGUMENT)?;
        *registered.entry(device.index).or_default() |= mask;
        Ok(())
    };
    fn nvmlEventSetWait_v2(set: nvmlEventSet_t, data: *mut nvmlEventData_t, timeout: c_uint) = |_host| {
        let until = Instant::now() + Duration::from_millis(timeout.into());
        loop {
            if let Some(event) = next(set.number())? {
                return data.put(event);
            }
            if Instant::now() >= until {
                return Err(TIMEOUT);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    fn nvmlEventSetFree(set: nvmlEventSet_t) = |_host| {
        state::lock().sets.remove(&set.number()).map(drop).ok_or(INVALID_ARGUMENT)
    };
}

/// The next event that a GPU of this set has and that was not delivered.
fn next(set: usize) -> Result<Option<nvmlEventData_t>, nvmlReturn_t> {
    let scenario = state::scenario().ok_or(UNKNOWN)?;
    let mut state = state::lock();
    if state.initialised == 0 {
        return Err(UNINITIALIZED);
    }
    let registered = state.sets.get(&set).ok_or(INVALID_ARGUMENT)?;
    let event = scenario
        .event
        .iter()
        .filter(|event| event.id > state.delivered)
        .filter_map(|event| Some((event, usize::try_from(event.gpu).ok()?)))
        .filter(|(_, gpu)| registered.get(gpu).is_some_and(|mask| mask & XID != 0))
        .min_by_key(|(event, _)| event.id);
    let Some((event, gpu)) = event else {
        return Ok(None);
    };
    state.delivered = event.id;
    Ok(Some(nvmlEventData_t {
        device: std::ptr::without_provenance_mut(gpu_handle(gpu)),
        eventType: XID,
        eventData: event.xid,
        gpuInstanceId: event.gpu_instance.unwrap_or(u32::MAX),
        computeInstanceId: u32::MAX,
    }))
}
