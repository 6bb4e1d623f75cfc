//! What cargo built: the test programs, and the binaries that they start.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::shell::{self, Running};

/// A program that cargo built: a test, or a binary that tests start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// The package's directory name-giver, `merestone-agent`.
    pub(crate) package: String,
    /// The target, without cargo's hash.
    pub(crate) target: String,
    pub(crate) path: PathBuf,
    /// Where cargo would run it.
    pub(crate) directory: PathBuf,
    /// A test, not a binary.
    pub(crate) is_test: bool,
}

impl Program {
    /// Told apart from the other packages' targets of the same name.
    pub(crate) fn name(&self) -> String {
        if self.target.replace('_', "-") == self.package {
            self.package.clone()
        } else {
            format!("{}-{}", self.package, self.target)
        }
    }
}

/// Builds tests and binaries of the packages; no package is all of them.
///
/// One selection for everything that runs: another one has other features, and
/// then compiles the same crates again.
pub(crate) fn build(packages: &[String], features: &[&str]) -> Result<Vec<Program>> {
    build_some(packages, packages, features)
}

/// The same, with the tests of fewer packages than those whose binaries are wanted.
pub(crate) fn build_some(
    binaries: &[String],
    tests: &[String],
    features: &[&str],
) -> Result<Vec<Program>> {
    let mut found = Vec::new();
    let both = [
        (["build", "--bins"], binaries),
        (["test", "--no-run"], tests),
    ];
    for (what, packages) in both {
        let mut cargo = shell::cargo();
        cargo
            .args(what)
            .arg("--message-format=json-render-diagnostics");
        if packages.is_empty() {
            cargo.arg("--workspace");
        }
        for package in packages {
            cargo.args(["--package", package]);
        }
        if !features.is_empty() {
            cargo.arg("--features").arg(features.join(","));
        }
        let mut running = Running::start(cargo.stdout(Stdio::piped()))?;
        for program in running.lines()?.filter_map(|line| program(&line)) {
            if !found.contains(&program) {
                found.push(program);
            }
        }
        if !running.wait()?.success() {
            bail!("`cargo {}` failed: it does not compile", what.join(" "));
        }
    }
    Ok(found)
}

/// One line of cargo's messages, where it tells of a program.
fn program(message: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(message).ok()?;
    let text = |at: &str| {
        message
            .pointer(at)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let manifest = PathBuf::from(text("/manifest_path")?);
    Some(Program {
        package: package_name(&text("/package_id")?),
        target: text("/target/name")?,
        path: PathBuf::from(text("/executable")?),
        directory: manifest.parent()?.to_owned(),
        is_test: message.pointer("/profile/test")?.as_bool()?,
    })
}

/// `path+file:///a/agent#merestone-agent@0.1.0`, or `..fake-nvml#0.1.0` where
/// the directory has the package's name.
fn package_name(id: &str) -> String {
    let (place, name) = id.rsplit_once('#').unwrap_or(("", id));
    match name.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => place.rsplit('/').next().unwrap_or(name).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_taken_from_cargos_messages() {
        let test = r#"{"package_id":"path+file:///w/agent#merestone-agent@0.1.0","manifest_path":"/w/agent/Cargo.toml","target":{"name":"egress"},"profile":{"test":true},"executable":"/t/egress-1"}"#;
        let found = program(test).unwrap();
        assert_eq!(
            (found.package.as_str(), found.target.as_str(), found.is_test),
            ("merestone-agent", "egress", true)
        );
        assert_eq!(found.directory, PathBuf::from("/w/agent"));
        let library = test.replace(r#""/t/egress-1""#, "null");
        assert!(program(&library).is_none());
        assert!(program("not json").is_none());
        assert_eq!(
            package_name("path+file:///w/tests/fake-nvml#0.1.0"),
            "fake-nvml"
        );
    }
}
