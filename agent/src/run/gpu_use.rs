//! What GPUs did while a request was answered: NVML's readings before it began and after it
//! ended, and those between.
//!
//! Energy and busy time are of the whole GPU, whoever used it; NVML does not tell them apart. It
//! says between which readings it looked, and nothing where it has no two.

use crate::gpu::GpuSnapshot;
use merestone_abi::GroupId;
use merestone_evidence::GpuDuring;
use std::collections::{BTreeMap, VecDeque};

/// Readings that are kept; there is one a second at most.
const MOST: usize = 900;

/// One GPU at one moment.
#[derive(Debug, Default)]
struct Reading {
    energy_millijoules: Option<u64>,
    energy_resets: u32,
    busy_percent: Option<u32>,
    groups: BTreeMap<GroupId, Share>,
}

/// What processes of a group had of it.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    percent: Option<u32>,
    memory_bytes: Option<u64>,
}

#[derive(Debug)]
struct Moment {
    taken_ms: u64,
    gpus: BTreeMap<String, Reading>,
}

/// The last readings, by the id that records name a GPU by.
#[derive(Debug, Default)]
pub(super) struct GpuReadings(VecDeque<Moment>);

impl GpuReadings {
    /// Takes up a snapshot that is newer than the last one.
    pub(super) fn note(
        &mut self,
        snapshot: &GpuSnapshot,
        group_of: impl Fn(u32) -> Option<GroupId>,
    ) {
        let Some(taken_ms) = snapshot.taken_ms else {
            return;
        };
        if self
            .0
            .back()
            .is_some_and(|last| last.taken_ms == taken_ms || snapshot.devices.is_empty())
        {
            return;
        }
        let gpus = snapshot.devices.iter().map(|device| {
            let mut reading = Reading {
                energy_millijoules: device.energy_millijoules,
                energy_resets: device.energy_resets,
                busy_percent: device.utilization.map(|used| used.gpu_percent),
                groups: BTreeMap::new(),
            };
            for process in device.processes.iter().flatten() {
                if let Some(group) = group_of(process.pid) {
                    let share = reading.groups.entry(group).or_default();
                    share.percent = sum(share.percent, process.sm_percent);
                    share.memory_bytes = sum(share.memory_bytes, process.memory_bytes);
                }
            }
            (super::entries::gpu_id(device), reading)
        });
        let gpus = gpus.collect();
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back(Moment { taken_ms, gpus });
    }

    /// What the GPUs of a record did from `started_ms` to `ended_ms`.
    pub(super) fn during(
        &self,
        group: GroupId,
        gpus: &[String],
        (started_ms, ended_ms): (u64, u64),
    ) -> Option<Vec<GpuDuring>> {
        let from = self
            .0
            .iter()
            .rposition(|moment| moment.taken_ms <= started_ms)?;
        let last = self.0.len().checked_sub(1)?;
        // The first that is late enough; as long as there is none, the newest.
        let until = (from..last)
            .find(|at| {
                self.0
                    .get(*at)
                    .is_some_and(|moment| moment.taken_ms >= ended_ms)
            })
            .unwrap_or(last);
        let (first, until) = (self.0.get(from)?, until.max(from));
        let between: Vec<_> = self.0.range(from + 1..=until).collect();
        let found = gpus
            .iter()
            .enumerate()
            .filter_map(|(at, gpu)| during(at, gpu, group, first, &between));
        let found: Vec<_> = found.collect();
        (!found.is_empty()).then_some(found)
    }
}

fn during(
    at: usize,
    gpu: &str,
    group: GroupId,
    first: &Moment,
    between: &[&Moment],
) -> Option<GpuDuring> {
    let before = first.gpus.get(gpu)?;
    let last = between.last()?;
    let after = last.gpus.get(gpu)?;
    let energy = after.energy_millijoules.zip(before.energy_millijoules);
    // A counter that began anew says nothing.
    let energy = energy.filter(|_| after.energy_resets == before.energy_resets);
    let readings = || between.iter().filter_map(|moment| moment.gpus.get(gpu));
    let shares = || readings().filter_map(|reading| reading.groups.get(&group));
    let one = GpuDuring {
        gpu: u32::try_from(at).ok()?,
        from_ms: first.taken_ms,
        to_ms: last.taken_ms,
        energy_millijoules: energy.and_then(|(after, before)| after.checked_sub(before)),
        busy_percent: mean(readings().filter_map(|reading| reading.busy_percent)),
        group_percent: mean(shares().filter_map(|share| share.percent)),
        group_memory_bytes: shares().filter_map(|share| share.memory_bytes).max(),
    };
    let says_something = one.energy_millijoules.is_some()
        || one.busy_percent.is_some()
        || one.group_percent.is_some()
        || one.group_memory_bytes.is_some();
    says_something.then_some(one)
}

