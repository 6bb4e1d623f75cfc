//! Finds in /proc what the hooks could not see: processes that held a GPU
//! before the agent came, members of a guarded cgroup that have no entry of
//! their own, children forked before their parent opened the GPU, and sockets
//! that a guarded tree made before it was one.
//!
//! It only ever adds. It runs after the hooks are attached, so that whatever
//! it misses by racing, they see.

use super::KernelError;
use super::cgroups;
use super::maps::{Maps, failed};
use super::reap::keys;
use super::selects;
use super::wire::Wire;
use aya::maps::MapError;
use merestone_abi::{
    Armed, Device, DeviceClass, Event, EventKind, Group, GroupId, Hook, MAX_LEVEL, SocketMark,
    TREE_GROUP, Task, TaskFlags, Verdict, maps,
};
use rustix::fs::FileType;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;

/// include/uapi/linux/bpf.h
const BPF_NOEXIST: u64 = 1;

/// Guards every process that holds a GPU already. The events say so.
pub(super) fn guard_holders(maps: &mut Maps, root: &Path) -> Result<Vec<Event>, KernelError> {
    let mut events = Vec::new();
    for pid in processes() {
        if let Some((device, class)) = held_device(maps, pid)
            && let Some(event) = guard(maps, root, pid, device, class)?
        {
            events.push(event);
        }
    }
    Ok(events)
}

/// Process ids, in the PID namespace of the agent, which must be the first.
fn processes() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn held_device(maps: &Maps, pid: u32) -> Option<(Device, DeviceClass)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    entries.flatten().find_map(|entry| {
        let stat = rustix::fs::stat(entry.path()).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice {
            return None;
        }
        let device = Device {
            major: rustix::fs::major(stat.st_rdev),
            minor: rustix::fs::minor(stat.st_rdev),
        };
        let whole = Device {
            minor: Device::ANY_MINOR,
            ..device
        };
        let Wire(class) = maps
            .devices
            .get(&Wire(device), 0)
            .or_else(|_absent| maps.devices.get(&Wire(whole), 0))
            .ok()?;
        class.guards().then_some((device, class))
    })
}

/// Guards one process as the device hook would; none where it was already.
fn guard(
    maps: &mut Maps,
    root: &Path,
    pid: u32,
    device: Device,
    class: DeviceClass,
) -> Result<Option<Event>, KernelError> {
    let Some(path) = cgroups::of_process(pid) else {
        return Ok(None); // it has ended
    };
    let Some(cgroup) = cgroups::id(&cgroups::at(root, &path)) else {
        return Ok(None);
    };
    let is_tree = match cgroups::first(&path) {
        None => true,
        Some(first) => cgroups::id(&root.join(first))
            .is_some_and(|level_1| maps.tree_roots.get(&level_1, 0).is_ok()),
    };
    let since_boot_ns = boot_ns();
    let level = match cgroups::level(&path) {
        level if level <= MAX_LEVEL => level,
        _ => 0,
    };
    let group = if is_tree {
        TREE_GROUP | u64::from(pid)
    } else {
        cgroup
    };
    selects::choose(maps, root, group, &path)?;
    let is_new = if is_tree {
        arm(maps, Armed::ANY)?;
        record(maps, pid, group, TaskFlags::TREE, 0)?
    } else {
        arm(maps, Armed::ANY | Armed::level(level))?;
        let entry = Group {
            since_boot_ns,
            tgid: pid,
            major: device.major,
            minor: device.minor,
            boundary: 0,
            class,
            level: u8::try_from(level).unwrap_or(0),
        };
        let is_new = added(
            maps::GROUPS,
            maps.groups.insert(group, Wire(entry), BPF_NOEXIST),
        )?;
        record(maps, pid, group, 0, 0)?;
        is_new
    };
    changed(maps)?;
    follow(maps, root, group, pid)?;
    Ok(is_new.then(|| Event {
        boot_ns: since_boot_ns,
        group,
        cgroup,
        tgid: pid,
        pid,
        major: device.major,
        minor: device.minor,
        kind: EventKind::GUARD,
        hook: Hook::SCAN,
        verdict: Verdict::ALLOW,
        class,
        comm: comm(pid),
        ..Event::default()
    }))
}

/// Gives every member of the group that `pid` began its own entry.
pub(super) fn follow(
    maps: &mut Maps,
    root: &Path,
    group: GroupId,
    pid: u32,
) -> Result<(), KernelError> {
    if group & TREE_GROUP != 0 {
        return adopt_tree(maps, group, pid);
    }
    // Its cgroup is found through the process; once that has ended or moved,
    // the next round of `reap` finds it by its id.
    let path = cgroups::of_process(pid).map(|path| cgroups::at(root, &path));
    match path {
        Some(path) if cgroups::id(&path) == Some(group) => adopt_cgroup(maps, group, &path),
        _ => Ok(()),
    }
}

/// Gives every process in the cgroup at `path` and below it its own entry.
pub(super) fn adopt_cgroup(
    maps: &mut Maps,
    group: GroupId,
    path: &Path,
) -> Result<(), KernelError> {
    for pid in cgroups::processes(path) {
        record(maps, pid, group, 0, 0)?;
    }
    Ok(())
}

/// Gives every process below `pid` its own entry, and marks the sockets of
/// all of them.
pub(super) fn adopt_tree(maps: &mut Maps, group: GroupId, pid: u32) -> Result<(), KernelError> {
    mark_sockets(maps, pid, group);
    if is_childless(pid) {
        return Ok(());
    }
    for (child, parent) in descendants(pid) {
        if child != pid {
            record(maps, child, group, TaskFlags::TREE, parent)?;
            mark_sockets(maps, child, group);
        }
    }
    Ok(())
}

