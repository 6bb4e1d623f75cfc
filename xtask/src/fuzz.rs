//! `cargo xtask fuzz`: every parser of foreign bytes under libFuzzer.
//!
//! It needs a nightly compiler and cargo-fuzz, says how to get them, and
//! installs neither. New inputs go to `tests/fuzz/corpus`, findings to
//! `tests/fuzz/artifacts`; a finding makes it fail.

use crate::progress::{self, Step};
use crate::shell;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::Path;

/// Most memory a target may take (MiB); more is a finding.
const MOST_MEMORY: u32 = 2048;
/// The same for what the verifier reads: a regulator's machine is given files
/// by the very host that it judges. The sanitizer and the inputs at hand take
/// their part of the first number; the second is what the parsers may ask for
/// at once.
const VERIFIER: [&str; 13] = [
    "bundle",
    "certificate",
    "cloud",
    "enrolment",
    "event_log",
    "gpu",
    "ima_list",
    "landmark",
    "note",
    "receipt",
    "rim",
    "tpm",
    "trust",
];
const MOST_OF_VERIFIER: u32 = 512;
const MOST_AT_ONCE: u32 = 64;
/// An input that takes longer is a finding (seconds).
const MOST_TIME: u32 = 20;

/// What to run.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Minutes for each target
    #[arg(long, default_value_t = 30)]
    minutes: u32,
    /// Only these targets; all without it
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// Runs the targets, one after the other.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let folder = shell::root().join("tests/fuzz");
    let known = targets(&folder)?;
    for target in &arguments.targets {
        if !known.contains(target) {
            bail!(
                "there is no fuzz target `{target}`; there are {}",
                known.join(", ")
            );
        }
    }
    let chosen = if arguments.targets.is_empty() {
        &known
    } else {
        &arguments.targets
    };
    need_tools()?;
    for target in chosen {
        let minutes = arguments.minutes;
        let step = Step::begin(
            format!("fuzz {target}"),
            format_args!("{minutes} min, after building"),
        );
        one(&folder, target, minutes)?;
        drop(step);
    }
    Ok(())
}

/// A target is a file in `fuzz_targets`.
fn targets(folder: &Path) -> Result<Vec<String>> {
    let folder = folder.join("fuzz_targets");
    let entries =
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|suffix| suffix == "rs")
            && let Some(stem) = path.file_stem()
        {
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn need_tools() -> Result<()> {
    let mut version = shell::command(shell::home_bin("cargo"));
    version.args(["+nightly", "fuzz", "--version"]);
    match version.output() {
        Ok(output) if output.status.success() => Ok(()),
        _ => bail!(
            "fuzzing needs a nightly compiler and cargo-fuzz: run `rustup toolchain install nightly \
             --profile minimal` and `cargo install cargo-fuzz --locked`"
        ),
    }
}

fn limits(target: &str) -> Vec<String> {
    let mut limits = vec![format!("-timeout={MOST_TIME}")];
    if VERIFIER.contains(&target) {
        limits.push(format!("-rss_limit_mb={MOST_OF_VERIFIER}"));
        limits.push(format!("-malloc_limit_mb={MOST_AT_ONCE}"));
    } else {
        limits.push(format!("-rss_limit_mb={MOST_MEMORY}"));
    }
    limits
}

fn one(folder: &Path, target: &str, minutes: u32) -> Result<()> {
    let corpus = folder.join("corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let mut fuzz = shell::command(shell::home_bin("cargo"));
    fuzz.args(["+nightly", "fuzz", "run", "--fuzz-dir"])
        .arg(folder)
        .arg(target)
        .arg(&corpus);
    let seeds = folder.join("seeds").join(target);
    if seeds.is_dir() {
        fuzz.arg(&seeds);
    }
    fuzz.arg("--")
        .arg(format!("-max_total_time={}", u64::from(minutes) * 60))
        .args(limits(target))
        .arg("-print_final_stats=1");
    let words = folder.join(format!("{target}.dict"));
    if words.is_file() {
        fuzz.arg(format!("-dict={}", words.display()));
    }
    let status = fuzz
        .status()
        .with_context(|| format!("cannot run {}", shell::shown(&fuzz)))?;
    if !status.success() {
        bail!(
            "{target}: a finding, see tests/fuzz/artifacts/{target} ({})",
            shell::shown(&fuzz)
        );
    }
    progress::line(format_args!("    {target}: no finding"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_of_the_verifier_is_a_target() {
        let known = targets(&shell::root().join("tests/fuzz")).unwrap();
        for target in VERIFIER {
            assert!(known.iter().any(|name| name == target), "{target}");
        }
    }
}
