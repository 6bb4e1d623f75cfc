//! The hooks: loading, attaching, pinning.
//!
//! A restart puts the new program behind the link that is there, in one step:
//! at no moment is a hook empty, and none judges and counts a packet twice.
//! Links that cannot do that (of tracing and LSM programs) are made anew and
//! pinned over the old ones, which go only then.

use super::KernelError;
use super::error::innermost;
use super::fields::{self, Fields};
use super::layout::Layout;
use super::sys::{self, AttachType};
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError};
use aya::{Btf, Ebpf};
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A set of hooks that is claimed as a whole or not at all.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum TierKind {
    /// The cgroup hooks; without them there is no enforcement.
    Cgroup,
    /// fork, exec, exit, and moves between cgroups.
    Lineage,
    /// BPF LSM.
    Lsm,
    /// Every network link.
    Link,
    /// Kills for a forbidden family; only where it is asked for.
    Kill,
    /// What learns the addresses of names; without it a boundary names none.
    Names,
    /// What follows requests and answers; without it there are no records.
    Records,
    /// BPF LSM again: what keeps root from taking enforcement away.
    Tamper,
}

impl TierKind {
    pub(super) const ALL: [Self; 8] = [
        Self::Cgroup,
        Self::Lineage,
        Self::Lsm,
        Self::Link,
        Self::Kill,
        Self::Names,
        Self::Records,
        Self::Tamper,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Lineage => "lineage",
            Self::Lsm => "lsm",
            Self::Link => "link",
            Self::Kill => "kill",
            Self::Names => "names",
            Self::Records => "records",
            Self::Tamper => "tamper",
        }
    }
}

/// One program of the object.
#[derive(Clone, Copy, Debug)]
pub(super) struct HookKind {
    /// The function in the object, and the name of the pin.
    pub(super) program: &'static str,
    /// As users see it.
    pub(super) shown: &'static str,
    pub(super) tier: TierKind,
    /// The tracepoint or LSM hook it attaches to; none for cgroup hooks.
    target: Option<&'static str>,
    /// Globals it cannot do without.
    needs: Fields,
}

/// A hook of cgroups or links, which aya or the kernel's own attach types name.
const fn uapi(program: &'static str, shown: &'static str, tier: TierKind) -> HookKind {
    HookKind {
        program,
        shown,
        tier,
        target: None,
        needs: &[],
    }
}

const fn cgroup(program: &'static str, shown: &'static str) -> HookKind {
    uapi(program, shown, TierKind::Cgroup)
}

const fn kernel(
    program: &'static str,
    shown: &'static str,
    tier: TierKind,
    target: &'static str,
    needs: Fields,
) -> HookKind {
    HookKind {
        program,
        shown,
        tier,
        target: Some(target),
        needs,
    }
}

/// What the names of hooks that see what comes in begin with.
const INGRESS: &str = "cgroup_skb/ingress";

/// The program that [`super::links`] attaches, to one link after the other.
pub(super) const LINK: &str = "link";

/// A program of the tamper tier.
const fn tamper(program: &'static str, shown: &'static str, target: &'static str) -> HookKind {
    kernel(program, shown, TierKind::Tamper, target, fields::TAMPER)
}

