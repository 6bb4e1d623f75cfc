//! `[[select]] pod`: which pods another boundary judges.
//!
//! The kernel knows cgroups and no labels. So the cgroups that the kubelet
//! makes pods in are given to no boundary at all, which denies everything, and
//! each pod that is known gets a select of its own cgroup: to the boundary that
//! its labels choose, or to the one that would judge it if no pod were
//! selected. A pod that is not known yet is never judged laxer than it will be.

use super::compile::{Chosen, Compiled, CompiledPod, CompiledSelect};
use super::select::{self, Selector};
use crate::pods::{self, Pod};
use merestone_abi::{MAX_SELECTORS, SELECTOR_BYTES};
use std::collections::BTreeMap;
use std::fmt;

/// No boundary has this number, so nothing is allowed under it.
pub const NOWHERE: u16 = u16::MAX;

/// Where the kubelet makes the cgroups of pods, unless it is told otherwise.
pub const POD_CGROUPS: [&str; 2] = ["/kubepods.slice", "/kubepods"];

/// What a pod must have to be selected; it names at least one of both.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct PodSelector {
    /// This namespace; any where there is none.
    pub namespace: Option<String>,
    /// Each of these labels.
    pub labels: BTreeMap<String, String>,
}

impl PodSelector {
    /// Whether it selects a pod.
    #[must_use]
    pub fn matches(&self, pod: &Pod) -> bool {
        let here = self.namespace.as_ref();
        here.is_none_or(|namespace| *namespace == pod.namespace)
            && self
                .labels
                .iter()
                .all(|(key, value)| pod.labels.get(key) == Some(value))
    }
}

impl fmt::Display for PodSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pods")?;
        if let Some(namespace) = &self.namespace {
            write!(f, " of {namespace}")?;
        }
        for (key, value) in &self.labels {
            write!(f, " {key}={value}")?;
        }
        Ok(())
    }
}

impl Compiled {
    /// Whether it selects by labels, so that pods have to be known.
    #[must_use]
    pub fn selects_pods(&self) -> bool {
        !self.pods.is_empty()
    }

    /// The boundary that a pod's labels choose, and the line that says so: the
    /// first select in the file that matches.
    #[must_use]
    pub fn pod(&self, pod: &Pod) -> Option<&CompiledPod> {
        self.pods.iter().find(|select| select.selector.matches(pod))
    }

    /// Replaces what is known of pods; `roots` is where their cgroups lie.
    /// Returns how many pods there was no room for: they stay unknown.
    pub fn know<R: AsRef<str>>(&mut self, known: &[Pod], roots: &[R]) -> usize {
        if !self.selects_pods() {
            return 0;
        }
        let fences: Vec<String> = roots
            .iter()
            .flat_map(|root| pods::above_pods(root.as_ref()))
            .collect();
        let mut selects: Vec<CompiledSelect> = self
            .written
            .iter()
            // One of a fence counts for the pods that are known.
            .filter(|one| !matches!(&one.selector, Selector::Cgroup(path) if fences.contains(path)))
            .cloned()
            .collect();
        selects.extend(fences.into_iter().map(|path| CompiledSelect {
            selector: Selector::Cgroup(path),
            boundary: NOWHERE,
            line: None,
            chosen: Chosen::Unknown,
        }));
        let mut without = 0;
        for pod in known {
            let own = self.of_pod(pod, roots);
            let fits = own.iter().all(|one| match &one.selector {
                Selector::Cgroup(path) | Selector::Unit(path) => path.len() < SELECTOR_BYTES,
            });
            if fits && selects.len() + own.len() <= MAX_SELECTORS as usize {
                selects.extend(own);
            } else {
                without += 1;
            }
        }
        self.selects = selects;
        without
    }

