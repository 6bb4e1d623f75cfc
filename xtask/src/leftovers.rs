//! `cargo xtask cleanup`: what interrupted tests and demos left on the machine,
//! found by name.
//!
//! It never touches the agent's own pins (`merestone`, without a dash), nor
//! anything whose name ends in the number of a process that is still there.

use std::{
    fs,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    progress, shell,
    sudo::{self, Consent},
};

/// Everything that tests and the demo make is named `merestone-<what>`, and
/// where several can run at once, `merestone-<what>-<process id>`.
const PREFIX: &str = "merestone-";

/// Which leftovers to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those whose maker is known and gone.
    Orphans,
    /// Those, and the ones that name no maker.
    All,
}

/// Removes them as root, asking where that is needed.
pub(crate) fn cleanup(consent: Consent) -> Result<()> {
    if sudo::is_root() {
        return remove(Which::All);
    }
    let xtask = std::env::current_exe().context("cannot find this program's own path")?;
    consent.run(
        &xtask.to_string_lossy(),
        &["cleanup"],
        "removes eBPF pins, cgroups, network namespaces and device nodes of earlier runs",
    )
}

/// Removes them; needs root.
pub(crate) fn remove(which: Which) -> Result<()> {
    let mut kept = 0;
    for (path, how) in found() {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        // A temporary folder that names no maker may be anybody's.
        let which = match how {
            Kind::Folder => Which::Orphans,
            Kind::Pins | Kind::Namespace | Kind::Cgroup | Kind::Node => which,
        };
        if !is_leftover(name, which, |pid| Path::new("/proc").join(pid).exists()) {
            continue;
        }
        match how.remove(&path) {
            Ok(()) => progress::line(format_args!("removed {}", path.display())),
            Err(error) => {
                kept += 1;
                progress::line(format_args!(
                    "could not remove {}: {error:#}",
                    path.display()
                ));
            }
        }
    }
    if kept > 0 {
        bail!("{kept} leftovers are still there; end the processes that use them");
    }
    Ok(())
}

fn is_leftover(name: &str, which: Which, is_alive: impl Fn(&str) -> bool) -> bool {
    if !name.starts_with(PREFIX) {
        return false;
    }
    let last = name.rsplit('-').next().unwrap_or_default();
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) {
        !is_alive(last)
    } else {
        which == Which::All
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Pins,
    Namespace,
    Cgroup,
    Node,
    /// Of a measurement, with a device node in it.
    Folder,
}

impl Kind {
    fn remove(self, path: &Path) -> Result<()> {
        match self {
            Self::Pins | Self::Folder => fs::remove_dir_all(path)?,
            Self::Node => fs::remove_file(path)?,
            Self::Namespace => {
                let name = path.file_name().context("a namespace has a name")?;
                shell::read(shell::command("ip").args(["netns", "del"]).arg(name))?;
            }
            Self::Cgroup => remove_cgroup(path)?,
        }
        Ok(())
    }
}

/// In the order in which they can go: links before the cgroups they are on.
fn found() -> Vec<(PathBuf, Kind)> {
    let mut places = vec![(PathBuf::from("/sys/fs/bpf"), Kind::Pins)];
    places.push((PathBuf::from("/run/netns"), Kind::Namespace));
    places.extend(cgroup_root().map(|root| (root, Kind::Cgroup)));
    places.push((PathBuf::from("/dev"), Kind::Node));
    places.push((std::env::temp_dir(), Kind::Folder));
    let mut found = Vec::new();
    for (directory, kind) in places {
        let Ok(entries) = directory.read_dir() else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(file_type) = entry.file_type() else {
                continue;
            };
            let fits = match kind {
                Kind::Pins | Kind::Cgroup | Kind::Folder => file_type.is_dir(),
                Kind::Namespace => file_type.is_file(),
                Kind::Node => file_type.is_char_device(),
            };
            if fits {
                found.push((entry.path(), kind));
            }
        }
    }
    found
}

pub(crate) fn cgroup_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, path, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

/// Children first: a cgroup goes when it is empty, and its processes are not
/// ours to kill.
fn remove_cgroup(path: &Path) -> Result<()> {
    for entry in path.read_dir()?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path())?;
        }
    }
    let users = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    if let Some(user) = users.lines().next() {
        bail!("process {user} is in it");
    }
    fs::remove_dir(path).with_context(|| format!("cannot remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_pins_and_living_runs_are_no_leftovers() {
        let alive = |pid: &str| pid == "77";
        for (name, orphan, all) in [
            ("merestone", false, false),
            ("other-5", false, false),
            ("merestone-e2e-chain-77", false, false),
            ("merestone-e2e-chain-78", true, true),
            ("merestone-gateway-cost-77", false, false),
            ("merestone-gateway-cost-78", true, true),
            ("merestone-demo", false, true),
            ("merestone-demo-in", false, true),
        ] {
            assert_eq!(is_leftover(name, Which::Orphans, alive), orphan, "{name}");
            assert_eq!(is_leftover(name, Which::All, alive), all, "{name}");
        }
    }
}
