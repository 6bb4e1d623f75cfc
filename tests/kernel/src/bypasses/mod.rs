//! The bypass catalogue: `tests/kernel/cases.toml`, the vectors and trials that
//! cite a case, and the committed outcomes, joined into docs/bypasses.md.
//!
//! It claims nothing itself. A case without a test that exists is refused, and
//! so is a page that is not what would be generated.

mod render;

use crate::catalog::VECTORS;
use crate::outcomes::{COMMITTED, Outcomes, PASSED};
use crate::suite::endurance::TRIALS;
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// One case of the catalogue.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// `B01` and so on.
    pub id: String,
    /// How it gets out, in a line.
    pub says: String,
    /// Who met it first: threads, advisories, or our own measurement.
    pub source: String,
    /// Rust tests that cover what the suite does not, by function name.
    #[serde(default)]
    pub tests: Vec<String>,
    /// What those tests show.
    #[serde(default)]
    pub shows: String,
    /// Why no test can cover it; such a case is outside, and said to be.
    #[serde(default)]
    pub outside: String,
}

#[derive(Debug, Deserialize)]
struct File {
    case: Vec<Case>,
}

/// The catalogue and what is known of it.
#[derive(Debug)]
pub struct Catalogue {
    cases: Vec<Case>,
    outcomes: Vec<(&'static str, Outcomes)>,
    /// Rust tests that need no kernel of their own, and where they passed.
    passed: BTreeMap<String, String>,
}

/// Where the source tree is; not in a virtual machine.
fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page() -> PathBuf {
    tree().join("docs/bypasses.md")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("outcomes")
}

impl Catalogue {
    /// Reads what this build carries.
    pub fn load() -> Result<Self> {
        let File { case } = toml::from_str(include_str!("../../cases.toml"))
            .context("tests/kernel/cases.toml is broken")?;
        let parse = |(name, text): &(&'static str, &str)| {
            let outcomes = serde_json::from_str(text);
            Ok((
                *name,
                outcomes.with_context(|| format!("{name} is broken"))?,
            ))
        };
        let outcomes: Result<Vec<_>> = COMMITTED.iter().map(parse).collect();
        Ok(Self {
            cases: case,
            outcomes: outcomes?,
            passed: serde_json::from_str(PASSED).context("outcomes/tests.json is broken")?,
        })
    }

    /// Vectors and trials that cite a case.
    fn suite_tests(id: &str) -> (Vec<&'static str>, Vec<&'static str>) {
        let cites = |cases: &str| cases.split(' ').any(|word| word == id);
        let vectors = VECTORS.iter().filter(|vector| cites(vector.cases));
        let trials = TRIALS.iter().filter(|trial| cites(trial.cases));
        (
            vectors.map(|vector| vector.name).collect(),
            trials.map(|trial| trial.name).collect(),
        )
    }

    /// Whether some run has shown a Rust test passing.
    fn has_passed(&self, test: &str) -> bool {
        let on_a_kernel = |(_, outcomes): &(_, Outcomes)| outcomes.tests.contains_key(test);
        self.passed.contains_key(test) || self.outcomes.iter().any(on_a_kernel)
    }

    /// What is wrong with it, one line a fault.
    pub fn faults(&self) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        let known: BTreeSet<_> = self.cases.iter().map(|case| case.id.as_str()).collect();
        if known.len() != self.cases.len() {
            faults.push("a case is there twice".to_owned());
        }
        for number in 1..=60 {
            let id = format!("B{number:02}");
            if !known.contains(id.as_str()) {
                faults.push(format!("{id} is missing"));
            }
        }
        let cited = VECTORS.iter().map(|vector| (vector.name, vector.cases));
        for (name, cases) in cited.chain(TRIALS.iter().map(|trial| (trial.name, trial.cases))) {
            for id in cases.split(' ').filter(|id| !known.contains(id)) {
                faults.push(format!("{name} cites {id}, which is no case"));
            }
        }
        let functions = functions(&tree())?;
        for case in &self.cases {
            let (vectors, trials) = Self::suite_tests(&case.id);
            let id = &case.id;
            for test in &case.tests {
                if !functions.contains_key(test.as_str()) {
                    faults.push(format!("{id} cites the test {test}, which does not exist"));
                } else if !self.has_passed(test) {
                    faults.push(format!(
                        "{id} cites the test {test}, of which no run is committed that passed: \
                         `cargo xtask bypasses --accept` takes its outcomes, or what it printed"
                    ));
                }
            }
            let tested = !vectors.is_empty() || !trials.is_empty() || !case.tests.is_empty();
            if tested != case.outside.is_empty() {
                faults.push(format!(
                    "{id} must have a test, or say why none is possible"
                ));
            }
        }
        for (name, outcomes) in &self.outcomes {
            if outcomes.vectors.is_empty() {
                faults.push(format!(
                    "nothing is committed for {name}: the suite has not run there"
                ));
                continue;
            }
            for vector in VECTORS {
                if !outcomes.vectors.contains_key(vector.name) {
                    faults.push(format!(
                        "nothing is committed for {} on {name}",
                        vector.name
                    ));
                }
            }
            for vector in outcomes.vectors.keys() {
                if crate::catalog::find(vector).is_none() {
                    faults.push(format!(
                        "{name} has outcomes of {vector}, which is no vector"
                    ));
                }
            }
        }
        if !fs::read_to_string(page()).is_ok_and(|text| text == self.render()) {
            faults.push("docs/bypasses.md is not what would be generated".to_owned());
        }
        Ok(faults)
    }
}

