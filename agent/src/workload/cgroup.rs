//! Container, pod and unit from a cgroup's path: a table of the forms that runtimes use.
//!
//! The innermost container wins, because a process of a nested one (Kubernetes in Docker) is that
//! one's. Names below a user's own manager are the user's to choose, as are those a container makes
//! for itself; the outermost container is given too, for whom that matters.

use std::path::Path;

use serde::Serialize;

/// What a cgroup's path says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ContainerRef {
    /// Which runtime's form it is.
    pub runtime: Option<&'static str>,
    /// The innermost container: 64 hex digits, or a name for LXC and nspawn.
    pub container_id: Option<String>,
    /// The outermost container, when it is another one.
    pub outer_container_id: Option<String>,
    /// The Kubernetes pod, with dashes.
    pub pod_uid: Option<String>,
    /// The innermost systemd service or scope that is not a container's.
    pub unit: Option<String>,
    /// It is a runtime's monitor beside the container, not in it.
    pub monitor: bool,
    /// Below a user's own manager: any user could have chosen these names.
    pub delegated: bool,
}

/// Names before a container's id in a scope, and whose they are.
const SCOPES: [(&str, &str); 9] = [
    ("cri-containerd-", "containerd"),
    ("docker-", "docker"),
    ("crio-", "crio"),
    ("libpod-payload-", "podman"),
    ("libpod-", "podman"),
    ("nerdctl-", "nerdctl"),
    ("containerd-", "containerd"),
    ("buildkit-", "buildkit"),
    ("garden-", "garden"),
];

/// Names of the monitors that runtimes start beside a container.
const MONITORS: [&str; 3] = ["crio-conmon-", "libpod-conmon-", "lxc.monitor."];

/// Folders whose children are containers by their bare id.
const PARENTS: [(&str, &str); 6] = [
    ("docker", "docker"),
    ("ecs", "ecs"),
    ("libpod_parent", "podman"),
    ("garden", "garden"),
    ("buildkit", "buildkit"),
    ("actions_job", "docker"),
];

/// Reads a cgroup's path, as in `/proc/PID/cgroup`.
#[must_use]
pub fn classify_cgroup(path: &Path) -> ContainerRef {
    let mut found = ContainerRef::default();
    let mut parent = "";
    for part in path.iter().filter_map(|part| part.to_str()) {
        if let Some(uid) = pod(part) {
            found.pod_uid = Some(uid);
        } else if MONITORS.iter().any(|prefix| part.starts_with(prefix)) {
            found.monitor = true;
        } else if let Some((runtime, id)) = container(part, parent, found.pod_uid.is_some()) {
            enter(&mut found, runtime, id);
        } else if is_unit(part) {
            found.delegated |= part.starts_with("user@");
            found.unit = Some(part.to_owned());
        }
        parent = part;
    }
    found
}

fn enter(found: &mut ContainerRef, runtime: &'static str, id: String) {
    if let Some(outer) = found.container_id.take() {
        found.outer_container_id.get_or_insert(outer);
    }
    found.runtime = Some(runtime);
    found.container_id = Some(id);
    // A unit around a container is not the unit of a process in it.
    found.unit = None;
    found.monitor = false;
}

/// The container that a path component names.
fn container(part: &str, parent: &str, in_pod: bool) -> Option<(&'static str, String)> {
    // What systemd makes of `SLICE:PREFIX:ID`, and the same where a runtime did not expand it.
    if let Some((_, rest)) = part.split_once(".slice:") {
        let (prefix, id) = rest.split_once(':')?;
        return named(&format!("{prefix}-"), id);
    }
    for (prefix, payload) in [("lxc.payload.", "lxc"), ("machine-", "nspawn")] {
        if let Some(name) = part.strip_prefix(prefix) {
            let name = name
                .strip_suffix(".scope")
                .or((payload == "lxc").then_some(name))?;
            return Some((payload, name.to_owned()));
        }
    }
    if let Some(name) = part.strip_prefix("systemd-nspawn@") {
        return Some(("nspawn", name.strip_suffix(".service")?.to_owned()));
    }
    if parent == "lxc" && !part.is_empty() {
        return Some(("lxc", part.to_owned()));
    }
    let bare = part.strip_suffix(".scope").unwrap_or(part);
    for (prefix, _) in SCOPES {
        if let Some(id) = bare.strip_prefix(prefix) {
            return named(prefix, id);
        }
    }
    if let Some((_, runtime)) = PARENTS.iter().find(|(name, _)| *name == parent) {
        return is_id(bare).then(|| (*runtime, bare.to_owned()));
    }
    let runtime = if in_pod { "cri" } else { "unknown" };
    is_id(part).then(|| (runtime, part.to_owned()))
}

fn named(prefix: &str, id: &str) -> Option<(&'static str, String)> {
    let (_, runtime) = SCOPES.iter().find(|(name, _)| *name == prefix)?;
    is_id(id).then(|| (*runtime, id.to_owned()))
}

/// 64 hex digits; Fargate has 32, a dash and a number.
fn is_id(text: &str) -> bool {
    let hex = |text: &str, length| {
        text.len() == length
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    hex(text, 64)
        || text.split_once('-').is_some_and(|(task, number)| {
            hex(task, 32) && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        })
}

/// The pod of `pod<uid>` or `…-pod<uid with underscores>.slice`; a static pod's uid is 32 hex digits.
fn pod(part: &str) -> Option<String> {
    let name = part
        .split_once(".slice:")
        .map_or_else(|| part.strip_suffix(".slice").unwrap_or(part), |_| "");
    let uid = match name.strip_prefix("pod") {
        Some(uid) => uid,
        None if name.contains("kubepods") => name.rsplit_once("-pod")?.1,
        None => return None,
    };
    let uid = uid.replace('_', "-");
    is_uid(&uid).then_some(uid)
}

fn is_uid(uid: &str) -> bool {
    let hex = uid
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    let shape: Vec<_> = uid.split('-').map(str::len).collect();
    hex && (shape == [8, 4, 4, 4, 12] || shape == [32])
}

fn is_unit(part: &str) -> bool {
    [".service", ".scope"]
        .iter()
        .any(|suffix| part.len() > suffix.len() && part.ends_with(suffix))
}
