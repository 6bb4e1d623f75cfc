//! Whether the boundary in the kernel is the one that was installed.
//!
//! A sum of keyed hashes, over every prefix and every rule set, is made when a
//! boundary is installed, and again from what the kernel holds. The key is this
//! process's alone, so that no change can be made whose hashes cancel out.
//!
//! The prefixes are walked once, in slices, so that a boundary of a million
//! costs each second no more than a small one: the trie was frozen before any
//! program saw it, so that what the walk does not find was not changed while it
//! was filled, and cannot be afterwards. That the frozen trie is the one in
//! force, and the rule sets, are looked at each time.

use super::boundary::{self, Tables};
use super::maps::{Maps, failed};
use super::wire::Wire;
use super::{KernelError, sys};
use merestone_abi::{GENERATION_SLOTS, MAX_RULE_SETS, PrefixValue, RuleSet, maps};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use zerocopy::IntoBytes as _;

/// A key of the trie: the length in bits, then the data.
const KEY: usize = boundary::KEY_SIZE as usize;

/// Prefixes looked at in one step: a million take two minutes.
const PREFIXES_A_STEP: usize = 8192;

/// What the maps should add up to.
#[derive(Debug)]
pub(super) struct Expected {
    hasher: RandomState,
    generation: u32,
    prefixes: u64,
    sum: u64,
    sets: u32,
    sets_sum: u64,
}

impl Expected {
    /// Adds up what is installed as `generation`.
    pub(super) fn of(tables: &Tables, generation: u32) -> Self {
        let mut expected = Self {
            hasher: RandomState::new(),
            generation,
            prefixes: 0,
            sum: 0,
            sets: u32::try_from(tables.sets.len()).unwrap_or(u32::MAX),
            sets_sum: 0,
        };
        let base = expected.base();
        for prefix in &tables.prefixes {
            expected.prefixes += 1;
            let hash = expected.prefix(&boundary::key(prefix), base.wrapping_add(prefix.set));
            expected.sum = expected.sum.wrapping_add(hash);
        }
        for (index, set) in (0_u32..).zip(&tables.sets) {
            let hash = expected.set(index, set);
            expected.sets_sum = expected.sets_sum.wrapping_add(hash);
        }
        expected
    }

    /// Where the generation's rule sets begin.
    fn base(&self) -> u32 {
        self.generation % GENERATION_SLOTS * MAX_RULE_SETS
    }

    fn prefix(&self, key: &[u8; KEY], set: u32) -> u64 {
        self.hasher.hash_one((key, set))
    }

    fn set(&self, index: u32, set: &RuleSet) -> u64 {
        self.hasher.hash_one((index, set.as_bytes()))
    }
}

/// A walk over what the kernel holds.
#[derive(Debug, Default)]
pub(super) struct Pass {
    last: Option<[u8; KEY]>,
    prefixes: u64,
    sum: u64,
    /// The walk came to its end, and all was as it should be.
    is_done: bool,
}

impl Pass {
    /// Goes on; `true` where a walk that has come to its end does not add up,
    /// or where another trie is in the live slot than the one that was filled.
    pub(super) fn step(&mut self, maps: &Maps, expected: &Expected) -> Result<bool, KernelError> {
        let failed = |source: io::Error| KernelError::Map {
            name: maps::PREFIXES,
            detail: source.to_string(),
        };
        let Some(trie) = &maps.trie else {
            return Ok(true);
        };
        let slot = (expected.generation % GENERATION_SLOTS).to_ne_bytes();
        let live: Option<[u8; 4]> =
            sys::lookup(maps.prefixes.fd().as_fd(), &slot).map_err(failed)?;
        let own = sys::map_id(trie.as_fd()).map_err(failed)?;
        if live.map(u32::from_ne_bytes) != Some(own) {
            return Ok(true);
        }
        let prefixes_differ = self.prefixes(trie.as_fd(), expected).map_err(failed)?;
        let sets_differ = Self::sets(maps, expected)?;
        Ok(prefixes_differ || sets_differ)
    }

    fn prefixes(&mut self, trie: BorrowedFd<'_>, expected: &Expected) -> io::Result<bool> {
        if self.is_done {
            return Ok(false);
        }
        for _ in 0..PREFIXES_A_STEP {
            let Some(key) = sys::next_key(trie, self.last.as_ref())? else {
                self.is_done = (self.prefixes, self.sum) == (expected.prefixes, expected.sum);
                return Ok(!self.is_done);
            };
            self.last = Some(key);
            let value: Option<[u8; size_of::<PrefixValue>()]> = sys::lookup(trie, &key)?;
            if let Some(set) = value {
                let hash = expected.prefix(&key, u32::from_ne_bytes(set));
                self.prefixes += 1;
                self.sum = self.sum.wrapping_add(hash);
            }
        }
        Ok(false)
    }

    fn sets(maps: &Maps, expected: &Expected) -> Result<bool, KernelError> {
        let mut sum = 0_u64;
        for index in 0..expected.sets {
            let Wire(set) = maps
                .rule_sets
                .get(&(expected.base() + index), 0)
                .map_err(|error| failed(maps::RULE_SETS, &error))?;
            sum = sum.wrapping_add(expected.set(index, &set));
        }
        Ok(sum != expected.sets_sum)
    }
}
