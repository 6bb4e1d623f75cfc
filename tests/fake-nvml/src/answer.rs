//! What every export does around its own job, and the only place that touches the caller's pointers.
//!
//! A panic never crosses into C: it is answered with `NVML_ERROR_UNKNOWN`. A null pointer is
//! answered with `NVML_ERROR_INVALID_ARGUMENT`, as the real library does.

#![expect(unsafe_code, reason = "arguments of C functions are raw pointers")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use nvml_wrapper_sys::bindings::{
    nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST as LOST,
    nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE as INSUFFICIENT_SIZE,
    nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED,
    nvmlReturn_enum_NVML_ERROR_UNINITIALIZED as UNINITIALIZED,
    nvmlReturn_enum_NVML_ERROR_UNKNOWN as UNKNOWN, nvmlReturn_enum_NVML_SUCCESS as SUCCESS,
    nvmlReturn_t,
};

use crate::scenario::{Gpu, MigDevice, Scenario};
use crate::state;

/// An export's job: done, or the code to answer.
pub(crate) type Answer = Result<(), nvmlReturn_t>;

/// How a raw argument becomes something the exports can use without `unsafe`.
pub(crate) trait FromC {
    /// What it becomes.
    type Safe;

    /// # Safety
    ///
    /// A pointer is null or valid for what `nvml.h` says is done with it.
    unsafe fn safe(self) -> Self::Safe;
}

macro_rules! plain {
    ($($number:ty),*) => {$(
        impl FromC for $number {
            type Safe = Self;

            unsafe fn safe(self) -> Self {
                self
            }
        }
    )*};
}
plain!(c_int, c_uint, c_ulonglong);

impl<T> FromC for *mut T {
    type Safe = Out<T>;

    unsafe fn safe(self) -> Out<T> {
        Out(self)
    }
}

impl FromC for *const c_char {
    type Safe = Option<String>;

    unsafe fn safe(self) -> Option<String> {
        if self.is_null() {
            return None;
        }
        // SAFETY: the caller promises a NUL-terminated string.
        let text = unsafe { CStr::from_ptr(self) };
        text.to_str().ok().map(str::to_owned)
    }
}

/// A caller's pointer. Only [`FromC::safe`] makes one, so whoever holds it may rely on its promise.
pub(crate) struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

impl<T: Copy> Out<T> {
    /// Writes one value.
    pub(crate) fn put(self, value: T) -> Answer {
        self.put_at(0, value)
    }

    /// Writes the value at `index` of an array that the caller said is long enough.
    pub(crate) fn put_at(self, index: usize, value: T) -> Answer {
        if self.0.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and the caller promised this many elements.
        let place = unsafe { self.0.add(index) };
        // SAFETY: inside the caller's array; unaligned, because C callers have sent such.
        unsafe {
            place.write_unaligned(value);
        }
        Ok(())
    }

    /// Reads the value that the caller put there.
    pub(crate) fn get(self) -> Result<T, nvmlReturn_t> {
        self.get_at(0)
    }

    /// Reads the value at `index` of an array that the caller said is long enough.
    pub(crate) fn get_at(self, index: usize) -> Result<T, nvmlReturn_t> {
        if self.0.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and the caller promised this many elements.
        let place = unsafe { self.0.add(index) };
        // SAFETY: inside the caller's array, which it has initialised.
        Ok(unsafe { place.read_unaligned() })
    }
}

impl<T> Out<T> {
    /// Whether the caller gave no buffer.
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// A handle's number: handles are never dereferenced.
    pub(crate) fn number(self) -> usize {
        self.0.addr()
    }
}

impl Out<c_char> {
    /// Writes a NUL-terminated string into a buffer of `length` bytes.
    pub(crate) fn put_text(self, text: Option<&str>, length: c_uint) -> Answer {
        let text = text.ok_or(NOT_SUPPORTED)?;
        if self.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        if text.len() >= usize::try_from(length).unwrap_or(usize::MAX) {
            return Err(INSUFFICIENT_SIZE);
        }
        for (at, byte) in text.bytes().chain([0]).enumerate() {
            self.put_at(at, byte.cast_signed())?;
        }
        Ok(())
    }
}

