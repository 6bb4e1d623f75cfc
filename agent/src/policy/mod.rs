//! The boundary: which destinations guarded groups may reach.
//!
//! `parse` reads `boundary.toml`, `compile` flattens it into the tables the
//! kernel decides from, and `lookup` answers from those same tables with the
//! kernel's own algorithm, so that `policy explain` cannot say one thing and
//! the kernel do another. Nothing here decides about a packet: the verdict is
//! the kernel's alone.
//!
//! Deny wins; otherwise the most specific allow; otherwise denied.

mod compile;
mod entries;
mod explain;
mod granted;
mod load;
mod lookup;
mod named;
mod names;
mod network;
mod parse;
mod places;
mod pods;
#[cfg(test)]
mod property;
mod select;
mod target;
#[cfg(test)]
mod tests;
mod versions;
mod words;

pub use compile::{
    Chosen, Compiled, CompiledPod, CompiledPrefix, CompiledSelect, Part, RuleNote, compile,
    compile_all,
};
pub use explain::{Explanation, PodAnswer, ProcessAnswer};
pub use granted::GrantAnswer;
pub use load::{Database, Sources, load, load_with};
pub use lookup::{Decision, embedded, judge, lookup, lookup_in};
pub use named::{NameExplanation, NamedAnswer};
pub use names::{CompiledName, CompiledResolver, NamePattern, Resolver, listed};
pub use network::{Network, mapped, unmapped};
pub use parse::parse;
pub use pods::{NOWHERE, POD_CGROUPS, PodSelector};
pub(crate) use select::deepest;
pub use select::{Select, Selector, Selects};
pub use target::{NameTarget, Target, TargetError};
pub use versions::Versions;
pub(crate) use versions::replace;

pub use merestone_abi::LOOPBACK_RULE;

use crate::config::fault::{self, Faults, Origin};
use crate::geo::Code;
use std::path::{Path, PathBuf};

/// The highest number a rule of a file can have.
pub const LAST_RULE: u16 = LOOPBACK_RULE - 1;
/// Larger files are refused before they are parsed.
pub(crate) const LIMIT_BYTES: u64 = 64 << 20;

/// What a denial does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// The packet is held.
    Enforce,
    /// The packet passes and is reported.
    Audit,
}

impl Mode {
    /// From the word the files use; the error is the hint.
    pub(crate) fn from_word(word: &str) -> Result<Self, String> {
        match word {
            "enforce" => Ok(Self::Enforce),
            "audit" => Ok(Self::Audit),
            _ => Err("write \"enforce\" or \"audit\"".to_owned()),
        }
    }

    /// The word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Audit => "audit",
        }
    }
}

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Action {
    /// Refuses it, whatever an allow says.
    Deny,
    /// Lets it through, unless a deny matches too.
    Allow,
}

impl Action {
    /// The word of the file.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

/// A protocol as the boundary names it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    /// TCP, MPTCP included: on the wire it is TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP of either family.
    Icmp,
}

impl Protocol {
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        match word {
            "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            "icmp" => Some(Self::Icmp),
            _ => None,
        }
    }

    /// IP protocol numbers it stands for.
    #[must_use]
    pub const fn numbers(self) -> &'static [u8] {
        use merestone_abi::protocol;
        match self {
            Self::Tcp => &[protocol::TCP],
            Self::Udp => &[protocol::UDP],
            Self::Icmp => &[protocol::ICMP, protocol::ICMPV6],
        }
    }
}

/// Destination ports, both ends included; never 0.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct PortRange {
    /// Lowest.
    pub low: u16,
    /// Highest.
    pub high: u16,
}

/// One `[[allow]]` or `[[deny]]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// Its number in the file, from 1.
    pub number: u16,
    /// What it does.
    pub action: Action,
    /// The line its table begins on.
    pub line: usize,
    /// The destinations; with what [`Boundary::place`] has added.
    pub networks: Vec<Network>,
    /// Destinations by country and by operator.
    pub geo: Vec<Place>,
    /// Destinations by name.
    pub names: Vec<NamePattern>,
    /// The ports; `None` for any port and for protocols without ports.
    pub ports: Option<Vec<PortRange>>,
    /// The protocols; `None` for all.
    pub protocols: Option<Vec<Protocol>>,
    /// What it matches is reported. An allow lets it pass as ever; a deny
    /// holds nothing that would pass without it.
    pub audit: bool,
    /// The operator's own words.
    pub comment: Option<String>,
}

/// A country or an operator in a rule, and where it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// Which.
    pub code: Code,
    /// Where in the file.
    pub origin: Origin,
}

/// `[deputies]`: what becomes of a guarded process that asks somebody outside
/// its group on this host.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Deputies {
    /// Listeners on loopback are refused, not only reported.
    pub deny_loopback: bool,
    /// Unix sockets are refused, not only reported.
    pub deny_unix: bool,
}

impl Deputies {
    /// As the kernel reads it.
    #[must_use]
    pub const fn bits(self) -> u8 {
        let loopback = if self.deny_loopback {
            merestone_abi::Deputies::DENY_LOOPBACK
        } else {
            0
        };
        let unix = if self.deny_unix {
            merestone_abi::Deputies::DENY_UNIX
        } else {
            0
        };
        loopback | unix
    }
}

/// A boundary file that holds no fault.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Boundary {
    /// Where it was read from.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
    /// SHA-256 of the file's bytes.
    pub digest: [u8; 32],
    /// Its place in the order of its versions, where it says so.
    pub version: Option<u64>,
    /// What a denial does.
    pub mode: Mode,
    /// What becomes of those who ask a deputy.
    pub deputies: Deputies,
    /// Whose answers names are learned from; `None` where it is not said.
    pub resolvers: Option<Vec<Resolver>>,
    /// Groups that another boundary judges.
    pub selects: Vec<Select>,
    /// The rules in file order; rule `n` is at `n - 1`.
    pub rules: Vec<Rule>,
}

impl Boundary {
    /// Reads and parses `path`.
    pub fn load(path: &Path) -> Result<Self, Faults> {
        parse(path, fault::read(path, LIMIT_BYTES)?)
    }
}

/// A file's name without `.toml`.
fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}
