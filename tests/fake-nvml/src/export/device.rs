//! Identity and readings of one GPU.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nvml_wrapper_sys::bindings::field_id::{
    NVML_FI_DEV_MEMORY_TEMP, NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION,
};
use nvml_wrapper_sys::bindings::{
    nvmlBrandType_t, nvmlClockType_enum_NVML_CLOCK_GRAPHICS as GRAPHICS,
    nvmlClockType_enum_NVML_CLOCK_MEM as MEMORY, nvmlClockType_enum_NVML_CLOCK_SM as SM,
    nvmlClockType_enum_NVML_CLOCK_VIDEO as VIDEO, nvmlClockType_t, nvmlDevice_t,
    nvmlDeviceArchitecture_t, nvmlEccCounterType_enum_NVML_AGGREGATE_ECC as AGGREGATE,
    nvmlEccCounterType_enum_NVML_VOLATILE_ECC as VOLATILE, nvmlEccCounterType_t,
    nvmlEnableState_enum_NVML_FEATURE_DISABLED as OFF,
    nvmlEnableState_enum_NVML_FEATURE_ENABLED as ON, nvmlEnableState_t, nvmlFieldValue_t,
    nvmlMemory_t, nvmlMemory_v2_t,
    nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_CORRECTED as CORRECTED,
    nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED as UNCORRECTED,
    nvmlMemoryErrorType_t, nvmlPciInfo_t, nvmlPstates_t,
    nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH as VERSION_MISMATCH,
    nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED,
    nvmlReturn_enum_NVML_ERROR_UNKNOWN as UNKNOWN, nvmlReturn_enum_NVML_SUCCESS as SUCCESS,
    nvmlReturn_t, nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU as GPU_SENSOR,
    nvmlTemperatureSensors_t, nvmlTemperatureThresholds_t, nvmlUtilization_t, nvmlValue_t,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT as TYPE_UNSIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG as TYPE_UNSIGNED_LONG_LONG,
};

use super::exports;
use crate::answer::{Answer, Device, Out};
use crate::scenario::{Ecc, Gpu, Memory};
use crate::state;

