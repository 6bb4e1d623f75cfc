//! The bpf file system, where the agent pins what must outlive it.
//!
//! systemd mounts it at boot; a container or a bare machine may lack it. Then it
//! is mounted for the run, and taken away after it, unless somebody uses it by
//! then.

use std::fs;

use anyhow::{Context as _, Result};

use crate::{progress, shell, undo::Undo};

const PLACE: &str = "/sys/fs/bpf";

/// Mounts it where it is not; needs root. Dropping the answer undoes that.
pub(crate) fn ensure() -> Result<Option<Undo>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    if is_mounted(&mounts) {
        return Ok(None);
    }
    progress::line(format_args!("mounting {PLACE} for this run"));
    shell::run(shell::command("mount").args(["-t", "bpf", "bpf", PLACE]))?;
    Ok(Some(Undo::new(|| {
        if has_pins() || !shell::succeeds(shell::command("umount").arg(PLACE)) {
            progress::line(format_args!("{PLACE} is in use and stays mounted"));
        }
    })))
}

/// Whether somebody pins there. The kernel's own files (`maps.debug`,
/// `progs.debug`, kernel/bpf/preload) lie at the top and are no pins.
fn has_pins() -> bool {
    fs::read_dir(PLACE).map_or(true, |mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| entry.path().is_dir()))
    })
}

fn is_mounted(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some(PLACE) && words.next() == Some("bpf")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bpf_file_system_at_its_place_counts() {
        assert!(is_mounted("bpf /sys/fs/bpf bpf rw,nosuid 0 0\n"));
        assert!(!is_mounted(
            "tmpfs /sys/fs/bpf tmpfs rw 0 0\nbpf /mnt bpf rw 0 0\n"
        ));
        assert!(!is_mounted(""));
    }
}
