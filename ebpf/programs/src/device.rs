//! `cgroup/device`: a task is guarded from the very call that opens a GPU.
//!
//! The hook runs inside open(2) (security/device_cgroup.c
//! `devcgroup_inode_permission`), before the driver, so that the task is
//! guarded whether or not the open succeeds. access(2) on the node guards as
//! well. It sees no mknod(2): a node is nothing until it is opened.
//!
//! It denies an open when the guarding could not be recorded, and to whoever is
//! guarded the devices that send past every other hook: RDMA, NICs driven from
//! user space, tunnels. One that was opened before the group was guarded stays
//! open.

use crate::decide;
use crate::emit;
use crate::guarded::{self, Recorded, Subject};
use crate::maps::{DEVICES, GROUPS};
use crate::selected;
use aya_ebpf::bindings::{
    BPF_DEVCG_ACC_READ, BPF_DEVCG_ACC_WRITE, BPF_DEVCG_DEV_CHAR, BPF_NOEXIST,
};
use aya_ebpf::helpers::{bpf_get_current_cgroup_id, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::cgroup_device;
use aya_ebpf::programs::DeviceContext;
use merestone_abi::{
    Armed, Device, DeviceClass, EventKind, Group, Hook, LostReason, Reason, TREE_GROUP, Task,
    TaskFlags, Verdict,
};

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;

/// Guards whoever opens a GPU.
#[cgroup_device]
pub(crate) fn device(ctx: DeviceContext) -> i32 {
    // SAFETY: the context is valid; volatile, because the verifier wants each
    // field loaded whole.
    let access = unsafe { (&raw const (*ctx.device).access_type).read_volatile() };
    if access & 0xffff != BPF_DEVCG_DEV_CHAR
        || (access >> 16) & (BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE) == 0
    {
        return ALLOW;
    }
    // SAFETY: as above.
    let major = unsafe { (&raw const (*ctx.device).major).read_volatile() };
    // SAFETY: as above.
    let minor = unsafe { (&raw const (*ctx.device).minor).read_volatile() };
    let Some(class) = class_of(major, minor) else {
        return ALLOW;
    };
    let device = Device { major, minor };
    if class.is_way_out() {
        return refuse_way_out(&device, class);
    }
    if class == DeviceClass::CONTROL {
        report(Hook::DEVICE, EventKind::CONTROL, &nobody(), &device, class);
        return ALLOW;
    }
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(&ctx, "open of GPU node {}:{}", major, minor);
    guard(Hook::DEVICE, &device, class)
}

#[inline(always)]
pub(crate) fn class_of(major: u32, minor: u32) -> Option<DeviceClass> {
    let exact = Device { major, minor };
    // SAFETY: the agent only ever adds devices.
    if let Some(class) = unsafe { DEVICES.get(exact) } {
        return Some(*class);
    }
    let whole = Device {
        major,
        minor: Device::ANY_MINOR,
    };
    // SAFETY: as above.
    unsafe { DEVICES.get(whole) }.copied()
}

/// A way out is refused to the guarded, and nothing to the others.
#[inline(always)]
fn refuse_way_out(device: &Device, class: DeviceClass) -> i32 {
    let Some(subject) = guarded::current(guarded::armed()) else {
        return ALLOW;
    };
    match refuse(Hook::DEVICE, &subject, device, class) {
        Verdict::DENY => REFUSE,
        _ => ALLOW,
    }
}

/// Counts and reports the refusal of a device.
#[inline(never)]
pub(crate) fn refuse(
    hook: Hook,
    subject: &Subject,
    device: &Device,
    class: DeviceClass,
) -> Verdict {
    let decision = decide::refuse(if class == DeviceClass::DIRECT {
        Reason::RDMA
    } else {
        Reason::TUNNEL
    });
    emit::count(hook, decision.verdict, 0, subject.group, 0);
    emit::send(EventKind::FLOW, hook, subject, |event| {
        emit::describe_current(event);
        event.major = device.major;
        event.minor = device.minor;
        event.class = class;
        event.verdict = decision.verdict;
        event.reason = decision.reason;
        event.generation = decision.generation;
    });
    decision.verdict
}

#[inline(always)]
fn nobody() -> Subject {
    Subject {
        group: 0,
        tgid: 0,
        boundary: 0,
    }
}

/// Guards the calling task, which opens a GPU or is handed one. 0: it must not
/// have it, because that could not be recorded.
#[inline(always)]
pub(crate) fn guard(hook: Hook, device: &Device, class: DeviceClass) -> i32 {
    let tgid = guarded::current_tgid();
    if guarded::task(tgid).is_some() {
        return ALLOW;
    }
    if guarded::in_tree_cgroup() {
        guard_tree(hook, tgid, device, class)
    } else {
        guard_cgroup(hook, tgid, device, class)
    }
}

#[inline(always)]
fn guard_tree(hook: Hook, tgid: u32, device: &Device, class: DeviceClass) -> i32 {
    let subject = Subject {
        group: TREE_GROUP | u64::from(tgid),
        tgid,
        boundary: 0,
    };
    guarded::arm(Armed::ANY);
    match guarded::record(tgid, &task_entry(&subject, TaskFlags::TREE)) {
        Recorded::Yes => {}
        // The headroom is for children of those who are guarded already.
        Recorded::Barely => {
            guarded::forget(tgid);
            refused(hook, &subject, device, class);
            return REFUSE;
        }
        Recorded::No => {
            refused(hook, &subject, device, class);
            return REFUSE;
        }
    }
    if !selected::choose(subject.group) {
        guarded::forget(tgid);
        refused(hook, &subject, device, class);
        return REFUSE;
    }
    emit::count_group_anew(subject.group);
    report(hook, EventKind::GUARD, &subject, device, class);
    ALLOW
}

#[inline(always)]
fn guard_cgroup(hook: Hook, tgid: u32, device: &Device, class: DeviceClass) -> i32 {
    // SAFETY: the helper takes no arguments and cannot fail.
    let own = unsafe { bpf_get_current_cgroup_id() };
    let level = guarded::current_level(own);
    let mut subject = Subject {
        group: own,
        tgid,
        boundary: 0,
    };
    if let Some((group, boundary)) = guarded::current_group(guarded::armed()) {
        subject.group = group;
        subject.boundary = boundary;
        // Held by its cgroup in any case; the entry serves its children.
        guarded::record(tgid, &task_entry(&subject, 0));
        return ALLOW;
    }
    guarded::arm(Armed::ANY | Armed::level(level));
    let entry = Group {
        // SAFETY: the helper takes no arguments and cannot fail.
        since_boot_ns: unsafe { bpf_ktime_get_boot_ns() },
        tgid,
        major: device.major,
        minor: device.minor,
        boundary: 0,
        class,
        level: level as u8,
    };
    if GROUPS.insert(own, entry, u64::from(BPF_NOEXIST)).is_err() {
        if guarded::group(own).is_none() {
            emit::lost(LostReason::GROUPS_FULL);
            refused(hook, &subject, device, class);
            return REFUSE;
        }
        // Another thread was first; it reports.
        guarded::record(tgid, &task_entry(&subject, 0));
        guarded::changed();
        return ALLOW;
    }
    // After the group's own entry: the agent, which keeps these up to date,
    // looks through the groups.
    if !selected::choose(own) {
        GROUPS.remove(own).ok();
        emit::lost(LostReason::GROUPS_FULL);
        refused(hook, &subject, device, class);
        return REFUSE;
    }
    guarded::record(tgid, &task_entry(&subject, 0));
    guarded::changed();
    emit::count_group_anew(own);
    report(hook, EventKind::GUARD, &subject, device, class);
    ALLOW
}

#[inline(always)]
fn task_entry(subject: &Subject, flags: u32) -> Task {
    Task {
        group: subject.group,
        // SAFETY: the helper takes no arguments and cannot fail.
        since_boot_ns: unsafe { bpf_ktime_get_boot_ns() },
        flags: TaskFlags(flags),
        boundary: subject.boundary,
        ..Task::default()
    }
}

#[inline(never)]
fn report(hook: Hook, kind: EventKind, subject: &Subject, device: &Device, class: DeviceClass) {
    emit::send(kind, hook, subject, |event| {
        emit::describe_current(event);
        event.major = device.major;
        event.minor = device.minor;
        event.class = class;
        event.verdict = Verdict::ALLOW;
    });
}

#[inline(never)]
fn refused(hook: Hook, subject: &Subject, device: &Device, class: DeviceClass) {
    emit::send(EventKind::GUARD, hook, subject, |event| {
        emit::describe_current(event);
        event.major = device.major;
        event.minor = device.minor;
        event.class = class;
        event.verdict = Verdict::DENY;
        event.reason = Reason::NO_ROOM;
    });
}
