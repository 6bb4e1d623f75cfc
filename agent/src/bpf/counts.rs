//! The exact counters, summed over the CPUs.

use super::KernelError;
use super::maps::{Maps, failed};
use super::reap::keys;
use super::wire::Wire;
use merestone_abi::{
    FastCount, GroupCount, GroupId, Hook, LostReason, PROTOCOL_BUCKETS, Verdict, counter_slot,
    maps, protocol,
};
use std::collections::BTreeMap;

/// How often one hook came to one verdict about one protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Counter {
    /// Where.
    pub hook: Hook,
    /// What.
    pub verdict: Verdict,
    /// About what; a name of [`PROTOCOL_BUCKETS`].
    pub protocol: &'static str,
    /// How often, since the maps were made.
    pub count: u64,
}

/// A protocol number in each bucket, in the order of [`PROTOCOL_BUCKETS`].
const IN_BUCKET: [u8; PROTOCOL_BUCKETS.len()] = [0, 1, 6, 17, 58, 132, 255, 2];

/// All counters that are not zero.
pub(super) fn counters(maps: &Maps) -> Result<Vec<Counter>, KernelError> {
    let fast = fast(maps)?;
    let passed = |number| {
        fast.iter()
            .map(|(_, count)| match number {
                protocol::TCP => count.tcp,
                protocol::UDP => count.udp,
                _ => 0,
            })
            .sum::<u64>()
    };
    let mut found = Vec::new();
    for (hook, _) in Hook::NAMES {
        for (verdict, _) in Verdict::NAMES {
            for (number, bucket) in IN_BUCKET.into_iter().zip(PROTOCOL_BUCKETS) {
                let slot = counter_slot(*hook, *verdict, number);
                let values = maps
                    .counters
                    .get(&slot, 0)
                    .map_err(|error| failed(maps::COUNTERS, &error))?;
                let mut count: u64 = values.iter().sum();
                if *hook == Hook::EGRESS && *verdict == Verdict::ALLOW {
                    count += passed(number);
                }
                if count > 0 {
                    found.push(Counter {
                        hook: *hook,
                        verdict: *verdict,
                        protocol: bucket,
                        count,
                    });
                }
            }
        }
    }
    Ok(found)
}

/// What was lost, by reason; zeros too, so that "nothing" can be attested.
pub(super) fn lost(maps: &Maps) -> Result<Vec<(&'static str, u64)>, KernelError> {
    let mut found = Vec::new();
    for (reason, index) in LostReason::NAMES.into_iter().zip(0..) {
        let values = maps
            .lost
            .get(&index, 0)
            .map_err(|error| failed(maps::LOST, &error))?;
        found.push((reason, values.iter().sum()));
    }
    Ok(found)
}

/// Events the ring buffer had no room for.
pub(super) fn lost_events(maps: &Maps) -> Result<u64, KernelError> {
    let values = maps
        .lost
        .get(&LostReason::RING_FULL.0, 0)
        .map_err(|error| failed(maps::LOST, &error))?;
    Ok(values.iter().sum())
}

/// What each group sent and was refused.
pub(super) fn by_group(maps: &Maps) -> Result<Vec<(GroupId, GroupCount)>, KernelError> {
    let groups: Vec<GroupId> = keys(maps::GROUP_COUNTS, maps.group_counts.keys())?;
    let mut found = BTreeMap::<GroupId, GroupCount>::new();
    for group in groups {
        let Ok(values) = maps.group_counts.get(&group, 0) else {
            continue;
        };
        let sum = found.entry(group).or_default();
        for Wire(value) in values.iter() {
            let GroupCount {
                allowed,
                allowed_bytes,
                denied,
                audited,
            } = *value;
            sum.allowed += allowed;
            sum.allowed_bytes += allowed_bytes;
            sum.denied += denied;
            sum.audited += audited;
        }
    }
    for (group, FastCount { tcp, udp, bytes }) in fast(maps)? {
        let sum = found.entry(group).or_default();
        sum.allowed += tcp + udp;
        sum.allowed_bytes += bytes;
    }
    Ok(found.into_iter().collect())
}

/// What passed by a remembered verdict, which no other counter holds.
fn fast(maps: &Maps) -> Result<Vec<(GroupId, FastCount)>, KernelError> {
    let groups: Vec<GroupId> = keys(maps::FAST_SLOTS, maps.fast_slots.keys())?;
    let mut found = Vec::new();
    for group in groups {
        let Ok(slot) = maps.fast_slots.get(&group, 0) else {
            continue;
        };
        let values = maps
            .fast_counts
            .get(&slot, 0)
            .map_err(|error| failed(maps::FAST_COUNTS, &error))?;
        let mut sum = FastCount::default();
        for Wire(FastCount { tcp, udp, bytes }) in values.iter() {
            sum.tcp += tcp;
            sum.udp += udp;
            sum.bytes += bytes;
        }
        found.push((group, sum));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use merestone_abi::protocol_bucket;

    #[test]
    fn each_bucket_is_read_by_a_protocol_of_its_own() {
        for (index, number) in IN_BUCKET.into_iter().enumerate() {
            assert_eq!(protocol_bucket(number) as usize, index);
        }
    }
}
