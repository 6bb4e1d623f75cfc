//! The kept vectors: every one still gives the exit code that it was kept with.
#![expect(clippy::disallowed_methods, reason = "a test reads files")]

use crate::support::NOW;
use merestone_verify::{Purpose, Trust, verify};
use std::collections::BTreeSet;
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
fn every_check_has_its_line_in_the_documentation_in_the_order_they_are_listed() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats/checks.md");
    let text = std::fs::read_to_string(file).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    let ids = rows.filter_map(|row| row.split(" | ").next());
    let ids: Vec<_> = ids
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let listed: Vec<_> = merestone_verify::CHECKS
        .iter()
        .map(|check| check.text())
        .collect();
    assert_eq!(ids, listed, "each once, in the order of every output");
}

/// Names of test functions under a folder.
fn tests_under(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_under(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let functions = text.lines().filter_map(|line| {
                let line = line.trim_start();
                line.strip_prefix("async fn ")
                    .or_else(|| line.strip_prefix("fn "))
            });
            let names = functions.filter_map(|rest| rest.split('(').next());
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn every_negative_case_has_a_line_and_every_test_it_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut tests = BTreeSet::new();
    for folder in ["attest", "agent/src/signed", "agent/tests/evidence"] {
        tests_under(&root.join(folder), &mut tests);
    }
    let table = std::fs::read_to_string(root.join("docs/formats/negative-cases.md")).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| N"));
    let (mut cases, mut named) = (BTreeSet::new(), BTreeSet::new());
    for row in rows {
        let cells: Vec<_> = row.split(" | ").collect();
        let [case, _, _, state, list] = cells[..] else {
            panic!("{row}");
        };
        let digits = case.trim_start_matches("| N");
        let number = digits.trim_end_matches(|end: char| end.is_ascii_lowercase());
        cases.insert(number.parse::<u8>().unwrap());
        let list: Vec<_> = list.split('`').skip(1).step_by(2).collect();
        let absent = list.iter().find(|test| !tests.contains(**test));
        assert_eq!(absent, None, "{case} names a test that is not there");
        assert_eq!(
            state.starts_with("decided"),
            !list.is_empty() && !state.starts_with("not"),
            "{row}"
        );
        named.extend(list);
    }
    assert_eq!(cases, (1..=77).collect());
    assert!(named.len() > 60, "{}", named.len());
}

/// `N27b`, as the number at the front of a test's name.
fn numbers(name: &str) -> Vec<String> {
    let parts = name.split('_').map_while(|part| {
        let digits = part.strip_prefix('n')?;
        let is_number = digits.starts_with(|first: char| first.is_ascii_digit());
        is_number.then(|| format!("N{}", digits.trim_start_matches('0')))
    });
    parts.collect()
}

#[test]
fn every_decided_case_has_a_kept_file_or_a_reason() {
    if std::env::var_os("MERESTONE_KEEP_VECTORS").is_some() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = std::fs::read_dir(root.join("tests/vectors/evidence")).unwrap();
    let kept: BTreeSet<String> = folder
        .flat_map(|case| numbers(&case.unwrap().file_name().to_string_lossy()))
        .collect();
    let text = std::fs::read_to_string(root.join("docs/formats/negative-cases.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| N"));
    let decided: BTreeSet<String> = rows
        .map(|row| row.split(" | ").collect::<Vec<_>>())
        .filter(|cells| cells[3].starts_with("decided"))
        .map(|cells| format!("N{}", cells[0]))
        .collect();
    let reasons = text.lines().filter_map(|line| line.strip_prefix("- "));
    let reasons = reasons.filter_map(|line| line.split_once(": "));
    let excused: BTreeSet<String> = reasons.map(|(case, _)| case.to_owned()).collect();
    let without: BTreeSet<String> = decided.difference(&kept).cloned().collect();
    assert_eq!(without, excused);
}
