//! The cgroup the agent lives in: whoever moves it elsewhere can freeze it, kill
//! it and starve it there.
//!
//! No hook is asked before a process is moved, so the agent looks, and moves
//! itself back. It follows nobody: where its cgroup is gone, it says so once.

use super::{Finding, cgroups};
use merestone_abi::Attempt;
use std::fs;
use std::path::Path;

/// Where the agent was when it started.
#[derive(Debug)]
pub(super) struct Home(Option<String>);

impl Home {
    pub(super) fn here() -> Self {
        Self(cgroups::of_process(std::process::id()))
    }

    /// Whether it is there still; if not, it is moved back.
    pub(super) fn look(&mut self, hierarchy: &Path) -> Option<Finding> {
        let home = self.0.clone()?;
        let now = cgroups::of_process(std::process::id())?;
        if now == home {
            return None;
        }
        let procs = cgroups::at(hierarchy, &home).join("cgroup.procs");
        let moved = fs::write(procs, std::process::id().to_string());
        if moved.is_err() {
            self.0 = Some(now.clone());
        }
        Some(Finding {
            attempt: Attempt::CGROUP,
            target: format!("the agent was moved from {home} to {now}"),
            repaired: moved.map_err(|error| error.to_string()),
        })
    }
}
