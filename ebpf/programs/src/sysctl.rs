//! `cgroup/sysctl`: no guarded process writes a setting of the kernel.
//!
//! Some have the kernel run a program as root outside every group
//! (`kernel.core_pattern`, `kernel.modprobe`), others have it forward packets
//! that pass no socket. An inference server writes none, so all are refused
//! and none is known by name. Reading is free. It sees /proc/sys alone.

use crate::guarded;
use crate::power;
use aya_ebpf::macros::cgroup_sysctl;
use aya_ebpf::programs::SysctlContext;
use merestone_abi::{Hook, Reason, Verdict};

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;

/// Judges access to a sysctl.
#[cgroup_sysctl]
pub(crate) fn sysctl(ctx: SysctlContext) -> i32 {
    // SAFETY: the context is valid; volatile, because the verifier wants the
    // field loaded whole.
    if unsafe { (&raw const (*ctx.sysctl).write).read_volatile() } == 0 {
        return ALLOW;
    }
    let Some(subject) = guarded::current(guarded::armed()) else {
        return ALLOW;
    };
    match power::refuse(Hook::SYSCTL, Reason::KERNEL, &subject, 0) {
        Verdict::DENY => REFUSE,
        _ => ALLOW,
    }
}
