//! systemd for a guest that is to have it as its first process: Debian 12's own
//! packages, unpacked under `target/`, never installed on this machine.
//!
//! None of the units that come with it is taken over, so that nothing runs in
//! the guest but the manager and the command's own unit.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    shell,
    sudo::Consent,
    vm::{disk::Disk, packages},
};

/// systemd, and every library that it and `systemctl` load but the C library,
/// which the guest has from this machine.
const PACKAGES: [&str; 22] = [
    "systemd",
    "libsystemd-shared",
    "libacl1",
    "libapparmor1",
    "libaudit1",
    "libblkid1",
    "libcap-ng0",
    "libcap2",
    "libcrypt1",
    "libgcrypt20",
    "libgpg-error0",
    "libip4tc2",
    "libkmod2",
    "liblz4-1",
    "liblzma5",
    "libmount1",
    "libpam0g",
    "libpcre2-8-0",
    "libseccomp2",
    "libselinux1",
    "libssl3",
    "libzstd1",
];
/// The manager, in its package and in the guest.
const MANAGER: &str = "lib/systemd/systemd";
const PROGRAMS: [&str; 2] = [MANAGER, "bin/systemctl"];
const LIBRARIES: [&str; 3] = [
    "lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu/systemd",
];

fn directory() -> PathBuf {
    shell::target().join("vm/systemd")
}

/// Whether it has been unpacked.
pub(crate) fn is_here() -> bool {
    directory().join(MANAGER).is_file()
}

/// Downloads and unpacks it.
pub(crate) fn fetch(consent: Consent) -> Result<()> {
    if packages::unpack(&PACKAGES, &directory()).is_ok() {
        return Ok(());
    }
    // No list of packages yet, or one that names a package that is gone.
    consent.run(
        "apt-get",
        &["-q", "update"],
        "refreshes apt's lists, to find systemd for the guest",
    )?;
    packages::unpack(&PACKAGES, &directory())
        .context("apt has no systemd for the guest; this needs Debian 12's lists and the network")
}

/// Puts it in the guest, with the command as its only unit.
pub(crate) fn install(disk: &Disk) -> Result<()> {
    for program in PROGRAMS {
        disk.copy(&directory().join(program), &format!("usr/{program}"))?;
    }
    for from in LIBRARIES {
        let to = format!("usr/{}", from.trim_start_matches("usr/"));
        libraries(disk, &directory().join(from), &to)?;
    }
    disk.text(
        "etc/systemd/system.conf",
        include_str!("guest/manager.conf"),
    )?;
    let units = [
        ("default.target", include_str!("guest/default.target")),
        ("merestone.service", include_str!("guest/merestone.service")),
    ];
    for (name, text) in units {
        disk.text(&format!("etc/systemd/system/{name}"), text)?;
    }
    Ok(())
}

/// The shared objects of one directory; a link as what it points to.
fn libraries(disk: &Disk, from: &Path, to: &str) -> Result<()> {
    let entries = from.read_dir();
    for entry in entries.with_context(|| format!("cannot read {}", from.display()))? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let name = name.to_string_lossy();
        if name.contains(".so") && fs::metadata(&path)?.is_file() {
            disk.copy(&path, &format!("{to}/{name}"))?;
        }
    }
    Ok(())
}
