//! Rules as the kernel's entries, and when one entry makes another idle.

use super::network::{MAPPED_BITS, Network, mapped};
use super::{Action, LOOPBACK_RULE, PortRange, Protocol, Rule};
use merestone_abi::{RuleEntry, Verdict, protocol};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Loopback is inside, as a rule like any other, so that a deny wins over it.
pub(super) fn loopback() -> Rule {
    let four = Network::of(mapped(Ipv4Addr::LOCALHOST.into()), MAPPED_BITS + 8);
    let six = Network::of(mapped(Ipv6Addr::LOCALHOST.into()), 128);
    Rule {
        number: LOOPBACK_RULE,
        action: Action::Allow,
        line: 0,
        networks: vec![four, six],
        geo: Vec::new(),
        names: Vec::new(),
        audit: false,
        ports: None,
        protocols: None,
        comment: None,
    }
}

/// The entries of one rule: one for each protocol and range of ports.
pub(super) fn entries(rule: &Rule) -> Vec<RuleEntry> {
    let any = [PortRange {
        low: 0,
        high: u16::MAX,
    }];
    let ports = rule.ports.as_deref().unwrap_or(&any);
    let protocols: Vec<u8> = match &rule.protocols {
        None => vec![protocol::ANY],
        Some(list) => list
            .iter()
            .flat_map(|p: &Protocol| p.numbers())
            .copied()
            .collect(),
    };
    let action = match rule.action {
        _ if rule.audit => Verdict::AUDIT.0,
        Action::Allow => Verdict::ALLOW.0,
        Action::Deny => Verdict::DENY.0,
    };
    protocols
        .iter()
        .flat_map(|protocol| ports.iter().map(move |range| (*protocol, *range)))
        .map(|(protocol, range)| RuleEntry {
            port_low: range.low,
            port_high: range.high,
            rule: rule.number,
            protocol,
            action,
        })
        .collect()
}

/// Whether `earlier` matches whatever `later` would. The any-port range 0 to
/// 65535 is the only one that holds 0, so it alone covers itself.
pub(super) fn covers(earlier: RuleEntry, later: RuleEntry) -> bool {
    (earlier.protocol == protocol::ANY || earlier.protocol == later.protocol)
        && earlier.port_low <= later.port_low
        && earlier.port_high >= later.port_high
}

/// What both match, as the trial reports it.
pub(super) fn common(trial: RuleEntry, allow: RuleEntry) -> Option<RuleEntry> {
    let protocol = match (trial.protocol, allow.protocol) {
        (one, protocol::ANY) => one,
        (protocol::ANY, other) => other,
        (one, other) if one == other => one,
        _ => return None,
    };
    let port_low = trial.port_low.max(allow.port_low);
    let port_high = trial.port_high.min(allow.port_high);
    (port_low <= port_high).then_some(RuleEntry {
        port_low,
        port_high,
        protocol,
        ..trial
    })
}

pub(super) fn bytes(entry: RuleEntry) -> [u8; 8] {
    zerocopy::transmute!(entry)
}
