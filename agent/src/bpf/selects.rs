//! Which boundary judges which group, for the kernel.
//!
//! What is written is for one slot of generations, beside the live one, and so
//! takes effect with the rules. A cgroup that is made later is matched by the
//! kernel; this walks those that are there.
//!
//! A group whose cgroup is gone cannot be found by its path any more. Where it
//! was selected, it gets the number of no boundary: what its sockets still hold
//! is denied rather than judged by another group's rules.

use super::KernelError;
use super::cgroups;
use super::maps::{Maps, failed, gone};
use super::reap::keys;
use super::wire::Wire;
use crate::policy::{NOWHERE, Selector, deepest};
use merestone_abi::{GroupId, SELECTOR_BYTES, Selected, TREE_GROUP, maps};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// One `[[select]]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TableSelect {
    /// What it matches.
    pub selector: Selector,
    /// The boundary's number.
    pub boundary: u16,
}

/// include/uapi/linux/bpf.h
const BPF_NOEXIST: u64 = 1;

/// Writes the selects of a generation that is not live yet.
pub(super) fn write(
    maps: &mut Maps,
    hierarchy: &Path,
    selects: &[TableSelect],
    slot: u32,
) -> Result<(), KernelError> {
    write_selectors(maps, selects, slot)?;
    catch_up(maps, hierarchy, selects, slot)?;
    tidy(maps, hierarchy)
}

/// What the kernel matches new cgroups against.
fn write_selectors(maps: &mut Maps, selects: &[TableSelect], slot: u32) -> Result<(), KernelError> {
    let failed = |error| failed(maps::SELECTORS, &error);
    let known: Vec<[u8; SELECTOR_BYTES]> = keys(maps::SELECTORS, maps.selectors.keys())?;
    // What only the other slot selects is here judged as what lies around it.
    let around = |key: [u8; SELECTOR_BYTES]| (key, (number(&text(&key), selects), false));
    let mut wanted: BTreeMap<[u8; SELECTOR_BYTES], (u16, bool)> =
        known.into_iter().map(around).collect();
    for select in selects {
        wanted.insert(select.selector.key(), (select.boundary, true));
    }
    for (key, (number, is_wanted)) in wanted {
        let mut value = maps.selectors.get(&key, 0).unwrap_or_default();
        let [numbers @ .., one, other] = &mut value;
        for (own, marked) in numbers
            .iter_mut()
            .zip([one, other])
            .skip(slot as usize)
            .take(1)
        {
            (*own, *marked) = (number, u16::from(is_wanted));
        }
        // The kernel reads the numbers; the marks say by which slot the key is
        // wanted, since 0 is a boundary, too.
        if matches!(value, [.., 0, 0]) {
            gone(maps::SELECTORS, maps.selectors.remove(&key))?;
            continue;
        }
        maps.selectors.insert(key, value, 0).map_err(failed)?;
    }
    Ok(())
}