/// Answers the two-call way: with no room, `INSUFFICIENT_SIZE` and how much is needed; with nothing
/// to give, success.
pub(crate) fn put_list<T: Copy>(count: Out<c_uint>, list: Out<T>, values: &[T]) -> Answer {
    let room = count.get()?;
    let needed = c_uint::try_from(values.len()).ok().ok_or(UNKNOWN)?;
    count.put(needed)?;
    if needed == 0 {
        return Ok(());
    }
    if list.is_null() || room < needed {
        return Err(INSUFFICIENT_SIZE);
    }
    for (at, value) in values.iter().enumerate() {
        list.put_at(at, *value)?;
    }
    Ok(())
}

/// The scenario during one call.
pub(crate) struct Host {
    name: &'static str,
    pub(crate) scenario: Arc<Scenario>,
}

/// A device handle, resolved.
pub(crate) struct Device<'host> {
    pub(crate) index: usize,
    pub(crate) gpu: &'host Gpu,
    pub(crate) instance: Option<&'host MigDevice>,
}

/// Handles are `(GPU index + 1) * STEP`, plus the slot + 1 for a MIG device.
const STEP: usize = 0x1000;

/// The handle of a GPU.
pub(crate) const fn gpu_handle(index: usize) -> usize {
    (index + 1) * STEP
}

/// The handle of a MIG device.
pub(crate) fn instance_handle(index: usize, slot: u32) -> usize {
    gpu_handle(index) + 1 + usize::try_from(slot).unwrap_or(STEP - 2)
}

impl Host {
    /// The GPU or MIG device behind a handle; a lost GPU answers 15 to every call.
    pub(crate) fn device<T>(&self, handle: Out<T>) -> Result<Device<'_>, nvmlReturn_t> {
        let number = handle.number();
        let index = (number / STEP).checked_sub(1).ok_or(INVALID_ARGUMENT)?;
        let gpu = self.gpu_at(index)?;
        let instance = match (number % STEP).checked_sub(1) {
            None => None,
            Some(slot) => Some(
                gpu.mig
                    .iter()
                    .filter(|mig| mig.enabled)
                    .flat_map(|mig| &mig.instance)
                    .find(|instance| usize::try_from(instance.slot) == Ok(slot))
                    .ok_or(INVALID_ARGUMENT)?,
            ),
        };
        Ok(Device {
            index,
            gpu,
            instance,
        })
    }

    /// The GPU at an index, with what the scenario says of this call on it.
    pub(crate) fn gpu_at(&self, index: usize) -> Result<&Gpu, nvmlReturn_t> {
        let gpu = self.scenario.gpu.get(index).ok_or(INVALID_ARGUMENT)?;
        misbehave(self.name, Some(index), &self.scenario)?;
        if gpu.lost { Err(LOST) } else { Ok(gpu) }
    }

    /// The whole GPU behind a handle; for calls that a MIG device does not support.
    pub(crate) fn gpu<T>(&self, handle: Out<T>) -> Result<&Gpu, nvmlReturn_t> {
        let device = self.device(handle)?;
        match device.instance {
            None => Ok(device.gpu),
            Some(_) => Err(NOT_SUPPORTED),
        }
    }
}

/// Runs an export: initialised or not, how the scenario says it misbehaves, then its own job.
pub(crate) fn answer(name: &'static str, job: impl FnOnce(&Host) -> Answer) -> nvmlReturn_t {
    let initialises = matches!(name, "nvmlInit_v2" | "nvmlInitWithFlags");
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let scenario = state::scenario().ok_or(UNKNOWN)?;
        if !initialises && state::lock().initialised == 0 {
            return Err(UNINITIALIZED);
        }
        misbehave(name, None, &scenario)?;
        job(&Host { name, scenario })
    }));
    match outcome {
        Ok(Ok(())) => SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => UNKNOWN,
    }
}

/// Delays, hangs, panics or fails as the scenario says of this function and GPU.
#[expect(
    clippy::panic,
    reason = "the scenario asks for one, to show that it stays inside"
)]
fn misbehave(name: &str, gpu: Option<usize>, scenario: &Scenario) -> Answer {
    let applies = |scenario: &Scenario| {
        scenario
            .calls
            .get(name)
            .filter(|call| call.gpu.map(|index| usize::try_from(index).ok()) == gpu.map(Some))
            .cloned()
    };
    let Some(call) = applies(scenario) else {
        return Ok(());
    };
    std::thread::sleep(Duration::from_millis(call.delay_ms));
    if call.hang {
        while state::scenario()
            .and_then(|now| applies(&now))
            .is_some_and(|now| now.hang)
        {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    if call.panic {
        std::panic::panic_any(format!("the scenario asked for a panic in {name}"));
    }
    call.code
        .filter(|code| *code != SUCCESS)
        .map_or(Ok(()), Err)
}