/// Every hook, in the order it is attached: what holds before what guards, so
/// that nothing is called guarded that is not held.
pub(super) const HOOKS: [HookKind; 49] = [
    cgroup("egress", "cgroup_skb/egress"),
    uapi("ingress", INGRESS, TierKind::Names),
    uapi("turns_in", "cgroup_skb/ingress (turns)", TierKind::Records),
    uapi("turns_out", "cgroup_skb/egress (turns)", TierKind::Records),
    cgroup("setsockopt", "cgroup/setsockopt"),
    cgroup("sysctl", "cgroup/sysctl"),
    HookKind {
        needs: &[&["TASK_TGID"]],
        ..uapi(LINK, "tcx/egress", TierKind::Link)
    },
    cgroup("sock_create", "cgroup/sock_create"),
    cgroup("connect4", "cgroup/connect4"),
    cgroup("connect6", "cgroup/connect6"),
    cgroup("sendmsg4", "cgroup/sendmsg4"),
    cgroup("sendmsg6", "cgroup/sendmsg6"),
    kernel(
        "fork",
        "tp_btf/sched_process_fork",
        TierKind::Lineage,
        "sched_process_fork",
        &[&["TASK_TGID", "TASK_PID"]],
    ),
    kernel(
        "exec",
        "tp_btf/sched_process_exec",
        TierKind::Lineage,
        "sched_process_exec",
        &[],
    ),
    kernel(
        "exit",
        "tp_btf/sched_process_exit",
        TierKind::Lineage,
        "sched_process_exit",
        &[&["TASK_TGID", "TASK_SIGNAL", "SIGNAL_LIVE"]],
    ),
    kernel(
        "attach",
        "tp_btf/cgroup_attach_task",
        TierKind::Lineage,
        "cgroup_attach_task",
        &[
            &["TASK_TGID", "CGROUP_ROOT", "ROOT_HIERARCHY"],
            fields::CGROUP,
        ],
    ),
    kernel(
        "mkdir",
        "tp_btf/cgroup_mkdir",
        TierKind::Lineage,
        "cgroup_mkdir",
        &[&[
            "CGROUP_KN",
            "CGROUP_ROOT",
            "ROOT_HIERARCHY",
            "KN_ID",
            "KN_NAME",
        ]],
    ),
    kernel(
        "socket_create",
        "lsm/socket_create",
        TierKind::Lsm,
        "socket_create",
        &[],
    ),
    kernel(
        "socket_connect",
        "lsm/socket_connect",
        TierKind::Lsm,
        "socket_connect",
        fields::SOCKET,
    ),
    kernel(
        "socket_sendmsg",
        "lsm/socket_sendmsg",
        TierKind::Lsm,
        "socket_sendmsg",
        fields::SEND,
    ),
    kernel(
        "socket_post_create",
        "lsm/socket_post_create",
        TierKind::Lsm,
        "socket_post_create",
        &[&["SOCKET_SK"]],
    ),
    kernel(
        "unix_stream_connect",
        "lsm/unix_stream_connect",
        TierKind::Lsm,
        "unix_stream_connect",
        fields::PEER,
    ),
    kernel(
        "unix_may_send",
        "lsm/unix_may_send",
        TierKind::Lsm,
        "unix_may_send",
        fields::PEER,
    ),
    kernel(
        "file_open",
        "lsm/file_open",
        TierKind::Lsm,
        "file_open",
        fields::FILE,
    ),
    kernel(
        "file_receive",
        "lsm/file_receive",
        TierKind::Lsm,
        "file_receive",
        fields::RECEIVE,
    ),
    kernel(
        "file_permission",
        "lsm/file_permission",
        TierKind::Lsm,
        "file_permission",
        fields::PASSED,
    ),
    kernel(
        "inode_lookup",
        "lsm/inode_permission",
        TierKind::Lsm,
        "inode_permission",
        fields::FILE,
    ),
    kernel(
        "inet_conn_request",
        "lsm/inet_conn_request",
        TierKind::Lsm,
        "inet_conn_request",
        fields::REQUEST,
    ),
    kernel(
        "power_capable",
        "lsm/capable",
        TierKind::Lsm,
        "capable",
        fields::AGENT,
    ),
    kernel("power_bpf", "lsm/bpf", TierKind::Lsm, "bpf", fields::AGENT),
    kernel(
        "power_key",
        "lsm/key_alloc",
        TierKind::Lsm,
        "key_alloc",
        fields::POWER,
    ),
    kernel(
        "power_mount",
        "lsm/fs_context_parse_param",
        TierKind::Lsm,
        "fs_context_parse_param",
        fields::POWER,
    ),
    kernel(
        "reach",
        "lsm/ptrace_access_check",
        TierKind::Lsm,
        "ptrace_access_check",
        fields::REACH,
    ),
    kernel(
        "reach_terminal",
        "lsm/file_ioctl",
        TierKind::Lsm,
        "file_ioctl",
        &[],
    ),
    kernel(
        "sys_enter",
        "tp_btf/sys_enter",
        TierKind::Kill,
        "sys_enter",
        fields::KILL,
    ),
    cgroup("device", "cgroup/device"),
    tamper("tamper_bpf", "lsm/bpf", "bpf"),
    tamper("tamper_map", "lsm/bpf_map", "bpf_map"),
    tamper("tamper_program", "lsm/bpf_prog", "bpf_prog"),
    tamper("tamper_kill", "lsm/task_kill", "task_kill"),
    tamper("tamper_limit", "lsm/task_setrlimit", "task_setrlimit"),
    tamper(
        "tamper_trace",
        "lsm/ptrace_access_check",
        "ptrace_access_check",
    ),
    tamper(
        "tamper_exec",
        "lsm/bprm_check_security",
        "bprm_check_security",
    ),
    tamper("tamper_inode", "lsm/inode_permission", "inode_permission"),
    tamper("tamper_rename", "lsm/inode_rename", "inode_rename"),
    tamper("tamper_umount", "lsm/sb_umount", "sb_umount"),
    tamper("tamper_mount", "lsm/sb_mount", "sb_mount"),
    tamper("tamper_move", "lsm/move_mount", "move_mount"),
    tamper("tamper_lockdown", "lsm/locked_down", "locked_down"),
];

