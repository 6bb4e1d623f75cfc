//! The loop's part in `[[select]] pod`: what the kubelet says becomes selects
//! of cgroups, at once in the live generation.
//!
//! A pod that the kubelet names no longer keeps its boundary until its cgroup
//! is gone: a kubelet that has just begun lists nothing yet.

use super::agent::Agent;
use super::report;
use crate::api::PodsInfo;
use crate::clock;
use crate::config::Kubernetes;
use crate::pods::{self, Answer, Pod, Watch};
use crate::policy::{Chosen, Compiled};
use merestone_abi::GroupId;
use merestone_evidence::{Body, PodMove};
use std::collections::BTreeMap;
use std::path::Path;

/// Moves in one entry: what fits, with the longest names there are.
const MOVES: usize = 64;

/// What is known of pods.
#[derive(Debug, Default)]
pub(super) struct Pods {
    known: Vec<Pod>,
    /// What the log has of them: name and boundary by uid.
    told: BTreeMap<String, (String, u16)>,
    watch: Option<Watch>,
    url: String,
    /// What the kernel was last given is what is known.
    settled: bool,
    without_room: usize,
    left_out: usize,
    last_ms: Option<u64>,
    error: Option<String>,
}

/// What the kubelet says next; never, where it is not asked.
pub(super) async fn heard(pods: &mut Pods) -> Result<Answer, String> {
    match &mut pods.watch {
        Some(watch) => watch.heard().await,
        None => std::future::pending().await,
    }
}

impl Pods {
    /// As they were known last; the boundary is told.
    pub(super) fn begin(config: &Kubernetes, state_dir: &Path, boundary: &mut Compiled) -> Self {
        let Some(kubelet) = &config.kubelet else {
            return Self::default();
        };
        let known = pods::remembered(state_dir);
        let without_room = boundary.know(&known, &config.cgroups);
        Self {
            known,
            watch: Some(pods::watch(kubelet.clone(), config.interval)),
            url: kubelet.url(),
            settled: true,
            without_room,
            ..Self::default()
        }
    }

    /// Tells another boundary.
    pub(super) fn tell(&mut self, config: &Kubernetes, boundary: &mut Compiled) {
        self.without_room = boundary.know(&self.known, &config.cgroups);
    }

    pub(super) fn known(&self) -> &[Pod] {
        &self.known
    }

    pub(super) fn info(&self, boundary: &Compiled) -> Option<PodsInfo> {
        self.watch.as_ref()?;
        let selected = self.known.iter().filter(|pod| boundary.pod(pod).is_some());
        Some(PodsInfo {
            kubelet: self.url.clone(),
            known: self.known.len(),
            selected: selected.count(),
            without_room: self.without_room,
            left_out: self.left_out,
            last_ms: self.last_ms,
            error: self.error.clone(),
        })
    }

    /// Takes an answer over; those that are no longer named stay while their
    /// cgroup is there.
    fn take(&mut self, answer: Answer, config: &Kubernetes, hierarchy: &Path) {
        let Answer {
            mut pods,
            contested,
            left_out,
        } = answer;
        let is_there = |pod: &&Pod| {
            config
                .cgroups
                .iter()
                .flat_map(|root| pod.cgroups(root))
                .any(|path| hierarchy.join(path.trim_start_matches('/')).is_dir())
        };
        let gone = |pod: &&Pod| {
            !contested.contains(&pod.uid) && !pods.iter().any(|one| one.uid == pod.uid)
        };
        let stay: Vec<Pod> = self
            .known
            .iter()
            .filter(gone)
            .filter(is_there)
            .cloned()
            .collect();
        pods.extend(stay);
        pods.sort_by(|a, b| a.uid.cmp(&b.uid));
        self.settled &= pods == self.known;
        self.known = pods;
        self.left_out = left_out;
        self.last_ms = Some(clock::now_ms());
    }
}

impl Agent {
    /// To be called with what [`heard`] gave.
    pub(super) fn pods_heard(&mut self, answer: Result<Answer, String>) {
        match answer {
            Ok(answer) => {
                if self.pods.error.take().is_some() {
                    tracing::info!(kubelet = %self.pods.url, "the kubelet answers again");
                }
                let config = &self.parts.config.kubernetes;
                let root = self.attributor.root();
                tokio::task::block_in_place(|| self.pods.take(answer, config, root));
                self.settle_pods();
            }
            Err(error) => {
                if self.pods.error.as_ref() != Some(&error) {
                    tracing::warn!(target: "merestone::alert", %error, kubelet = %self.pods.url, "the kubelet does not say which pods there are: known ones stay as they are, unknown ones are denied");
                }
                self.pods.error = Some(error);
            }
        }
    }

