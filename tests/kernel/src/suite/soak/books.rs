//! The books of a soak: what the senders were told, what the kernel counted for
//! each of them and in all, what the wire carried and what it dropped.
//!
//! Nothing is rounded and nothing is tolerated: each packet that one side
//! counted and another did not must be among the drops that were counted.

use super::memory::Flat;
use crate::holder::Status;
use crate::job::INTERFACE;
use crate::lab::Network;
use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use std::collections::BTreeMap;

/// What was done to the agent.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Deeds {
    pub(super) kills: u64,
    pub(super) reloads: u64,
    pub(super) drills: u64,
}

/// One sender, as it was told and as its group was counted.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Account {
    pub(super) guarded_by: String,
    /// By the calls' answers.
    pub(super) sent: u64,
    pub(super) refused: u64,
    pub(super) told: BTreeMap<String, u64>,
    /// By the kernel, for its group.
    pub(super) allowed: u64,
    pub(super) denied: u64,
    pub(super) audited: u64,
}

/// Counters of all groups together.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Totals {
    pub(super) udp_denied: u64,
    pub(super) tcp_denied: u64,
    pub(super) udp_allowed: u64,
}

impl Totals {
    pub(super) fn of(status: &Status) -> Self {
        let sum = |verdict: &str, protocol: &str, hook: Option<&str>| {
            let wanted = status.counters.iter().filter(|counter| {
                counter.verdict == verdict
                    && counter.protocol == protocol
                    && hook.is_none_or(|hook| counter.hook == hook)
            });
            wanted.map(|counter| counter.count).sum()
        };
        Self {
            udp_denied: sum("deny", "udp", None),
            tcp_denied: sum("deny", "tcp", None),
            udp_allowed: sum("allow", "udp", Some("egress")),
        }
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            udp_denied: self.udp_denied - earlier.udp_denied,
            tcp_denied: self.tcp_denied - earlier.tcp_denied,
            udp_allowed: self.udp_allowed - earlier.udp_allowed,
        }
    }
}

/// Both ends of the wire, by the interfaces' own statistics, and the frames
/// with which the sniffer asks whether it has seen all.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Wire {
    pub(super) near_tx_packets: u64,
    pub(super) near_tx_dropped: u64,
    pub(super) far_rx_packets: u64,
    pub(super) far_rx_dropped: u64,
    pub(super) own_sent: u64,
    pub(super) own_arrived: u64,
    /// Of the senders, at the sniffer.
    pub(super) arrived: u64,
}

impl Wire {
    /// The interfaces as they are now.
    pub(super) fn read(inside: &Network, outside: &Network) -> Result<Self> {
        let near = inside.within(|| statistics(INTERFACE))?;
        let far = outside.within(|| statistics("mre1"))?;
        Ok(Self {
            near_tx_packets: near.tx_packets,
            near_tx_dropped: near.tx_dropped,
            far_rx_packets: far.rx_packets,
            far_rx_dropped: far.rx_dropped,
            ..Self::default()
        })
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            near_tx_packets: self.near_tx_packets - earlier.near_tx_packets,
            near_tx_dropped: self.near_tx_dropped - earlier.near_tx_dropped,
            far_rx_packets: self.far_rx_packets - earlier.far_rx_packets,
            far_rx_dropped: self.far_rx_dropped - earlier.far_rx_dropped,
            own_sent: self.own_sent - earlier.own_sent,
            own_arrived: self.own_arrived - earlier.own_arrived,
            arrived: self.arrived - earlier.arrived,
        }
    }
}

struct Statistics {
    rx_packets: u64,
    rx_dropped: u64,
    tx_packets: u64,
    tx_dropped: u64,
}

/// The calling thread's namespace, by `/proc/net/dev` (net/core/net-procfs.c
/// `dev_seq_printf_stats`): eight numbers received, eight sent.
fn statistics(interface: &str) -> Result<Statistics> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))
        .with_context(|| format!("no interface {interface}"))?;
    let numbers: Vec<u64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [
        _,
        rx_packets,
        _,
        rx_dropped,
        _,
        _,
        _,
        _,
        _,
        tx_packets,
        _,
        tx_dropped,
        ..,
    ] = numbers[..]
    else {
        bail!("{interface}: not the form of /proc/net/dev: {line:?}");
    };
    Ok(Statistics {
        rx_packets,
        rx_dropped,
        tx_packets,
        tx_dropped,
    })
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Books {
    pub(super) kernel: String,
    pub(super) processors: usize,
    pub(super) agent: String,
    pub(super) tiers: Vec<String>,
    pub(super) seconds: u64,
    pub(super) sends_per_second: u64,
    pub(super) leaks: u64,
    pub(super) senders: Vec<Account>,
    pub(super) totals: Totals,
    /// The totals without the senders.
    pub(super) others: Totals,
    /// Whether the agent has a canary, which tries to get out by itself.
    pub(super) canary: bool,
    pub(super) wire: Wire,
    pub(super) deeds: Deeds,
    pub(super) memory: Flat,
    /// Events that did not fit into the ring, which are counted.
    pub(super) lost_events: BTreeMap<String, u64>,
    /// What does not add up; nothing, if all is well.
    pub(super) faults: Vec<String>,
}

