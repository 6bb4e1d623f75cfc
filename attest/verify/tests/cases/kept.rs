//! The kept vectors: every one still gives the exit code that it was kept with.
#![expect(clippy::disallowed_methods, reason = "a test reads files")]

use crate::support::NOW;
use merestone_verify::{Purpose, Trust, verify};
use std::path::Path;

#[test]
fn every_kept_vector_gives_its_exit_code() {
    // While they are being written, some are not there yet.
    if std::env::var_os("MERESTONE_KEEP_VECTORS").is_some() {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/evidence");
    let mut seen = [0; 4];
    for entry in std::fs::read_dir(folder).unwrap() {
        let case = entry.unwrap().path();
        let text = |name: &str| std::fs::read_to_string(case.join(name)).unwrap();
        let expect = text("expect");
        let (command, exit) = expect.trim().split_once(' ').unwrap();
        let purpose = if command == "bundle" {
            Purpose::Period
        } else {
            Purpose::Receipt
        };
        let trust = Trust::parse(&text("trust.toml"), "trust.toml").unwrap();
        let bytes = std::fs::read(case.join("file.cbor")).unwrap();
        let verdict = verify(&bytes, &trust, purpose, NOW);
        assert_eq!(
            verdict.exit.to_string(),
            exit,
            "{}: {:#?}",
            case.display(),
            verdict.checks
        );
        seen[usize::from(verdict.exit)] += 1;
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

#[test]
fn every_check_has_a_line_in_the_documentation() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats/checks.md");
    let text = std::fs::read_to_string(file).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    let ids = rows.filter_map(|row| row.split(" | ").next());
    let ids: Vec<_> = ids
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    for check in merestone_verify::CHECKS {
        let lines = ids.iter().filter(|id| **id == check.text()).count();
        assert_eq!(lines, 1, "{}", check.text());
    }
    assert_eq!(ids.len(), merestone_verify::CHECKS.len());
}
