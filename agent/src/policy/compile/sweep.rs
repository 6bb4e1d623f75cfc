//! One boundary's rules, flattened.
//!
//! The kernel finds the longest prefix that matches and tries its entries in
//! order, nothing more. So each prefix carries every rule that applies at it:
//! denies first, then allows from the most to the least specific. The prefixes
//! are swept once in address order with a stack of those that cover the
//! current one; a rule set is made once for each chain of rules that occurs,
//! not for each prefix, so a list of 100,000 networks costs a sort.
//!
//! Two properties keep the tables small without changing any verdict or the
//! rule that is named for it: an entry that an earlier one covers is left out,
//! and so is a prefix whose set is that of the prefix around it.
//!
//! IPv4 and IPv6 are two families that happen to share an address space in the
//! kernel. An IPv6 network that spans `::ffff:0:0/96` says nothing about IPv4,
//! so that range then gets an empty set of its own.

use super::compiled::CompiledPrefix;
use super::whole::Whole;
use crate::config::fault::{Faults, Origin};
use crate::policy::entries::{bytes, common, covers, entries};
use crate::policy::names::{self, CompiledName};
use crate::policy::network::{MAPPED_BITS, Network};
use crate::policy::{Action, Boundary, LOOPBACK_RULE, Rule, mapped};
use merestone_abi::{MAX_RULE_SETS, RULE_ENTRIES, RuleEntry, RuleSet};
use std::collections::{BTreeSet, HashMap};

/// A network and the index of a rule that names it.
pub(super) type Placed = (Network, usize);

/// Every network with its rule, each family sorted by address and length, so
/// that what covers comes before what is covered.
pub(super) fn placed(rules: &[Rule]) -> (Vec<Placed>, Vec<Placed>) {
    let mut all: Vec<Placed> = rules
        .iter()
        .enumerate()
        .flat_map(|(index, rule)| rule.networks.iter().map(move |network| (*network, index)))
        .collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter().partition(|(network, _)| network.is_ipv4())
}

/// The rules that apply somewhere, the least specific first; an index into
/// [`Sweep::chains`]. Chain 0 has none.
type ChainId = usize;

#[derive(Debug)]
struct Chain {
    /// Rule indexes, those of one network together: (specificity, rule).
    rules: Vec<(u16, usize)>,
    set: u32,
}

/// One boundary's prefixes, swept.
pub(super) struct Sweep<'b> {
    boundary: &'b Boundary,
    number: u16,
    rules: &'b [Rule],
    entries: Vec<Vec<RuleEntry>>,
    chains: Vec<Chain>,
    /// A chain by the one it extends and the rules it adds.
    known: HashMap<(ChainId, Vec<usize>), ChainId>,
    sets: Vec<RuleSet>,
    set_ids: HashMap<Vec<[u8; 8]>, u32>,
    prefixes: Vec<CompiledPrefix>,
    names: Vec<CompiledName>,
    faults: Faults,
    /// Rules already named in a fault, so that each is named once.
    blamed: BTreeSet<Vec<usize>>,
}

impl<'b> Sweep<'b> {
    pub(super) fn new(boundary: &'b Boundary, number: u16, rules: &'b [Rule]) -> Self {
        let mut this = Self {
            boundary,
            number,
            rules,
            entries: rules.iter().map(entries).collect(),
            chains: Vec::new(),
            known: HashMap::new(),
            sets: Vec::new(),
            set_ids: HashMap::new(),
            prefixes: Vec::new(),
            names: Vec::new(),
            faults: Faults::new(),
            blamed: BTreeSet::new(),
        };
        this.chains.push(Chain {
            rules: Vec::new(),
            set: NO_SET,
        });
        this
    }

