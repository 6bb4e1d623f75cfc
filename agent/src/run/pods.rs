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
use std::collections::BTreeMap;
use std::path::Path;

/// What is known of pods.
#[derive(Debug, Default)]
pub(super) struct Pods {
    known: Vec<Pod>,
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
        let before = chosen(boundary);
        self.pods.tell(&config.kubernetes, boundary);
        let moved = moves(&before, &chosen(boundary), boundary);
        let selects = super::table_selects(boundary);
        let done = tokio::task::block_in_place(|| self.parts.kernel.select(&selects));
        match done {
            Ok(()) => self.pods.settled = true,
            Err(error) => {
                tracing::error!(%error, "the kernel does not know the pods; it is told again with the kubelet's next answer");
            }
        }
        if !moved.is_empty() {
            let detail = report::cut(&moved.join("; "));
            tracing::info!(pods = %detail, "pods are judged by other boundaries");
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

/// The boundary of each pod.
fn chosen(boundary: &Compiled) -> BTreeMap<String, u16> {
    let selects = boundary.selects.iter();
    selects
        .filter_map(|select| match &select.chosen {
            Chosen::Pod(name) => Some((name.clone(), select.boundary)),
            Chosen::Place | Chosen::Unknown => None,
        })
        .collect()
}

/// Which pods came under which boundary.
fn moves(
    before: &BTreeMap<String, u16>,
    now: &BTreeMap<String, u16>,
    boundary: &Compiled,
) -> Vec<String> {
    let name = |number: u16| match boundary.parts.get(usize::from(number)) {
        Some(part) if number > 0 => part.stem.clone(),
        _ => "the default".to_owned(),
    };
    let came = now
        .iter()
        .filter(|(pod, number)| before.get(*pod) != Some(number))
        .map(|(pod, number)| format!("{pod} by {}", name(*number)));
    let went = before
        .keys()
        .filter(|pod| !now.contains_key(*pod))
        .map(|pod| format!("{pod} gone"));
    came.chain(went).collect()
}
