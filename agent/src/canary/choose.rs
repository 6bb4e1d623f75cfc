//! Which ways out can show anything here, and where they lead.

use super::tries::nat64;
use super::vector::{Needs, To, VECTORS, Vector};
use crate::bpf::Tier;
use crate::policy::{Compiled, lookup_in, mapped};
use merestone_abi::Verdict;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// RFC 5737.
pub(super) const V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(198, 51, 100, 1),
    Ipv4Addr::new(203, 0, 113, 1),
];
/// RFC 3849.
pub(super) const V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1),
];

/// The tiers that were active when the agent started. One that is lost later
/// is still looked for: its absence is then an escape and not an excuse.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Covered {
    lineage: bool,
    lsm: bool,
    link: bool,
    kill: bool,
}

impl Covered {
    pub(super) fn by(tiers: &[Tier]) -> Self {
        let is_active = |name| tiers.iter().any(|tier| tier.name == name && tier.active);
        Self {
            lineage: is_active("lineage"),
            lsm: is_active("lsm"),
            link: is_active("link"),
            kill: is_active("kill"),
        }
    }

    /// Why a way out is not covered; none where it is.
    pub(super) fn gap(self, needs: Needs) -> Option<&'static str> {
        let Self {
            lineage,
            lsm,
            link,
            kill,
        } = self;
        let (covered, without) = match needs {
            Needs::Cgroup => (true, ""),
            Needs::BelowIp => (
                lsm || link || kill,
                "declared uncovered: neither the lsm nor the link tier is active",
            ),
            Needs::Family => (
                lsm || kill,
                "declared uncovered: neither the lsm nor the kill tier is active",
            ),
            Needs::Lsm => (lsm, "declared uncovered: the lsm tier is not active"),
            Needs::Lineage => (
                lineage,
                "declared uncovered: the lineage tier is not active",
            ),
        };
        (!covered).then_some(without)
    }
}

/// Addresses outside the boundary that judges the canary.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Outside {
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Addr>,
}

/// Whether the boundary refuses an address to a cgroup.
fn is_denied(boundary: &Compiled, cgroup: &str, address: IpAddr, protocol: u8, port: u16) -> bool {
    let number = boundary.select(cgroup).map_or(0, |select| select.boundary);
    let decision = lookup_in(boundary, number, mapped(address), protocol, port, false);
    decision.verdict == Verdict::DENY
}

impl Outside {
    /// The first addresses that are refused by every protocol that is tried.
    pub(super) fn of(boundary: &Compiled, cgroup: &str) -> Self {
        let is_outside = |address: IpAddr| {
            let tried = VECTORS.iter().filter_map(|vector| match vector.to {
                To::V4(protocol, port) if address.is_ipv4() => Some((protocol, port)),
                To::V6(protocol, port) if address.is_ipv6() => Some((protocol, port)),
                _ => None,
            });
            tried
                .into_iter()
                .all(|(protocol, port)| is_denied(boundary, cgroup, address, protocol, port))
        };
        Self {
            v4: V4.into_iter().find(|v4| is_outside((*v4).into())),
            v6: V6.into_iter().find(|v6| is_outside((*v6).into())),
        }
    }

    /// Why a way out leads nowhere that is refused; none where it does.
    pub(super) fn gap(&self, vector: &Vector, boundary: &Compiled, cgroup: &str) -> Option<String> {
        let allowed = |what| {
            Some(format!(
                "the boundary allows the {what} documentation addresses"
            ))
        };
        match vector.to {
            To::Anywhere => None,
            To::V4(..) if self.v4.is_some() => None,
            To::V4(..) => allowed("IPv4"),
            To::V6(..) if self.v6.is_some() => None,
            To::V6(..) => allowed("IPv6"),
            To::Nat64(protocol, port) => {
                let v4 = self.v4?;
                let denied = is_denied(boundary, cgroup, nat64(v4).into(), protocol, port);
                (!denied).then(|| "the boundary allows 64:ff9b::/96 and what is in it".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(name: &'static str, active: bool) -> Tier {
        Tier {
            name,
            active,
            detail: String::new(),
        }
    }

    #[test]
    fn what_no_active_tier_covers_is_not_tried() {
        let bare = Covered::by(&[tier("cgroup", true), tier("lsm", false)]);
        assert_eq!(bare.gap(Needs::Cgroup), None);
        for needs in [Needs::BelowIp, Needs::Family, Needs::Lsm, Needs::Lineage] {
            assert!(bare.gap(needs).is_some_and(|why| why.contains("uncovered")));
        }
        let full = Covered::by(&[tier("lsm", true), tier("lineage", true)]);
        for needs in [Needs::BelowIp, Needs::Family, Needs::Lsm, Needs::Lineage] {
            assert_eq!(full.gap(needs), None);
        }
        let killing = Covered::by(&[tier("kill", true)]);
        assert_eq!(killing.gap(Needs::Family), None);
        assert!(killing.gap(Needs::Lsm).is_some());
    }
}
