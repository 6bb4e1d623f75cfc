//! Builds the eBPF object into `target/bpf/merestone.o`, then the agent that
//! embeds it, and the verifier.
//!
//! The object's file is touched only when its bytes change, so that the agent
//! is not compiled again for nothing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    ebpf_toolchain::{self, TARGET, Toolchain},
    progress::{self, Step},
    shell,
};

/// The packages that a person runs.
pub(crate) const AGENT: &str = "merestone-agent";
pub(crate) const VERIFIER: &str = "merestone-verify-cli";

/// The Cargo profile of the eBPF object.
const PROFILE: &str = "bpf";

/// How to build.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Optimised, as it is shipped.
    pub(crate) release: bool,
    /// With aya-log lines in the eBPF object; never in a release.
    pub(crate) log: bool,
}

/// The eBPF object, the agent and the verifier.
pub(crate) fn all(options: Options) -> Result<()> {
    object(options.log)?;
    let _step = Step::begin("agent and verifier", "cargo build (minutes the first time)");
    let mut build = shell::cargo();
    build.args(["build", "--package", AGENT, "--package", VERIFIER]);
    if options.release {
        build.arg("--release");
    }
    shell::run(&mut build)
}

/// Where the agent's build looks for the eBPF object.
pub(crate) fn object_path() -> PathBuf {
    shell::target().join("bpf/merestone.o")
}

/// The eBPF object alone.
pub(crate) fn object(log: bool) -> Result<()> {
    let toolchain = Toolchain::pick()?;
    let linker = ebpf_toolchain::linker().with_context(|| {
        format!(
            "no bpf-linker {}; run `cargo xtask setup`",
            ebpf_toolchain::LINKER_VERSION
        )
    })?;
    let _step = Step::begin("eBPF object", &toolchain.why);
    // Its own directory: two compilers in one would build everything twice.
    let directory = shell::target().join("bpf-build");
    let mut build = toolchain.cargo();
    build.args([
        "build",
        "--profile",
        PROFILE,
        "--package",
        "merestone-programs",
    ]);
    build
        .args(["--target", TARGET, "--target-dir"])
        .arg(&directory);
    if log {
        build.args(["--features", "log"]);
    }
    build.arg("--config").arg(without_paths()?);
    // The flags are in .cargo/config.toml; the linker may be outside PATH.
    build.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
    shell::run(&mut build)?;
    let object = object_path();
    copy_if_changed(
        &directory.join(TARGET).join(PROFILE).join("merestone-bpf"),
        &object,
    )?;
    let digest = shell::read(shell::command("sha256sum").arg(&object))?;
    let digest = digest
        .split(' ')
        .next()
        .context("`sha256sum` said nothing")?;
    progress::line(format_args!("    {} sha256:{digest}", object.display()));
    Ok(())
}

/// Flags that keep this machine's paths out of the object: it is named by its
/// digest in the evidence, and must not depend on where it was built.
fn without_paths() -> Result<String> {
    let home = shell::cargo_home().context("neither CARGO_HOME nor HOME is set")?;
    let workspace = shell::root().display();
    let flags = [
        format!("--remap-path-prefix={workspace}=merestone"),
        format!("--remap-path-prefix={}=cargo", home.display()),
    ];
    Ok(format!("target.{TARGET}.rustflags={flags:?}"))
}

fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("cargo left no {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(to, new).with_context(|| format!("cannot write {}", to.display()))
}

/// The directory of what was built.
pub(crate) fn output(release: bool) -> PathBuf {
    shell::target().join(if release { "release" } else { "debug" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_with_the_same_bytes_keeps_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (
            directory.path().join("from"),
            directory.path().join("deep/to"),
        );
        fs::write(&from, "one").unwrap();
        copy_if_changed(&from, &to).unwrap();
        let before = fs::metadata(&to).unwrap().modified().unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), before);
        fs::write(&from, "two").unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"two");
    }
}
