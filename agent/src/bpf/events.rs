//! The ring buffer as a stream of events.
//!
//! Best effort by design: what did not fit was counted by the kernel. A record
//! that this build cannot read is an error, never skipped in silence.
#![expect(
    unsafe_code,
    reason = "tokio asks for a promise about the descriptor that aya's type does not make"
)]

use super::KernelError;
use super::maps;
use aya::maps::{MapData, RingBuf};
use merestone_abi::Event;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;
use zerocopy::FromBytes as _;

/// How long an event that wakes nobody may lie.
const LOOK: Duration = Duration::from_millis(100);

/// Events, those of the start-up scan first.
#[derive(Debug)]
pub struct EventStream {
    found: VecDeque<Event>,
    ring: Ring,
}

enum Ring {
    /// Opened, and not yet known to a runtime.
    Idle(Option<RingBuf<MapData>>),
    Polled(AsyncFd<RingBuf<MapData>>),
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ring")
    }
}

impl EventStream {
    pub(super) fn open(pins: &Path, found: Vec<Event>) -> Result<Self, KernelError> {
        let ring = maps::open(pins, merestone_abi::maps::EVENTS)?;
        Ok(Self {
            found: found.into(),
            ring: Ring::Idle(Some(ring)),
        })
    }

    /// The next event; waits for one. Cancelling loses nothing. Must be called
    /// in a tokio runtime.
    pub async fn next(&mut self) -> io::Result<Event> {
        if let Some(event) = self.found.pop_front() {
            return Ok(event);
        }
        let ring = self.polled()?;
        loop {
            if let Some(event) = take(ring.get_mut()) {
                return event;
            }
            // The programs wake nobody for what they allow.
            let Ok(ready) = timeout(LOOK, ring.readable_mut()).await else {
                continue;
            };
            let mut ready = ready?;
            // Looked at once more before the readiness is given up: a record
            // may have come since.
            if let Some(event) = take(ready.get_inner_mut()) {
                return event;
            }
            ready.clear_ready();
            if let Some(event) = take(ring.get_mut()) {
                return event;
            }
        }
    }

    fn polled(&mut self) -> io::Result<&mut AsyncFd<RingBuf<MapData>>> {
        if let Ring::Idle(ring) = &mut self.ring {
            let ring = ring
                .take()
                .ok_or_else(|| io::Error::other("the ring buffer could not be polled before"))?;
            // SAFETY: the ring buffer owns its map's descriptor, always
            // answers with that one, and closes it only when it is dropped.
            self.ring = Ring::Polled(unsafe { AsyncFd::register(ring) }?);
        }
        match &mut self.ring {
            Ring::Polled(ring) => Ok(ring),
            Ring::Idle(_) => Err(io::Error::other("the ring buffer is not polled")),
        }
    }
}

fn take(ring: &mut RingBuf<MapData>) -> Option<io::Result<Event>> {
    let record = ring.next()?;
    let event = Event::read_from_bytes(&record).map_err(|_size| {
        let got = record.len();
        let expected = size_of::<Event>();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("an event of {got} bytes, expected {expected}"),
        )
    });
    Some(event)
}
