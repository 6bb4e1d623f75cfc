//! Named destinations: the words of the file, and what the kernel looks up.
//!
//! A name is never resolved here. The kernel learns its addresses from the
//! answers of the resolvers that the boundary trusts, and holds every question
//! for a name that no rule lists. Names without anybody whose answers count are
//! refused.

use super::network::{MAPPED_BITS, Network, mapped};
use super::parse::Parser;
use super::{Action, Boundary, Compiled, Protocol, Rule, lookup};
use crate::config::document::{self, Value};
use crate::config::fault::{Faults, Origin};
use merestone_abi::{RuleSet, Verdict, protocol};
use merestone_dns::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use toml::de::DeValue;

const RESOLVERS: &[&str] = &["trust"];

/// `registry.example.eu`, or `*.storage.example.eu` for every name below it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct NamePattern {
    /// In lower case.
    pub text: String,
}

/// A resolver of `[resolvers] trust`, and where it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Resolver {
    /// Its address, or a network of them.
    pub network: Network,
    /// Where in the file.
    pub origin: Origin,
}

/// One name as the kernel looks it up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledName {
    /// The boundary it belongs to.
    pub boundary: u16,
    /// The name.
    pub pattern: NamePattern,
    /// Index into the sets.
    pub set: u32,
    /// The rule that refuses even to ask for it, where nothing lets it be used.
    pub denied: Option<u16>,
}

/// Who answers for names in one boundary.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CompiledResolver {
    /// The boundary.
    pub boundary: u16,
    /// The network.
    pub network: Network,
    /// Whether its answers are learned from.
    pub trusted: bool,
}

impl NamePattern {
    /// Reads a name; the error is what is wrong, and what to write.
    pub fn parse(text: &str) -> Result<Self, (String, String)> {
        let plain = "write a whole name, as in \"registry.example.eu\" or \"*.storage.example.eu\"";
        let hint = if !text.is_ascii() {
            "write the name in ASCII, its labels as in \"xn--mnchen-3ya\""
        } else if text.parse::<IpAddr>().is_ok() {
            "an address belongs under cidr"
        } else if text.ends_with('.') {
            "leave the dot at the end out"
        } else {
            plain
        };
        // No top-level domain is a number (RFC 3696 §2): it is an address gone wrong.
        let last = text.rsplit('.').next().unwrap_or_default();
        let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
        if is_number || merestone_dns::pattern_key(text).is_none() {
            return Err((format!("{text:?} is not a name"), hint.to_owned()));
        }
        Ok(Self {
            text: text.to_ascii_lowercase(),
        })
    }

    /// The key, and how many of its bits must match.
    #[must_use]
    pub fn key(&self) -> Option<(Key, u16)> {
        let (key, bits) = merestone_dns::pattern_key(&self.text)?;
        Some((key, u16::try_from(bits).ok()?))
    }

    /// Whether it is a name itself and no wildcard.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.text.starts_with('*')
    }

    /// Whether it lists a name, which is in lower case.
    #[must_use]
    pub fn lists(&self, name: &str) -> bool {
        match self.text.strip_prefix('*') {
            Some(tail) => name.len() > tail.len() && name.ends_with(tail),
            None => self.text == name,
        }
    }

    /// The wildcards that list it, the widest first.
    fn above(&self) -> Vec<Self> {
        let own = self.text.strip_prefix("*.").unwrap_or(&self.text);
        let dots = own
            .match_indices('.')
            .filter_map(|(at, _)| own.get(at + 1..));
        let mut above: Vec<_> = dots
            .map(|tail| Self {
                text: format!("*.{tail}"),
            })
            .collect();
        above.reverse();
        above
    }
}

/// Rules, the least specific first: (specificity, index of the rule).
type Chain = Vec<(u16, usize)>;

/// Every name of the rules, with all the rules that list it.
pub(super) fn chains(rules: &[Rule]) -> Vec<(NamePattern, Chain)> {
    let mut own: BTreeMap<&NamePattern, BTreeSet<usize>> = BTreeMap::new();
    for (index, rule) in rules.iter().enumerate() {
        for name in &rule.names {
            own.entry(name).or_default().insert(index);
        }
    }
    let mut chains = Vec::with_capacity(own.len());
    for (name, indexes) in &own {
        let above = name.above();
        let around = above.iter().filter_map(|wildcard| own.get(wildcard));
        let mut chain = Vec::new();
        for (depth, indexes) in (0..).zip(around.chain([indexes])) {
            chain.extend(indexes.iter().map(|index| (depth, *index)));
        }
        chains.push(((*name).clone(), chain));
    }
    chains
}

