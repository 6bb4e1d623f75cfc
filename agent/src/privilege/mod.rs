//! What the agent may do, what it needs, and what it gives up.
//!
//! Everything is checked before anything is attached, and each refusal is one
//! line that says what to do. It never raises a privilege, and it never goes
//! on with less than was asked for.

mod capability;
mod mounts;

pub use capability::{
    Capabilities, Capability, CapabilityError, Dropped, drop_to, effective,
    require_root_capabilities, wanted,
};
pub use mounts::{MountError, bpffs, cgroup_root};
