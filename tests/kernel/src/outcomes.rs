//! What came of each vector on one kernel with one set of tiers, as data.
//!
//! The suite writes what it saw where `$MERESTONE_OUTCOMES` says, and compares
//! it with what is committed under `tests/kernel/outcomes/`: worse and better
//! are both a difference, so that no page says what no run has shown. A kernel
//! nobody has committed anything for is said to be one, and nothing is
//! compared there.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// What came of one vector in one kind of guarded group; the order is from
/// best to worst.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The call said EPERM, and nothing got out.
    Denied,
    /// The packet was dropped, whatever the call said.
    Dropped,
    /// The process was killed before anything got out.
    Killed,
    /// It got out, and the agent's uncovered list says so in these words.
    Declared(String),
    /// This kernel has no such thing.
    Absent,
}

impl State {
    /// Whether it is the same state, in whatever words it was declared. Which
    /// of two hooks is first can change from run to run; a vector that must be
    /// refused at once says so itself ([`crate::catalog::Expect`]).
    fn is_like(&self, other: &Self) -> bool {
        let is_held = |state: &Self| matches!(state, Self::Denied | Self::Dropped);
        (is_held(self) && is_held(other))
            || std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str("denied"),
            Self::Dropped => f.write_str("dropped"),
            Self::Killed => f.write_str("killed before send"),
            Self::Declared(_) => f.write_str("declared uncovered"),
            Self::Absent => f.write_str("absent"),
        }
    }
}

/// The states of one vector.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Found {
    /// Where its cgroup is guarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<State>,
    /// Where its process tree is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree: Option<State>,
    /// Whether it races the agent's scan in a tree: the worst is committed, and
    /// a better one is no difference. Set by hand, where a run has shown both.
    #[serde(default, skip_serializing_if = "is_false")]
    pub raced: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands a reference to it"
)]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Everything one run of the suite showed.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Outcomes {
    /// `6.12`, from the kernel's release.
    pub kernel: String,
    /// The tiers that were active.
    pub tiers: Vec<String>,
    /// By vector.
    pub vectors: BTreeMap<String, Found>,
    /// Trials that passed.
    pub trials: Vec<String>,
    /// Rust tests that came to their end here, and what they showed: `denied`,
    /// `detected` or `held`. Not the suite's own; see `agent/tests/tamper`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tests: BTreeMap<String, String>,
}

impl Outcomes {
    /// Nothing yet, on the kernel of that release.
    pub fn new(release: &str, tiers: &[String]) -> Self {
        let mut tiers = tiers.to_vec();
        tiers.sort();
        let numbers: Vec<_> = release.split('.').take(2).collect();
        Self {
            kernel: numbers.join("."),
            tiers,
            ..Self::default()
        }
    }

    /// `6.12-lsm` or `6.12-no-lsm`: under which name it is committed.
    pub fn name(&self) -> String {
        let lsm = self.tiers.iter().any(|tier| tier == "lsm");
        format!("{}-{}", self.kernel, if lsm { "lsm" } else { "no-lsm" })
    }

    /// Whether it is of Rust tests alone: the suite has not run.
    pub fn is_of_tests(&self) -> bool {
        self.vectors.is_empty() && self.trials.is_empty()
    }

    /// From a file.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("{} is broken", path.display()))
    }

    /// As a file for people to compare.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What was committed for this kernel and these tiers.
    pub fn committed(&self) -> Option<Self> {
        let name = self.name();
        let text = COMMITTED.iter().find(|(known, _)| *known == name)?.1;
        serde_json::from_str(text).ok()
    }

    /// How a run differs from what is committed, one line a difference; what
    /// was not run is not compared.
    pub fn differences(&self, committed: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (vector, found) in &self.vectors {
            let known = committed.vectors.get(vector).cloned().unwrap_or_default();
            let both = [
                ("cgroup", &found.cgroup, known.cgroup.clone()),
                ("tree", &found.tree, known.tree.clone()),
            ];
            for (kind, now, then) in both {
                match (now, then) {
                    (Some(now), Some(then)) if kind == "tree" && known.raced && *now <= then => {}
                    (Some(now), Some(then)) if !now.is_like(&then) => {
                        lines.push(format!("{vector}, {kind}: {now}, committed is {then}"));
                    }
                    (Some(now), None) => {
                        lines.push(format!("{vector}, {kind}: {now}, nothing is committed"));
                    }
                    _ => {}
                }
            }
        }
        lines
    }
}

/// The committed outcomes by name; in the program, because virtual machines
/// have no source tree.
pub const COMMITTED: &[(&str, &str)] = &[
    ("6.1-lsm", include_str!("../outcomes/6.1-lsm.json")),
    ("6.12-lsm", include_str!("../outcomes/6.12-lsm.json")),
    ("6.18-no-lsm", include_str!("../outcomes/6.18-no-lsm.json")),
];

/// Rust tests that need no kernel of their own: each by name, and on which
/// kernel it has passed. From what `cargo test` printed.
pub const PASSED: &str = include_str!("../outcomes/tests.json");

#[cfg(test)]
mod tests {
    use super::*;

    fn one(state: State) -> Outcomes {
        let mut outcomes = Outcomes::new("6.12.117+deb12", &["lsm".to_owned()]);
        let found = Found {
            cgroup: Some(state),
            ..Found::default()
        };
        outcomes.vectors.insert("tcp".to_owned(), found);
        outcomes
    }

    #[test]
    fn better_and_worse_are_both_a_difference() {
        let (denied, declared) = (one(State::Denied), one(State::Declared("x".to_owned())));
        assert_eq!(denied.name(), "6.12-lsm");
        assert!(denied.differences(&denied).is_empty());
        assert_eq!(denied.differences(&declared).len(), 1);
        assert_eq!(declared.differences(&denied).len(), 1);
        assert_eq!(denied.differences(&Outcomes::default()).len(), 1);
    }

    #[test]
    fn what_is_committed_can_be_read_and_is_named_after_its_kernel() {
        for (name, text) in COMMITTED {
            let outcomes: Outcomes = serde_json::from_str(text).expect(name);
            assert_eq!(outcomes.name(), *name);
        }
    }
}