/// Whose answers a boundary learns from; nothing where it has no names.
///
/// Those of `[resolvers] trust`, or without it those whom a rule lets be asked
/// by naming port 53 itself. Loopback only where it is named, because a stub
/// there asks on in its own name.
pub(super) fn resolvers(boundary: &Boundary, number: u16) -> Vec<CompiledResolver> {
    if boundary.rules.iter().all(|rule| rule.names.is_empty()) {
        return Vec::new();
    }
    let named: BTreeSet<Network> = match &boundary.resolvers {
        Some(list) => list.iter().map(|resolver| resolver.network).collect(),
        None => boundary
            .rules
            .iter()
            .filter(|rule| is_for_resolvers(rule))
            .flat_map(|rule| rule.networks.iter().copied())
            .collect(),
    };
    let nobody = Network::of([0; 16], 0);
    let four = mapped(Ipv4Addr::LOCALHOST.into());
    let outside = [
        nobody,
        // A network of IPv6 says nothing of IPv4, and neither of loopback.
        Network::of(four, MAPPED_BITS),
        Network::of(four, MAPPED_BITS + 8),
        Network::of(mapped(Ipv6Addr::LOCALHOST.into()), 128),
    ];
    let compiled = |network: Network, trusted: bool| CompiledResolver {
        boundary: number,
        network,
        trusted,
    };
    let mut all: Vec<_> = named
        .iter()
        .map(|network| compiled(*network, true))
        .collect();
    let others = outside
        .into_iter()
        .filter(|network| !named.contains(network));
    all.extend(others.map(|network| compiled(network, false)));
    all
}

fn is_for_resolvers(rule: &Rule) -> bool {
    let ports = rule.ports.as_deref().unwrap_or_default();
    let own_port = ports
        .iter()
        .any(|range| (range.low, range.high) == (merestone_dns::PORT, merestone_dns::PORT));
    let protocols = rule.protocols.as_deref();
    let udp = protocols.is_none_or(|list| list.contains(&Protocol::Udp));
    rule.action == Action::Allow && own_port && udp
}

/// The rule that refuses a name whatever it is wanted for; none where some use
/// of it passes. Denies come first in a set.
pub(super) fn denied(set: &RuleSet) -> Option<u16> {
    let entries = set.entries.iter().take(set.length as usize);
    let passes = entries.clone().any(|entry| entry.action != Verdict::DENY.0);
    let mut denies = entries.filter(|entry| entry.action == Verdict::DENY.0);
    denies.next().filter(|_| !passes).map(|entry| entry.rule)
}

/// Refuses names that nobody may answer for, and a resolver that is trusted
/// and that no rule lets be asked.
pub(super) fn check(compiled: &Compiled, boundaries: &[Boundary]) -> Result<(), Faults> {
    let mut faults = Faults::new();
    for (number, boundary) in (0..=u16::MAX).zip(boundaries) {
        for resolver in boundary.resolvers.iter().flatten() {
            let (address, port) = (resolver.network.address, merestone_dns::PORT);
            let decision = lookup::lookup_in(compiled, number, address, protocol::UDP, port, false);
            if decision.verdict == Verdict::DENY {
                faults.push(
                    resolver.origin.clone(),
                    format!("no rule lets {} be asked on udp port 53", resolver.network),
                    "add an [[allow]] with its cidr and ports = [53]",
                );
            }
        }
        let mut of_it = compiled
            .resolvers
            .iter()
            .filter(|one| one.boundary == number);
        let first = boundary.rules.iter().find(|rule| !rule.names.is_empty());
        if let Some(rule) = first
            && !of_it.any(|one| one.trusted)
        {
            faults.push(
                Origin::File {
                    path: boundary.path.clone(),
                    line: rule.line,
                    column: 1,
                },
                "names are listed, and nobody is there to answer for them",
                "write [resolvers] with trust = [\"ADDRESS\"], or an [[allow]] with ports = [53]",
            );
        }
    }
    faults.into_result(())
}

/// The most specific of a boundary's names that lists `name`, as the kernel
/// finds it.
#[must_use]
pub fn listed<'c>(compiled: &'c Compiled, boundary: u16, name: &str) -> Option<&'c CompiledName> {
    let name = name.to_ascii_lowercase();
    let of_it = compiled.names.iter().filter(|one| one.boundary == boundary);
    of_it
        .filter(|one| one.pattern.lists(&name))
        .max_by_key(|one| (one.pattern.is_exact(), one.pattern.text.len()))
}

