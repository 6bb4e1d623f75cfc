//! From rules to the tables the kernel decides from: prefixes that point at
//! rule sets.
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

use super::entries::{bytes, covers, entries, loopback};
use super::network::{MAPPED_BITS, Network};
use super::{Action, Boundary, LOOPBACK_RULE, Mode, Rule};
use crate::config::fault::{Faults, Origin};
use merestone_abi::{MAX_PREFIXES, MAX_RULE_SETS, RULE_ENTRIES, RuleEntry, RuleSet};
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

/// A boundary as the kernel takes it.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The boundary's name.
    pub name: String,
    /// SHA-256 of the file's bytes.
    pub digest: [u8; 32],
    /// A denial is reported and let pass.
    pub audit: bool,
    /// The prefixes, sorted by address and then by length; none twice.
    pub prefixes: Vec<CompiledPrefix>,
    /// The rule sets they point at; none twice.
    pub sets: Vec<RuleSet>,
    /// The file, for those who explain a verdict.
    pub path: PathBuf,
    /// What is known of each rule; rule `n` is at `n - 1`.
    pub rules: Vec<RuleNote>,
}

/// One prefix.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct CompiledPrefix {
    /// The network address, IPv4 in mapped form.
    pub address: [u8; 16],
    /// Leading bits that must match, 0 to 128.
    pub bits: u8,
    /// Index into the sets.
    pub set: u32,
}

/// Where a rule stands and what its author says of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RuleNote {
    /// Its number, from 1.
    pub number: u16,
    /// What it does.
    pub action: Action,
    /// The line its table begins on.
    pub line: usize,
    /// The operator's own words.
    pub comment: Option<String>,
}

impl Compiled {
    /// What is known of a rule; nothing for the built-in one and for none.
    #[must_use]
    pub fn rule(&self, number: u16) -> Option<&RuleNote> {
        self.rules.get(usize::from(number).checked_sub(1)?)
    }
}

/// Compiles a boundary, or says which lines ask for more than the kernel holds.
pub fn compile(boundary: &Boundary) -> Result<Compiled, Faults> {
    let mut rules = boundary.rules.clone();
    rules.push(loopback());
    let mut sweep = Sweep::new(boundary, &rules);
    let (four, six) = placed(&rules);
    sweep.family(&six);
    sweep.fence(&four, &six);
    sweep.family(&four);
    sweep.finish()
}

/// A network and the index of a rule that names it.
type Placed = (Network, usize);

/// Every network with its rule, each family sorted by address and length, so
/// that what covers comes before what is covered.
fn placed(rules: &[Rule]) -> (Vec<Placed>, Vec<Placed>) {
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

struct Sweep<'b> {
    boundary: &'b Boundary,
    rules: &'b [Rule],
    entries: Vec<Vec<RuleEntry>>,
    chains: Vec<Chain>,
    /// A chain by the one it extends and the rules it adds.
    known: HashMap<(ChainId, Vec<usize>), ChainId>,
    sets: Vec<RuleSet>,
    set_ids: HashMap<Vec<[u8; 8]>, u32>,
    prefixes: Vec<CompiledPrefix>,
    faults: Faults,
    /// Rules already named in a fault, so that each is named once.
    blamed: BTreeSet<Vec<usize>>,
}

impl<'b> Sweep<'b> {
    fn new(boundary: &'b Boundary, rules: &'b [Rule]) -> Self {
        let mut this = Self {
            boundary,
            rules,
            entries: rules.iter().map(entries).collect(),
            chains: Vec::new(),
            known: HashMap::new(),
            sets: Vec::new(),
            set_ids: HashMap::new(),
            prefixes: Vec::new(),
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
    fn family(&mut self, placed: &[Placed]) {
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

    /// Ends IPv6 at the range where IPv4 lives.
    fn fence(&mut self, four: &[Placed], six: &[Placed]) {
        let mapped = Network::of(
            super::mapped(std::net::Ipv4Addr::UNSPECIFIED.into()),
            MAPPED_BITS,
        );
        let spanned = six.iter().any(|(network, _)| network.covers(&mapped));
        let whole = four.first().is_some_and(|(network, _)| *network == mapped);
        if spanned && !whole {
            let set = self.set(&[]);
            self.prefix(mapped, set);
        }
    }

    fn prefix(&mut self, network: Network, set: u32) {
        let Network { address, bits } = network;
        self.prefixes.push(CompiledPrefix { address, bits, set });
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
                let key = (rule.action, std::cmp::Reverse(*depth), rule.number);
                Some((key, self.entries.get(*index)?))
            })
            .collect();
        order.sort_unstable_by_key(|(key, _)| *key);
        let mut flat: Vec<RuleEntry> = Vec::new();
        for entry in order.into_iter().flat_map(|(_, entries)| entries) {
            // Past what fits only the count matters.
            let full = flat.len() > RULE_ENTRIES;
            if full || !flat.iter().any(|earlier| covers(*earlier, *entry)) {
                flat.push(*entry);
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

    fn too_many_entries(&mut self, network: &Network, found: usize, rules: &[(u16, usize)]) {
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

    fn finish(mut self) -> Result<Compiled, Faults> {
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
        let most = MAX_PREFIXES as usize;
        if self.prefixes.len() > most {
            let message = format!(
                "{} networks, and the kernel holds {most}",
                self.prefixes.len()
            );
            let place = Origin::Whole {
                path: self.boundary.path.clone(),
            };
            self.faults
                .push(place, message, "join neighbouring networks");
        }
        let Boundary {
            path,
            name,
            digest,
            mode,
            rules,
        } = self.boundary;
        self.faults.into_result(Compiled {
            name: name.clone(),
            digest: *digest,
            audit: *mode == Mode::Audit,
            prefixes: self.prefixes,
            sets: self.sets,
            path: path.clone(),
            rules: rules.iter().map(note).collect(),
        })
    }
}

/// The set of the chain without rules: there is none.
const NO_SET: u32 = u32::MAX;

fn note(rule: &Rule) -> RuleNote {
    let Rule {
        number,
        action,
        line,
        comment,
        networks: _,
        ports: _,
        protocols: _,
    } = rule;
    RuleNote {
        number: *number,
        action: *action,
        line: *line,
        comment: comment.clone(),
    }
}
