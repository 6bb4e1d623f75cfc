//! Counting and reporting.
//!
//! Counters are exact: per CPU, and atomic, because a softirq may interrupt a
//! process in the same hook on the same CPU. Events are best effort: a full
//! ring costs the event, which is counted, and nothing else.

use crate::guarded::Subject;
use crate::maps::{ARMED, COUNTERS, EVENTS, FAST_COUNTS, FAST_SLOTS, GROUP_COUNTS, LOST};
use aya_ebpf::bindings::{
    BPF_NOEXIST, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE,
};
use aya_ebpf::helpers::generated::bpf_get_current_comm;
use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns,
};
use core::arch::asm;
use merestone_abi::{
    Armed, Event, EventKind, GroupCount, GroupId, Hook, LostReason, Verdict, counter_slot, maps,
};

/// Adds to a map value that other CPUs and interrupts may add to.
#[inline(always)]
pub(crate) fn add(slot: *mut u64, amount: u64) {
    // `core` has no read-modify-write atomics for this target.
    // SAFETY: `slot` is a map value the verifier has checked; it is 8-aligned.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) slot, in(reg) amount) };
}

/// Sets bits of a map value that other CPUs may set bits of.
#[inline(always)]
pub(crate) fn set_bits(slot: *mut u64, bits: u64) {
    // SAFETY: as in `add`. The instruction is of Linux 5.12.
    unsafe { asm!("lock *(u64 *)({0} + 0) |= {1}", in(reg) slot, in(reg) bits) };
}

/// Sets bits and returns what was there before. A full barrier, like every
/// instruction of its kind that fetches (Documentation/bpf/standardization/
/// instruction-set.rst, "Atomic operations").
#[inline(always)]
pub(crate) fn fetch_or(slot: *mut u64, bits: u64) -> u64 {
    let mut value = bits;
    // SAFETY: as in `add`.
    unsafe { asm!("{1} = atomic_fetch_or((u64 *)({0} + 0), {1})", in(reg) slot, inout(reg) value) };
    value
}

/// Adds and returns what was there before. A full barrier.
#[inline(always)]
pub(crate) fn fetch_add(slot: *mut u64, amount: u64) -> u64 {
    let mut value = amount;
    // SAFETY: as in `add`.
    unsafe {
        asm!("{1} = atomic_fetch_add((u64 *)({0} + 0), {1})", in(reg) slot, inout(reg) value)
    };
    value
}

/// What was read before stays before what is read after.
#[inline(always)]
pub(crate) fn fence() {
    let mut nothing = 0_u64;
    fetch_add(&raw mut nothing, 0);
}

/// Counts something that was lost.
#[inline(always)]
pub(crate) fn lost(reason: LostReason) {
    if let Some(slot) = LOST.get_ptr_mut(reason.0) {
        add(slot, 1);
    }
}

/// Counts one decision, in the totals and for its group.
#[inline(always)]
pub(crate) fn count(hook: Hook, verdict: Verdict, protocol: u8, group: GroupId, bytes: u32) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter_slot(hook, verdict, protocol)) {
        add(slot, 1);
    }
    if verdict == Verdict::ALLOW && hook != Hook::EGRESS {
        return; // a group's packets are counted where they leave
    }
    let counts = match GROUP_COUNTS.get_ptr_mut(group) {
        Some(counts) => counts,
        None => {
            count_group_anew(group);
            let Some(counts) = GROUP_COUNTS.get_ptr_mut(group) else {
                return;
            };
            counts
        }
    };
    // SAFETY: `counts` points at a map value; only its fields' addresses are
    // taken.
    let (allowed, allowed_bytes, denied, audited) = unsafe {
        (
            &raw mut (*counts).allowed,
            &raw mut (*counts).allowed_bytes,
            &raw mut (*counts).denied,
            &raw mut (*counts).audited,
        )
    };
    if verdict == Verdict::DENY {
        add(denied, 1);
    } else {
        if verdict == Verdict::AUDIT {
            add(audited, 1);
        }
        if hook == Hook::EGRESS {
            add(allowed, 1);
            add(allowed_bytes, u64::from(bytes));
        }
    }
}