/// Whether the kernel refuses DNS there although a rule lets it pass, as its
/// `names::hold` does: over TCP and TLS, and by a stub on loopback.
pub(super) fn hold(
    compiled: &Compiled,
    boundary: u16,
    address: [u8; 16],
    number: u8,
    port: u16,
) -> bool {
    if port != merestone_dns::PORT && port != merestone_dns::SECURE_PORT {
        return false;
    }
    let at = Network::of(address, 128);
    let of_it = compiled
        .resolvers
        .iter()
        .filter(|one| one.boundary == boundary);
    let nearest = of_it
        .filter(|one| one.network.covers(&at))
        .max_by_key(|one| one.network.bits);
    let Some(nearest) = nearest else {
        return false;
    };
    let is_question = port == merestone_dns::PORT && number == protocol::UDP;
    let is_loopback = Ipv6Addr::from(address).to_canonical().is_loopback();
    !is_question || (!nearest.trusted && is_loopback)
}

impl Parser<'_> {
    /// `name` of a rule.
    pub(super) fn names(&mut self, value: &Value<'_>) -> Vec<NamePattern> {
        let mut names = Vec::new();
        for item in self.items("name", value, "write a name, or remove the key") {
            let Some(text) = document::string(self.text, "a name", item, &mut self.faults) else {
                continue;
            };
            match NamePattern::parse(text) {
                Ok(name) => names.push(name),
                Err((message, hint)) => self.faults.push(self.text.place(item), message, hint),
            }
        }
        names
    }

    /// `[resolvers]`.
    pub(super) fn resolvers(&mut self, value: &Value<'_>) -> Option<Vec<Resolver>> {
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong(
                "resolvers",
                "a table",
                value.get_ref(),
                value,
                "write [resolvers]",
            );
            return None;
        };
        self.keys(table, " in [resolvers]", RESOLVERS, &[]);
        let value = table.get("trust")?;
        let mut trusted = Vec::new();
        for item in self.items("trust", value, "name a resolver, or remove the table") {
            let Some(text) = document::string(self.text, "a resolver", item, &mut self.faults)
            else {
                continue;
            };
            let origin = self.text.place(item);
            let network = match text.parse::<IpAddr>() {
                Ok(IpAddr::V6(six)) if six.to_ipv4_mapped().is_some() => Network::parse(text),
                Ok(address) => Ok(Network::of(mapped(address), 128)),
                Err(_) => Network::parse(text),
            };
            match network {
                Ok(network) => trusted.push(Resolver { network, origin }),
                Err((message, hint)) => self.faults.push(origin, message, hint),
            }
        }
        Some(trusted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{compile, parse};
    use std::path::Path;

    const FILE: &str = "name = \"n\"\n[[allow]]\ncidr = [\"10.0.0.53/32\"]\nports = [53]\n\
                        [[allow]]\nname = [\"registry.example.eu\", \"*.example.eu\"]\nports = [443]\n\
                        [[allow]]\nname = [\"*.storage.example.eu\"]\n";

    #[test]
    fn each_name_carries_the_rules_of_the_wildcards_above_it() {
        let boundary = parse(Path::new("b.toml"), FILE.into()).unwrap();
        let compiled = compile(&boundary).unwrap();
        let rules = |text: &str| {
            let name = compiled.names.iter().find(|name| name.pattern.text == text);
            let set = &compiled.sets[name.unwrap().set as usize];
            let entries = set.entries.iter().take(set.length as usize);
            entries.map(|entry| entry.rule).collect::<Vec<_>>()
        };
        assert_eq!(rules("registry.example.eu"), [2]);
        assert_eq!(rules("*.storage.example.eu"), [3]);
        let trusted: Vec<_> = compiled
            .resolvers
            .iter()
            .filter(|resolver| resolver.trusted)
            .map(|resolver| resolver.network.to_string())
            .collect();
        assert_eq!(trusted, ["10.0.0.53/32"]);
        assert_eq!(compiled.resolvers.len(), 5);
    }

    #[test]
    fn what_is_not_a_name_is_refused_with_what_to_write() {
        for (text, hint) in [
            ("münchen.example", "xn--"),
            ("192.0.2.1", "cidr"),
            ("a.example.", "dot at the end"),
            ("*", "whole name"),
            ("a.*.example", "whole name"),
            ("-a.example", "whole name"),
            ("a..example", "whole name"),
            ("10.0.0.300", "whole name"),
        ] {
            let (_, said) = NamePattern::parse(text).unwrap_err();
            assert!(said.contains(hint), "{text}: {said}");
        }
        assert_eq!(
            NamePattern::parse("*.Example.EU").unwrap().text,
            "*.example.eu"
        );
    }

    #[test]
    fn a_deny_by_name_wins_and_says_which_rule_refuses_the_question() {
        let text = format!(
            "{FILE}[[deny]]\nname = [\"*.bad.storage.example.eu\"]\n\
             [[deny]]\nname = [\"*.storage.example.eu\"]\nports = [25]\nprotocols = [\"tcp\"]\n"
        );
        let compiled = compile(&parse(Path::new("b.toml"), text.into()).unwrap()).unwrap();
        let denied = |name: &str| listed(&compiled, 0, name).map(|listed| listed.denied);
        assert_eq!(denied("x.bad.storage.example.eu"), Some(Some(4)));
        assert_eq!(denied("bad.storage.example.eu"), Some(None));
        assert_eq!(denied("a.STORAGE.example.eu"), Some(None));
        assert_eq!(denied("storage.example.eu"), Some(None), "by *.example.eu");
        assert_eq!(denied("example.eu"), None);
    }

    #[test]
    fn a_selected_boundary_has_names_and_resolvers_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let main = format!(
            "{FILE}[[select]]\nunit = \"a.service\"\nboundary = \"strict\"\n\
             [[select]]\nunit = \"b.service\"\nboundary = \"plain\"\n"
        );
        let strict = "name = \"s\"\n[[allow]]\ncidr = [\"10.0.0.54/32\"]\nports = [53]\n\
                      [[allow]]\nname = [\"only.example\"]\n";
        let plain = "name = \"p\"\n[[allow]]\ncidr = [\"10.0.0.54/32\"]\nports = [53]\n";
        for (file, text) in [("b", main.as_str()), ("strict", strict), ("plain", plain)] {
            std::fs::write(folder.path().join(format!("{file}.toml")), text).unwrap();
        }
        let compiled = crate::policy::load(&folder.path().join("b.toml")).unwrap();
        let is_listed = |boundary, name| listed(&compiled, boundary, name).is_some();
        assert!(is_listed(0, "registry.example.eu") && !is_listed(1, "registry.example.eu"));
        assert!(is_listed(1, "only.example") && !is_listed(0, "only.example"));
        let trusted = |boundary: u16| {
            let of_it = compiled.resolvers.iter();
            let of_it = of_it.filter(|one| one.boundary == boundary && one.trusted);
            of_it.map(|one| one.network.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(trusted(0), ["10.0.0.53/32"]);
        assert_eq!(trusted(1), ["10.0.0.54/32"]);
        // Without names nothing judges a question there.
        assert!(compiled.resolvers.iter().all(|one| one.boundary != 2));
        let set = listed(&compiled, 1, "only.example").unwrap().set;
        let entry = compiled.sets[set as usize].entries[0];
        assert_eq!(compiled.rule(entry.rule).unwrap().line, 5);
    }

    #[test]
    fn names_that_nobody_answers_for_and_a_resolver_nobody_may_ask_are_faults() {
        let alone = "name = \"n\"\n[[allow]]\nname = [\"a.example\"]\n";
        let boundary = parse(Path::new("b.toml"), alone.into()).unwrap();
        let said = compile(&boundary).unwrap_err().to_string();
        assert!(
            said.contains("b.toml:2:1: names are listed, and nobody"),
            "{said}"
        );
        let text = format!("{FILE}[resolvers]\ntrust = [\"10.0.0.54\"]\n");
        let boundary = parse(Path::new("b.toml"), text.into()).unwrap();
        let said = compile(&boundary).unwrap_err().to_string();
        assert!(said.contains("no rule lets"), "{said}");
    }

    #[test]
    fn the_kernel_s_keys_agree_with_a_plain_matcher() {
        let labels = ["a", "b", "eu", "example", "x-1", "_tcp"];
        let mut state = 7_u64;
        let mut next = |most: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % most
        };
        for _ in 0..20_000 {
            let mut name = |least: usize| {
                let count = least + next(4);
                let words: Vec<_> = (0..count).map(|_| labels[next(labels.len())]).collect();
                words.join(".")
            };
            let asked = name(1);
            let text = match name(0) {
                rest if rest.is_empty() => format!("*.{}", name(1)),
                rest => rest,
            };
            let pattern = NamePattern::parse(&text).unwrap();
            let (key, bits) = pattern.key().unwrap();
            let mut message = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            for label in asked.split('.') {
                message.push(u8::try_from(label.len()).unwrap());
                message.extend(label.to_ascii_uppercase().bytes());
            }
            message.extend([0, 0, 1, 0, 1]);
            let (_, own) = merestone_dns::question(&message).unwrap();
            let bytes = usize::from(bits / 8);
            let found = own[..bytes] == key[..bytes];
            assert_eq!(found, pattern.lists(&asked), "{text} and {asked}");
        }
    }
}
