//! Turns: the finished ones from their ring, those under way from their map.

use super::KernelError;
use super::maps::{Maps, failed, is_absent};
use super::reap::keys;
use aya::maps::{MapData, RingBuf};
use merestone_abi::{Turn, TurnState, maps::TURN_ENDS, maps::TURNS};
use std::path::Path;
use zerocopy::FromBytes as _;

/// Finished turns taken in one go; the rest waits for the next.
const MOST: usize = 16_384;

/// The ring of finished turns.
pub(super) struct Ends(RingBuf<MapData>);

impl std::fmt::Debug for Ends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ends")
    }
}

impl Ends {
    /// Opens it where it is pinned.
    pub(super) fn open(pins: &Path) -> Result<Self, KernelError> {
        super::maps::open(pins, TURN_ENDS).map(Self)
    }
}

/// What ended since the last call.
pub(super) fn ended(ends: &mut Ends) -> Result<Vec<Turn>, KernelError> {
    let mut turns = Vec::new();
    while turns.len() < MOST
        && let Some(record) = ends.0.next()
    {
        let turn = Turn::read_from_bytes(&record).map_err(|_size| KernelError::Map {
            name: TURN_ENDS,
            detail: format!(
                "a turn of {} bytes, expected {}",
                record.len(),
                size_of::<Turn>()
            ),
        })?;
        turns.push(turn);
    }
    Ok(turns)
}

/// What is under way, on connections that were opened from outside.
pub(super) fn open(maps: &Maps) -> Result<Vec<Turn>, KernelError> {
    let mut turns = Vec::new();
    for cookie in keys(TURNS, maps.turns.keys())? {
        match maps.turns.get(&cookie, 0) {
            Ok(turn) if turn.0.state == TurnState::OPEN => turns.push(turn.0),
            Ok(_) => {}
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(failed(TURNS, &error)),
        }
    }
    Ok(turns)
}

/// Forgets connections that are silent for long; one that speaks again is
/// found again.
pub(super) fn forget(maps: &mut Maps, before_ns: u64) -> Result<(), KernelError> {
    for cookie in keys(TURNS, maps.turns.keys())? {
        let Ok(turn) = maps.turns.get(&cookie, 0) else {
            continue;
        };
        if turn.0.request_ns.max(turn.0.last_ns) >= before_ns {
            continue;
        }
        match maps.turns.remove(&cookie) {
            Err(error) if !is_absent(&error) => return Err(failed(TURNS, &error)),
            _ => {}
        }
    }
    Ok(())
}
