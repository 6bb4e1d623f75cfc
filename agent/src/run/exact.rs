//! What the kernel counts, as it was last read.
//!
//! A map that cannot be read is never taken for zeros: the statement repeats
//! what was read before, and the failed reading is a loss of its own, so that
//! an entry, the epoch and the verifier's `policy.lost` all show it.

use crate::bpf::{Counter, Kernel, KernelError};
use merestone_abi::GroupId;
use std::collections::BTreeSet;

/// Readings of the kernel's maps, and how often one failed.
#[derive(Debug)]
pub(super) struct Exact {
    counters: Vec<Counter>,
    lost: Vec<(&'static str, u64)>,
    groups: u64,
    processes: usize,
    failed: Failed,
    /// The agent's own group, which is nobody's workload.
    own: Option<GroupId>,
}

/// Readings that failed since the agent started.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Failed {
    counters: u64,
    lost: u64,
    groups: u64,
}

impl Exact {
    /// Refuses to begin without a first reading: there would be nothing true
    /// to repeat.
    pub(super) fn begin(kernel: &Kernel) -> Result<Self, KernelError> {
        Ok(Self {
            counters: kernel.counters()?,
            lost: kernel.lost()?,
            groups: group_ids(kernel)?.len() as u64,
            processes: kernel.tasks()?.len(),
            failed: Failed::default(),
            own: None,
        })
    }

    /// Does not count `own` among the guarded groups.
    pub(super) fn leave_out(&mut self, own: Option<GroupId>) {
        self.own = own;
    }

    /// Reads again.
    pub(super) fn read(&mut self, kernel: &Kernel) {
        let own = self.own;
        let Failed {
            counters,
            lost,
            groups,
        } = &mut self.failed;
        take(&mut self.counters, kernel.counters(), counters);
        take(&mut self.lost, kernel.lost(), lost);
        let is_workload = |group: GroupId| Some(group) != own;
        let ids = group_ids(kernel);
        let ids = ids.map(|ids| ids.into_iter().filter(|id| is_workload(*id)).count() as u64);
        take(&mut self.groups, ids, groups);
        let tasks = kernel.tasks();
        let tasks = tasks.map(|tasks| {
            tasks
                .iter()
                .filter(|(_, task)| is_workload(task.group))
                .count()
        });
        take(&mut self.processes, tasks, groups);
    }

    /// Decisions.
    pub(super) fn counters(&self) -> &[Counter] {
        &self.counters
    }

    /// Guarded groups.
    pub(super) fn groups(&self) -> u64 {
        self.groups
    }

    /// Guarded processes.
    pub(super) fn processes(&self) -> usize {
        self.processes
    }

    /// What the kernel lost, and the readings that failed, by reason.
    pub(super) fn losses(&self) -> Vec<(String, u64)> {
        let Failed {
            counters,
            lost,
            groups,
        } = self.failed;
        let failed = [
            ("counters_unreadable", counters),
            ("lost_unreadable", lost),
            ("groups_unreadable", groups),
        ];
        let all = self.lost.iter().copied().chain(failed);
        all.map(|(reason, count)| (reason.to_owned(), count))
            .collect()
    }
}

/// Keeps what was there, and counts, where the reading failed.
fn take<T>(kept: &mut T, reading: Result<T, KernelError>, failed: &mut u64) {
    match reading {
        Ok(reading) => *kept = reading,
        Err(error) => {
            tracing::error!(%error, "the last reading is repeated, and this one counted as lost");
            *failed += 1;
        }
    }
}

/// The guarded groups: cgroups, and trees by their tasks.
pub(super) fn group_ids(kernel: &Kernel) -> Result<BTreeSet<GroupId>, KernelError> {
    let groups = kernel.groups()?.into_iter().map(|(id, _)| id);
    let tasks = kernel.tasks()?.into_iter().map(|(_, task)| task.group);
    Ok(groups.chain(tasks).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreadable<T>() -> Result<T, KernelError> {
        Err(KernelError::NoBtf)
    }

    #[test]
    fn a_map_that_cannot_be_read_is_a_loss_and_never_zeros() {
        let mut exact = Exact {
            counters: Vec::new(),
            lost: vec![("ring_full", 3)],
            groups: 2,
            processes: 0,
            failed: Failed::default(),
            own: None,
        };
        take(&mut exact.groups, unreadable(), &mut exact.failed.groups);
        take(&mut exact.lost, unreadable(), &mut exact.failed.lost);
        assert_eq!(exact.groups(), 2, "what was read before is repeated");
        let losses = exact.losses();
        for (reason, count) in [
            ("ring_full", 3),
            ("groups_unreadable", 1),
            ("lost_unreadable", 1),
            ("counters_unreadable", 0),
        ] {
            assert!(losses.contains(&(reason.to_owned(), count)), "{losses:?}");
        }
        take(&mut exact.groups, Ok(5), &mut exact.failed.groups);
        assert_eq!((exact.groups(), exact.failed.groups), (5, 1));
    }
}
