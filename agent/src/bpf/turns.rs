//! Turns: the finished ones from their ring, those under way from their map.

use super::KernelError;
use super::maps::{Maps, failed, is_absent};
use super::reap::keys;
use super::wire::Wire;
use aya::maps::{MapData, RingBuf};
use merestone_abi::maps::{FRAMES, STREAMS, TURN_ENDS, TURNS};
use merestone_abi::{Form, StreamKey, Turn, TurnState};
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
pub(super) fn ended(ends: &mut Ends, maps: &mut Maps) -> Result<Vec<Turn>, KernelError> {
    // Before the ring: a stream that ends meanwhile is in it, and not here.
    let mut turns = cut_off(maps)?;
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

/// Streams whose connection ended before them: the kernel's programs cannot
/// look for those.
fn cut_off(maps: &mut Maps) -> Result<Vec<Turn>, KernelError> {
    let mut turns = Vec::new();
    for (key, mut turn) in streams(maps)? {
        match maps.turns.get(&key.cookie, 0) {
            Ok(_) => continue,
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(failed(TURNS, &error)),
        }
        match maps.streams.remove(&Wire(key)) {
            Ok(()) => {}
            // It ended by itself, after it was read here.
            Err(error) if is_absent(&error) => continue,
            Err(error) => return Err(failed(STREAMS, &error)),
        }
        turn.state = TurnState::RESET;
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

/// What is under way, on connections that were opened from outside.
pub(super) fn open(maps: &Maps) -> Result<Vec<Turn>, KernelError> {
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
    turns.extend(streams(maps)?.into_iter().map(|(_, turn)| turn));
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
        match maps.frames.remove(&cookie) {
            Err(error) if !is_absent(&error) => return Err(failed(FRAMES, &error)),
            _ => {}
        }
    }
    Ok(())
}