exports! {
    fn nvmlDeviceGetUUID(device: nvmlDevice_t, uuid: *mut c_char, length: c_uint) = |host| {
        let device = host.device(device)?;
        let own = device.instance.map_or(&device.gpu.uuid, |instance| &instance.uuid);
        uuid.put_text(Some(own), length)
    };
    fn nvmlDeviceGetName(device: nvmlDevice_t, name: *mut c_char, length: c_uint) = |host| {
        let device = host.device(device)?;
        let own = device.instance.map_or(&device.gpu.name, |instance| &instance.name);
        name.put_text(own.as_deref(), length)
    };
    fn nvmlDeviceGetIndex(device: nvmlDevice_t, index: *mut c_uint) = |host| {
        index.put(c_uint::try_from(host.device(device)?.index).ok().ok_or(UNKNOWN)?)
    };
    fn nvmlDeviceGetMinorNumber(device: nvmlDevice_t, minor: *mut c_uint) = |host| {
        minor.put(some(host.gpu(device)?.minor)?)
    };
    fn nvmlDeviceGetSerial(device: nvmlDevice_t, serial: *mut c_char, length: c_uint) = |host| {
        serial.put_text(host.gpu(device)?.serial.as_deref(), length)
    };
    fn nvmlDeviceGetVbiosVersion(device: nvmlDevice_t, version: *mut c_char, length: c_uint) = |host| {
        host.gpu(device)?;
        version.put_text(None, length)
    };
    fn nvmlDeviceGetArchitecture(device: nvmlDevice_t, _architecture: *mut nvmlDeviceArchitecture_t) = |host| {
        host.gpu(device).and(Err(NOT_SUPPORTED))
    };
    fn nvmlDeviceGetBrand(device: nvmlDevice_t, _brand: *mut nvmlBrandType_t) = |host| {
        host.gpu(device).and(Err(NOT_SUPPORTED))
    };
    fn nvmlDeviceGetPciInfo_v3(device: nvmlDevice_t, pci: *mut nvmlPciInfo_t) = |host| {
        pci.put(pci_info(host.device(device)?.gpu).ok_or(NOT_SUPPORTED)?)
    };
    fn nvmlDeviceGetMemoryInfo(device: nvmlDevice_t, memory: *mut nvmlMemory_t) = |host| {
        let own = some(memory_of(&host.device(device)?))?;
        // Version 1 counts what the driver holds as used.
        let used = own.used.saturating_add(own.reserved);
        memory.put(nvmlMemory_t { total: own.total, free: own.total.saturating_sub(used), used })
    };
    fn nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, memory: *mut nvmlMemory_v2_t) = |host| {
        let own = some(memory_of(&host.device(device)?))?;
        let version = memory.get()?.version;
        if version != struct_version::<nvmlMemory_v2_t>(2) {
            return Err(VERSION_MISMATCH);
        }
        let free = own.total.saturating_sub(own.used).saturating_sub(own.reserved);
        memory.put(nvmlMemory_v2_t { version, total: own.total, reserved: own.reserved, free, used: own.used })
    };
    fn nvmlDeviceGetUtilizationRates(device: nvmlDevice_t, utilization: *mut nvmlUtilization_t) = |host| {
        let gpu = host.gpu(device)?;
        // A GPU cut into instances has no utilisation of its own.
        if gpu.mig.as_ref().is_some_and(|mig| mig.enabled) {
            return Err(NOT_SUPPORTED);
        }
        let own = some(gpu.utilization)?;
        utilization.put(nvmlUtilization_t { gpu: own.gpu, memory: own.memory })
    };
    fn nvmlDeviceGetPowerUsage(device: nvmlDevice_t, power: *mut c_uint) = |host| {
        power.put(some(host.gpu(device)?.power_milliwatts)?)
    };
    fn nvmlDeviceGetEnforcedPowerLimit(device: nvmlDevice_t, limit: *mut c_uint) = |host| {
        limit.put(some(host.gpu(device)?.power_limit_milliwatts)?)
    };
    fn nvmlDeviceGetTotalEnergyConsumption(device: nvmlDevice_t, energy: *mut c_ulonglong) = |host| {
        energy.put(some(energy_of(host.gpu(device)?))?)
    };
    fn nvmlDeviceGetTemperature(device: nvmlDevice_t, sensor: nvmlTemperatureSensors_t, temperature: *mut c_uint) = |host| {
        let gpu = host.gpu(device)?;
        if sensor != GPU_SENSOR {
            return Err(INVALID_ARGUMENT);
        }
        temperature.put(some(gpu.temperature_celsius)?)
    };
    fn nvmlDeviceGetTemperatureThreshold(device: nvmlDevice_t, _threshold: nvmlTemperatureThresholds_t, _temperature: *mut c_uint) = |host| {
        host.gpu(device).and(Err(NOT_SUPPORTED))
    };
    fn nvmlDeviceGetClockInfo(device: nvmlDevice_t, domain: nvmlClockType_t, clock: *mut c_uint) = |host| {
        let clocks = host.gpu(device)?.clocks_mhz;
        clock.put(some(match domain {
            GRAPHICS => clocks.graphics,
            SM => clocks.sm,
            MEMORY => clocks.memory,
            VIDEO => clocks.video,
            _ => return Err(INVALID_ARGUMENT),
        })?)
    };
    fn nvmlDeviceGetPerformanceState(device: nvmlDevice_t, state: *mut nvmlPstates_t) = |host| {
        state.put(some(host.gpu(device)?.performance_state)?)
    };
    fn nvmlDeviceGetCurrentClocksThrottleReasons(device: nvmlDevice_t, _reasons: *mut c_ulonglong) = |host| {
        host.gpu(device).and(Err(NOT_SUPPORTED))
    };
    fn nvmlDeviceGetEccMode(device: nvmlDevice_t, current: *mut nvmlEnableState_t, pending: *mut nvmlEnableState_t) = |host| {
        let mode = if some(host.gpu(device)?.ecc)?.enabled { ON } else { OFF };
        current.put(mode)?;
        pending.put(mode)
    };
    fn nvmlDeviceGetTotalEccErrors(device: nvmlDevice_t, kind: nvmlMemoryErrorType_t, counter: nvmlEccCounterType_t, count: *mut c_ulonglong) = |host| {
        let ecc = some(host.gpu(device)?.ecc)?;
        count.put(some(ecc_count(&ecc, kind, counter)?)?)
    };
    fn nvmlDeviceGetFieldValues(device: nvmlDevice_t, count: c_int, values: *mut nvmlFieldValue_t) = |host| {
        field_values(host.gpu(device)?, count, values)
    };
    fn nvmlDeviceGetRemappedRows(device: nvmlDevice_t, _corrected: *mut c_uint, _uncorrected: *mut c_uint, _pending: *mut c_uint, _failure: *mut c_uint) = |host| {
        host.gpu(device).and(Err(NOT_SUPPORTED))
    };
}

