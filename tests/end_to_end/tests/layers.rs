//! The architecture, kept by a test: who may depend on what
//! (docs/architecture.md, "what you will not find").

#![expect(
    clippy::expect_used,
    reason = "a helper of tests fails by panicking; clippy only sees the tests themselves"
)]

use std::collections::BTreeSet;
use std::process::Command;

/// The names of all that a package is built from, for every target.
fn built_from(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
        ])
        .args(["--format", "{p}", "--target", "all", "--package", package])
        .output()
        .expect("cargo tree runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let names = said.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

fn has_none_of(package: &str, forbidden: &[&str]) {
    let tree = built_from(package);
    assert!(tree.contains(package), "the tree of {package} is empty");
    for name in forbidden {
        assert!(!tree.contains(*name), "{package} is built from {name}");
    }
}

#[test]
fn the_verifier_is_built_without_tpm_library_ebpf_async_runtime_or_nvml() {
    for package in [
        "merestone-verify-cli",
        "merestone-verify",
        "merestone-enrol",
        "merestone-evidence",
    ] {
        has_none_of(
            package,
            &[
                "tss-esapi",
                "tss-esapi-sys",
                "aya",
                "merestone-abi",
                "merestone-agent",
                "merestone-tpm",
                "nvml-wrapper",
                "tokio",
            ],
        );
    }
}

#[test]
fn evidence_and_verification_read_no_clock_and_no_random_numbers() {
    for package in ["merestone-evidence", "merestone-tlog"] {
        has_none_of(package, &["getrandom", "rand", "rustix", "time"]);
    }
}

#[test]
fn enrolment_and_verification_are_given_their_random_numbers() {
    for package in ["merestone-enrol", "merestone-verify"] {
        has_none_of(package, &["getrandom", "rand", "rustix"]);
    }
}

#[test]
fn what_crosses_the_kernel_line_needs_no_standard_library() {
    has_none_of("merestone-abi", &["serde", "libc", "aya"]);
}

#[test]
fn only_the_tpm_crate_and_the_agent_are_built_from_a_tpm_stack() {
    has_none_of("fake-nvml", &["tss-esapi"]);
    has_none_of("merestone-tpm", &["merestone-enrol", "merestone-verify"]);
    has_none_of("xtask", &["tss-esapi", "aya", "merestone-agent"]);
    assert!(
        built_from("merestone-tpm").contains("tss-esapi"),
        "this check can fail"
    );
}
