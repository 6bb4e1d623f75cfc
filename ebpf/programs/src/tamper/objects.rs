//! Links, programs and maps: nobody but the agent gets a descriptor of its own,
//! or loads what would answer in a hook's place.

use super::{Try, armed, current_task, executable, is_protected, judge};
use crate::decide::EPERM;
use crate::guarded;
use crate::layout::{
    AUX_ID, FDT_FD, FILE_PRIVATE, FILES_FDT, LINK_ID, MAP_ID, PROG_AUX, TASK_FILES, field,
};
use crate::maps::AGENT;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use merestone_abi::{Attempt, Glass, Hook, Protected};

const EAGAIN: i32 = -11;

// include/uapi/linux/bpf.h, enum bpf_cmd
const BPF_PROG_LOAD: i32 = 5;
const BPF_LINK_UPDATE: i32 = 29;
const BPF_LINK_GET_FD_BY_ID: i32 = 30;
const BPF_LINK_DETACH: i32 = 34;
// include/uapi/linux/bpf.h, enum bpf_prog_type and bpf_attach_type
const PROG_TYPE_TRACING: u32 = 26;
const PROG_TYPE_LSM: u32 = 29;
const MODIFY_RETURN: u32 = 26;
// Words of `union bpf_attr` for BPF_PROG_LOAD.
const ATTACHED: usize = 17;
const ATTACH_ID: usize = 27;

/// `bpf(cmd, attr, size, ..)`, before anything of the call is done.
#[lsm(hook = "bpf")]
pub(crate) fn tamper_bpf(ctx: LsmContext) -> i32 {
    let command: i32 = ctx.arg(0);
    introduce();
    if command == BPF_PROG_LOAD {
        return new_program(ctx.arg(1));
    }
    let (attempt, by_id) = match command {
        BPF_LINK_DETACH => (Attempt::DETACH, false),
        BPF_LINK_UPDATE => (Attempt::REPLACE, false),
        BPF_LINK_GET_FD_BY_ID => (Attempt::LINK_FD, true),
        _ => return 0,
    };
    if armed().is_none() {
        return 0;
    }
    let attr: *const u32 = ctx.arg(1);
    // SAFETY: the helper survives any address; all three commands begin with
    // the link, as a descriptor or as an id.
    let Ok(first) = (unsafe { bpf_probe_read_kernel(attr) }) else {
        return EPERM;
    };
    let link = if by_id { first } else { link_behind(first) };
    if !is_protected(Protected::LINK, u64::from(link)) {
        return if by_id { unless_made_now() } else { 0 };
    }
    judge(&Try {
        hook: Hook::LSM_BPF,
        attempt,
        action: Glass::BPF,
        id: link,
        target: 0,
    })
}

/// While the agent makes a link, nobody but the agent may ask for one by its
/// id: until the agent knows it, it may be that one.
#[inline(always)]
fn unless_made_now() -> i32 {
    let is_agent = armed().is_some_and(|agent| agent.tgid == guarded::current_tgid());
    if is_agent || !is_protected(Protected::LINK, Protected::ANY) {
        0
    } else {
        EAGAIN
    }
}

/// `BPF_PROG_LOAD`. A program that changes what a function returns runs before
/// the hooks in it, and one that is put on an LSM hook later runs before ours
/// (kernel/bpf/trampoline.c `__bpf_trampoline_link_prog`): what it returns, if
/// it is not 0, is the answer, and a positive one passes for a yes.
#[inline(always)]
fn new_program(attr: *const u32) -> i32 {
    if armed().is_none() {
        return 0;
    }
    let word = |index: usize| -> u32 {
        // SAFETY: the helper survives any address.
        unsafe { bpf_probe_read_kernel(attr.wrapping_add(index)) }.unwrap_or(0)
    };
    let protected = match word(0) {
        PROG_TYPE_TRACING if word(ATTACHED) == MODIFY_RETURN => Protected::FUNCTION,
        PROG_TYPE_LSM => Protected::LSM_FUNCTION,
        _ => return 0,
    };
    let function = word(ATTACH_ID);
    if !is_protected(protected, u64::from(function)) {
        return 0;
    }
    judge(&Try {
        hook: Hook::LSM_BPF,
        attempt: Attempt::OVERRIDE,
        action: Glass::BPF,
        id: function,
        target: 0,
    })
}

