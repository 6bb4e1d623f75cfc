//! What a run has shown, for `cargo xtask bypasses --accept`: by test, the state
//! that its attempts came to. Nothing is written unless
//! `$XTASK_TAMPER_OUTCOMES` names a file.

use crate::agent::Agent;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::sync::{Mutex, PoisonError};

static SHOWN: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// Which tiers there are here, from what an agent said.
pub(super) fn tiers(agent: &Agent) -> Vec<String> {
    // Those of the egress suite, which runs without the other two.
    ["cgroup", "lineage", "link", "lsm"]
        .into_iter()
        .filter(|tier| agent.said(&format!("tier: {tier} true")).is_some())
        .map(ToOwned::to_owned)
        .collect()
}

/// Writes down that a test has come to its end, and what it showed.
pub(super) fn shown(test: &str, state: &str, tiers: &[String]) {
    let Ok(path) = std::env::var("XTASK_TAMPER_OUTCOMES") else {
        return;
    };
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    shown.insert(test.to_owned(), state.to_owned());
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy().into_owned();
    let kernel: Vec<&str> = release.split('.').take(2).collect();
    let outcomes = json!({
        "kernel": kernel.join("."),
        "tiers": tiers,
        "vectors": {},
        "trials": [],
        "tests": &*shown,
    });
    fs::write(path, format!("{outcomes:#}\n")).unwrap();
}

/// Guarded groups stayed held.
pub(super) fn held(test: &str, agent: &Agent) {
    shown(test, "held", &tiers(agent));
}
