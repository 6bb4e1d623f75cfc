//! What is printed: a line a case, a table at the end, and a file for machines.

use super::endurance::Trial;
use super::verdict::Outcome;
use crate::catalog::{Oracle, Vector};
use crate::holder::Status;
use crate::lab::Phase;
use crate::outcomes::{Found, Outcomes, State};
use anyhow::Result;
use std::path::PathBuf;
use std::time::Duration;

/// Prints a line.
#[expect(clippy::print_stdout, reason = "the suite's report is its output")]
pub(super) fn say(line: &str) {
    println!("{line}");
}

#[derive(Debug)]
struct Row {
    vector: &'static Vector,
    outcomes: Vec<(Phase, Outcome)>,
}

/// What is known so far.
#[derive(Debug)]
pub(super) struct Report {
    rows: Vec<Row>,
    trials: Vec<(&'static str, Outcome)>,
    skipped: usize,
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Pass(_) => "ok",
        Outcome::Declared(_) => "declared",
        Outcome::Absent(_) => "absent",
        Outcome::Fail(_) => "FAILED",
    }
}

fn detail(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Pass(text)
        | Outcome::Declared(text)
        | Outcome::Absent(text)
        | Outcome::Fail(text) => text,
    }
}

fn run_of(phase: Phase) -> &'static str {
    match phase {
        Phase::Control => "control",
        Phase::Teeth => "no agent",
        Phase::Cgroup => "cgroup",
        Phase::Tree => "tree",
    }
}

impl Report {
    pub(super) fn new(vectors: &[&'static Vector]) -> Self {
        let row = |vector: &&'static Vector| Row {
            vector,
            outcomes: Vec::new(),
        };
        Self {
            rows: vectors.iter().map(row).collect(),
            trials: Vec::new(),
            skipped: 0,
        }
    }

    /// Whether a run of the vector showed that this kernel has no such thing.
    pub(super) fn is_absent(&self, vector: &Vector) -> bool {
        let row = self.rows.iter().find(|row| row.vector.name == vector.name);
        let mut outcomes = row.into_iter().flat_map(|row| &row.outcomes);
        outcomes.any(|(_, outcome)| matches!(outcome, Outcome::Absent(_)))
    }

    pub(super) fn agent(status: &Status) {
        say(&format!("tiers active: {}", status.tiers.join(", ")));
        for entry in &status.uncovered {
            say(&format!("declared uncovered: {entry}"));
        }
    }

    pub(super) fn vector(&mut self, vector: &'static Vector, phase: Phase, outcome: Outcome) {
        let (run, word, detail) = (run_of(phase), word(&outcome), detail(&outcome));
        let says = match phase {
            Phase::Control | Phase::Teeth => "an unguarded process is not held".to_owned(),
            Phase::Cgroup | Phase::Tree => format!("a guarded process {}", vector.says),
        };
        let (name, cases) = (vector.name, vector.cases);
        say(&format!(
            "test {name} ({cases}), {run}: {says} ... {word}: {detail}"
        ));
        if let Some(row) = self.rows.iter_mut().find(|row| row.vector.name == name) {
            row.outcomes.push((phase, outcome));
        }
    }

    pub(super) fn trial(&mut self, trial: &Trial, outcome: Outcome) {
        let (word, detail) = (word(&outcome), detail(&outcome));
        let (name, says, cases) = (trial.name, trial.says, trial.cases);
        say(&format!(
            "test {name} ({cases}): {says} ... {word}: {detail}"
        ));
        self.trials.push((name, outcome));
    }

