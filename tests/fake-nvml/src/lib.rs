//! A `libnvidia-ml.so.1` that answers from a scenario file, for tests on hosts without a GPU.
//!
//! It is loaded the way the real one is: by `dlopen`, under whatever path the test gives. The
//! scenario is `$FAKE_NVML_SCENARIO`, or else the file `<library path>.toml` beside the library, and
//! is read again whenever it changes, so a test flips a GPU's state under a running agent
//! ([`scenario`] has its grammar). Types, constants and the signature of every export are those
//! that `nvml-wrapper-sys` generated from `nvml.h`; none is typed by hand, and a wrong one does not
//! compile.
//!
//! It never pretends to be NVIDIA's: it exports the symbol `merestone_fake_nvml`, by which the agent
//! knows it and refuses it in a release build. It does not model vGPU, power control or any setter.

mod answer;
mod export;
pub mod install;
pub mod scenario;
mod state;

/// The symbol by which the agent knows this library for a test library.
#[expect(unsafe_code, reason = "the marker must have a fixed symbol name")]
#[unsafe(no_mangle)]
pub static merestone_fake_nvml: u32 = 1;
