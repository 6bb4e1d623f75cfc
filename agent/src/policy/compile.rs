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

use super::entries::{bytes, common, covers, entries, loopback};
use super::load::Database;
use super::names::{self, CompiledName, CompiledResolver};
use super::network::{MAPPED_BITS, Network};
use super::pods::{POD_CGROUPS, PodSelector};
use super::select::{self, Selector, Selects};
use super::{Action, Boundary, LAST_RULE, LOOPBACK_RULE, Mode, Rule};
use crate::config::fault::{Faults, Origin};
use merestone_abi::{
    GENERATION_SLOTS, MAX_NAMES, MAX_PREFIXES, MAX_RESOLVERS, MAX_RULE_SETS, MAX_SELECTORS,
    RULE_ENTRIES, RuleEntry, RuleSet,
};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// A boundary as the kernel takes it, with those it selects.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The boundary's name.
    pub name: String,
    /// SHA-256 of the file's bytes; where it selects others, of its digest and
    /// theirs (see [`Part`]).
    pub digest: [u8; 32],
    /// A denial is reported and let pass.
    pub audit: bool,
    /// What becomes of those who ask a deputy, as the kernel reads it.
    pub deputies: u8,
    /// The prefixes, sorted by boundary, address and length; none twice.
    pub prefixes: Vec<CompiledPrefix>,
    /// The rule sets they point at; none twice in one boundary.
    pub sets: Vec<RuleSet>,
    /// Names, sorted within each boundary; none twice in one.
    pub names: Vec<CompiledName>,
    /// Whose answers names are learned from.
    pub resolvers: Vec<CompiledResolver>,
    /// The file, for those who explain a verdict.
    pub path: PathBuf,
    /// What is known of each rule; rule `n` is at `n - 1`. Those of selected
    /// boundaries are numbered on.
    pub rules: Vec<RuleNote>,
    /// The boundaries by number: the file itself, then those it selects.
    pub parts: Vec<Part>,
    /// Which groups the others judge, with the pods that are known
    /// ([`Compiled::know`]).
    pub selects: Vec<CompiledSelect>,
    /// Those of a place, as they are written.
    pub written: Vec<CompiledSelect>,
    /// Those of pods, in file order.
    pub pods: Vec<CompiledPod>,
    /// The databases it was compiled with.
    pub databases: Vec<Database>,
}

/// One file of a boundary.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Part {
    /// The name by which it is selected; empty for the first, which judges
    /// all others.
    pub stem: String,
    /// Its own name.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of its bytes.
    pub digest: [u8; 32],
    /// Its version.
    pub version: Option<u64>,
    /// Who signed it: the SHA-256 of the key.
    pub signer: Option<[u8; 32]>,
    /// How many rules it has.
    pub rules: usize,
}

/// Which boundary judges a place among the cgroups.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledSelect {
    /// The place.
    pub selector: Selector,
    /// Index into [`Compiled::parts`], or [`super::NOWHERE`]; 0 only for a pod.
    pub boundary: u16,
    /// The line of the `[[select]]`; none where there is none.
    pub line: Option<usize>,
    /// Whose it is.
    pub chosen: Chosen,
}

/// Whose a select is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Chosen {
    /// The place is written in the file.
    Place,
    /// It is this pod's.
    Pod {
        /// Its uid.
        uid: String,
        /// As `namespace/name`.
        name: String,
    },
    /// It is where pods lie that are not known.
    Unknown,
}

/// One `[[select]]` by labels, with the number of its boundary.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledPod {
    /// What it matches.
    pub selector: PodSelector,
    /// Index into [`Compiled::parts`], never 0.
    pub boundary: u16,
    /// The line it stands on.
    pub line: usize,
}

/// One prefix.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct CompiledPrefix {
    /// The boundary it belongs to: an index into [`Compiled::parts`].
    pub boundary: u16,
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
    /// It only reports.
    pub audit: bool,
    /// The file it stands in.
    pub path: PathBuf,
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

    /// What is to be known beside name and digest: versions, signers, selected
    /// files, databases. Nothing where there is nothing of it.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        let mut lines = Vec::new();
        for part in &self.parts {
            let mut words = Vec::new();
            if !part.stem.is_empty() {
                words.push(format!(
                    "{:?} sha256 {}",
                    part.stem,
                    hex::encode(part.digest)
                ));
            }
            words.extend(part.version.map(|version| format!("version {version}")));
            words.extend(
                part.signer
                    .map(|signer| format!("signed by {}", hex::encode(signer))),
            );
            if !words.is_empty() {
                lines.push(words.join(" "));
            }
        }
        for database in &self.databases {
            let digest = hex::encode(database.sha256);
            lines.push(format!("{} database sha256 {digest}", database.kind.word()));
        }
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    /// The `[[select]]` that counts for a cgroup, if any does.
    #[must_use]
    pub fn select(&self, cgroup: &str) -> Option<&CompiledSelect> {
        select::deepest(cgroup, &self.selects, |one| &one.selector)
    }
}

/// Compiles a boundary that selects no other.
pub fn compile(boundary: &Boundary) -> Result<Compiled, Faults> {
    compile_all(std::slice::from_ref(boundary))
}

