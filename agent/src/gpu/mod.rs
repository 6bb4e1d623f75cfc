//! The GPU view: what NVML says of each GPU and of the processes on it.
//!
//! NVML is called on threads of its own, each call under a deadline; a call that does not return is
//! abandoned with its thread and told as [`GpuState::Wedged`]. Nothing that enforces ever waits here:
//! the rest of the agent looks at the last [`GpuSnapshot`] through a watch channel. NVML is let go on
//! demand ([`Monitor::release`]), because a monitor that holds it blocks driver unload, reset and MIG
//! changes.
//!
//! It refuses to guess: a reading that NVML did not give is `None`, never 0, and each way in which
//! NVML fails is its own [`GpuState`] with its own remedy. It does not decide which processes are
//! guarded (the kernel does, at device open), and it changes no setting of a GPU.

mod attest;
mod events;
mod history;
mod library;
pub mod metrics;
mod monitor;
mod progress;
mod raw;
mod reader;
mod session;
mod snapshot;
mod state;
mod supervisor;
mod trouble;
mod visibility;

pub use attest::Attested;
pub use library::LibraryIdentity;
pub use metrics::{Kind, Metric, metrics};
pub use monitor::{Config, Monitor, StartError};
pub use snapshot::{
    Clocks, Confidential, DeviceState, Ecc, GpuReading, GpuSnapshot, Memory, Mig, MigDevice,
    ProcessKind, ProcessReading, Utilization, Xid, Xids,
};
pub use state::GpuState;
