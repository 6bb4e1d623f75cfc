//! A boundary as the kernel takes it: tables, and what is known of each rule,
//! file and place for those who explain a verdict.

use crate::policy::Action;
use crate::policy::load::Database;
use crate::policy::names::{CompiledName, CompiledResolver};
use crate::policy::pods::PodSelector;
use crate::policy::select::{self, Selector};
use merestone_abi::RuleSet;
use std::path::PathBuf;

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
    /// Index into [`Compiled::parts`], or [`crate::policy::NOWHERE`]; 0 only for a pod.
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