/// The sum as far as it is given; none where nothing is.
fn sum<T: Copy + std::ops::Add<Output = T>>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    }
}

fn mean(percents: impl Iterator<Item = u32>) -> Option<u32> {
    let (mut all, mut count) = (0_u64, 0_u64);
    for percent in percents {
        (all, count) = (all.saturating_add(percent.into()), count + 1);
    }
    u32::try_from(all.checked_div(count)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{GpuReading, ProcessKind, ProcessReading, Utilization};

    fn snapshot(taken_ms: u64, energy: u64, resets: u32) -> GpuSnapshot {
        let percent = u32::try_from(taken_ms / 100).unwrap();
        let process = |pid, memory_bytes| ProcessReading {
            pid,
            in_proc: true,
            kind: ProcessKind::Compute,
            memory_bytes: Some(memory_bytes),
            sm_percent: Some(percent / 2),
            memory_percent: None,
            gpu_instance: None,
            compute_instance: None,
        };
        GpuSnapshot {
            taken_ms: Some(taken_ms),
            devices: vec![GpuReading {
                uuid: Some("GPU-a".to_owned()),
                utilization: Some(Utilization {
                    gpu_percent: percent,
                    memory_percent: 0,
                }),
                energy_millijoules: Some(energy),
                energy_resets: resets,
                processes: Some(vec![process(1, taken_ms), process(2, 7), process(9, 9)]),
                ..GpuReading::default()
            }],
            ..GpuSnapshot::starting(0)
        }
    }

    fn readings(all: &[(u64, u64, u32)]) -> GpuReadings {
        let mut readings = GpuReadings::default();
        for (taken_ms, energy, resets) in all {
            let group_of = |pid: u32| (pid < 9).then_some(42);
            readings.note(&snapshot(*taken_ms, *energy, *resets), group_of);
        }
        readings
    }

    #[test]
    fn a_turn_has_the_readings_around_it_and_the_group_s_own_processes() {
        let kept = readings(&[(1000, 10, 0), (2000, 50, 0), (3000, 90, 0), (4000, 99, 0)]);
        let gpus = ["GPU-b".to_owned(), "GPU-a".to_owned()];
        let found = kept.during(42, &gpus, (1500, 2500)).unwrap();
        let one = GpuDuring {
            gpu: 1,
            from_ms: 1000,
            to_ms: 3000,
            energy_millijoules: Some(80),
            busy_percent: Some(25),
            group_percent: Some(25),
            group_memory_bytes: Some(3007),
        };
        assert_eq!(found, [one]);
        // Another group has no share; the GPU is the same.
        let other = kept.during(7, &gpus, (1500, 2500)).unwrap();
        assert_eq!(
            (other[0].busy_percent, other[0].group_percent),
            (Some(25), None)
        );
        // Not read again since it ended: as far as the readings go.
        let late = kept.during(42, &gpus, (3500, 9000)).unwrap();
        assert_eq!((late[0].from_ms, late[0].to_ms), (3000, 4000));
    }

    #[test]
    fn without_a_reading_before_and_one_after_nothing_is_said() {
        let kept = readings(&[(1000, 10, 0), (2000, 5, 1)]);
        let gpus = ["GPU-a".to_owned()];
        assert_eq!(kept.during(42, &gpus, (900, 1500)), None);
        assert_eq!(kept.during(42, &gpus, (2000, 2500)), None);
        assert_eq!(kept.during(42, &["GPU-b".to_owned()], (1000, 1500)), None);
        let began_anew = kept.during(42, &gpus, (1000, 1500)).unwrap();
        assert_eq!(began_anew[0].energy_millijoules, None);
    }
}
