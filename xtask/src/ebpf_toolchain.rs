//! Picks the compiler for the eBPF object: the distribution's rustc with its
//! prebuilt BPF core, or else a rustup nightly with `rust-src`.
//!
//! It installs nothing; what is missing it names, with the one command that
//! installs it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::shell;

/// Needs `core` built for it; Debian ships one, rustup builds one.
pub(crate) const TARGET: &str = "bpfel-unknown-none";
/// Older ones emit union names that the kernel's BTF check refuses.
pub(crate) const LINKER_VERSION: &str = "0.13.0";
/// The LLVM that `rustc-web` is built with: the linker must read its bitcode.
pub(crate) const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// The distribution's own compiler with a BPF core, on Debian 12.
pub(crate) const DEBIAN_PACKAGES: [&str; 8] = [
    "cargo-web",
    "libpolly-22-dev",
    "libstd-rust-web-dev-bpf",
    "libzstd-dev",
    "llvm-22-dev",
    "rust-web-llvm",
    "rustc-web",
    "zlib1g-dev",
];

const DISTRIBUTION_CARGO: &str = "/usr/bin/cargo";
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";

/// A compiler that can build the object, and why it was picked.
#[derive(Debug)]
pub(crate) struct Toolchain {
    kind: Kind,
    /// One sentence for the reader.
    pub(crate) why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Distribution,
    Nightly,
}

impl Toolchain {
    /// `MERESTONE_EBPF_TOOLCHAIN` (`distribution` or `nightly`) overrides.
    pub(crate) fn pick() -> Result<Self> {
        let wanted = env::var("MERESTONE_EBPF_TOOLCHAIN").unwrap_or_default();
        match wanted.as_str() {
            "" => {}
            "distribution" if has_distribution() => return Ok(Self::distribution()),
            "nightly" if has_nightly() => return Ok(Self::nightly()),
            other => bail!(
                "MERESTONE_EBPF_TOOLCHAIN is `{other}`, and that toolchain is not here \
                 (known: distribution, nightly); unset it or install the toolchain"
            ),
        }
        if has_distribution() {
            Ok(Self::distribution())
        } else if has_nightly() {
            Ok(Self::nightly())
        } else {
            bail!(
                "no compiler for {TARGET} is here; install one with `{}`",
                install_hint()
            );
        }
    }

    fn distribution() -> Self {
        Self {
            kind: Kind::Distribution,
            why: format!("{DISTRIBUTION_RUSTC}, which has a prebuilt core for {TARGET}"),
        }
    }

    fn nightly() -> Self {
        Self {
            kind: Kind::Nightly,
            why: format!(
                "rustup's nightly with rust-src, because {DISTRIBUTION_RUSTC} has no core for {TARGET}"
            ),
        }
    }

    /// `cargo`, with everything set but the arguments of the build.
    pub(crate) fn cargo(&self) -> Command {
        match self.kind {
            Kind::Distribution => {
                let mut cargo = shell::command(DISTRIBUTION_CARGO);
                // aya-ebpf uses one unstable feature.
                cargo
                    .env("RUSTC", DISTRIBUTION_RUSTC)
                    .env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
            Kind::Nightly => {
                let mut cargo = shell::cargo();
                cargo
                    .env("RUSTUP_TOOLCHAIN", "nightly")
                    .arg("-Zbuild-std=core");
                cargo
            }
        }
    }
}

/// The linker, where the right version of it is installed.
pub(crate) fn linker() -> Option<PathBuf> {
    let path = shell::home_bin("bpf-linker");
    let version = shell::read(shell::command(&path).arg("--version")).ok()?;
    (version.trim() == format!("bpf-linker {LINKER_VERSION}")).then_some(path)
}

/// The one command that gets a compiler, for this machine.
pub(crate) fn install_hint() -> String {
    if Path::new("/usr/bin/apt-get").exists() {
        format!(
            "sudo apt-get install --no-install-recommends {}",
            DEBIAN_PACKAGES.join(" ")
        )
    } else {
        "rustup toolchain install nightly --component rust-src".to_owned()
    }
}

fn has_distribution() -> bool {
    let asked = ["--print", "target-libdir", "--target", TARGET];
    Path::new(DISTRIBUTION_CARGO).exists()
        && shell::read(shell::command(DISTRIBUTION_RUSTC).args(asked))
            .is_ok_and(|directory| has_core(Path::new(directory.trim())))
}

fn has_core(libraries: &Path) -> bool {
    let Ok(entries) = libraries.read_dir() else {
        return false;
    };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        name.to_str()
            .is_some_and(|name| name.starts_with("libcore-"))
    })
}

fn has_nightly() -> bool {
    let installed = ["component", "list", "--toolchain", "nightly", "--installed"];
    shell::read(shell::command(shell::home_bin("rustup")).args(installed))
        .is_ok_and(|components| components.lines().any(|name| name.starts_with("rust-src")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_a_core_is_no_bpf_toolchain() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!has_core(directory.path()));
        assert!(!has_core(&directory.path().join("absent")));
        std::fs::write(directory.path().join("libcore-0123.rlib"), "").unwrap();
        assert!(has_core(directory.path()));
    }
}
