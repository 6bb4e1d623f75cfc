//! Which protocols beside TCP and UDP a boundary has any rule for.
//!
//! The built-in rule for loopback does not count: it would allow every kind of
//! socket everywhere.

use merestone_abi::{LOOPBACK_RULE, Protocols, RuleSet, Verdict, protocol};

/// [`Protocols`] of the rules in `sets`.
pub(super) fn allowed(sets: &[RuleSet]) -> u8 {
    let entries = sets.iter().flat_map(|set| {
        let length = usize::try_from(set.length).unwrap_or(usize::MAX);
        set.entries.iter().take(length)
    });
    entries
        .filter(|entry| entry.rule != LOOPBACK_RULE && entry.action != Verdict::DENY.0)
        .fold(0, |found, entry| match entry.protocol {
            protocol::ICMP | protocol::ICMPV6 => found | Protocols::ICMP,
            protocol::TCP | protocol::UDP => found,
            // Also with ports: no rule for a protocol without, but one for
            // SCTP, DCCP and UDP-Lite.
            _ => found | Protocols::ANY,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use merestone_abi::{RULE_ENTRIES, RuleEntry};

    fn set(entry: RuleEntry) -> RuleSet {
        let mut entries = [RuleEntry::default(); RULE_ENTRIES];
        if let Some(first) = entries.first_mut() {
            *first = entry;
        }
        RuleSet {
            length: 1,
            reserved: 0,
            entries,
        }
    }

    fn rule(protocol: u8, action: Verdict, rule: u16) -> RuleEntry {
        RuleEntry {
            port_low: 0,
            port_high: u16::MAX,
            rule,
            protocol,
            action: action.0,
        }
    }

    #[test]
    fn a_boundary_of_tcp_rules_names_no_ping_and_no_raw_socket_b07_b09() {
        let tcp = set(rule(protocol::TCP, Verdict::ALLOW, 1));
        let loopback = set(rule(protocol::ANY, Verdict::ALLOW, LOOPBACK_RULE));
        assert_eq!(allowed(&[tcp, loopback]), 0);
        assert_eq!(allowed(&[]), 0);
    }

    #[test]
    fn a_rule_for_icmp_and_one_for_any_protocol_are_named_b08() {
        let ping = set(rule(protocol::ICMP, Verdict::ALLOW, 1));
        let denied = set(rule(protocol::ANY, Verdict::DENY, 2));
        assert_eq!(allowed(&[ping, denied]), Protocols::ICMP);
        let any = set(rule(protocol::ANY, Verdict::AUDIT, 1));
        assert_eq!(allowed(&[any]), Protocols::ANY);
    }
}