/// Every function of the tree's tests, and the file it is in.
fn functions(tree: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut rest: Vec<_> = ["agent", "attest", "ebpf", "tests", "xtask"]
        .map(|name| tree.join(name))
        .into();
    while let Some(path) = rest.pop() {
        for entry in
            fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?
        {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                if entry.file_name() != "target" {
                    rest.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path)?;
                found.extend(
                    text.lines()
                        .filter_map(function)
                        .map(|name| (name, path.clone())),
                );
            }
        }
    }
    Ok(found)
}

/// The name of the function whose definition begins on this line.
fn function(line: &str) -> Option<String> {
    let line = line.trim_start();
    let line = line.strip_prefix("async ").unwrap_or(line);
    let (name, _) = line.strip_prefix("fn ")?.split_once('(')?;
    Some(name.to_owned())
}

/// `bypasses [--check] [--accept FILE…]`: writes the page, or says what is
/// wrong; `--accept` commits what runs of the suite have written.
pub fn main(arguments: &[String]) -> Result<Vec<String>> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => {
            let catalogue = Catalogue::load()?;
            fs::write(page(), catalogue.render())?;
            catalogue.faults()
        }
        ["--check"] => Catalogue::load()?.faults(),
        ["--accept", files @ ..] if !files.is_empty() => {
            for file in files {
                accept(Path::new(file))?;
            }
            Ok(Vec::new())
        }
        _ => bail!("usage: bypasses [--check] [--accept FILE...]"),
    }
}

/// Merges what one run showed into what is committed for its kernel.
fn accept(file: &Path) -> Result<()> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    if !text.starts_with('{') {
        return accept_printed(&text);
    }
    let mut found = Outcomes::read(file)?;
    let cited = cited()?;
    found.tests.retain(|test, _| cited.contains(test));
    let place = folder().join(format!("{}.json", found.name()));
    let mut committed = if place.exists() {
        Outcomes::read(&place)?
    } else {
        found.clone()
    };
    committed.tests.extend(found.tests.clone());
    committed.tests.retain(|test, _| cited.contains(test));
    if found.is_of_tests() {
        return committed.write(&place);
    }
    // Committed before under another set of tiers: nothing of it counts.
    if committed.tiers != found.tiers {
        committed = Outcomes {
            vectors: BTreeMap::new(),
            ..found.clone()
        };
    }
    committed.trials.extend(found.trials.iter().cloned());
    committed.trials.sort();
    committed.trials.dedup();
    committed
        .vectors
        .retain(|name, _| crate::catalog::find(name).is_some());
    for (vector, mut states) in found.vectors {
        if let Some(known) = committed.vectors.get(&vector)
            && known.raced
        {
            states.raced = true;
            states.tree = states.tree.max(known.tree.clone());
        }
        if states.cgroup.is_some() {
            committed.vectors.insert(vector, states);
        }
    }
    committed.write(&place)
}

/// Every Rust test that a case cites.
fn cited() -> Result<BTreeSet<String>> {
    let cases = Catalogue::load()?.cases.into_iter();
    Ok(cases.flat_map(|case| case.tests).collect())
}

/// Takes what a test program printed, with `--show-output`, on this kernel.
fn accept_printed(text: &str) -> Result<()> {
    let place = folder().join("tests.json");
    let mut passed: BTreeMap<String, String> =
        serde_json::from_str(&fs::read_to_string(&place)?).context("tests.json is broken")?;
    let cited = cited()?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let kernel: Vec<&str> = release.trim().split('.').take(2).collect();
    for test in passed_in(text).intersection(&cited) {
        passed.insert(test.clone(), format!("Linux {}", kernel.join(".")));
    }
    passed.retain(|test, _| cited.contains(test));
    let mut text = serde_json::to_string_pretty(&passed)?;
    text.push('\n');
    Ok(fs::write(&place, text)?)
}

/// The tests that passed, by function name; one that said it was skipped did
/// not.
fn passed_in(text: &str) -> BTreeSet<String> {
    let short = |name: &str| name.rsplit("::").next().unwrap_or(name).to_owned();
    let mut passed = BTreeSet::new();
    let mut speaks = None;
    for line in text.lines() {
        if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... ok"))
        {
            passed.insert(short(name));
        } else if let Some(name) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            speaks = Some(short(name));
        } else if line.starts_with("SKIPPED: ")
            && let Some(name) = &speaks
        {
            passed.remove(name);
        }
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_counts_where_it_passed_and_was_not_skipped() {
        let printed = "test a::b ... ok\ntest c ... ok\ntest d ... FAILED\n\nsuccesses:\n\n\
                       ---- c stdout ----\nSKIPPED: c: no GPU here\n";
        assert_eq!(passed_in(printed), BTreeSet::from(["b".to_owned()]));
    }

    #[test]
    fn every_case_has_a_test_and_the_page_is_what_would_be_generated() {
        // In a virtual machine there are the tests and not their source.
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../xtask");
        if !sources.is_dir() {
            println!(
                "SKIPPED: every_case_has_a_test_and_the_page_is_what_would_be_generated: \
                 the source is not here"
            );
            return;
        }
        let faults = Catalogue::load().unwrap().faults().unwrap();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}
