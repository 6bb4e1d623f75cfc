//! What the tries of this session came to.

use super::words::Result;
use crate::api::{CanaryVector, DrillRow};
use crate::clock;
use merestone_evidence as evidence;
use std::collections::BTreeMap;

/// The last try of a way out.
#[derive(Clone, Debug)]
struct Last {
    result: Result,
    proof: String,
    time_ms: u64,
}

/// Counts, and the last result of each way out.
#[derive(Debug, Default)]
pub(super) struct Counts {
    counted: evidence::Canary,
    last: BTreeMap<&'static str, Last>,
}

impl Counts {
    /// Counts a try; whether its result is another than the last one's.
    pub(super) fn add(&mut self, name: &'static str, result: Result, proof: &str) -> bool {
        let evidence::Canary {
            runs,
            held,
            escaped,
            not_applicable,
            last_ms,
            escaped_vectors,
            errors,
            guarded: _,
        } = &mut self.counted;
        *runs += 1;
        *match result {
            Result::Held => held,
            Result::Escaped => escaped,
            Result::NotApplicable => not_applicable,
            Result::Error => errors,
        } += 1;
        if result == Result::Escaped && !escaped_vectors.iter().any(|one| one == name) {
            escaped_vectors.push(name.to_owned());
        }
        let time_ms = clock::now_ms();
        *last_ms = Some(time_ms);
        let now = Last {
            result,
            proof: proof.to_owned(),
            time_ms,
        };
        let before = self.last.insert(name, now);
        before.is_none_or(|before| before.result != result)
    }

    /// A new session counts from zero; what each way out came to stays known.
    pub(super) fn begin_session(&mut self) {
        self.counted = evidence::Canary::default();
    }

    /// For the epoch.
    pub(super) fn of_session(&self, guarded: bool) -> evidence::Canary {
        evidence::Canary {
            guarded,
            ..self.counted.clone()
        }
    }

    /// How often each result came out in this session.
    pub(super) fn by_result(&self) -> Vec<(String, u64)> {
        let count = |result| match result {
            Result::Held => self.counted.held,
            Result::Escaped => self.counted.escaped,
            Result::NotApplicable => self.counted.not_applicable,
            Result::Error => self.counted.errors,
        };
        let all = Result::ALL.into_iter();
        all.map(|result| (result.word().to_owned(), count(result)))
            .collect()
    }

    /// When the last try ended.
    pub(super) fn last_ms(&self) -> Option<u64> {
        self.counted.last_ms
    }

    /// The last try of each way out.
    pub(super) fn vectors(&self) -> Vec<CanaryVector> {
        let vector = |(name, last): (&&'static str, &Last)| CanaryVector {
            row: DrillRow {
                vector: (*name).to_owned(),
                what: super::runner::what(name).to_owned(),
                result: last.result,
                proof: last.proof.clone(),
            },
            time_ms: last.time_ms,
        };
        self.last.iter().map(vector).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_the_sum_of_the_outcomes_and_an_escape_is_named_once() {
        let mut counts = Counts::default();
        assert!(counts.add("tcp4", Result::Held, ""));
        assert!(!counts.add("tcp4", Result::Held, ""));
        assert!(counts.add("tcp4", Result::Escaped, "x"));
        assert!(!counts.add("tcp4", Result::Escaped, "x"));
        assert!(counts.add("vsock", Result::NotApplicable, ""));
        assert!(counts.add("guard", Result::Error, ""));
        let found = counts.of_session(true);
        let sum = found.held + found.escaped + found.not_applicable + found.errors;
        assert_eq!((found.runs, sum), (6, 6));
        assert_eq!(found.escaped_vectors, ["tcp4"]);
        assert!(found.guarded && found.last_ms.is_some());
        counts.begin_session();
        assert_eq!(counts.of_session(false), evidence::Canary::default());
        assert!(!counts.add("tcp4", Result::Escaped, "x"), "no change");
        assert_eq!(counts.of_session(false).escaped_vectors, ["tcp4"]);
    }
}
