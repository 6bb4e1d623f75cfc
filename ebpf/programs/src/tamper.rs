//! BPF LSM: root outside the agent cannot take enforcement away.
//!
//! Refuses, to everybody but the agent, what would detach, unpin, unmount or
//! rewrite what holds, and what would end, stop or debug the agent. When the
//! agent has ended, a process that runs the agent's own executable, and that
//! nobody debugs, may take over. An open break-glass lets an operator in;
//! that is reported no less.
//!
//! It does not judge what the kernel does of itself (the OOM killer), a move of
//! the agent to another cgroup, which no hook sees, nor what code in the kernel
//! can do (a module).

use crate::emit;
use crate::guarded::{self, Subject};
use crate::layout::{
    AUX_ID, BPRM_FILE, DENTRY_INODE, FDT_FD, FILE_INODE, FILE_PRIVATE, FILES_FDT, INODE_INO,
    INODE_SB, LINK_ID, MAP_ID, MM_EXE_FILE, MOUNT_GROUP, MOUNT_ID, MOUNT_MNT, PATH_DENTRY,
    PATH_MNT, PROC_INODE, PROC_SYSCTL, PROG_AUX, SB_DEV, SB_MAGIC, TABLE_NAME, TASK_FILES, TASK_MM,
    TASK_PTRACE, TASK_REAL_PARENT, TASK_TGID, VFSMOUNT_SB, field,
};
use crate::maps::{AGENT, COUNTERS, GLASS, PROTECTED};
use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use aya_ebpf::helpers::{bpf_ktime_get_boot_ns, bpf_probe_read_kernel};
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use merestone_abi::{
    AgentState, Attempt, EventKind, Glass, Hook, Protected, Reason, Verdict, counter_slot,
};

const EPERM: i32 = -1;
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
/// include/linux/fs.h
const MAY_WRITE: i32 = 2;
// include/uapi/linux/magic.h
const CGROUP2_MAGIC: u64 = 0x6367_7270;
const PROC_MAGIC: u64 = 0x9fa0;
/// include/linux/ptrace.h
const PTRACE_MODE_ATTACH: u32 = 2;

// include/uapi/asm-generic/signal.h
const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGABRT: i32 = 6;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;
const SIGCONT: i32 = 18;
const SIGURG: i32 = 23;
const SIGWINCH: i32 = 28;

/// One attempt on something protected.
#[derive(Clone, Copy)]
struct Try {
    hook: Hook,
    attempt: Attempt,
    /// The bit of an open break-glass that lets it through.
    action: u32,
    /// The object's number.
    id: u32,
    /// The process it is aimed at.
    target: u32,
}

/// The agent's entry, where anything is protected at all.
#[inline(always)]
fn armed() -> Option<&'static AgentState> {
    AGENT.get(0).filter(|agent| agent.armed != 0)
}

#[inline(always)]
fn is_protected(kind: u32, id: u64) -> bool {
    // SAFETY: the value is not read.
    unsafe { PROTECTED.get(Protected::new(kind, id)) }.is_some()
}

/// Judges an attempt of the calling task.
#[inline(never)]
fn judge(attempt: &Try) -> i32 {
    let Some(agent) = armed() else {
        return 0;
    };
    let tgid = guarded::current_tgid();
    if tgid == agent.tgid {
        return 0;
    }
    let is_gone = agent.tgid == 0;
    if is_gone && is_successor(agent) {
        return 0;
    }
    let mut actions = attempt.action;
    if is_gone {
        actions |= Glass::SUCCEED;
    }
    let verdict = if is_open(actions) {
        Verdict::ALLOW
    } else {
        Verdict::DENY
    };
    report(attempt, verdict, tgid);
    if verdict == Verdict::ALLOW { 0 } else { EPERM }
}

/// Whether a break-glass is open for one of `actions`, by the kernel's clock.
#[inline(always)]
fn is_open(actions: u32) -> bool {
    // SAFETY: the helper takes no arguments and cannot fail.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    GLASS
        .get(0)
        .is_some_and(|glass| glass.actions & actions != 0 && now < glass.until_boot_ns)
}

#[inline(always)]
fn report(attempt: &Try, verdict: Verdict, tgid: u32) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter_slot(attempt.hook, verdict, 0)) {
        emit::add(slot, 1);
    }
    let subject = Subject {
        group: 0,
        tgid,
        boundary: 0,
    };
    emit::send(EventKind::TAMPER, attempt.hook, &subject, |event| {
        emit::describe_current(event);
        event.other = attempt.target;
        event.major = u32::from(attempt.attempt.0);
        event.minor = attempt.id;
        event.verdict = verdict;
        event.reason = Reason::TAMPER;
    });
}