    /// Names what was not run.
    pub(super) fn no_agent(&mut self, vectors: &[&'static Vector], trials: &[&Trial]) {
        let names = vectors
            .iter()
            .map(|v| v.name)
            .chain(trials.iter().map(|t| t.name));
        for name in names {
            let why = "no agent to test; set MERESTONE_BIN or MERESTONE_HOLD";
            say(&format!("test {name}, guarded ... skipped: {why}"));
            self.skipped += 1;
        }
    }

    /// Writes what was seen where `$MERESTONE_OUTCOMES` says, and compares it
    /// with what is committed, unless `$MERESTONE_ACCEPT` is set.
    pub(super) fn compare(&mut self, status: &Status) -> Result<()> {
        let release = rustix::system::uname();
        let release = release.release().to_string_lossy().into_owned();
        let mut found = Outcomes::new(&release, &status.tiers);
        for Row { vector, outcomes } in &self.rows {
            found
                .vectors
                .insert(vector.name.to_owned(), states(vector, outcomes));
        }
        let passed = self.trials.iter().filter(|(_, one)| word(one) == "ok");
        found.trials = passed.map(|(name, _)| (*name).to_owned()).collect();
        if let Some(path) = std::env::var_os("MERESTONE_OUTCOMES") {
            found.write(&PathBuf::from(path))?;
        }
        let name = found.name();
        if std::env::var_os("MERESTONE_ACCEPT").is_some() {
            return Ok(());
        }
        let Some(committed) = found.committed() else {
            say(&format!(
                "no outcomes are committed for {name}: nothing to compare with"
            ));
            return Ok(());
        };
        let differences = found.differences(&committed);
        let says = "what came of each vector is what is committed";
        let outcome = if differences.is_empty() {
            Outcome::Pass(format!("{} vectors", found.vectors.len()))
        } else {
            Outcome::Fail(differences.join("; "))
        };
        let (word, detail) = (word(&outcome), detail(&outcome));
        say(&format!(
            "test outcomes-{name}: {says} ... {word}: {detail}"
        ));
        self.trials.push(("outcomes", outcome));
        Ok(())
    }

    /// Prints the table; whether all is as it must be.
    pub(super) fn finish(&self, took: Duration) -> bool {
        say("");
        say(&format!(
            "{:<26}{:<14}{:<10}{:<10}{:<10}{:<10}",
            "vector", "cases", "no agent", "control", "cgroup", "tree"
        ));
        let phases = [Phase::Teeth, Phase::Control, Phase::Cgroup, Phase::Tree];
        for Row { vector, outcomes } in &self.rows {
            let cells = phases.map(|phase| {
                let found = outcomes.iter().find(|(other, _)| *other == phase);
                found.map_or("-", |(_, outcome)| cell(phase, outcome))
            });
            let [teeth, control, cgroup, tree] = cells;
            let (name, cases) = (vector.name, vector.cases);
            say(&format!(
                "{name:<26}{cases:<14}{teeth:<10}{control:<10}{cgroup:<10}{tree:<10}"
            ));
        }
        let outcomes: Vec<_> = self.outcomes().collect();
        let count = |wanted: &str| outcomes.iter().filter(|one| word(one) == wanted).count();
        let (passed, declared, absent) = (count("ok"), count("declared"), count("absent"));
        let (failed, skipped) = (count("FAILED"), self.skipped);
        say(&format!(
            "\negress suite: {passed} passed, {failed} failed, {declared} declared uncovered, \
             {absent} absent on this kernel, {skipped} skipped; {:.1} s",
            took.as_secs_f64()
        ));
        failed == 0
    }

    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        let rows = self
            .rows
            .iter()
            .flat_map(|row| row.outcomes.iter().map(|(_, one)| one));
        rows.chain(self.trials.iter().map(|(_, one)| one))
    }
}

/// What a vector came to, guarded; a failure is no state.
fn states(vector: &Vector, outcomes: &[(Phase, Outcome)]) -> Found {
    let absent = outcomes
        .iter()
        .any(|(_, outcome)| matches!(outcome, Outcome::Absent(_)));
    if absent {
        return Found {
            cgroup: Some(State::Absent),
            ..Found::default()
        };
    }
    let of = |wanted: Phase| {
        let (_, outcome) = outcomes.iter().find(|(phase, _)| *phase == wanted)?;
        match outcome {
            Outcome::Pass(seen) => {
                let at_once = seen.starts_with("EPERM by") || vector.oracle == Oracle::Answer;
                Some(if at_once {
                    State::Denied
                } else {
                    State::Dropped
                })
            }
            Outcome::Declared(entry) => {
                let (words, _) = entry.split_once(" [").unwrap_or((entry, ""));
                Some(State::Declared(words.to_owned()))
            }
            Outcome::Absent(_) => Some(State::Absent),
            Outcome::Fail(_) => None,
        }
    };
    Found {
        cgroup: of(Phase::Cgroup),
        tree: of(Phase::Tree),
        raced: false,
    }
}

/// What the table calls an outcome: what happened to the packet.
fn cell(phase: Phase, outcome: &Outcome) -> &'static str {
    match (phase, outcome) {
        (Phase::Control | Phase::Teeth, Outcome::Pass(_)) => "leaks",
        (Phase::Cgroup | Phase::Tree, Outcome::Pass(_)) => "held",
        (_, other) => word(other),
    }
}
