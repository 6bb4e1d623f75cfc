//! Folds repeats: the first of a kind at once, the rest as a count.
//!
//! A process that retries, or a sender that floods, makes one line a window and
//! not one a packet. Nothing is lost by it: the counts add up to the events.

use merestone_abi::{Event, EventKind};
use std::collections::BTreeMap;

/// How long repeats of one flow are gathered.
const WINDOW_NS: u64 = 1_000_000_000;
/// Flows gathered at once; past that the oldest window is closed early.
const MOST_OPEN: usize = 8192;

/// What makes two decisions the same flow.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Key {
    group: u64,
    tgid: u32,
    address: [u8; 16],
    port: u16,
    rule: u16,
    family: u16,
    codes: [u8; 5],
    /// A device or a socket option; for TAMPER what was tried, on which object.
    what: [u32; 3],
}

impl From<&Event> for Key {
    fn from(event: &Event) -> Self {
        Self {
            group: event.group,
            tgid: event.tgid,
            address: event.address,
            port: event.port,
            rule: event.rule,
            family: event.family,
            codes: [
                event.kind.0,
                event.hook.0,
                event.verdict.0,
                event.reason.0,
                event.protocol,
            ],
            what: [event.major, event.minor, event.other],
        }
    }
}

#[derive(Debug)]
struct Open {
    since_ns: u64,
    more: u64,
    last: Event,
}

/// The windows that are open now.
#[derive(Debug, Default)]
pub struct Fold {
    open: BTreeMap<Key, Open>,
}

impl Fold {
    /// Takes an event; what it returns is to be told now, with its count.
    pub fn push(&mut self, event: Event) -> Vec<(Event, u64)> {
        if !matches!(
            event.kind,
            EventKind::FLOW | EventKind::TAMPER | EventKind::DEPUTY
        ) {
            return vec![(event, 1)];
        }
        let mut out = Vec::new();
        let key = Key::from(&event);
        let expired = match self.open.get_mut(&key) {
            Some(open) if event.boot_ns.saturating_sub(open.since_ns) < WINDOW_NS => {
                open.more += 1;
                open.last = event;
                return out;
            }
            Some(_) => true,
            None => false,
        };
        if expired && let Some(open) = self.open.remove(&key) {
            out.extend(close(open));
        }
        if self.open.len() >= MOST_OPEN {
            out.extend(self.close_oldest());
        }
        self.open.insert(
            key,
            Open {
                since_ns: event.boot_ns,
                more: 0,
                last: event,
            },
        );
        out.push((event, 1));
        out
    }

    /// Closes every window that is over at `now_ns`.
    pub fn tick(&mut self, now_ns: u64) -> Vec<(Event, u64)> {
        let over: Vec<Key> = self
            .open
            .iter()
            .filter(|(_, open)| now_ns.saturating_sub(open.since_ns) >= WINDOW_NS)
            .map(|(key, _)| *key)
            .collect();
        over.iter()
            .filter_map(|key| self.open.remove(key))
            .filter_map(close)
            .collect()
    }

    /// Closes all, for an orderly stop.
    pub fn finish(&mut self) -> Vec<(Event, u64)> {
        std::mem::take(&mut self.open)
            .into_values()
            .filter_map(close)
            .collect()
    }

    fn close_oldest(&mut self) -> Option<(Event, u64)> {
        let key = self
            .open
            .iter()
            .min_by_key(|(_, open)| open.since_ns)
            .map(|(key, _)| *key)?;
        self.open.remove(&key).and_then(close)
    }
}

fn close(open: Open) -> Option<(Event, u64)> {
    (open.more > 0).then_some((open.last, open.more))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot_ns: u64, port: u16) -> Event {
        Event {
            boot_ns,
            port,
            kind: EventKind::FLOW,
            ..Event::default()
        }
    }

    #[test]
    fn the_first_is_told_at_once_and_repeats_as_a_count() {
        let mut fold = Fold::default();
        assert_eq!(fold.push(at(1, 443)), vec![(at(1, 443), 1)]);
        for n in 0..99 {
            assert!(fold.push(at(2 + n, 443)).is_empty());
        }
        let later = fold.tick(1 + WINDOW_NS);
        assert_eq!(later, vec![(at(100, 443), 99)]);
        assert!(fold.finish().is_empty());
    }

    #[test]
    fn counts_add_up_to_the_events_whatever_the_order() {
        let mut fold = Fold::default();
        let mut told = 0;
        for n in 0..20_000_u64 {
            let event = at(n * 100_000, u16::try_from(n % 10_000).expect("fits"));
            told += fold.push(event).iter().map(|(_, count)| count).sum::<u64>();
            if n % 1000 == 0 {
                told += fold.tick(n * 100_000).iter().map(|(_, c)| c).sum::<u64>();
            }
        }
        told += fold.finish().iter().map(|(_, count)| count).sum::<u64>();
        assert_eq!(told, 20_000);
    }

    #[test]
    fn what_is_not_a_flow_is_never_folded() {
        let mut fold = Fold::default();
        let guard = Event {
            kind: EventKind::GUARD,
            ..Event::default()
        };
        assert_eq!(fold.push(guard).len(), 1);
        assert_eq!(fold.push(guard).len(), 1);
    }
}