fn some<T>(value: Option<T>) -> Result<T, nvmlReturn_t> {
    value.ok_or(NOT_SUPPORTED)
}

/// `NVML_STRUCT_VERSION` of nvml.h.
pub(super) fn struct_version<T>(version: u32) -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(0) | version << 24
}

fn memory_of(device: &Device<'_>) -> Option<Memory> {
    device
        .instance
        .map_or(device.gpu.memory, |instance| instance.memory)
}

fn energy_of(gpu: &Gpu) -> Option<u64> {
    let elapsed = state::lock().loaded.map_or(0, |loaded| {
        u64::try_from(Instant::now().duration_since(loaded).as_millis()).unwrap_or(u64::MAX)
    });
    let grown = elapsed.saturating_mul(gpu.energy_rate_milliwatts) / 1000;
    Some(gpu.energy_millijoules?.saturating_add(grown))
}

fn ecc_count(
    ecc: &Ecc,
    kind: nvmlMemoryErrorType_t,
    counter: nvmlEccCounterType_t,
) -> Result<Option<u64>, nvmlReturn_t> {
    if !ecc.enabled {
        return Err(NOT_SUPPORTED);
    }
    Ok(match (kind, counter) {
        (CORRECTED, VOLATILE) => ecc.corrected_volatile,
        (UNCORRECTED, VOLATILE) => ecc.uncorrected_volatile,
        (CORRECTED, AGGREGATE) => ecc.corrected_aggregate,
        (UNCORRECTED, AGGREGATE) => ecc.uncorrected_aggregate,
        _ => return Err(INVALID_ARGUMENT),
    })
}

fn field_values(gpu: &Gpu, count: c_int, values: Out<nvmlFieldValue_t>) -> Answer {
    let count = usize::try_from(count).ok().ok_or(INVALID_ARGUMENT)?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| i64::try_from(now.as_micros()).unwrap_or(i64::MAX));
    for at in 0..count {
        let mut field = values.get_at(at)?;
        let given = match field.fieldId {
            NVML_FI_DEV_MEMORY_TEMP => gpu
                .memory_temperature_celsius
                .map(|uiVal| (TYPE_UNSIGNED_INT, nvmlValue_t { uiVal })),
            NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION => {
                energy_of(gpu).map(|ullVal| (TYPE_UNSIGNED_LONG_LONG, nvmlValue_t { ullVal }))
            }
            _ => None,
        };
        field.timestamp = now;
        field.latencyUsec = 0;
        if let Some((kind, value)) = given {
            field.nvmlReturn = SUCCESS;
            field.valueType = kind;
            field.value = value;
        } else {
            // As drivers do: an error, and a sentinel that must not be taken for a value.
            field.nvmlReturn = NOT_SUPPORTED;
            field.value = nvmlValue_t {
                ullVal: 0x7fff_ffff_ffff_fff2,
            };
        }
        values.put_at(at, field)?;
    }
    Ok(())
}

fn pci_info(gpu: &Gpu) -> Option<nvmlPciInfo_t> {
    let id = gpu.pci_bus_id.as_deref()?;
    let (domain, rest) = id.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, _function) = rest.split_once('.')?;
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let short = domain.get(domain.len().saturating_sub(4)..)?;
    let legacy = format!("{short}:{bus}:{device}.0");
    Some(nvmlPciInfo_t {
        busIdLegacy: characters(&legacy),
        domain: number(domain)?,
        bus: number(bus)?,
        device: number(device)?,
        pciDeviceId: 0,
        pciSubSystemId: 0,
        busId: characters(id),
    })
}

fn characters<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    for (to, from) in array.iter_mut().take(N - 1).zip(text.bytes()) {
        *to = from.cast_signed();
    }
    array
}
