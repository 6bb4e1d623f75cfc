//! Finds the eBPF object that `cargo xtask build` makes, for `bpf::object`.
//!
//! A release build without it fails: an agent that cannot enforce is not a
//! release. A debug build carries none and says so when it is asked to run.

use std::path::{Path, PathBuf};
use std::{env, fs, process::ExitCode};

/// Where xtask puts it, from the workspace root.
const BUILT: &str = "target/bpf/merestone.o";

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed=MERESTONE_BPF_OBJECT");
    println!("cargo::rustc-check-cfg=cfg(bpf_object)");
    let named = env::var_os("MERESTONE_BPF_OBJECT").map(PathBuf::from);
    let path = named.clone().unwrap_or_else(|| workspace().join(BUILT));
    println!("cargo::rerun-if-changed={}", path.display());
    if path.is_file() {
        embed(&path)
    } else if named.is_some() || is_release() {
        println!(
            "cargo::error=there is no eBPF object at {}; run `cargo xtask build`",
            path.display()
        );
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn embed(path: &Path) -> ExitCode {
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else {
        return ExitCode::FAILURE;
    };
    // A copy, so that a rebuild of the object in the meantime changes nothing.
    if let Err(error) = fs::copy(path, out.join("merestone.o")) {
        println!("cargo::error=could not copy {}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    println!("cargo::rustc-cfg=bpf_object");
    ExitCode::SUCCESS
}

fn workspace() -> PathBuf {
    let agent = env::var_os("CARGO_MANIFEST_DIR").map_or_else(PathBuf::new, PathBuf::from);
    agent.parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

fn is_release() -> bool {
    env::var("PROFILE").is_ok_and(|profile| profile == "release")
}
