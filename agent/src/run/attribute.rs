//! Who an event is about, as far as it can be known.
//!
//! A short-lived process may be gone when its event is read, so each is looked
//! at when it is first heard of (guard, fork, exec) and remembered until some
//! time after its end. What cannot be known stays absent.

use crate::flow::ProcessInfo;
use crate::workload;
use merestone_abi::{Event, EventKind, TREE_GROUP};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Processes remembered at most; past that the ones that ended first go.
const MOST_KNOWN: usize = 65_536;
/// Sockets whose process is remembered at most.
const MOST_SOCKETS: usize = 65_536;
/// How long an ended process stays known: its last packets may still be told.
const AFTERLIFE_NS: u64 = 30_000_000_000;

#[derive(Debug)]
struct Known {
    info: ProcessInfo,
    ended_ns: Option<u64>,
}

/// Names processes and remembers them.
#[derive(Debug)]
pub(super) struct Attributor {
    cgroup_root: PathBuf,
    known: BTreeMap<u32, Known>,
    sockets: BTreeMap<u64, u32>,
    paths: BTreeMap<u64, String>,
}

impl Attributor {
    /// Names cgroups by their path below `cgroup_root`.
    pub(super) fn new(cgroup_root: PathBuf) -> Self {
        Self {
            cgroup_root,
            known: BTreeMap::new(),
            sockets: BTreeMap::new(),
            paths: BTreeMap::new(),
        }
    }

    /// The cgroup v2 root.
    pub(super) fn root(&self) -> &std::path::Path {
        &self.cgroup_root
    }

    /// The process of an event. Where the hook had none (`cgroup_skb`), the one
    /// that used the same socket before; otherwise only the group is named.
    pub(super) fn process(&mut self, event: &Event) -> ProcessInfo {
        let pid = match event.kind {
            EventKind::FORK | EventKind::LEFT if event.other != 0 => event.other,
            _ => event.tgid,
        };
        let pid = match pid {
            0 => self.sockets.get(&event.cookie).copied().unwrap_or(0),
            pid => {
                self.remember_socket(event.cookie, pid);
                pid
            }
        };
        if pid == 0 {
            return ProcessInfo {
                cgroup: self.cgroup(group_cgroup(event)),
                ..ProcessInfo::default()
            };
        }
        self.look(pid, event)
    }

    fn look(&mut self, pid: u32, event: &Event) -> ProcessInfo {
        let fresh = matches!(
            event.kind,
            EventKind::GUARD | EventKind::EXEC | EventKind::FORK | EventKind::LEFT
        );
        if event.kind == EventKind::EXIT {
            if let Some(known) = self.known.get_mut(&pid) {
                known.ended_ns = Some(event.boot_ns);
            }
        } else if fresh || !self.is_known_whole(pid) {
            self.read(pid, event);
        }
        match self.known.get(&pid) {
            Some(known) => known.info.clone(),
            None => self.told_by(pid, event),
        }
    }

    /// Whether nothing more can be learnt: the digest of a large executable
    /// comes some time after the first look.
    fn is_known_whole(&self, pid: u32) -> bool {
        self.known
            .get(&pid)
            .is_some_and(|known| known.info.exe_sha256.is_some() || known.ended_ns.is_some())
    }

    fn read(&mut self, pid: u32, event: &Event) {
        let info = match workload::inspect(pid) {
            Some(found) => ProcessInfo {
                pid,
                start_time: Some(found.start_time_ticks),
                comm: found.comm,
                exe: found.exe,
                exe_sha256: found.exe_sha256,
                cgroup: Some(found.cgroup),
                container_id: found.container_id,
                pod_uid: found.pod_uid,
            },
            // It is gone: what was read of it before is still true.
            None if self.known.contains_key(&pid) && event.kind != EventKind::FORK => return,
            None => self.told_by(pid, event),
        };
        if self.known.len() >= MOST_KNOWN {
            self.forget(u64::MAX);
        }
        if self.known.len() < MOST_KNOWN {
            self.known.insert(
                pid,
                Known {
                    info,
                    ended_ns: None,
                },
            );
        }
    }

    /// All that the event itself says.
    fn told_by(&mut self, pid: u32, event: &Event) -> ProcessInfo {
        let end = event.comm.iter().position(|byte| *byte == 0);
        let comm = event.comm.get(..end.unwrap_or(event.comm.len()));
        ProcessInfo {
            pid,
            comm: String::from_utf8_lossy(comm.unwrap_or_default()).into_owned(),
            cgroup: self.cgroup(event.cgroup),
            ..ProcessInfo::default()
        }
    }

    /// The path of a cgroup below the root, remembered beyond its removal.
    pub(super) fn cgroup(&mut self, id: u64) -> Option<String> {
        if id == 0 || id & TREE_GROUP != 0 {
            return None;
        }
        if let Some(path) = self.paths.get(&id) {
            return Some(path.clone());
        }
        let path = workload::cgroup_path(&self.cgroup_root, id)?;
        let path = path.to_string_lossy().into_owned();
        if self.paths.len() >= MOST_KNOWN {
            self.paths.clear();
        }
        self.paths.insert(id, path.clone());
        Some(path)
    }

    fn remember_socket(&mut self, cookie: u64, pid: u32) {
        if cookie == 0 {
            return;
        }
        if self.sockets.len() >= MOST_SOCKETS {
            // Cookies only grow (net/core/sock_diag.c): the smallest is the oldest.
            self.sockets.pop_first();
        }
        self.sockets.insert(cookie, pid);
    }

    /// Forgets who ended long before `now_ns`.
    pub(super) fn forget(&mut self, now_ns: u64) {
        self.known.retain(|_, known| {
            known
                .ended_ns
                .is_none_or(|ended| now_ns.saturating_sub(ended) < AFTERLIFE_NS)
        });
    }
}

fn group_cgroup(event: &Event) -> u64 {
    if event.cgroup == 0 {
        event.group
    } else {
        event.cgroup
    }
}
