//! Turns: the finished ones from their ring, those under way from their map.

use super::KernelError;
use super::maps::{Maps, failed, gone, is_absent};
use super::reap::keys;
use super::wire::Wire;
use aya::maps::{MapData, RingBuf};
use merestone_abi::maps::{FRAMES, STREAMS, TURN_ENDS, TURNS};
use merestone_abi::{Form, StreamKey, Turn, TurnState};
use std::path::Path;
use zerocopy::FromBytes as _;

/// Finished turns taken in one go; the rest waits for the next.
const MOST: usize = 16_384;

/// The ring of finished turns, and those that were found ended without it.
pub(super) struct Ends {
    ring: RingBuf<MapData>,
    cut_off: Vec<Turn>,
}

impl std::fmt::Debug for Ends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ends")
    }
}

impl Ends {
    /// Opens it where it is pinned.
    pub(super) fn open(pins: &Path) -> Result<Self, KernelError> {
        let ring = super::maps::open(pins, TURN_ENDS)?;
        Ok(Self {
            ring,
            cut_off: Vec::new(),
        })
    }
}

/// What ended since the last call.
pub(super) fn ended(ends: &mut Ends) -> Result<Vec<Turn>, KernelError> {
    let mut turns = std::mem::take(&mut ends.cut_off);
    while turns.len() < MOST
        && let Some(record) = ends.ring.next()
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

fn streams(maps: &Maps) -> Result<Vec<(StreamKey, Turn)>, KernelError> {
    let mut found = Vec::new();
    let pairs = maps
        .streams
        .keys()
        .map(|key| key.map(|key| (key.0.cookie, key.0.stream)));
    for (cookie, stream) in keys(STREAMS, pairs)? {
        let key = StreamKey {
            cookie,
            stream,
            zero: 0,
        };
        match maps.streams.get(&Wire(key), 0) {
            Ok(turn) if turn.0.state == TurnState::OPEN => found.push((key, turn.0)),
            Ok(_) => {}
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(failed(STREAMS, &error)),
        }
    }
    Ok(found)
}

/// What is under way, on connections that were opened from outside. Streams
/// whose connection ended before them go to `ends`: the kernel's programs cannot
/// look for those.
pub(super) fn open(ends: &mut Ends, maps: &mut Maps) -> Result<Vec<Turn>, KernelError> {
    // Before their connections are looked for: one that begins meanwhile has no stream here.
    let streams = streams(maps)?;
    let mut turns = Vec::new();
    for cookie in keys(TURNS, maps.turns.keys())? {
        match maps.turns.get(&cookie, 0) {
            // Of a connection of streams, they are the turns.
            Ok(turn) if turn.0.state == TurnState::OPEN && turn.0.form != Form::STREAMS => {
                turns.push(turn.0);
            }
            Ok(_) => {}
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(failed(TURNS, &error)),
        }
    }
    for (key, mut turn) in streams {
        match maps.turns.get(&key.cookie, 0) {
            Ok(_connection) => {
                turns.push(turn);
                continue;
            }
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(failed(TURNS, &error)),
        }
        match maps.streams.remove(&Wire(key)) {
            Ok(()) => {
                turn.state = TurnState::RESET;
                ends.cut_off.push(turn);
            }
            // It ended by itself, after it was read here.
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(failed(STREAMS, &error)),
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
        gone(TURNS, maps.turns.remove(&cookie))?;
        gone(FRAMES, maps.frames.remove(&cookie))?;
    }
    Ok(())
}