/// Compiles a boundary and those it selects, in the order in which it names
/// them first; or says which lines ask for more than the kernel holds.
pub fn compile_all(boundaries: &[Boundary]) -> Result<Compiled, Faults> {
    let mut whole = Whole::default();
    for (number, boundary) in (0..=u16::MAX).zip(boundaries) {
        let stem = match number {
            0 => String::new(),
            _ => super::stem(&boundary.path),
        };
        let base = whole.rules.len();
        let mut rules = boundary.rules.clone();
        for (rule, number) in rules.iter_mut().zip(base + 1..) {
            rule.number = u16::try_from(number).unwrap_or(LAST_RULE);
        }
        whole
            .rules
            .extend(rules.iter().map(|rule| note(rule, &boundary.path)));
        whole.parts.push(Part {
            stem,
            name: boundary.name.clone(),
            path: boundary.path.clone(),
            digest: boundary.digest,
            version: boundary.version,
            signer: None,
            rules: rules.len(),
        });
        rules.push(loopback());
        let mut sweep = Sweep::new(boundary, number, &rules);
        let (four, six) = placed(&rules);
        sweep.family(&six);
        sweep.fence(&four, &six);
        sweep.family(&four);
        sweep.names();
        whole.resolvers.extend(names::resolvers(boundary, number));
        sweep.finish(&mut whole);
    }
    whole.finish(boundaries)
}

/// Selects that are kept for where pods lie, for eight roots.
const FENCES: usize = 3 * 8;

/// What the boundaries give together.
#[derive(Default)]
struct Whole {
    prefixes: Vec<CompiledPrefix>,
    sets: Vec<RuleSet>,
    names: Vec<CompiledName>,
    resolvers: Vec<CompiledResolver>,
    rules: Vec<RuleNote>,
    parts: Vec<Part>,
    faults: Faults,
}

impl Whole {
    /// What the kernel has room for, over all boundaries.
    fn check_limits(&mut self, path: &Path) {
        let limits = [
            (
                self.prefixes.len(),
                MAX_PREFIXES as usize,
                "networks",
                "join neighbouring networks",
            ),
            (
                self.sets.len(),
                MAX_RULE_SETS as usize,
                "ways to overlap in all boundaries",
                "give networks with the same ports and protocols one rule",
            ),
            (
                self.names.len(),
                (MAX_NAMES / GENERATION_SLOTS) as usize,
                "names in all boundaries",
                "write a wildcard for names below one",
            ),
            (
                self.resolvers.len(),
                (MAX_RESOLVERS / GENERATION_SLOTS) as usize,
                "resolvers in all boundaries",
                "write networks of resolvers",
            ),
            (
                self.rules.len(),
                usize::from(LAST_RULE),
                "rules in all boundaries",
                "put networks with the same ports into one rule",
            ),
        ];
        if self.faults.is_empty() {
            for (got, most, what, hint) in limits {
                if got > most {
                    let message = format!("{got} {what}, and the kernel holds {most}");
                    let path = path.to_owned();
                    self.faults.push(Origin::Whole { path }, message, hint);
                }
            }
        }
    }

    fn finish(mut self, boundaries: &[Boundary]) -> Result<Compiled, Faults> {
        let Some(main) = boundaries.first() else {
            return Err(self.faults);
        };
        self.check_limits(&main.path);
        let number = |stem: &str| {
            let mut parts = (0..=u16::MAX).zip(&self.parts);
            parts.find_map(|(number, part)| (part.stem == stem && number > 0).then_some(number))
        };
        let (mut written, mut pods) = (Vec::new(), Vec::new());
        for select in &main.selects {
            match (number(&select.boundary), &select.selects) {
                (Some(boundary), Selects::Place(selector)) => written.push(CompiledSelect {
                    selector: selector.clone(),
                    boundary,
                    line: Some(select.line),
                    chosen: Chosen::Place,
                }),
                (Some(boundary), Selects::Pods(selector)) => pods.push(CompiledPod {
                    selector: selector.clone(),
                    boundary,
                    line: select.line,
                }),
                (None, _) => self.faults.push(
                    select.origin.clone(),
                    format!("the boundary {:?} was not read", select.boundary),
                    "",
                ),
            }
        }
        let room = MAX_SELECTORS as usize - if pods.is_empty() { 0 } else { FENCES };
        if written.len() > room {
            let message = format!(
                "{} selects of cgroups and units, and the kernel holds {room}",
                written.len()
            );
            let path = main.path.clone();
            self.faults.push(Origin::Whole { path }, message, "");
        }
        let digest = match self.parts.as_slice() {
            [one] => one.digest,
            parts => together(parts),
        };
        let faults = std::mem::take(&mut self.faults);
        let mut compiled = faults.into_result(Compiled {
            name: main.name.clone(),
            digest,
            audit: main.mode == Mode::Audit,
            deputies: main.deputies.bits(),
            prefixes: self.prefixes,
            sets: self.sets,
            names: self.names,
            resolvers: self.resolvers,
            path: main.path.clone(),
            rules: self.rules,
            parts: self.parts,
            selects: written.clone(),
            written,
            pods,
            databases: Vec::new(),
        })?;
        // Until somebody says which pods there are, there is none.
        compiled.know(&[], &POD_CGROUPS);
        names::check(&compiled, boundaries)?;
        Ok(compiled)
    }
}

/// One digest over several files: of the lines that `sha256sum` would print
/// for them under the names by which they are selected.
fn together(parts: &[Part]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(hex::encode(part.digest));
        hash.update("  ");
        hash.update(&part.stem);
        hash.update("\n");
    }
    hash.finalize().into()
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
    fn new(boundary: &'b Boundary, number: u16, rules: &'b [Rule]) -> Self {
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

    /// Names, each with the rules of the wildcards above it.
    fn names(&mut self) {
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

    fn finish(mut self, whole: &mut Whole) {
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

fn note(rule: &Rule, path: &Path) -> RuleNote {
    let Rule {
        number,
        action,
        line,
        audit,
        comment,
        networks: _,
        geo: _,
        names: _,
        ports: _,
        protocols: _,
    } = rule;
    RuleNote {
        number: *number,
        action: *action,
        audit: *audit,
        path: path.to_owned(),
        line: *line,
        comment: comment.clone(),
    }
}
