//! Which boundary judges a group: `[[select]]`.
//!
//! A selected cgroup has an entry from the moment it exists, because the hook
//! on its making matches its path. Whoever is guarded takes over the entry of
//! the nearest selected cgroup above, and is judged by what that entry says for
//! the generation that judges: a reload changes both at once.

use crate::guarded::Subject;
use crate::layout::{CGROUP_KN, CGROUP_ROOT, KN_ID, KN_NAME, ROOT_HIERARCHY, field};
use crate::maps::{SELECTED, SELECTORS, SETTINGS};
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use aya_ebpf::helpers::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use merestone_abi::{GENERATION_SLOTS, GroupId, MAX_LEVEL, SELECTOR_BYTES, Selected};

/// The boundary of a group, in the generation that judges now.
#[inline(always)]
pub(crate) fn boundary(subject: &Subject) -> u16 {
    let Some(settings) = SETTINGS.get(0) else {
        return 0;
    };
    let slot = settings.generation % GENERATION_SLOTS;
    let selects = u16::from_le_bytes(settings.selects);
    if selects >> (8 * slot) & 1 == 0 {
        return 0;
    }
    // SAFETY: entries are preallocated, and each is written whole.
    let Some(selected) = (unsafe { SELECTED.get(subject.group) }) else {
        return 0;
    };
    if slot == 0 {
        selected.boundary[0]
    } else {
        selected.boundary[1]
    }
}

/// Gives a group that becomes guarded the entry of the nearest selected
/// cgroup. False: there is one and it could not be taken over.
#[inline(always)]
pub(crate) fn choose(group: GroupId) -> bool {
    // SAFETY: the helper takes no arguments and cannot fail.
    let own = unsafe { bpf_get_current_cgroup_id() };
    let Some(found) = nearest(own) else {
        return true;
    };
    let entry = Selected {
        cgroup: own,
        ..*found
    };
    // An entry that is there is kept up to date by the agent.
    SELECTED
        .insert(group, entry, u64::from(BPF_NOEXIST))
        .is_ok()
        || SELECTED.get_ptr(group).is_some()
}

#[inline(always)]
fn nearest(own: u64) -> Option<&'static Selected> {
    // SAFETY: as in `boundary`.
    if let Some(found) = unsafe { SELECTED.get(own) } {
        return Some(found);
    }
    for above in 0..MAX_LEVEL {
        // SAFETY: the helper checks the level itself; 0 where there is none.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id((MAX_LEVEL - above) as i32) };
        if id == 0 {
            continue;
        }
        // SAFETY: as in `boundary`.
        if let Some(found) = unsafe { SELECTED.get(id) } {
            return Some(found);
        }
    }
    None
}

/// `cgroup_mkdir(cgrp, path)`, before anybody can see the new cgroup
/// (kernel/cgroup/cgroup.c `cgroup_mkdir`).
#[btf_tracepoint(function = "cgroup_mkdir")]
pub(crate) fn mkdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup: *const u8 = ctx.arg(0);
    let path: *const u8 = ctx.arg(1);
    // SAFETY: a cgroup.
    let root: *const u8 = unsafe { field(cgroup, &CGROUP_ROOT) };
    // SAFETY: a cgroup_root.
    let hierarchy: i32 = unsafe { field(root, &ROOT_HIERARCHY) };
    if hierarchy != 0 {
        return 0; // a cgroup v1 hierarchy
    }
    // SAFETY: a cgroup.
    let kn: *const u8 = unsafe { field(cgroup, &CGROUP_KN) };
    // SAFETY: its kernfs_node.
    let id: u64 = unsafe { field(kn, &KN_ID) };
    let mut key = [0_u8; SELECTOR_BYTES];
    if !read(&mut key, path) {
        return 0;
    }
    // SAFETY: entries are written whole by the agent.
    let mut found = unsafe { SELECTORS.get(&key) };
    if found.is_none() && is_in_slices(&key) {
        key = [0; SELECTOR_BYTES];
        // SAFETY: as above; the name is a string of the kernel's.
        let name: *const u8 = unsafe { field(kn, &KN_NAME) };
        if read(&mut key, name) {
            // SAFETY: as above.
            found = unsafe { SELECTORS.get(&key) };
        }
    }
    if let Some(numbers) = found {
        let entry = Selected {
            cgroup: id,
            boundary: [numbers[0], numbers[1]],
            reserved: 0,
        };
        // A full map leaves the cgroup to the agent's next walk; whoever opens
        // a GPU in it until then finds the map full, too, and is refused.
        SELECTED.insert(id, entry, u64::from(BPF_ANY)).ok();
    }
    0
}

/// Reads a string of the kernel's; false where it may have been cut.
#[inline(always)]
fn read(key: &mut [u8; SELECTOR_BYTES], from: *const u8) -> bool {
    // SAFETY: the helper writes at most the buffer's length and survives any
    // address.
    let length = unsafe {
        bpf_probe_read_kernel_str(key.as_mut_ptr().cast(), SELECTOR_BYTES as u32, from.cast())
    };
    length > 1 && length < SELECTOR_BYTES as i64
}

const SUFFIX: u64 = u64::from_be_bytes(*b"\0\0.slice");
const SUFFIX_MASK: u64 = (1 << 48) - 1;

/// Whether every cgroup above this one is a slice: only the system's service
/// manager makes its units there.
#[inline(always)]
fn is_in_slices(path: &[u8; SELECTOR_BYTES]) -> bool {
    let mut behind = 0_u64;
    let mut other = 0_u64;
    for i in 1..SELECTOR_BYTES {
        let byte = u64::from(path[i]);
        let ends = u64::from(byte == u64::from(b'/'));
        let differs = u64::from(behind & SUFFIX_MASK != SUFFIX);
        other |= ends & differs;
        behind = behind << 8 | byte;
    }
    other == 0
}