/// Where packets of a group are counted that a remembered verdict lets through;
/// [`maps::MAX_FAST`] when all places are taken.
#[inline(never)]
pub(crate) fn fast_slot(group: GroupId) -> u32 {
    // SAFETY: entries are written once and never removed.
    if let Some(slot) = unsafe { FAST_SLOTS.get(group) } {
        return *slot;
    }
    let Some(given) = ARMED.get_ptr_mut(Armed::COUNTED) else {
        return maps::MAX_FAST;
    };
    // SAFETY: a map value.
    if unsafe { given.read_volatile() } >= u64::from(maps::MAX_FAST) {
        return maps::MAX_FAST;
    }
    let slot = fetch_add(given, 1) as u32;
    if slot < maps::MAX_FAST
        && FAST_SLOTS
            .insert(group, slot, u64::from(BPF_NOEXIST))
            .is_ok()
    {
        return slot;
    }
    // Another CPU was first: the place stays empty.
    // SAFETY: as above.
    unsafe { FAST_SLOTS.get(group) }
        .copied()
        .unwrap_or(maps::MAX_FAST)
}

/// Counts a packet that a remembered verdict lets through. False: it cannot be.
#[inline(always)]
pub(crate) fn count_fast(slot: u32, is_tcp: bool, bytes: u32) -> bool {
    let Some(counts) = FAST_COUNTS.get_ptr_mut(slot) else {
        return false;
    };
    // SAFETY: `counts` points at a map value; only its fields' addresses are
    // taken.
    let (tcp, udp, total) = unsafe {
        (
            &raw mut (*counts).tcp,
            &raw mut (*counts).udp,
            &raw mut (*counts).bytes,
        )
    };
    add(if is_tcp { tcp } else { udp }, 1);
    add(total, u64::from(bytes));
    true
}

/// Makes room for a group's counts; counts the loss when there is none.
#[inline(never)]
pub(crate) fn count_group_anew(group: GroupId) {
    let zero = GroupCount::default();
    if GROUP_COUNTS
        .insert(group, zero, u64::from(BPF_NOEXIST))
        .is_err()
        && GROUP_COUNTS.get_ptr(group).is_none()
    {
        lost(LostReason::COUNTS_FULL);
    }
}

/// Fills in an event and hands it to the agent, or counts its loss. Filled in
/// place: a program has 512 bytes of stack.
#[inline(always)]
pub(crate) fn send(kind: EventKind, hook: Hook, subject: &Subject, fill: impl FnOnce(&mut Event)) {
    let Some(mut slot) = EVENTS.reserve::<Event>(0) else {
        return lost(LostReason::RING_FULL);
    };
    let event = slot.write(Event::default());
    // SAFETY: the helper takes no arguments and cannot fail.
    event.boot_ns = unsafe { bpf_ktime_get_boot_ns() };
    event.group = subject.group;
    event.tgid = subject.tgid;
    event.kind = kind;
    event.hook = hook;
    fill(event);
    let flags = wake(event);
    slot.submit(flags);
}

/// What is allowed wakes nobody while there is room: the agent looks by itself
/// ten times a second, and a wake-up costs a connection more than its verdict.
/// Everything else is told at once, also when it comes behind such an event.
#[inline(always)]
fn wake(event: &Event) -> u64 {
    let is_told_often = event.kind == EventKind::FLOW || event.kind == EventKind::DEPUTY;
    let is_quiet = is_told_often && event.verdict == Verdict::ALLOW;
    if is_quiet
        && EVENTS.query(u64::from(BPF_RB_AVAIL_DATA))
            < EVENTS.query(u64::from(BPF_RB_RING_SIZE)) / 8
    {
        u64::from(BPF_RB_NO_WAKEUP)
    } else {
        u64::from(BPF_RB_FORCE_WAKEUP)
    }
}

/// Adds the calling task, where the hook runs in its context.
#[inline(always)]
pub(crate) fn describe_current(event: &mut Event) {
    let id = bpf_get_current_pid_tgid();
    event.tgid = (id >> 32) as u32;
    event.pid = id as u32;
    // SAFETY: the helper takes no arguments and cannot fail.
    event.cgroup = unsafe { bpf_get_current_cgroup_id() };
    // SAFETY: the helper writes 16 bytes, NUL padded, or zeros.
    unsafe { bpf_get_current_comm(event.comm.as_mut_ptr().cast(), 16) };
}