    /// One family, sorted.
    pub(super) fn family(&mut self, placed: &[Placed]) {
        // The networks around the current one, and the chain at each.
        let mut around: Vec<(Network, ChainId)> = Vec::new();
        for group in placed.chunk_by(|(left, _), (right, _)| left == right) {
            let Some((network, _)) = group.first() else {
                continue;
            };
            while around
                .last()
                .is_some_and(|(outer, _)| !outer.covers(network))
            {
                around.pop();
            }
            let outer = around.last().map_or(0, |(_, chain)| *chain);
            let own = group.iter().map(|(_, rule)| *rule).collect();
            let chain = self.chain(outer, own, network);
            around.push((*network, chain));
            let set = self.set_of(chain);
            if set != self.set_of(outer) {
                self.prefix(*network, set);
            }
        }
    }

    /// Names, each with the rules of the wildcards above it.
    pub(super) fn names(&mut self) {
        for (pattern, rules) in names::chains(self.rules) {
            let entries = self.flatten(&rules);
            if entries.len() > RULE_ENTRIES {
                self.too_many_entries(&pattern.text, entries.len(), &rules);
            }
            let set = self.set(&entries);
            let denied = self.sets.get(set as usize).and_then(names::denied);
            self.names.push(CompiledName {
                boundary: self.number,
                pattern,
                set,
                denied,
            });
        }
    }

    /// Ends IPv6 at the range where IPv4 lives.
    pub(super) fn fence(&mut self, four: &[Placed], six: &[Placed]) {
        let mapped = Network::of(mapped(std::net::Ipv4Addr::UNSPECIFIED.into()), MAPPED_BITS);
        let spanned = six.iter().any(|(network, _)| network.covers(&mapped));
        let whole = four.first().is_some_and(|(network, _)| *network == mapped);
        if spanned && !whole {
            let set = self.set(&[]);
            self.prefix(mapped, set);
        }
    }

    fn prefix(&mut self, network: Network, set: u32) {
        let Network { address, bits } = network;
        self.prefixes.push(CompiledPrefix {
            boundary: self.number,
            address,
            bits,
            set,
        });
    }

    fn set_of(&self, chain: ChainId) -> u32 {
        self.chains.get(chain).map_or(NO_SET, |chain| chain.set)
    }

    /// The chain that extends `outer` by `own`, made once.
    fn chain(&mut self, outer: ChainId, own: Vec<usize>, network: &Network) -> ChainId {
        let key = (outer, own);
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let mut rules = self
            .chains
            .get(outer)
            .map_or_else(Vec::new, |chain| chain.rules.clone());
        let depth = rules.last().map_or(0, |(depth, _)| depth + 1);
        rules.extend(key.1.iter().map(|rule| (depth, *rule)));
        let entries = self.flatten(&rules);
        if entries.len() > RULE_ENTRIES {
            self.too_many_entries(network, entries.len(), &rules);
        }
        let set = self.set(&entries);
        self.chains.push(Chain { rules, set });
        let id = self.chains.len() - 1;
        self.known.insert(key, id);
        id
    }

    /// The entries of a chain in the order they are tried.
    fn flatten(&self, rules: &[(u16, usize)]) -> Vec<RuleEntry> {
        let mut order: Vec<_> = rules
            .iter()
            .filter_map(|(depth, index)| {
                let rule = self.rules.get(*index)?;
                let is_trial = rule.audit && rule.action == Action::Deny;
                let key = (
                    rule.action,
                    is_trial,
                    std::cmp::Reverse(*depth),
                    rule.number,
                );
                Some((key, self.entries.get(*index)?))
            })
            .collect();
        order.sort_unstable_by_key(|(key, _)| *key);
        let of = |action: Action, is_trial: bool| {
            order
                .iter()
                .filter(move |((own, trial, _, _), _)| *own == action && *trial == is_trial)
                .flat_map(|(_, entries)| entries.iter().copied())
        };
        // A deny on trial reports what an allow would let pass, and only that.
        let trials = of(Action::Deny, true).flat_map(|trial| {
            of(Action::Allow, false).filter_map(move |allow| common(trial, allow))
        });
        let mut flat: Vec<RuleEntry> = Vec::new();
        for entry in of(Action::Deny, false)
            .chain(trials)
            .chain(of(Action::Allow, false))
        {
            // Past what fits only the count matters.
            let full = flat.len() > RULE_ENTRIES;
            if full || !flat.iter().any(|earlier| covers(*earlier, entry)) {
                flat.push(entry);
            }
        }
        flat
    }

