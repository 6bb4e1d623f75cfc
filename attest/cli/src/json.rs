//! The verdict as one JSON object, for programs.

use crate::escape;
use merestone_verify::Verdict;

pub(crate) fn object(verdict: &Verdict) -> String {
    // Every part of a verdict is a plain value: nothing in it can fail to serialise.
    let text = serde_json::to_string_pretty(verdict).unwrap_or_else(|error| {
        format!("{{\"verdict\": \"untrusted\", \"exit\": 1, \"error\": \"{error}\"}}")
    });
    escape::json(&text) + "\n"
}
