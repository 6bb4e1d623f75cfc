//! What a boundary and those it selects give together, and whether the kernel
//! has room for it.

use super::compiled::{
    Chosen, Compiled, CompiledPod, CompiledPrefix, CompiledSelect, Part, RuleNote,
};
use crate::config::fault::{Faults, Origin};
use crate::policy::names::{self, CompiledName, CompiledResolver};
use crate::policy::pods::POD_CGROUPS;
use crate::policy::select::Selects;
use crate::policy::{Boundary, LAST_RULE, Mode};
use merestone_abi::{
    GENERATION_SLOTS, MAX_NAMES, MAX_PREFIXES, MAX_RESOLVERS, MAX_RULE_SETS, MAX_SELECTORS, RuleSet,
};
use sha2::{Digest as _, Sha256};
use std::path::Path;

/// Selects that are kept for where pods lie, for eight roots.
const FENCES: usize = 3 * 8;

/// What the boundaries give together.
#[derive(Default)]
pub(super) struct Whole {
    pub(super) prefixes: Vec<CompiledPrefix>,
    pub(super) sets: Vec<RuleSet>,
    pub(super) names: Vec<CompiledName>,
    pub(super) resolvers: Vec<CompiledResolver>,
    pub(super) rules: Vec<RuleNote>,
    pub(super) parts: Vec<Part>,
    pub(super) faults: Faults,
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

    pub(super) fn finish(mut self, boundaries: &[Boundary]) -> Result<Compiled, Faults> {
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
