//! A record that a process gives of its own answer, and the kernel's turn on that connection.

use super::{Due, MOST_TOLD, Turns, end, is_whole, key};
use crate::clock;
use merestone_abi::{Form, GroupId, Turn, TurnState};
use merestone_evidence::End;
use std::net::Ipv6Addr;

/// How far the clocks of the kernel's side and the workload's may differ on one turn.
const SLACK_MS: u64 = 1000;

/// The connection of a record that a process gives, and when it says that it was.
#[derive(Clone, Copy, Debug)]
pub(in crate::run) struct Sought {
    pub(in crate::run) group: GroupId,
    pub(in crate::run) peer: [u8; 16],
    pub(in crate::run) peer_port: u16,
    pub(in crate::run) port: u16,
    pub(in crate::run) started_ms: u64,
    pub(in crate::run) ended_ms: u64,
    /// What to add to boot time for the wall clock, in milliseconds.
    pub(in crate::run) boot_ms: u64,
    /// It is what a gateway passed on. Then more is asked of a turn: it is of HTTP/1, its client
    /// is on loopback, and it began meanwhile.
    pub(in crate::run) is_onward: bool,
}

impl Sought {
    /// Whether a turn that began at `started_ms` can be what the gateway passed on.
    fn may_be_onward(&self, turn: &Turn, started_ms: u64) -> bool {
        let address = Ipv6Addr::from(turn.peer).to_canonical();
        turn.form == Form::HTTP1
            && address.is_loopback()
            && started_ms.saturating_add(SLACK_MS) >= self.started_ms
    }
}

impl Turns {
    /// The turn that a process of its group tells of, and whether it has an entry already. It is
    /// given once; on a connection that cannot be read, which is one turn, as often as asked.
    pub(in crate::run) fn join(&mut self, open: &[Turn], sought: &Sought) -> Option<Due> {
        let ms = |ns: u64| sought.boot_ms.saturating_add(ns / 1_000_000);
        let fits = |turn: &&Turn| {
            let last = ms(turn.last_ns.max(turn.request_ns));
            turn.group == sought.group
                && (turn.peer, turn.peer_port) == (sought.peer, sought.peer_port)
                && turn.local_port == sought.port
                && ms(turn.started_ns) <= sought.ended_ms.saturating_add(SLACK_MS)
                && last.saturating_add(SLACK_MS) >= sought.started_ms
                && !(is_whole(turn.form) && self.bound.contains(&key(turn)))
                && (!sought.is_onward || sought.may_be_onward(turn, ms(turn.started_ns)))
        };
        let turns = self.ended.iter().chain(open).chain(&self.recent);
        let turn = *turns
            .filter(fits)
            .min_by_key(|turn| ms(turn.started_ns).abs_diff(sought.started_ms))?;
        let has_ended = self.ended.iter().any(|one| key(one) == key(&turn));
        let is_recent = self.recent.iter().any(|one| key(one) == key(&turn));
        let is_whole = is_whole(turn.form);
        if self.bound.len() >= MOST_TOLD {
            self.bound.pop_first();
        }
        self.bound.insert(key(&turn));
        // A connection's bound records are inferences of their own, and its own entry is none more.
        let amends = is_whole && (is_recent || self.told.contains_key(&key(&turn)));
        if !is_recent {
            self.note_told(&turn);
        }
        if has_ended && is_whole {
            self.ended.retain(|one| key(one) != key(&turn));
            self.told.remove(&key(&turn));
            self.remember(turn, clock::boot_ns());
        }
        Some(Due {
            turn,
            end: if turn.state == TurnState::OPEN {
                End::Idle
            } else {
                end(turn.state)
            },
            amends,
        })
    }
}
