//! Going over leaves that may be many, on as many processors as the caller has.
//!
//! This crate starts no thread: a caller who has some passes [`Workers`]. What is found does not
//! depend on them; results are taken in the order of the file.

use crate::log::LogError;
use merestone_evidence::{DecodeError, Leaves, Run, RunBytes};
use std::sync::{Mutex, PoisonError};

/// Runs that are worked on before the first of their results is used: bounds the memory.
const AT_ONCE: usize = 8;

/// Somebody who runs jobs, all of them, in any order, at once or not.
pub trait Workers: Sync {
    /// Calls `job` once with each number below `jobs`, and comes back when all are done.
    fn run(&self, jobs: usize, job: &(dyn Fn(usize) + Sync));
}

/// One job after the other, by the caller.
#[derive(Clone, Copy, Debug)]
pub struct OneByOne;

impl Workers for OneByOne {
    fn run(&self, jobs: usize, job: &(dyn Fn(usize) + Sync)) {
        (0..jobs).for_each(job);
    }
}

/// Calls `work` with every item, and gives the results in order.
pub(crate) fn map<I: Sync, R: Send>(
    workers: &dyn Workers,
    items: &[I],
    work: impl Fn(&I) -> R + Sync,
) -> Vec<R> {
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    workers.run(items.len(), &|number| {
        if let (Some(item), Some(slot)) = (items.get(number), results.get(number)) {
            let done = work(item);
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        }
    });
    let taken = results.into_iter().map(Mutex::into_inner);
    // A worker that leaves a job out leaves a result out; every caller counts them.
    taken
        .filter_map(|slot| slot.unwrap_or_else(PoisonError::into_inner))
        .collect()
}

/// Reads every run, has `work` done on it, and hands the results to `take` in order.
pub(crate) fn each<R: Send>(
    leaves: &Leaves<'_>,
    workers: &dyn Workers,
    work: impl Fn(&Run, &RunBytes<'_>) -> R + Sync,
    mut take: impl FnMut(R) -> Result<(), LogError>,
) -> Result<(), LogError> {
    for runs in leaves.runs().chunks(AT_ONCE) {
        let done = map(workers, runs, |run| -> Result<R, DecodeError> {
            leaves.read(run).map(|bytes| work(run, &bytes))
        });
        if done.len() != runs.len() {
            return Err(LogError::Changed);
        }
        for result in done {
            take(result.map_err(LogError::Unreadable)?)?;
        }
    }
    Ok(())
}
