//! Confidential computing: absent unless the scenario has it.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{
    NVML_CC_ACCEPTING_CLIENT_REQUESTS_FALSE as REFUSING,
    NVML_CC_ACCEPTING_CLIENT_REQUESTS_TRUE as ACCEPTING, NVML_CC_SYSTEM_CPU_CAPS_AMD_SEV_SNP,
    NVML_CC_SYSTEM_DEVTOOLS_MODE_OFF, NVML_CC_SYSTEM_DEVTOOLS_MODE_ON,
    NVML_CC_SYSTEM_ENVIRONMENT_PROD, NVML_CC_SYSTEM_ENVIRONMENT_SIM,
    NVML_CC_SYSTEM_FEATURE_DISABLED, NVML_CC_SYSTEM_FEATURE_ENABLED,
    NVML_CC_SYSTEM_GPUS_CC_CAPABLE, NVML_CC_SYSTEM_MULTIGPU_NONE,
    nvmlConfComputeGpuAttestationReport_t, nvmlConfComputeGpuCertificate_t,
    nvmlConfComputeSystemCaps_t, nvmlConfComputeSystemState_t, nvmlDevice_t,
    nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH as VERSION_MISMATCH,
    nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE as INSUFFICIENT_SIZE,
    nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED, nvmlReturn_t,
    nvmlSystemConfComputeSettings_t,
};

use super::device::struct_version;
use super::exports;
use crate::answer::Host;
use crate::scenario::Confidential;

exports! {
    fn nvmlSystemGetConfComputeState(state: *mut nvmlConfComputeSystemState_t) = |host| {
        let own = of(host)?;
        state.put(nvmlConfComputeSystemState_t {
            environment: environment(own),
            ccFeature: feature(own),
            devToolsMode: developer(own),
        })
    };
    fn nvmlSystemGetConfComputeSettings(settings: *mut nvmlSystemConfComputeSettings_t) = |host| {
        let own = of(host)?;
        let version = settings.get()?.version;
        if version != struct_version::<nvmlSystemConfComputeSettings_t>(1) {
            return Err(VERSION_MISMATCH);
        }
        settings.put(nvmlSystemConfComputeSettings_t {
            version,
            environment: environment(own),
            ccFeature: feature(own),
            devToolsMode: developer(own),
            multiGpuMode: NVML_CC_SYSTEM_MULTIGPU_NONE,
        })
    };
    fn nvmlSystemGetConfComputeCapabilities(capabilities: *mut nvmlConfComputeSystemCaps_t) = |host| {
        of(host)?;
        capabilities.put(nvmlConfComputeSystemCaps_t {
            cpuCaps: NVML_CC_SYSTEM_CPU_CAPS_AMD_SEV_SNP,
            gpusCaps: NVML_CC_SYSTEM_GPUS_CC_CAPABLE,
        })
    };
    fn nvmlSystemGetConfComputeGpusReadyState(ready: *mut c_uint) = |host| {
        ready.put(if of(host)?.ready { ACCEPTING } else { REFUSING })
    };
    fn nvmlDeviceGetConfComputeGpuAttestationReport(device: nvmlDevice_t, report: *mut nvmlConfComputeGpuAttestationReport_t) = |host| {
        host.gpu(device)?;
        let bytes = bytes(of(host)?.report.as_deref().ok_or(NOT_SUPPORTED)?)?;
        let mut given = report.get()?;
        // The report answers the caller's nonce, as the real one does inside its signed bytes.
        let whole = [&given.nonce[..], &bytes].concat();
        given.attestationReportSize = fill(&mut given.attestationReport, &whole)?;
        given.cecAttestationReportSize = 0;
        given.isCecAttestationReportPresent = 0;
        report.put(given)
    };
    fn nvmlDeviceGetConfComputeGpuCertificate(device: nvmlDevice_t, certificate: *mut nvmlConfComputeGpuCertificate_t) = |host| {
        host.gpu(device)?;
        let text = of(host)?.certificate.as_deref().ok_or(NOT_SUPPORTED)?;
        let mut given = certificate.get()?;
        given.certChainSize = fill(&mut given.certChain, text.as_bytes())?;
        given.attestationCertChainSize = fill(&mut given.attestationCertChain, text.as_bytes())?;
        certificate.put(given)
    };
}

fn of(host: &Host) -> Result<&Confidential, nvmlReturn_t> {
    host.scenario.confidential.as_ref().ok_or(NOT_SUPPORTED)
}

const fn environment(own: &Confidential) -> c_uint {
    if own.production {
        NVML_CC_SYSTEM_ENVIRONMENT_PROD
    } else {
        NVML_CC_SYSTEM_ENVIRONMENT_SIM
    }
}

const fn feature(own: &Confidential) -> c_uint {
    if own.enabled {
        NVML_CC_SYSTEM_FEATURE_ENABLED
    } else {
        NVML_CC_SYSTEM_FEATURE_DISABLED
    }
}

const fn developer(own: &Confidential) -> c_uint {
    if own.developer {
        NVML_CC_SYSTEM_DEVTOOLS_MODE_ON
    } else {
        NVML_CC_SYSTEM_DEVTOOLS_MODE_OFF
    }
}

fn fill(buffer: &mut [u8], bytes: &[u8]) -> Result<c_uint, nvmlReturn_t> {
    buffer
        .get_mut(..bytes.len())
        .ok_or(INSUFFICIENT_SIZE)?
        .copy_from_slice(bytes);
    c_uint::try_from(bytes.len()).ok().ok_or(INSUFFICIENT_SIZE)
}

fn bytes(hex: &str) -> Result<Vec<u8>, nvmlReturn_t> {
    (0..hex.len())
        .step_by(2)
        .map(|at| {
            hex.get(at..at + 2)
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .ok_or(INVALID_ARGUMENT)
        })
        .collect()
}