impl Books {
    /// Compares every pair of numbers that must be one.
    pub(super) fn audit(&mut self) {
        let mut faults = Vec::new();
        let mut same = |what: &str, one: u64, other: u64| {
            if one != other {
                faults.push(format!("{what}: {one} and {other}"));
            }
        };
        same("packets beyond the boundary", self.leaks, 0);
        let mut sent = 0;
        for account in &self.senders {
            let who = &account.guarded_by;
            sent += account.sent;
            let other = account.told.values().sum::<u64>() - account.sent - account.refused;
            same(&format!("{who}: other answers"), other, 0);
            let names = format!("{who}: sent, and let through by the kernel");
            same(&names, account.sent, account.allowed);
            let names = format!("{who}: refused, and refused by the kernel");
            same(&names, account.refused, account.denied);
            same(&format!("{who}: only reported"), account.audited, 0);
        }
        let told = |word: &str| -> u64 {
            let counts = self.senders.iter().map(|account| account.told.get(word));
            counts.flatten().sum()
        };
        // A canary's own attempts are refused, and counted, as well: what it
        // adds is shown, and each sender's own counts are exact all the same.
        self.others = Totals {
            udp_denied: self.totals.udp_denied.wrapping_sub(told("udp eperm")),
            tcp_denied: self.totals.tcp_denied.wrapping_sub(told("tcp eperm")),
            udp_allowed: self.totals.udp_allowed.wrapping_sub(sent),
        };
        if !self.canary {
            same("UDP refused to others", self.others.udp_denied, 0);
            same("TCP refused to others", self.others.tcp_denied, 0);
        }
        same("UDP let through to others", self.others.udp_allowed, 0);
        let own_lost = self.wire.own_sent - self.wire.own_arrived;
        same(
            "sent, and arrived or counted as dropped by the wire",
            sent + own_lost,
            self.wire.arrived + self.wire.near_tx_dropped,
        );
        if !self.memory.holds() {
            let growth = self.memory.growth_kib_per_min.unwrap_or_default();
            faults.push(format!("the agent's memory grows by {growth} KiB/min"));
        }
        self.faults.extend(faults);
    }

    /// In a line.
    pub(super) fn line(&self) -> String {
        let sum = |of: fn(&Account) -> u64| self.senders.iter().map(of).sum::<u64>();
        let growth = self.memory.growth_kib_per_min;
        let growth = growth.map_or_else(
            || "growth not known".to_owned(),
            |growth| format!("growth {growth} KiB/min"),
        );
        format!(
            "{} leaks; {} sent, {} arrived, {} dropped by the wire; {} refused; {} sends/s; \
             {} kills, {} reloads, {} drills; memory {} to {} KiB in {} s, {growth}",
            self.leaks,
            sum(|account| account.sent),
            self.wire.arrived,
            self.wire.near_tx_dropped,
            sum(|account| account.refused),
            self.sends_per_second,
            self.deeds.kills,
            self.deeds.reloads,
            self.deeds.drills,
            self.memory.first_kib,
            self.memory.last_kib,
            self.memory.longest_s,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::soak::memory::Memory;

    fn books() -> Books {
        let account = |guarded_by: &str| Account {
            guarded_by: guarded_by.to_owned(),
            sent: 10,
            refused: 70,
            told: [("inside sent", 10), ("udp eperm", 60), ("tcp eperm", 10)]
                .map(|(what, count)| (what.to_owned(), count))
                .into(),
            allowed: 10,
            denied: 70,
            audited: 0,
        };
        Books {
            kernel: String::new(),
            processors: 1,
            agent: String::new(),
            tiers: Vec::new(),
            seconds: 60,
            sends_per_second: 2,
            leaks: 0,
            senders: vec![account("cgroup"), account("tree")],
            totals: Totals {
                udp_denied: 120,
                tcp_denied: 20,
                udp_allowed: 20,
            },
            others: Totals::default(),
            canary: false,
            wire: Wire {
                near_tx_dropped: 2,
                own_sent: 5,
                own_arrived: 4,
                arrived: 19,
                ..Wire::default()
            },
            deeds: Deeds::default(),
            memory: Memory::new().flat(),
            lost_events: BTreeMap::new(),
            faults: Vec::new(),
        }
    }

    fn faults(change: impl FnOnce(&mut Books)) -> Vec<String> {
        let mut books = books();
        change(&mut books);
        books.audit();
        books.faults
    }

    #[test]
    fn drops_that_were_counted_are_no_fault_and_one_packet_that_was_not_is() {
        // Of 20 one was dropped, and one of the sniffer's own.
        assert_eq!(faults(|_| ()), Vec::<String>::new());
        assert_eq!(faults(|books| books.wire.arrived = 18).len(), 1);
        assert_eq!(faults(|books| books.wire.near_tx_dropped = 3).len(), 1);
        assert_eq!(faults(|books| books.leaks = 1).len(), 1);
        assert_eq!(faults(|books| books.senders[1].denied = 71).len(), 1);
        assert_eq!(faults(|books| books.totals.udp_allowed = 21).len(), 1);
    }

    #[test]
    fn refusals_of_others_are_a_fault_only_without_a_canary() {
        let more = |books: &mut Books| books.totals.udp_denied = 130;
        assert_eq!(faults(more).len(), 1);
        let with_canary = faults(|books| {
            more(books);
            books.canary = true;
        });
        assert!(with_canary.is_empty());
    }

    #[test]
    fn an_answer_that_is_neither_is_a_fault() {
        let odd = |books: &mut Books| {
            let told = &mut books.senders[0].told;
            told.insert("inside errno 105".to_owned(), 1);
        };
        assert_eq!(faults(odd).len(), 1);
    }
}
