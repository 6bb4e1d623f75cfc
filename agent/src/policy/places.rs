//! Countries and operators become networks.

use super::load::Database;
use super::{Boundary, Place};
use crate::config::fault::Faults;
use crate::geo::{self, Code, Kind};
use std::collections::{BTreeMap, BTreeSet};

impl Boundary {
    /// The codes that its rules name.
    pub(super) fn codes(&self) -> BTreeSet<Code> {
        let places = self.rules.iter().flat_map(|rule| &rule.geo);
        places.map(|place| place.code).collect()
    }

    /// Adds the networks of the codes its rules name. A code that the
    /// databases do not know is a fault.
    pub(super) fn place(&mut self, known: &Known, faults: &mut Faults) {
        for rule in &mut self.rules {
            for Place { code, origin } in &rule.geo {
                match known.networks.get(code) {
                    Some(networks) => rule.networks.extend(networks),
                    None if known.broken.contains(&code.kind()) => {}
                    None => faults.push(
                        origin.clone(),
                        format!(
                            "the {} database names no network of {code}",
                            code.kind().word()
                        ),
                        "is the code right, and the database the right one?",
                    ),
                }
            }
            rule.networks.sort_unstable();
            rule.networks.dedup();
        }
    }
}

/// The networks of codes, from the databases.
#[derive(Debug, Default)]
pub(super) struct Known {
    networks: BTreeMap<Code, Vec<super::Network>>,
    /// Databases that gave no answer, which was said once.
    broken: BTreeSet<Kind>,
    /// Those that did.
    pub(super) databases: Vec<Database>,
}

impl Known {
    /// Reads the databases that the codes need, each once.
    pub(super) fn of(boundaries: &[Boundary], files: &geo::Files, faults: &mut Faults) -> Self {
        let mut this = Self::default();
        let wanted: BTreeSet<Code> = boundaries.iter().flat_map(Boundary::codes).collect();
        for kind in [Kind::Country, Kind::Asn] {
            let of_kind: BTreeSet<Code> = wanted
                .iter()
                .copied()
                .filter(|code| code.kind() == kind)
                .collect();
            if of_kind.is_empty() {
                continue;
            }
            // Named at the first code that asks for it.
            let mut places = boundaries
                .iter()
                .flat_map(|boundary| &boundary.rules)
                .flat_map(|rule| &rule.geo);
            let Some(first) = places.find(|place| place.code.kind() == kind) else {
                continue;
            };
            let word = kind.word();
            let mut broken = |message: String, hint: String| {
                faults.push(first.origin.clone(), message, hint);
                this.broken.insert(kind);
            };
            let Some(path) = files.of(kind) else {
                broken(
                    format!("`{word}` needs a database, and none is set"),
                    format!("set {word}_db under [geo] in merestone.toml"),
                );
                continue;
            };
            let read = geo::Database::open(path, kind)
                .and_then(|database| Ok((database.networks(&of_kind)?, database)));
            match read {
                Ok((networks, database)) => {
                    this.networks.extend(networks);
                    this.databases.push(Database {
                        kind,
                        path: database.path,
                        sha256: database.sha256,
                    });
                }
                Err(error) => broken(
                    format!("`{word}` cannot be looked up: {error}"),
                    format!("mend {word}_db under [geo] in merestone.toml"),
                ),
            }
        }
        this
    }
}
