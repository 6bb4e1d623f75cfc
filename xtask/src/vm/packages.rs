//! Debian's packages, downloaded and unpacked under `target/` without being
//! installed. apt checks their signatures; it needs no root.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Unpacks the newest `packages` that apt knows into the directory `place`,
/// over whatever is there.
pub(crate) fn unpack(packages: &[&str], place: &Path) -> Result<()> {
    let parent = place.parent().context("a place has a parent")?;
    fs::create_dir_all(parent)?;
    // In a directory of its own, moved in place whole: an interrupted download
    // is never taken for a finished one.
    let staging = tempfile::tempdir_in(parent)?;
    let mut apt = shell::command("apt-get");
    apt.args(["-q", "-o", "APT::Sandbox::User=root", "download"]);
    shell::run(apt.args(packages).current_dir(staging.path()))?;
    let files = staging.path().read_dir()?.flatten();
    let archives: Vec<_> = files
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "deb"))
        .collect();
    if archives.len() != packages.len() {
        bail!(
            "apt-get downloaded {} of {} packages for {}",
            archives.len(),
            packages.len(),
            place.display()
        );
    }
    let unpacked = staging.path().join("unpacked");
    for archive in archives {
        let mut unpack = shell::command("dpkg-deb");
        shell::run(unpack.arg("-x").arg(&archive).arg(&unpacked))?;
    }
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    fs::rename(&unpacked, place).with_context(|| format!("cannot put {} in place", place.display()))
}