/// Follows every tree there is: for the start, and for when events were lost.
pub(super) fn adopt_trees(maps: &mut Maps) -> Result<(), KernelError> {
    for pid in keys(maps::TASKS, maps.tasks.keys())? {
        let Ok(Wire(task)) = maps.tasks.get(&pid, 0) else {
            continue;
        };
        if task.group & TREE_GROUP != 0 && task.flags.0 & TaskFlags::ENDED == 0 {
            adopt_tree(maps, task.group, pid)?;
        }
    }
    Ok(())
}

/// True where the kernel says so (`CONFIG_PROC_CHILDREN`); a walk over all
/// processes is saved then. A process that has ended has none either.
fn is_childless(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        fs::read_to_string(thread.path().join("children")).is_ok_and(|pids| pids.is_empty())
    })
}

/// A process and all below it, with the parent of each.
fn descendants(tree: u32) -> Vec<(u32, u32)> {
    let parents: BTreeMap<u32, u32> = processes()
        .into_iter()
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let mut found = BTreeSet::from([tree]);
    loop {
        let below: Vec<u32> = parents
            .iter()
            .filter(|(pid, parent)| found.contains(parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if below.is_empty() {
            break;
        }
        found.extend(below);
    }
    let with_parent = |pid| Some((pid, *parents.get(&pid)?));
    found.into_iter().filter_map(with_parent).collect()
}

/// Field 4 of /proc/PID/stat; the name before it may hold anything.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

fn comm(pid: u32) -> [u8; 16] {
    let mut comm = [0; 16];
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let bytes = name.trim_end().bytes().take(15);
    for (slot, byte) in comm.iter_mut().zip(bytes) {
        *slot = byte;
    }
    comm
}

/// Marks the inet sockets a process holds, so that they are judged whoever
/// made them. What has gone meanwhile needs no mark.
fn mark_sockets(maps: &mut Maps, pid: u32, group: GroupId) {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(process) = process.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
        return;
    };
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let is_socket = fs::read_link(entry.path())
            .is_ok_and(|target| target.to_string_lossy().starts_with("socket:"));
        if !is_socket {
            continue;
        }
        let Ok(socket) = pidfd_getfd(process.as_fd(), number, PidfdGetfdFlags::empty()) else {
            continue;
        };
        let mark = SocketMark {
            group,
            owner: pid,
            ..SocketMark::default()
        };
        if let Err(error) = maps.sockets.insert(&socket, Wire(mark), 0) {
            tracing::debug!(pid, fd = number, %error, "could not mark a socket");
        }
    }
}

/// Gives a process an entry. False where it had one.
fn record(
    maps: &mut Maps,
    pid: u32,
    group: GroupId,
    flags: u32,
    parent: u32,
) -> Result<bool, KernelError> {
    let entry = Task {
        group,
        since_boot_ns: boot_ns(),
        parent,
        flags: TaskFlags(flags),
        ..Task::default()
    };
    let is_new = added(
        maps::TASKS,
        maps.tasks.insert(pid, Wire(entry), BPF_NOEXIST),
    )?;
    if is_new {
        count_removed(maps, -1)?;
        changed(maps)?;
    }
    Ok(is_new)
}

/// `Ok(false)` where there was an entry.
fn added(name: &'static str, result: Result<(), MapError>) -> Result<bool, KernelError> {
    match result {
        Ok(()) => Ok(true),
        Err(MapError::SyscallError(call)) if call.io_error.raw_os_error() == Some(libc::EEXIST) => {
            Ok(false)
        }
        Err(error) => Err(failed(name, &error)),
    }
}

/// Adds to the agent's half of the count of tasks: what it took away.
pub(super) fn count_removed(maps: &mut Maps, removed: i64) -> Result<(), KernelError> {
    let error = |error: MapError| failed(maps::TASK_COUNT, &error);
    let before = maps.task_count.get(&Armed::AGENT, 0).map_err(error)?;
    maps.task_count
        .set(Armed::AGENT, before.wrapping_add_signed(removed), 0)
        .map_err(error)
}

/// Ends every "not guarded" that the programs remember. To be called after who
/// is guarded has changed, and at the start, for a change that was cut short.
pub(super) fn changed(maps: &mut Maps) -> Result<(), KernelError> {
    let error = |error: MapError| failed(maps::ARMED, &error);
    let before = maps.armed.get(&Armed::AGENT_EPOCH, 0).map_err(error)?;
    maps.armed
        .set(Armed::AGENT_EPOCH, before.wrapping_add(1), 0)
        .map_err(error)
}

/// Whether anything was ever guarded under these maps.
pub(super) fn is_armed(maps: &Maps) -> Result<bool, KernelError> {
    let error = |error: MapError| failed(maps::ARMED, &error);
    let kernel = maps.armed.get(&Armed::KERNEL, 0).map_err(error)?;
    let agent = maps.armed.get(&Armed::AGENT, 0).map_err(error)?;
    Ok(kernel | agent != 0)
}

fn arm(maps: &mut Maps, mask: u64) -> Result<(), KernelError> {
    let error = |error: MapError| failed(maps::ARMED, &error);
    let before = maps.armed.get(&Armed::AGENT, 0).map_err(error)?;
    maps.armed
        .set(Armed::AGENT, before | mask, 0)
        .map_err(error)
}

/// As the programs tell time.
pub(super) fn boot_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_descends_from_its_parent() {
        let pid = std::process::id();
        let parent = parent(pid).unwrap();
        assert!(descendants(parent).contains(&(pid, parent)));
        assert!(!descendants(pid).iter().any(|(found, _)| *found == parent));
    }

    #[test]
    fn a_name_is_cut_and_padded() {
        let comm = comm(std::process::id());
        assert_ne!(comm[0], 0);
        assert_eq!(comm[15], 0);
    }
}
