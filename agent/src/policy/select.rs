//! `[[select]]`: which groups another boundary judges.
//!
//! A group is selected by where its cgroup lies, or by its pod (`pods`). What
//! lies below a selected cgroup is selected with it, and of several selects the
//! deepest counts.

use super::pods::PodSelector;
use crate::config::Origin;
use merestone_abi::SELECTOR_BYTES;
use std::fmt;

/// What a `[[select]]` names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Selects {
    /// A place among the cgroups.
    Place(Selector),
    /// Pods, by what the kubelet says of them.
    Pods(PodSelector),
}

impl fmt::Display for Selects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place(selector) => selector.fmt(f),
            Self::Pods(selector) => selector.fmt(f),
        }
    }
}

/// A place among the cgroups.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Selector {
    /// A cgroup by its path below the v2 root, as in `/system.slice/a.service`.
    Cgroup(String),
    /// A unit of the system's service manager, in whatever slice it is.
    Unit(String),
}

impl Selector {
    /// The key by which the kernel finds it: a path, or a unit's name, which
    /// has no slash. The parser has seen to its length.
    #[must_use]
    pub fn key(&self) -> [u8; SELECTOR_BYTES] {
        let (Self::Cgroup(text) | Self::Unit(text)) = self;
        let mut key = [0; SELECTOR_BYTES];
        for (slot, byte) in key.iter_mut().zip(text.bytes()) {
            *slot = byte;
        }
        key
    }

    /// Whether the cgroup at `path` is the selected one itself.
    #[must_use]
    pub fn is(&self, path: &str) -> bool {
        match self {
            Self::Cgroup(own) => own == path,
            Self::Unit(unit) => {
                path.rsplit_once('/').is_some_and(|(above, name)| {
                    name == unit
                        && above
                            .split('/')
                            .skip(1)
                            // As the kernel side has it: the bytes at the end.
                            .all(|part| part.as_bytes().ends_with(b".slice"))
                })
            }
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(path) => write!(f, "cgroup {path}"),
            Self::Unit(unit) => write!(f, "unit {unit}"),
        }
    }
}

/// One `[[select]]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Select {
    /// What it matches.
    pub selects: Selects,
    /// The boundary that judges it: the file of that name beside this one.
    pub boundary: String,
    /// Where that name stands.
    pub origin: Origin,
    /// The line the table begins on.
    pub line: usize,
}

/// The select that counts for a cgroup at `path`: the deepest that matches it
/// or a cgroup above it; at one cgroup, the path before the unit.
pub(crate) fn deepest<'s, T>(
    path: &str,
    selects: &'s [T],
    selector: impl Fn(&T) -> &Selector,
) -> Option<&'s T> {
    let mut at = path;
    loop {
        let here = |is_unit: bool| {
            selects.iter().find(|one| {
                let selector = selector(one);
                matches!(selector, Selector::Unit(_)) == is_unit && selector.is(at)
            })
        };
        if let Some(found) = here(false).or_else(|| here(true)) {
            return Some(found);
        }
        at = at.rsplit_once('/').map(|(above, _)| above)?;
        if at.is_empty() {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, selectors: &[Selector]) -> Option<usize> {
        let one = deepest(path, selectors, |selector| selector)?;
        selectors.iter().position(|selector| selector == one)
    }

    #[test]
    fn the_deepest_select_counts_and_a_path_before_a_unit() {
        let selectors = [
            Selector::Cgroup("/system.slice".into()),
            Selector::Unit("a.service".into()),
            Selector::Cgroup("/system.slice/b.service".into()),
            Selector::Unit("b.service".into()),
        ];
        assert_eq!(found("/system.slice/c.service", &selectors), Some(0));
        assert_eq!(found("/system.slice/a.service/x/y", &selectors), Some(1));
        assert_eq!(found("/system.slice/b.service", &selectors), Some(2));
        assert_eq!(found("/a.slice/a-b.slice/b.service", &selectors), Some(3));
        assert_eq!(found("/system.slicer", &selectors), None);
        assert_eq!(found("/", &selectors), None);
    }

    #[test]
    fn a_unit_is_not_a_directory_that_a_workload_named_like_it() {
        let unit = Selector::Unit("a.service".into());
        assert!(unit.is("/system.slice/a.service"));
        assert!(unit.is("/a.service"));
        assert!(!unit.is("/kubepods/x/a.service"));
        assert!(!unit.is("/system.slice/x.service/a.service"));
        assert!(!unit.is("/user.slice/user-1.slice/user@1.service/app.slice/a.service"));
        assert!(!unit.is("a.service"));
    }
}
