//! From rules to the tables the kernel decides from: prefixes that point at
//! rule sets.
//!
//! [`sweep`] makes the tables of one boundary, [`whole`] puts those of a
//! boundary and of the ones it selects together and refuses what the kernel
//! has no room for, [`compiled`] is what comes of it. It reads no file and
//! writes no map.

mod compiled;
mod sweep;
mod whole;

pub use compiled::{Chosen, Compiled, CompiledPod, CompiledPrefix, CompiledSelect, Part, RuleNote};

use super::entries::loopback;
use super::{Boundary, LAST_RULE, Rule, names};
use crate::config::fault::Faults;
use std::path::Path;
use sweep::{Sweep, placed};
use whole::Whole;

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