    /// The selects of a pod's cgroup, wherever it may lie.
    fn of_pod<R: AsRef<str>>(&self, pod: &Pod, roots: &[R]) -> Vec<CompiledSelect> {
        let paths = roots.iter().flat_map(|root| pod.cgroups(root.as_ref()));
        paths
            // Who writes a pod's own cgroup means that pod.
            .filter(|path| !self.written.iter().any(|one| one.selector.is(path)))
            .map(|path| {
                let (boundary, line) = match self.pod(pod) {
                    Some(select) => (select.boundary, Some(select.line)),
                    None => select::deepest(&path, &self.written, |one| &one.selector)
                        .map_or((0, None), |one| (one.boundary, one.line)),
                };
                CompiledSelect {
                    selector: Selector::Cgroup(path),
                    boundary,
                    line,
                    chosen: Chosen::Pod {
                        uid: pod.uid.clone(),
                        name: pod.to_string(),
                    },
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::Qos;
    use crate::policy::{compile_all, parse};
    use std::path::Path;

    const UID: &str = "6a3e5f0c-1b2d-4e8f-9a7b-0c1d2e3f4a5b";
    const OWN: &str = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod6a3e5f0c_1b2d_4e8f_9a7b_0c1d2e3f4a5b.slice";

    fn compiled(selects: &str) -> Compiled {
        let main = format!("name = \"main\"\n{selects}");
        let main = parse(Path::new("main.toml"), main.into()).unwrap_or_else(|e| panic!("{e}"));
        let strict = parse(Path::new("strict.toml"), b"name = \"strict\"\n".to_vec()).unwrap();
        let wide = parse(Path::new("wide.toml"), b"name = \"wide\"\n".to_vec()).unwrap();
        compile_all(&[main, strict, wide]).unwrap_or_else(|e| panic!("{e}"))
    }

    fn pod(labels: &[(&str, &str)]) -> Pod {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Pod {
            uid: UID.to_owned(),
            namespace: "serving".to_owned(),
            name: "vllm-0".to_owned(),
            qos: Some(Qos::Burstable),
            labels: labels.iter().map(own).collect(),
        }
    }

    fn number(compiled: &Compiled, path: &str) -> u16 {
        compiled.select(path).map_or(0, |select| select.boundary)
    }

    const BY_LABEL: &str = "[[select]]\npod = { namespace = \"serving\", labels = { app = \"vllm\" } }\nboundary = \"strict\"\n";

    #[test]
    fn a_pod_is_judged_by_nobody_until_it_is_known_and_then_as_its_labels_say() {
        let mut compiled = compiled(BY_LABEL);
        let inside = format!("{OWN}/cri-containerd-x.scope");
        assert_eq!(number(&compiled, &inside), NOWHERE, "from the start");
        assert_eq!(number(&compiled, "/kubepods/burstable/podx/y"), NOWHERE);
        assert_eq!(number(&compiled, "/system.slice/a.service"), 0);
        assert_eq!(
            compiled.know(&[pod(&[("app", "vllm"), ("x", "y")])], &POD_CGROUPS),
            0
        );
        assert_eq!(number(&compiled, &inside), 1);
        assert_eq!(compiled.select(&inside).unwrap().line, Some(2));
        let of = &compiled.select(&inside).unwrap().chosen;
        assert!(matches!(of, Chosen::Pod { name, .. } if name == "serving/vllm-0"));
        compiled.know(&[pod(&[("app", "other")])], &POD_CGROUPS);
        assert_eq!(
            number(&compiled, &inside),
            0,
            "known, and selected by nothing"
        );
        compiled.know(&[], &POD_CGROUPS);
        assert_eq!(number(&compiled, &inside), NOWHERE);
    }

    #[test]
    fn a_select_above_the_pods_counts_for_known_ones_only_and_one_of_the_pod_itself_always() {
        let above = "[[select]]\ncgroup = \"/kubepods.slice\"\nboundary = \"wide\"\n\
                     [[select]]\ncgroup = \"/kubepods.slice/kubepods-besteffort.slice\"\nboundary = \"wide\"\n\
                     [[select]]\nunit = \"kubepods-burstable.slice\"\nboundary = \"wide\"\n";
        let mut all = compiled(&format!("{above}{BY_LABEL}"));
        for path in [
            OWN,
            "/kubepods.slice/x",
            "/kubepods.slice/kubepods-besteffort.slice/x",
        ] {
            assert_eq!(number(&all, path), NOWHERE, "{path}");
        }
        all.know(&[pod(&[])], &POD_CGROUPS);
        let wide = all
            .parts
            .iter()
            .position(|part| part.name == "wide")
            .unwrap();
        assert_eq!(usize::from(number(&all, OWN)), wide);
        let exact = format!("[[select]]\ncgroup = \"{OWN}\"\nboundary = \"wide\"\n{BY_LABEL}");
        let mut exact = compiled(&exact);
        let wide = exact
            .parts
            .iter()
            .position(|part| part.name == "wide")
            .unwrap();
        assert_eq!(usize::from(number(&exact, OWN)), wide);
        exact.know(&[pod(&[("app", "vllm")])], &POD_CGROUPS);
        assert_eq!(usize::from(number(&exact, OWN)), wide);
    }

    #[test]
    fn the_first_select_that_matches_a_pod_counts() {
        let both = "[[select]]\npod = { namespace = \"serving\" }\nboundary = \"wide\"\n";
        let first = compiled(&format!("{both}{BY_LABEL}"));
        let wide = first
            .parts
            .iter()
            .position(|part| part.name == "wide")
            .unwrap();
        let found = first.pod(&pod(&[("app", "vllm")])).unwrap();
        assert_eq!(usize::from(found.boundary), wide);
        let last = compiled(&format!("{BY_LABEL}{both}"));
        let found = last.pod(&pod(&[("app", "vllm")])).unwrap();
        assert_ne!(usize::from(found.boundary), wide);
    }

    #[test]
    fn pods_that_the_kernel_has_no_room_for_stay_unknown() {
        let mut compiled = compiled(BY_LABEL);
        let many: Vec<Pod> = (0..1024)
            .map(|i| Pod {
                uid: format!("6a3e5f0c-1b2d-4e8f-9a7b-{i:012x}"),
                ..pod(&[("app", "vllm")])
            })
            .collect();
        let without = compiled.know(&many, &["/kubepods"]);
        assert_eq!(without, 3, "the root and two below it");
        assert_eq!(compiled.selects.len(), MAX_SELECTORS as usize);
        let last = "/kubepods/burstable/pod6a3e5f0c-1b2d-4e8f-9a7b-0000000003ff";
        assert_eq!(number(&compiled, last), NOWHERE);
    }
}
