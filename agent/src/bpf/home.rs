//! The cgroup the agent lives in: whoever moves it elsewhere can freeze it, kill
//! it and starve it there.
//!
//! No hook is asked before a process is moved, so the agent looks, and moves
//! itself back. It follows nobody: where its cgroup is gone, it says so once.

use super::{Finding, cgroups, standing};
use merestone_abi::Attempt;
use std::fs;
use std::path::Path;

/// Where the agent was when it started, and the files that control it there.
#[derive(Debug)]
pub(super) struct Home {
    cgroup: Option<String>,
    controls: Vec<(u32, u64)>,
}

impl Home {
    pub(super) fn here() -> Self {
        Self {
            cgroup: cgroups::of_process(std::process::id()),
            controls: Vec::new(),
        }
    }

    /// Whether those files are others than at the last look: a controller that
    /// is switched off and on again has new ones.
    pub(super) fn has_new_controls(&mut self, hierarchy: &Path) -> bool {
        let now = standing::control_files(hierarchy);
        let is_new = now != self.controls;
        self.controls = now;
        is_new
    }

    /// Whether it is there still; if not, it is moved back.
    pub(super) fn look(&mut self, hierarchy: &Path) -> Option<Finding> {
        let home = self.cgroup.clone()?;
        let now = cgroups::of_process(std::process::id())?;
        if now == home {
            return None;
        }
        let procs = cgroups::at(hierarchy, &home).join("cgroup.procs");
        let moved = fs::write(procs, std::process::id().to_string());
        if moved.is_err() {
            self.cgroup = Some(now.clone());
        }
        Some(Finding {
            attempt: Attempt::CGROUP,
            target: format!("the agent was moved from {home} to {now}"),
            repaired: moved.map_err(|error| error.to_string()),
        })
    }
}
