//! Guest kernels: Debian's own signed cloud images, unpacked under `target/`.
//!
//! They are never installed on this machine; apt checks their signatures.

use std::{fmt, path::PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{shell, sudo::Consent, vm::packages};

/// A line of kernels that the suite runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Series {
    /// The oldest that is supported; Debian 12's own.
    V6_1,
    /// The long-term kernel after it, from Debian's backports.
    V6_12,
}

impl Series {
    pub(crate) const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    /// The names of its packages; what varies is between the two.
    fn package(self) -> (&'static str, &'static str) {
        match self {
            Self::V6_1 => ("linux-image-6.1.0-", "-cloud-amd64"),
            Self::V6_12 => ("linux-image-6.12.", "+deb12-cloud-amd64"),
        }
    }

    /// The number by which a newer package is told from an older one; `None`
    /// for another series, for `-dbg` and `-unsigned`, and for meta-packages.
    fn revision(self, package: &str) -> Option<u32> {
        let (before, after) = self.package();
        let varies = package.strip_prefix(before)?.strip_suffix(after)?;
        varies.parse().ok()
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        })
    }
}

impl std::str::FromStr for Series {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL
            .into_iter()
            .find(|series| series.to_string() == name);
        found.with_context(|| format!("no kernel `{name}`; there are 6.1 and 6.12"))
    }
}

/// An unpacked kernel package.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// Which line it is of.
    pub(crate) series: Series,
    /// `vmlinuz`, an EFI program.
    pub(crate) image: PathBuf,
    /// `lib/modules/<release>`.
    pub(crate) modules: PathBuf,
}

fn directory() -> PathBuf {
    shell::target().join("vm/kernels")
}

/// The newest unpacked kernel of the series.
pub(crate) fn find(series: Series) -> Option<Kernel> {
    let entries = directory().read_dir().ok()?;
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let name = names.max_by_key(|name| series.revision(name))?;
    series.revision(&name)?;
    let release = name.strip_prefix("linux-image-")?;
    let unpacked = directory().join(&name);
    Some(Kernel {
        series,
        image: unpacked.join(format!("boot/vmlinuz-{release}")),
        modules: unpacked.join(format!("lib/modules/{release}")),
    })
}

/// Downloads the newest package of the series and unpacks it.
pub(crate) fn fetch(series: Series, consent: Consent) -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        bail!("the VM suite boots x86-64 kernels; run it on an x86-64 machine");
    }
    let fresh = newest(series)?.map(|package| download(&package));
    if let Some(Ok(())) = fresh {
        return Ok(());
    }
    // No list of packages yet, or one that names a package that is gone.
    consent.run(
        "apt-get",
        &["-q", "update"],
        "refreshes apt's lists, to find a guest kernel",
    )?;
    match newest(series)? {
        Some(package) => download(&package),
        None => bail!("apt knows no Linux {series} cloud kernel; this needs Debian 12's lists"),
    }
}

fn newest(series: Series) -> Result<Option<String>> {
    let (before, after) = series.package();
    let search = shell::read(shell::command("apt-cache").args(["search", "--names-only", before]))?;
    let names = search.lines().filter_map(|line| line.split(' ').next());
    let newest = names
        .filter(|name| name.ends_with(after))
        .max_by_key(|name| series.revision(name));
    Ok(newest
        .filter(|name| series.revision(name).is_some())
        .map(str::to_owned))
}

fn download(package: &str) -> Result<()> {
    packages::unpack(&[package], &directory().join(package))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signed_kernels_of_the_series_have_a_revision() {
        assert_eq!(
            Series::V6_1.revision("linux-image-6.1.0-56-cloud-amd64"),
            Some(56)
        );
        assert_eq!(
            Series::V6_12.revision("linux-image-6.12.117+deb12-cloud-amd64"),
            Some(117)
        );
        for other in [
            "linux-image-6.1.0-47-cloud-amd64-dbg",
            "linux-image-6.1.0-47-cloud-amd64-unsigned",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
        ] {
            assert_eq!(Series::V6_1.revision(other), None, "{other}");
        }
    }
}