/// The file system and inode number of an inode.
#[inline(always)]
fn place(inode: *const u8) -> (u32, u64) {
    if inode.is_null() {
        return (0, 0);
    }
    // SAFETY: an inode.
    let sb: *const u8 = unsafe { field(inode, &INODE_SB) };
    // SAFETY: as above.
    let ino: u64 = unsafe { field(inode, &INODE_INO) };
    if sb.is_null() {
        return (0, 0);
    }
    // SAFETY: a super_block.
    (unsafe { field(sb, &SB_DEV) }, ino)
}

/// Where a task's executable lies.
#[inline(always)]
fn executable(task: *const u8) -> (u32, u64) {
    // SAFETY: a task_struct.
    let mm: *const u8 = unsafe { field(task, &TASK_MM) };
    if mm.is_null() {
        return (0, 0);
    }
    // SAFETY: an mm_struct.
    let file: *const u8 = unsafe { field(mm, &MM_EXE_FILE) };
    if file.is_null() {
        return (0, 0);
    }
    // SAFETY: a file.
    place(unsafe { field(file, &FILE_INODE) })
}

#[inline(always)]
fn is_agents(agent: &AgentState, (dev, ino): (u32, u64)) -> bool {
    ino != 0 && ino == agent.exe_ino && dev == agent.exe_dev
}

#[inline(always)]
fn current_task() -> *const u8 {
    // SAFETY: the helper takes no arguments; it gives the current task.
    unsafe { bpf_get_current_task_btf() }.cast::<u8>()
}