    /// The set with these entries, made once.
    fn set(&mut self, entries: &[RuleEntry]) -> u32 {
        let key = entries.iter().copied().map(bytes).collect();
        let next = u32::try_from(self.sets.len()).unwrap_or(NO_SET);
        *self.set_ids.entry(key).or_insert_with(|| {
            let mut array = [RuleEntry::default(); RULE_ENTRIES];
            let mut length = 0;
            for (slot, entry) in array.iter_mut().zip(entries) {
                *slot = *entry;
                length += 1;
            }
            self.sets.push(RuleSet {
                length,
                reserved: 0,
                entries: array,
            });
            next
        })
    }

    fn too_many_entries(
        &mut self,
        network: &dyn std::fmt::Display,
        found: usize,
        rules: &[(u16, usize)],
    ) {
        let mut blamed: Vec<usize> = rules.iter().map(|(_, rule)| *rule).collect();
        blamed.sort_unstable();
        let place = self.place_of(&blamed);
        let lines = self.lines(&blamed);
        if !self.blamed.insert(blamed) {
            return;
        }
        let message = format!(
            "{network} needs {found} kernel entries and there is room for {RULE_ENTRIES}: {lines}"
        );
        let hint = "an entry is one protocol and one range of ports: join ports into ranges, \
                    or give fewer rules to the same network";
        self.faults.push(place, message, hint);
    }

    fn place_of(&self, rules: &[usize]) -> Origin {
        let line = rules
            .iter()
            .filter_map(|rule| self.rules.get(*rule))
            .filter(|rule| rule.line > 0)
            .map(|rule| rule.line)
            .max();
        let path = self.boundary.path.clone();
        match line {
            Some(line) => Origin::File {
                path,
                line,
                column: 1,
            },
            None => Origin::Whole { path },
        }
    }

    /// "rule 2 (line 9), rule 3 (line 14)".
    fn lines(&self, rules: &[usize]) -> String {
        let named: Vec<String> = rules
            .iter()
            .filter_map(|rule| self.rules.get(*rule))
            .map(|rule| match rule.number {
                LOOPBACK_RULE => "the built-in rule for loopback".to_owned(),
                number => format!("rule {number} (line {})", rule.line),
            })
            .collect();
        named.join(", ")
    }

    pub(super) fn finish(mut self, whole: &mut Whole) {
        self.prefixes.sort_unstable();
        if self.sets.len() > MAX_RULE_SETS as usize {
            let past = self
                .chains
                .iter()
                .filter(|chain| chain.set >= MAX_RULE_SETS && chain.set != NO_SET);
            let rules: BTreeSet<usize> = past
                .flat_map(|chain| chain.rules.iter().map(|(_, rule)| *rule))
                .collect();
            let rules: Vec<usize> = rules.into_iter().take(8).collect();
            let message = format!(
                "the rules overlap in {} different ways and the kernel holds {MAX_RULE_SETS}; \
                 among those past it: {}",
                self.sets.len(),
                self.lines(&rules),
            );
            let place = self.place_of(&rules);
            self.faults.push(
                place,
                message,
                "give networks with the same ports and protocols one rule",
            );
        }
        let base = u32::try_from(whole.sets.len()).unwrap_or(NO_SET);
        for prefix in &mut self.prefixes {
            prefix.set = prefix.set.saturating_add(base);
        }
        for name in &mut self.names {
            name.set = name.set.saturating_add(base);
        }
        whole.names.append(&mut self.names);
        whole.prefixes.append(&mut self.prefixes);
        whole.sets.append(&mut self.sets);
        whole.faults.append(self.faults);
    }
}

/// The set of the chain without rules: there is none.
const NO_SET: u32 = u32::MAX;
