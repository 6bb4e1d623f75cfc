//! Other people's tools on what goes in and comes out: a second verifier, CDDL, a reader of EAR.
//!
//! They are Python, in `tests/foreign`, with the packages of `tests/foreign/requirements.txt`.
//! `MERESTONE_PYTHON` names an interpreter that has them; `cargo xtask foreign` makes one in
//! `target/foreign`. Where there is none, each test says that it was skipped.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests, which say what was skipped"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// As of ten minutes after the evidence of the kept vectors.
const AT: &str = "2025-10-09T09:03:20Z";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// An interpreter with the packages, or a word about why the test is skipped.
fn python(test: &str) -> Option<PathBuf> {
    python_with(test, "cbor2, pycddl, cryptography")
}

/// The same with other packages.
fn python_with(test: &str, packages: &str) -> Option<PathBuf> {
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../foreign/bin/python");
    let python = std::env::var_os("MERESTONE_PYTHON").map_or(made, PathBuf::from);
    let imports = format!("import {packages}");
    let found = Command::new(&python).args(["-c", &imports]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    println!("SKIPPED: {test}: no Python with {packages} (cargo xtask foreign)");
    None
}

fn run(python: &Path, script: &str, words: &[&str]) -> Output {
    Command::new(python)
        .arg(root().join("tests/foreign").join(script))
        .args(words)
        .output()
        .unwrap()
}

fn ours(at: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_merestone-verify"))
        .args(words)
        .current_dir(at)
        .output()
        .unwrap()
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{error}");
    text
}

#[test]
fn a_second_verifier_agrees_on_every_kept_case() {
    let Some(python) = python("a_second_verifier_agrees_on_every_kept_case") else {
        return;
    };
    let cases = root().join("tests/vectors/evidence");
    let said = succeeded(&run(&python, "agree.py", &[cases.to_str().unwrap()]));
    let (unknown, said): (Vec<_>, Vec<_>) = said
        .lines()
        .partition(|line| line.starts_with("NOT JUDGED "));
    // It asks OpenSSL about signed data; whatever else it could not judge would be news.
    for case in unknown {
        assert!(case.ends_with("no openssl"), "{case}");
        println!("SKIPPED: second verifier: {case}");
    }
    assert_eq!(said.len(), 1, "{said:?}");
    println!("{}", said[0]);
}

#[test]
fn the_tss_and_a_cose_library_take_what_is_written_and_not_what_was_changed() {
    let test = "the_tss_and_a_cose_library_take_what_is_written";
    let Some(python) = python_with(test, "cbor2, pycose, tpm2_pytss") else {
        return;
    };
    let kept = root().join("tests/vectors/evidence");
    let mut all = vec![vec![kept.to_str().unwrap().to_owned()]];
    let demo = root().join("target/demo");
    if demo.join("demo.merestone").is_file() {
        all.push(vec!["--demo".to_owned(), demo.to_str().unwrap().to_owned()]);
    } else {
        println!("SKIPPED: {test}: no {} (cargo xtask demo)", demo.display());
    }
    for words in all {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        println!("{}", succeeded(&run(&python, "tools.py", &words)));
    }
}

#[test]
fn a_cddl_tool_accepts_the_formats_and_refuses_what_is_not_of_them() {
    let Some(python) = python("a_cddl_tool_accepts_the_formats") else {
        return;
    };
    let vectors = root().join("tests/vectors/evidence");
    let good = vectors.join("a_good_bundle_of_a_p256_key_passes/file.cbor");
    let mut files = vec![good.to_str().unwrap().to_owned()];
    let demo = root().join("target/demo/demo.merestone");
    if demo.is_file() {
        files.push(demo.to_str().unwrap().to_owned());
    } else {
        println!(
            "SKIPPED: cddl of the demo's bundle: no {} (cargo xtask demo)",
            demo.display()
        );
    }
    let words: Vec<_> = files.iter().map(String::as_str).collect();
    println!("{}", succeeded(&run(&python, "cddl.py", &words)));
}

#[test]
fn a_second_verifier_agrees_on_the_demos_bundle() {
    let test = "a_second_verifier_agrees_on_the_demos_bundle";
    let Some(python) = python(test) else { return };
    let folder = root().join("target/demo");
    if !folder.join("demo.merestone").is_file() {
        println!(
            "SKIPPED: {test}: no {} (cargo xtask demo)",
            folder.display()
        );
        return;
    }
    let words = ["bundle", "demo.merestone", "--trust", "trust.toml"];
    let mine = ours(&folder, &words).status.code();
    let (file, trust) = (folder.join(words[1]), folder.join(words[3]));
    let words = [
        "bundle",
        file.to_str().unwrap(),
        "--trust",
        trust.to_str().unwrap(),
    ];
    assert_eq!(run(&python, "verify.py", &words).status.code(), mine);
}

#[test]
fn a_foreign_reader_accepts_the_attestation_result_and_its_signature() {
    let Some(python) = python("a_foreign_reader_accepts_the_attestation_result") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let file = |name: &str| at.join(name).to_str().unwrap().to_owned();
    succeeded(&run(&python, "keys.py", &[at.to_str().unwrap()]));
    let vectors = root()
        .join("tests/vectors/evidence")
        .canonicalize()
        .unwrap();
    for (case, status) in [
        ("a_good_bundle_of_a_p256_key_passes", "warning"),
        (
            "n04_a_quote_whose_signature_is_of_other_bytes_is_refused",
            "contraindicated",
        ),
        (
            "n33_an_extend_that_no_statement_explains_fails_the_policy",
            "contraindicated",
        ),
        (
            "n66_a_level_of_location_that_cannot_be_judged_is_indeterminate",
            "none",
        ),
    ] {
        let of = |name: &str| vectors.join(case).join(name).to_str().unwrap().to_owned();
        let (bundle, trust) = (of("file.cbor"), of("trust.toml"));
        let common = [
            "bundle", &bundle, "--trust", &trust, "--at", AT, "--ear", "ear",
        ];
        ours(at, &common);
        let said = succeeded(&run(&python, "ear.py", &[&file("ear")]));
        assert_eq!(said.lines().next(), Some(status), "{case}");
        for key in ["ed25519", "p256"] {
            let (secret, public) = (format!("{key}.pem"), file(&format!("{key}.pub")));
            ours(at, &[common.as_slice(), &["--ear-key", &secret]].concat());
            let said = succeeded(&run(&python, "ear.py", &[&file("ear"), "--key", &public]));
            assert_eq!(said.lines().next(), Some(status), "{case}");
            let other = file(if key == "p256" {
                "ed25519.pub"
            } else {
                "p256.pub"
            });
            let wrong = run(&python, "ear.py", &[&file("ear"), "--key", &other]);
            assert_eq!(wrong.status.code(), Some(1));
        }
    }
}