/// Writes down where the agent's executable lies, when it has just said who
/// it is: only the kernel knows that file by the numbers it will see again.
#[inline(always)]
pub(crate) fn introduce() {
    let Some(agent) = AGENT.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a map value.
    let (tgid, ino) = unsafe { ((*agent).tgid, (*agent).exe_ino) };
    if ino != 0 || tgid == 0 || tgid != guarded::current_tgid() {
        return;
    }
    let (dev, ino) = executable(current_task());
    // SAFETY: as above.
    unsafe { (*agent).exe_dev = dev };
    // SAFETY: as above.
    unsafe { (*agent).exe_ino = ino };
}

/// The id of the link behind a descriptor of the calling task; some other
/// number, or 0, where it is no link. A second thread may exchange the
/// descriptor meanwhile: that no stranger gets one is what holds.
#[inline(always)]
fn link_behind(fd: u32) -> u32 {
    // SAFETY: the current task.
    let files: *const u8 = unsafe { field(current_task(), &TASK_FILES) };
    if files.is_null() {
        return 0;
    }
    // SAFETY: a files_struct.
    let table: *const u8 = unsafe { field(files, &FILES_FDT) };
    if table.is_null() {
        return 0;
    }
    // SAFETY: an fdtable.
    let array: u64 = unsafe { field(table, &FDT_FD) };
    let read = |at: u64| -> u64 {
        // SAFETY: the helper survives any address.
        unsafe { bpf_probe_read_kernel(at as *const u64) }.unwrap_or(0)
    };
    let file = read(array.wrapping_add(8 * u64::from(fd)));
    let private = read(file.wrapping_add(u64::from(FILE_PRIVATE.load())));
    let at = private.wrapping_add(u64::from(LINK_ID.load())) as *const u32;
    // SAFETY: as above.
    unsafe { bpf_probe_read_kernel(at) }.unwrap_or(0)
}

/// `bpf_map(map, fmode)`: before a descriptor of a map is handed out. One to
/// read is no less: a program that is loaded with it may write
/// (kernel/bpf/verifier.c `resolve_pseudo_ldimm64` does not ask).
#[lsm(hook = "bpf_map")]
pub(crate) fn tamper_map(ctx: LsmContext) -> i32 {
    if armed().is_none() {
        return 0;
    }
    let map: *const u8 = ctx.arg(0);
    // SAFETY: a bpf_map.
    let id: u32 = unsafe { field(map, &MAP_ID) };
    if !is_protected(Protected::MAP, u64::from(id)) {
        return 0;
    }
    judge(&Try {
        hook: Hook::LSM_BPF,
        attempt: Attempt::MAP_FD,
        action: Glass::BPF,
        id,
        target: 0,
    })
}

/// `bpf_prog(prog)`: before a descriptor of a program is handed out.
#[lsm(hook = "bpf_prog")]
pub(crate) fn tamper_program(ctx: LsmContext) -> i32 {
    if armed().is_none() {
        return 0;
    }
    let program: *const u8 = ctx.arg(0);
    // SAFETY: a bpf_prog.
    let aux: *const u8 = unsafe { field(program, &PROG_AUX) };
    // SAFETY: its bpf_prog_aux.
    let id: u32 = unsafe { field(aux, &AUX_ID) };
    if !is_protected(Protected::PROGRAM, u64::from(id)) {
        return 0;
    }
    judge(&Try {
        hook: Hook::LSM_BPF,
        attempt: Attempt::PROGRAM_FD,
        action: Glass::BPF,
        id,
        target: 0,
    })
}
