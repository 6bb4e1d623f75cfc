//! Lets go of what is over: processes that ended, groups that stay empty.
//!
//! A group is sticky. It is let go only after its cgroup has been empty, or
//! gone, for the whole grace period, because the kernel sends what closed
//! sockets still hold for minutes; and never while a process of it lives.

use super::KernelError;
use super::maps::{Maps, failed, is_absent};
use super::scan;
use super::wire::Wire;
use super::{cgroups, counts};
use merestone_abi::{GroupId, Task, TaskFlags, maps};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a group must have been empty. An orphaned TCP socket gives up
/// after at most `tcp_orphan_retries` (8) backed-off timeouts, under 15 min.
pub const RELEASE_AFTER: Duration = Duration::from_secs(15 * 60);
/// How long an ended process keeps its entry: its sockets were closed, and
/// marked by what they sent, as it ended.
const FORGET_AFTER_S: u64 = 60;

/// What one round remembers for the next.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// Since when each group has been empty.
    emptied: BTreeMap<GroupId, Instant>,
    /// Events lost until then.
    events_lost: u64,
}

/// One round. Returns the groups that were let go.
pub(super) fn round(
    maps: &mut Maps,
    root: &Path,
    rounds: &mut Rounds,
    now: Instant,
    release_after: Duration,
) -> Result<Vec<GroupId>, KernelError> {
    // A lost event may have been the one that says whom to follow.
    let events_lost = counts::lost_events(maps)?;
    if events_lost != rounds.events_lost {
        rounds.events_lost = events_lost;
        scan::adopt_trees(maps)?;
    }
    let living = forget_ended(maps)?;
    let groups: Vec<GroupId> = keys(maps::GROUPS, maps.groups.keys())?;
    let paths = if groups.is_empty() {
        BTreeMap::new()
    } else {
        cgroups::walk(root)
    };
    let mut released = Vec::new();
    for group in groups {
        let is_populated = paths.get(&group).is_some_and(|path| populated(path));
        if is_populated || living.contains(&group) {
            rounds.emptied.remove(&group);
            if let Some(path) = paths.get(&group) {
                scan::adopt_cgroup(maps, group, path)?;
            }
            continue;
        }
        let since = *rounds.emptied.entry(group).or_insert(now);
        if now.duration_since(since) >= release_after {
            release(maps, group)?;
            rounds.emptied.remove(&group);
            released.push(group);
        }
    }
    Ok(released)
}

/// Removes entries of processes that are gone. Returns the groups of the rest.
fn forget_ended(maps: &mut Maps) -> Result<BTreeSet<GroupId>, KernelError> {
    let now_s = scan::boot_ns() / 1_000_000_000;
    let mut living = BTreeSet::new();
    let pids: Vec<u32> = keys(maps::TASKS, maps.tasks.keys())?;
    for pid in pids {
        let Ok(Wire(task)) = maps.tasks.get(&pid, 0) else {
            continue; // the exit hook was faster
        };
        if is_over(&task, pid, now_s) {
            let removed = maps.tasks.remove(&pid);
            if removed.is_ok() {
                scan::count_removed(maps, 1)?;
            }
        } else if task.flags.0 & TaskFlags::ENDED == 0 {
            living.insert(task.group);
        }
    }
    Ok(living)
}

fn is_over(task: &Task, pid: u32, now_s: u64) -> bool {
    if task.flags.0 & TaskFlags::ENDED != 0 {
        return now_s.saturating_sub(u64::from(task.ended_boot_s)) >= FORGET_AFTER_S;
    }
    // Where the exit hook is not to be had, or missed one.
    let age_s = now_s.saturating_sub(task.since_boot_ns / 1_000_000_000);
    age_s >= FORGET_AFTER_S && !Path::new(&format!("/proc/{pid}")).exists()
}

fn populated(path: &Path) -> bool {
    // A cgroup that cannot be read counts as populated: it stays guarded.
    fs::read_to_string(path.join("cgroup.events"))
        .map_or(true, |text| !text.lines().any(|line| line == "populated 0"))
}

/// Lets a group go at once.
pub(super) fn release(maps: &mut Maps, group: GroupId) -> Result<(), KernelError> {
    if let Err(error) = maps.groups.remove(&group)
        && !is_absent(&error)
    {
        return Err(failed(maps::GROUPS, &error));
    }
    // Sockets that remember its verdict ask again.
    scan::changed(maps)
}

/// The keys of a map that changes meanwhile, each once.
pub(super) fn keys<K: Ord>(
    name: &'static str,
    keys: impl Iterator<Item = Result<K, aya::maps::MapError>>,
) -> Result<Vec<K>, KernelError> {
    // A key that goes while it is the cursor starts the walk again, so the
    // number of steps is bounded by more than the map can hold.
    let limit = 4 * usize::try_from(maps::MAX_TASKS).unwrap_or(usize::MAX);
    let found: Result<BTreeSet<K>, _> = keys.take(limit).collect();
    found
        .map(|keys| keys.into_iter().collect())
        .map_err(|error| failed(name, &error))
}