    /// Brings the kernel to what is known of pods.
    fn settle_pods(&mut self) {
        if self.pods.settled {
            return;
        }
        let config = &self.parts.config;
        if let Err(error) = pods::remember(&config.state_dir, self.pods.known()) {
            tracing::warn!(%error, "what is known of pods cannot be kept for the next start");
        }
        let boundary = &mut self.parts.boundary;
        if !boundary.selects_pods() {
            self.pods.settled = true;
            return;
        }
        self.pods.tell(&config.kubernetes, boundary);
        let selects = super::table_selects(boundary);
        let done = tokio::task::block_in_place(|| self.parts.kernel.select(&selects));
        match done {
            Ok(()) => self.pods.settled = true,
            Err(error) => {
                tracing::error!(%error, "the kernel does not know the pods; it is told again with the kubelet's next answer");
            }
        }
        self.log_pods();
    }

    /// Which pods came under which boundary since this was last told.
    pub(super) fn log_pods(&mut self) {
        let now = chosen(&self.parts.boundary);
        let moved = moves(&self.pods.told, &now, &self.parts.boundary);
        self.pods.told = now;
        for some in moved.chunks(MOVES) {
            for one in some {
                let by = one.boundary.as_deref().unwrap_or("none: not known");
                tracing::info!(pod = %one.name, uid = %one.uid, by, "judged by this boundary now");
            }
            let moved = some.to_vec();
            self.log(Body::Pods { moved });
        }
    }

    /// Who has just become guarded may be in a pod that is not known yet.
    pub(super) fn look_for_pod(&mut self, group: GroupId) {
        let Some(watch) = &self.pods.watch else {
            return;
        };
        if !self.parts.boundary.selects_pods() {
            return;
        }
        let cgroup = self.attributor.cgroup(group);
        let select = cgroup.and_then(|cgroup| self.parts.boundary.select(&cgroup));
        if select.is_some_and(|select| select.chosen == Chosen::Unknown) {
            watch.ask_now();
        }
    }
}

/// The name and the boundary of each pod that is known, by uid.
fn chosen(boundary: &Compiled) -> BTreeMap<String, (String, u16)> {
    let selects = boundary.selects.iter();
    selects
        .filter_map(|select| match &select.chosen {
            Chosen::Pod { uid, name } => Some((uid.clone(), (name.clone(), select.boundary))),
            Chosen::Place | Chosen::Unknown => None,
        })
        .collect()
}

/// Which pods came under which boundary. What no select has ever named is not
/// told: there are many such, and the boundary judges them as it does others.
fn moves(
    before: &BTreeMap<String, (String, u16)>,
    now: &BTreeMap<String, (String, u16)>,
    boundary: &Compiled,
) -> Vec<PodMove> {
    let number = |of: Option<&(String, u16)>| of.map_or(0, |(_, number)| *number);
    let came = now
        .iter()
        .filter(|(uid, (_, now))| number(before.get(*uid)) != *now)
        .map(|(uid, (name, now))| PodMove {
            uid: uid.clone(),
            name: report::cut(name),
            boundary: boundary
                .parts
                .get(usize::from(*now))
                .map(|part| part.name.clone()),
        });
    let went = before
        .iter()
        .filter(|(uid, (_, before))| *before != 0 && !now.contains_key(*uid))
        .map(|(uid, (name, _))| PodMove {
            uid: uid.clone(),
            name: report::cut(name),
            boundary: None,
        });
    came.chain(went).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{compile_all, parse};

    #[test]
    fn what_came_under_another_boundary_is_told_and_what_no_select_names_is_not() {
        let main = parse(Path::new("main.toml"), b"name = \"main\"\n".to_vec()).unwrap();
        let wide = parse(Path::new("wide.toml"), b"name = \"wide\"\n".to_vec()).unwrap();
        let boundary = compile_all(&[main, wide]).unwrap();
        let pods = |all: &[(&str, u16)]| -> BTreeMap<String, (String, u16)> {
            let one =
                |(uid, number): &(&str, u16)| ((*uid).to_owned(), (format!("n/{uid}"), *number));
            all.iter().map(one).collect()
        };
        let told = |before: &[(&str, u16)], now: &[(&str, u16)]| {
            let moved = moves(&pods(before), &pods(now), &boundary);
            let word = |one: PodMove| format!("{} {}", one.uid, one.boundary.unwrap_or_default());
            moved.into_iter().map(word).collect::<Vec<_>>()
        };
        assert_eq!(told(&[], &[("a", 1), ("b", 0)]), ["a wide"]);
        assert_eq!(
            told(&[("a", 1), ("b", 0)], &[("a", 0), ("b", 1)]),
            ["a main", "b wide"]
        );
        assert_eq!(told(&[("a", 1), ("b", 0)], &[]), ["a "]);
        assert!(told(&[("a", 1)], &[("a", 1)]).is_empty());
    }
}