/// The path or the unit's name of a key.
fn text(key: &[u8; SELECTOR_BYTES]) -> String {
    let bytes = key.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// Brings every selected cgroup and every guarded group up to date in `slot`.
pub(super) fn catch_up(
    maps: &mut Maps,
    hierarchy: &Path,
    selects: &[TableSelect],
    slot: u32,
) -> Result<(), KernelError> {
    let known: Vec<u64> = keys(maps::SELECTED, maps.selected.keys())?;
    if selects.is_empty() && known.is_empty() {
        return Ok(());
    }
    let paths = paths(hierarchy);
    let number = |path: &str| number(path, selects);
    for (id, path) in &paths {
        if selects.iter().any(|select| select.selector.is(path)) {
            set(maps, *id, *id, slot, number(path))?;
        }
    }
    for group in groups(maps)? {
        if let Some(cgroup) = cgroup_of(maps, hierarchy, group)
            && let Some(path) = paths.get(&cgroup)
            && number(path) != 0
        {
            set(maps, group, cgroup, slot, number(path))?;
        }
    }
    for id in known {
        let Ok(Wire(entry)) = maps.selected.get(&id, 0) else {
            continue;
        };
        let is_selected = entry.boundary.iter().any(|number| *number != 0);
        let now = match paths.get(&entry.cgroup) {
            Some(path) => number(path),
            None if is_selected => NOWHERE,
            None => 0,
        };
        set(maps, id, entry.cgroup, slot, now)?;
    }
    Ok(())
}

/// Takes the entry of the nearest selected cgroup over for a group that the
/// agent guards, as the device hook would.
pub(super) fn choose(
    maps: &mut Maps,
    hierarchy: &Path,
    group: GroupId,
    path: &str,
) -> Result<(), KernelError> {
    let mut at = path;
    let mut own = 0;
    while !at.is_empty() {
        if let Some(id) = cgroups::id(&cgroups::at(hierarchy, at)) {
            own = if own == 0 { id } else { own };
            if let Ok(Wire(found)) = maps.selected.get(&id, 0) {
                let entry = Selected {
                    cgroup: own,
                    ..found
                };
                // One that is there is kept up to date.
                return match maps.selected.insert(group, Wire(entry), BPF_NOEXIST) {
                    Err(error) if maps.selected.get(&group, 0).is_err() => {
                        Err(failed(maps::SELECTED, &error))
                    }
                    _ => Ok(()),
                };
            }
        }
        at = at.rsplit_once('/').map_or("", |(above, _)| above);
    }
    Ok(())
}

/// The boundary that judges the cgroup at a path.
pub(super) fn number(path: &str, selects: &[TableSelect]) -> u16 {
    deepest(path, selects, |select| &select.selector).map_or(0, |select| select.boundary)
}

/// The number that an entry has in a slot; none where there is no entry.
pub(super) fn entry(maps: &Maps, id: u64, slot: u32) -> Option<u16> {
    let Wire(entry) = maps.selected.get(&id, 0).ok()?;
    entry.boundary.get(slot as usize).copied()
}

/// Every cgroup's path below the root, as `/a/b`, by id.
pub(super) fn paths(hierarchy: &Path) -> BTreeMap<u64, String> {
    let all = cgroups::walk(hierarchy).into_iter();
    all.filter_map(|(id, path)| {
        let below = path.strip_prefix(hierarchy).ok()?.to_str()?.to_owned();
        Some((id, format!("/{below}")))
    })
    .collect()
}

/// The guarded groups, trees as well.
fn groups(maps: &Maps) -> Result<BTreeSet<GroupId>, KernelError> {
    let cgroups: Vec<GroupId> = keys(maps::GROUPS, maps.groups.keys())?;
    let mut groups: BTreeSet<GroupId> = cgroups.into_iter().collect();
    let pids: Vec<u32> = keys(maps::TASKS, maps.tasks.keys())?;
    for pid in pids {
        if let Ok(Wire(task)) = maps.tasks.get(&pid, 0) {
            groups.insert(task.group);
        }
    }
    Ok(groups)
}

/// The cgroup a group is judged by: for a tree the one remembered, or that of
/// its first process.
fn cgroup_of(maps: &Maps, hierarchy: &Path, group: GroupId) -> Option<u64> {
    if group & TREE_GROUP == 0 {
        return Some(group);
    }
    if let Ok(Wire(entry)) = maps.selected.get(&group, 0) {
        return Some(entry.cgroup);
    }
    let pid = u32::try_from(group & !TREE_GROUP).ok()?;
    cgroups::id(&cgroups::at(hierarchy, &cgroups::of_process(pid)?))
}

/// Writes one slot of an entry; the other stays.
pub(super) fn set(
    maps: &mut Maps,
    id: u64,
    cgroup: u64,
    slot: u32,
    number: u16,
) -> Result<(), KernelError> {
    let Wire(before) = maps.selected.get(&id, 0).unwrap_or(Wire(Selected {
        cgroup,
        ..Selected::default()
    }));
    let mut entry = before;
    if let Some(own) = entry.boundary.get_mut(slot as usize) {
        *own = number;
    }
    maps.selected
        .insert(id, Wire(entry), 0)
        .map_err(|error| failed(maps::SELECTED, &error))
}

/// Takes entries of cgroups that are gone away, once they are many: until then
/// what sockets of theirs still hold is to be judged.
fn tidy(maps: &mut Maps, hierarchy: &Path) -> Result<(), KernelError> {
    let known: Vec<u64> = keys(maps::SELECTED, maps.selected.keys())?;
    if known.len() < maps::MAX_SELECTED as usize / 2 {
        return Ok(());
    }
    let (paths, groups) = (paths(hierarchy), groups(maps)?);
    for id in known {
        if !paths.contains_key(&id) && !groups.contains(&id) {
            maps.selected.remove(&id).ok();
        }
    }
    Ok(())
}