/// The LSM hooks that any program is on.
pub(super) fn lsm_targets() -> impl Iterator<Item = &'static str> {
    let on_lsm = HOOKS.iter().filter(|hook| hook.shown.starts_with("lsm/"));
    on_lsm.filter_map(|hook| hook.target)
}

/// What became of one hook.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hook {
    /// As users see it, e.g. `cgroup/connect4`.
    pub name: &'static str,
    /// The tier it belongs to.
    pub tier: &'static str,
    /// Why the kernel does not take it; none where it does.
    pub refused: Option<String>,
}

/// Trial-loads one program. `Err` is the reason for people.
pub(super) fn load(
    ebpf: &mut Ebpf,
    hook: &HookKind,
    layout: &Layout,
    btf: &Btf,
) -> Result<(), String> {
    if let Some(field) = layout.missing(hook.needs) {
        return Err(format!("this kernel's BTF has no {field}"));
    }
    let program = ebpf
        .program_mut(hook.program)
        .ok_or_else(|| format!("the object has no program `{}`", hook.program))?;
    let target = hook.target.unwrap_or_default();
    let loaded = match program {
        Program::CgroupDevice(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSockopt(program) => program.load(),
        Program::CgroupSysctl(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::BtfTracePoint(program) => program.load(target, btf),
        Program::Lsm(program) => program.load(target, btf),
        other => return Err(format!("unexpected program type {:?}", other.prog_type())),
    };
    loaded.map_err(|error| explain(hook, &error))?;
    // The kernel's limit is a million; what is near it here may be past it on
    // another kernel.
    if let Some(walked) = program
        .info()
        .ok()
        .and_then(|info| info.verified_instruction_count())
    {
        tracing::debug!(hook = hook.shown, walked, "verified");
    }
    Ok(())
}

/// Gives up the hook that kills where nobody asked for it, and where the tier
/// that refuses instead is there.
pub(super) fn leave_out(hooks: &mut [Hook], kill_families: bool) {
    let mut refusing = HOOKS
        .iter()
        .zip(hooks.iter())
        .filter(|(kind, _)| kind.tier == TierKind::Lsm);
    let why = if !kill_families {
        "not asked for: [enforcement] kill_families"
    } else if refusing.all(|(_, hook)| hook.refused.is_none()) {
        "not needed: the lsm tier refuses what it would kill for"
    } else {
        return;
    };
    for (kind, hook) in HOOKS.iter().zip(hooks) {
        if kind.tier == TierKind::Kill && hook.refused.is_none() {
            hook.refused = Some(why.to_owned());
        }
    }
}

fn explain(hook: &HookKind, error: &ProgramError) -> String {
    if let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    {
        let log = verifier_log.to_string();
        tracing::debug!(hook = hook.shown, "verifier log:\n{log}");
        // The verifier's own statistics follow its verdict.
        let verdict = log
            .lines()
            .rfind(|line| {
                let line = line.trim();
                !line.is_empty()
                    && !line.starts_with("processed ")
                    && !line.starts_with("verification time")
                    && !line.starts_with("stack depth")
            })
            .unwrap_or_default();
        return format!("{io_error} {verdict}").trim().to_owned();
    }
    innermost(error)
}

/// Attaches one loaded program: behind its pinned link, else by a link of its
/// own that is pinned over the one that is there.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    hook: &HookKind,
    cgroup: &File,
    links: &Path,
) -> Result<(), KernelError> {
    let refused = |detail: String| KernelError::Refused {
        name: hook.shown.to_owned(),
        detail,
    };
    let program = ebpf
        .program_mut(hook.program)
        .ok_or_else(|| KernelError::Missing {
            name: hook.program.to_owned(),
        })?;
    let pin = links.join(hook.program);
    if is_replaced(program, cgroup, &pin) {
        return Ok(());
    }
    // No dot: bpffs reserves them (kernel/bpf/inode.c `bpf_lookup`).
    let new = links.join(format!("{}_new", hook.program));
    remove_if_there(&new)?;
    link_and_pin(program, hook, cgroup, &new)
        .map_err(|error| refused(innermost(error.as_ref())))?;
    fs::rename(&new, &pin).map_err(|source| KernelError::Io {
        action: "cannot replace",
        path: pin,
        source,
    })
}

/// Puts the program behind the link of an earlier start, where that link is
/// seen to run on this very cgroup (kernel/bpf/cgroup.c
/// `cgroup_bpf_replace`). A pin's name is its hook's, so the hook is the same.
fn is_replaced(program: &Program, cgroup: &File, pin: &Path) -> bool {
    let (Ok(link), Ok(program)) = (sys::get(pin), program.fd()) else {
        return false;
    };
    let Ok(info) = sys::link_info(link.as_fd()) else {
        return false;
    };
    let Some((id, attach_type)) = info.cgroup else {
        return false;
    };
    let is_here = cgroup.metadata().is_ok_and(|found| found.ino() == id)
        && sys::effective(cgroup, attach_type).is_ok_and(|all| all.contains(&info.program));
    is_here && sys::update_link(link, program).is_ok()
}

/// The kernel's cgroup links are "multi" whatever the flags say
/// (kernel/bpf/cgroup.c `cgroup_bpf_link_attach`); other flags are refused.
const MODE: CgroupAttachMode = CgroupAttachMode::Single;

fn link_and_pin(
    program: &mut Program,
    hook: &HookKind,
    cgroup: &File,
    at: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let link: FdLink = match program {
        Program::CgroupDevice(program) => {
            let link = sys::link_cgroup(program.fd()?, cgroup, AttachType::Device as u32)?;
            return Ok(sys::pin(link, at)?);
        }
        Program::CgroupSkb(program) => {
            let direction = if hook.shown.starts_with(INGRESS) {
                CgroupSkbAttachType::Ingress
            } else {
                CgroupSkbAttachType::Egress
            };
            let id = program.attach(cgroup, direction, MODE)?;
            program.take_link(id)?.try_into()?
        }
        Program::CgroupSock(program) => {
            let id = program.attach(cgroup, MODE)?;
            program.take_link(id)?.try_into()?
        }
        Program::CgroupSockAddr(program) => {
            let id = program.attach(cgroup, MODE)?;
            program.take_link(id)?.try_into()?
        }
        Program::CgroupSockopt(program) => {
            let link = sys::link_cgroup(program.fd()?, cgroup, AttachType::SetSockopt as u32)?;
            return Ok(sys::pin(link, at)?);
        }
        Program::CgroupSysctl(program) => {
            let link = sys::link_cgroup(program.fd()?, cgroup, AttachType::Sysctl as u32)?;
            return Ok(sys::pin(link, at)?);
        }
        Program::BtfTracePoint(program) => {
            let id = program.attach()?;
            program.take_link(id)?.into()
        }
        Program::Lsm(program) => {
            let id = program.attach()?;
            program.take_link(id)?.into()
        }
        _ => return Err(ProgramError::NotLoaded.into()),
    };
    link.pin(at)?;
    Ok(())
}

fn remove_if_there(path: &PathBuf) -> Result<(), KernelError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(KernelError::Io {
            action: "cannot remove",
            path: path.clone(),
            source,
        }),
        _ => Ok(()),
    }
}