/// Whether the calling task may take over from an agent that has ended: it
/// runs the agent's executable, and nobody debugs it.
#[inline(always)]
fn is_successor(agent: &AgentState) -> bool {
    let task = current_task();
    // SAFETY: a task_struct.
    let traced: u32 = unsafe { field(task, &TASK_PTRACE) };
    traced == 0 && is_agents(agent, executable(task))
}

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
fn introduce() {
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

/// `task_kill(p, info, sig, cred)`. What the kernel itself sends does not come
/// here (kernel/signal.c `check_kill_permission`).
#[lsm(hook = "task_kill")]
pub(crate) fn tamper_kill(ctx: LsmContext) -> i32 {
    let Some(agent) = armed() else {
        return 0;
    };
    let task: *const u8 = ctx.arg(0);
    // SAFETY: a task_struct.
    let target: u32 = unsafe { field(task, &TASK_TGID) };
    if target != agent.tgid {
        return 0;
    }
    let signal: i32 = ctx.arg(2);
    match signal {
        0 | SIGHUP | SIGCHLD | SIGCONT | SIGURG | SIGWINCH => return 0,
        // An orderly stop, and the watchdog's: from the service manager.
        SIGTERM | SIGINT | SIGABRT if is_service_manager(task) => return 0,
        _ => {}
    }
    judge(&Try {
        hook: Hook::LSM_KILL,
        attempt: Attempt::KILL,
        action: Glass::SIGNAL,
        id: signal as u32,
        target,
    })
}

/// Whether the calling task is pid 1, or the process that started `task`.
#[inline(always)]
fn is_service_manager(task: *const u8) -> bool {
    let caller = guarded::current_tgid();
    // SAFETY: a task_struct.
    let parent: *const u8 = unsafe { field(task, &TASK_REAL_PARENT) };
    if caller == 1 {
        return true;
    }
    if parent.is_null() {
        return false;
    }
    // SAFETY: a task_struct.
    let parent: u32 = unsafe { field(parent, &TASK_TGID) };
    caller == parent
}

/// `task_setrlimit(p, resource, new_rlim)`: a limit on processor time kills.
#[lsm(hook = "task_setrlimit")]
pub(crate) fn tamper_limit(ctx: LsmContext) -> i32 {
    let Some(agent) = armed() else {
        return 0;
    };
    let task: *const u8 = ctx.arg(0);
    // SAFETY: a task_struct.
    let target: u32 = unsafe { field(task, &TASK_TGID) };
    if target != agent.tgid {
        return 0;
    }
    let resource: u32 = ctx.arg(1);
    judge(&Try {
        hook: Hook::LSM_KILL,
        attempt: Attempt::LIMIT,
        action: Glass::SIGNAL,
        id: resource,
        target,
    })
}

/// `ptrace_access_check(child, mode)`: also `/proc/PID/mem`,
/// `process_vm_writev` and `pidfd_getfd`. Whoever runs the agent's executable
/// is kept from it, because it may be the next agent.
#[lsm(hook = "ptrace_access_check")]
pub(crate) fn tamper_trace(ctx: LsmContext) -> i32 {
    let mode: u32 = ctx.arg(1);
    if mode & PTRACE_MODE_ATTACH == 0 {
        return 0;
    }
    let Some(agent) = armed() else {
        return 0;
    };
    let task: *const u8 = ctx.arg(0);
    // SAFETY: a task_struct.
    let target: u32 = unsafe { field(task, &TASK_TGID) };
    if target != agent.tgid && !is_agents(agent, executable(task)) {
        return 0;
    }
    judge(&Try {
        hook: Hook::LSM_PTRACE,
        attempt: Attempt::TRACE,
        action: Glass::TRACE,
        id: mode,
        target,
    })
}

/// `bprm_check_security(bprm)`: who is debugged cannot become the agent.
#[lsm(hook = "bprm_check_security")]
pub(crate) fn tamper_exec(ctx: LsmContext) -> i32 {
    let Some(agent) = armed() else {
        return 0;
    };
    // SAFETY: the current task.
    let traced: u32 = unsafe { field(current_task(), &TASK_PTRACE) };
    if traced == 0 {
        return 0;
    }
    let bprm: *const u8 = ctx.arg(0);
    // SAFETY: a linux_binprm.
    let file: *const u8 = unsafe { field(bprm, &BPRM_FILE) };
    // SAFETY: a file.
    if file.is_null() || !is_agents(agent, place(unsafe { field(file, &FILE_INODE) })) {
        return 0;
    }
    judge(&Try {
        hook: Hook::LSM_PTRACE,
        attempt: Attempt::TRACE,
        action: Glass::TRACE,
        id: 0,
        target: guarded::current_tgid(),
    })
}

/// `inode_permission(inode, mask)`: to open a pin, to change what lies in its
/// directory, to write the agent's executable in place, and to write the few
/// files through which the kernel would take the agent or its hooks away.
#[lsm(hook = "inode_permission")]
pub(crate) fn tamper_inode(ctx: LsmContext) -> i32 {
    let mask: i32 = ctx.arg(1);
    if mask & MAY_WRITE == 0 {
        return 0;
    }
    let Some(agent) = armed() else {
        return 0;
    };
    let inode: *const u8 = ctx.arg(0);
    let at = place(inode);
    let (attempt, action) = if is_agents(agent, at) {
        (Attempt::EXECUTABLE, Glass::SUCCEED)
    } else if at.0 != agent.pin_dev {
        match control_file(inode, at.1) {
            Some(known) => known,
            None => return 0,
        }
    } else if is_protected(Protected::FOLDER, at.1) {
        (Attempt::UNPIN, Glass::PINS)
    } else if is_protected(Protected::PIN, at.1) {
        (Attempt::PIN_OPEN, Glass::PINS)
    } else {
        return 0;
    };
    judge(&Try {
        hook: Hook::LSM_INODE,
        attempt,
        action,
        id: at.1 as u32,
        target: 0,
    })
}

/// Whether it is a file that controls the agent's cgroup or the kernel's hooks.
/// Which mount it is reached through does not matter.
#[inline(always)]
fn control_file(inode: *const u8, ino: u64) -> Option<(Attempt, u32)> {
    // SAFETY: an inode.
    let sb: *const u8 = unsafe { field(inode, &INODE_SB) };
    if sb.is_null() {
        return None;
    }
    // SAFETY: a super_block.
    let magic: u64 = unsafe { field(sb, &SB_MAGIC) };
    if magic == CGROUP2_MAGIC {
        let is_limit = is_protected(Protected::CGROUP_LIMIT, ino) && guarded::current_tgid() != 1;
        if is_limit || is_protected(Protected::CGROUP_FILE, ino) {
            return Some((Attempt::CGROUP, Glass::SIGNAL));
        }
    } else if magic == PROC_MAGIC
        && (is_protected(Protected::PROC_FILE, ino) || is_ftrace_switch(inode))
    {
        return Some((Attempt::KERNEL, Glass::KERNEL));
    }
    None
}

/// Whether a file of procfs is `kernel.ftrace_enabled`, which takes every
/// program off LSM hooks (kernel/trace/ftrace.c `ftrace_enable_sysctl`).
#[inline(always)]
fn is_ftrace_switch(inode: *const u8) -> bool {
    const NAME: [u8; 15] = *b"ftrace_enabled\0";
    let read = |at: u64| -> u64 {
        // SAFETY: the helper survives any address.
        unsafe { bpf_probe_read_kernel(at as *const u64) }.unwrap_or(0)
    };
    let outer = (inode as u64).wrapping_sub(u64::from(PROC_INODE.load()));
    let table = read(outer.wrapping_add(u64::from(PROC_SYSCTL.load())));
    if table == 0 {
        return false;
    }
    let name = read(table.wrapping_add(u64::from(TABLE_NAME.load())));
    // SAFETY: as above.
    let name = unsafe { bpf_probe_read_kernel(name as *const [u8; 15]) };
    name.is_ok_and(|name| name == NAME)
}

/// `locked_down(what)`: what the kernel itself calls a way to change it.
#[lsm(hook = "locked_down")]
pub(crate) fn tamper_lockdown(ctx: LsmContext) -> i32 {
    if armed().is_none() {
        return 0;
    }
    let what: u32 = ctx.arg(0);
    if !is_protected(Protected::REASON, u64::from(what)) {
        return 0;
    }
    judge(&Try {
        hook: Hook::LSM_INODE,
        attempt: Attempt::KERNEL,
        action: Glass::KERNEL,
        id: what,
        target: 0,
    })
}

/// `inode_rename(old_dir, old_dentry, new_dir, new_dentry)`: the directory of
/// pins itself, whose parent is not the agent's.
#[lsm(hook = "inode_rename")]
pub(crate) fn tamper_rename(ctx: LsmContext) -> i32 {
    let Some(agent) = armed() else {
        return 0;
    };
    let dentry: *const u8 = ctx.arg(1);
    // SAFETY: a dentry.
    let (dev, ino) = place(unsafe { field(dentry, &DENTRY_INODE) });
    if dev != agent.pin_dev || !is_protected(Protected::FOLDER, ino) {
        return 0;
    }
    judge(&Try {
        hook: Hook::LSM_INODE,
        attempt: Attempt::UNPIN,
        action: Glass::PINS,
        id: ino as u32,
        target: 0,
    })
}

/// The id of a mount that the pins are reached through; 0 for any other.
#[inline(always)]
fn protected_mount(mount: *const u8) -> u32 {
    let outer = (mount as u64).wrapping_sub(u64::from(MOUNT_MNT.load()));
    let read = |offset: u32| -> u32 {
        let at = outer.wrapping_add(u64::from(offset)) as *const u32;
        // SAFETY: the helper survives any address.
        unsafe { bpf_probe_read_kernel(at) }.unwrap_or(0)
    };
    let id = read(MOUNT_ID.load());
    let peers = read(MOUNT_GROUP.load());
    let by_peers = peers != 0 && is_protected(Protected::PEERS, u64::from(peers));
    if by_peers || is_protected(Protected::MOUNT, u64::from(id)) {
        id
    } else {
        0
    }
}

/// `sb_umount(mnt, flags)`: the last mount of a bpf file system takes the pins
/// with it (kernel/bpf/inode.c `bpf_free_inode`).
#[lsm(hook = "sb_umount")]
pub(crate) fn tamper_umount(ctx: LsmContext) -> i32 {
    if armed().is_none() {
        return 0;
    }
    let id = protected_mount(ctx.arg(0));
    if id == 0 {
        return 0;
    }
    judge(&Try {
        hook: Hook::LSM_MOUNT,
        attempt: Attempt::UNMOUNT,
        action: Glass::MOUNT,
        id,
        target: 0,
    })
}

/// `sb_mount(dev_name, path, type, flags, data)`.
#[lsm(hook = "sb_mount")]
pub(crate) fn tamper_mount(ctx: LsmContext) -> i32 {
    mount_over(ctx.arg(1))
}

/// `move_mount(from_path, to_path)`, of the new mount interface.
#[lsm(hook = "move_mount")]
pub(crate) fn tamper_move(ctx: LsmContext) -> i32 {
    if armed().is_none() {
        return 0;
    }
    let from: *const u8 = ctx.arg(0);
    // SAFETY: a path.
    let id = protected_mount(unsafe { field(from, &PATH_MNT) });
    if id != 0 {
        return judge(&Try {
            hook: Hook::LSM_MOUNT,
            attempt: Attempt::UNMOUNT,
            action: Glass::MOUNT,
            id,
            target: 0,
        });
    }
    mount_over(ctx.arg(1))
}

#[inline(always)]
fn mount_over(path: *const u8) -> i32 {
    let Some(agent) = armed() else {
        return 0;
    };
    // SAFETY: a path.
    let mount: *const u8 = unsafe { field(path, &PATH_MNT) };
    // SAFETY: its vfsmount.
    let sb: *const u8 = unsafe { field(mount, &VFSMOUNT_SB) };
    // SAFETY: its super_block.
    let dev: u32 = unsafe { field(sb, &SB_DEV) };
    // SAFETY: a path.
    let dentry: *const u8 = unsafe { field(path, &PATH_DENTRY) };
    // SAFETY: a dentry.
    let (_, ino) = place(unsafe { field(dentry, &DENTRY_INODE) });
    let is_cover = if dev == agent.pin_dev {
        is_protected(Protected::COVER, ino)
    } else {
        is_protected(Protected::PLACE, Protected::place(dev, ino))
    };
    if !is_cover {
        return 0;
    }
    judge(&Try {
        hook: Hook::LSM_MOUNT,
        attempt: Attempt::MOUNT_OVER,
        action: Glass::MOUNT,
        id: ino as u32,
        target: 0,
    })
}
