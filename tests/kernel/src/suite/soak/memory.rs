//! The agent's resident memory, over all its lives.
//!
//! A life begins at a start and ends with a kill. What grows shows in the
//! longest one; what one life leaves to the next would be in its first minutes.

use serde::Serialize;

/// Seconds an agent may take to settle after its start.
const SETTLED: f64 = 60.0;
/// Samples without which nothing is said of a life.
const ENOUGH: usize = 20;
/// More growth than this, a minute, is no flat line (KiB).
const MOST_GROWTH: f64 = 64.0;

/// One look: age in seconds, KiB.
#[derive(Clone, Copy, Debug)]
struct Sample {
    age: f64,
    size: f64,
}

/// What was seen so far.
#[derive(Debug)]
pub(super) struct Memory {
    lives: Vec<Vec<Sample>>,
    largest: f64,
}

/// What it came to.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Flat {
    pub(super) lives: usize,
    pub(super) largest_kib: f64,
    /// Of the longest life, without its first minute: seconds, and resident
    /// memory in its first and its last tenth.
    pub(super) longest_s: f64,
    pub(super) first_kib: f64,
    pub(super) last_kib: f64,
    /// By least squares; none without enough to tell.
    pub(super) growth_kib_per_min: Option<f64>,
    /// What every life had when it had settled.
    pub(super) settled_kib: Vec<f64>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            lives: vec![Vec::new()],
            largest: 0.0,
        }
    }

    pub(super) fn new_life(&mut self) {
        self.lives.push(Vec::new());
    }

    /// Looks at the process; one that is gone says nothing.
    pub(super) fn look(&mut self, pid: Option<u32>, age: f64) {
        let Some(pid) = pid else { return };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let size = resident.and_then(|text| text.split_whitespace().next()?.parse().ok());
        if let Some(size) = size {
            self.take(Sample { age, size });
        }
    }

    fn take(&mut self, sample: Sample) {
        self.largest = self.largest.max(sample.size);
        if let Some(life) = self.lives.last_mut()
            && sample.age > SETTLED
        {
            life.push(sample);
        }
    }

    pub(super) fn flat(&self) -> Flat {
        let longest = self.lives.iter().max_by_key(|life| life.len());
        let longest = longest.map(Vec::as_slice).unwrap_or_default();
        let tenth = (longest.len() / 10).max(1);
        let (first, last) = (
            longest.get(..tenth).unwrap_or_default(),
            longest.rchunks(tenth).next().unwrap_or_default(),
        );
        let span = match longest {
            [first, .., last] => last.age - first.age,
            _ => 0.0,
        };
        let settled = self.lives.iter().filter_map(|life| life.first());
        Flat {
            lives: self.lives.len(),
            largest_kib: self.largest,
            longest_s: span.round(),
            first_kib: mean(first).round(),
            last_kib: mean(last).round(),
            growth_kib_per_min: growth(longest),
            settled_kib: settled.map(|sample| sample.size).collect(),
        }
    }
}

impl Flat {
    /// Whether nothing speaks against a flat line.
    pub(super) fn holds(&self) -> bool {
        self.growth_kib_per_min
            .is_none_or(|growth| growth < MOST_GROWTH)
    }
}

fn mean(samples: &[Sample]) -> f64 {
    let count = samples.iter().map(|_| 1.0).sum::<f64>();
    let sum = samples.iter().map(|sample| sample.size).sum::<f64>();
    if count > 0.0 { sum / count } else { 0.0 }
}

/// KiB a minute, by least squares.
fn growth(samples: &[Sample]) -> Option<f64> {
    if samples.len() < ENOUGH {
        return None;
    }
    let count = samples.iter().map(|_| 1.0).sum::<f64>();
    let age = samples.iter().map(|sample| sample.age).sum::<f64>() / count;
    let size = mean(samples);
    let (mut covariance, mut variance) = (0.0, 0.0);
    for sample in samples {
        covariance += (sample.age - age) * (sample.size - size);
        variance += (sample.age - age).powi(2);
    }
    let slope = covariance / variance * 60.0;
    (variance > 0.0).then_some((slope * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_of_a_megabyte_a_minute_is_not_flat_and_a_restart_is_no_growth() {
        let mut memory = Memory::new();
        for second in 0..200_u32 {
            memory.take(Sample {
                age: f64::from(second),
                size: 50_000.0 + f64::from(second) * 1024.0 / 60.0,
            });
        }
        let leaking = memory.flat();
        assert_eq!(leaking.growth_kib_per_min, Some(1024.0));
        assert!(!leaking.holds());

        let mut memory = Memory::new();
        for life in 0..3_u32 {
            for second in 0..100_u32 {
                memory.take(Sample {
                    age: f64::from(second),
                    size: 50_000.0 + f64::from(life) * 1000.0,
                });
            }
            memory.new_life();
        }
        assert!(memory.flat().holds());
        assert_eq!(memory.flat().settled_kib, [50_000.0, 51_000.0, 52_000.0]);
    }
}
