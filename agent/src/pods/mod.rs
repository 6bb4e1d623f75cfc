//! Which pods run on this node, and their labels, as the kubelet says.
//!
//! The kubelet is asked on a task of its own, with a deadline and a limit to
//! what it may answer. Nothing here decides about a packet, and enforcement
//! waits for nothing here: what is not known is denied, and what was known
//! stays as it was while the kubelet cannot be reached.

mod kubelet;
mod list;
mod poll;

pub use kubelet::{Kubelet, KubeletError, MOST_BYTES, fetch};
pub use list::{Answer, ListError, parse};
pub(crate) use poll::remember;
pub use poll::{Watch, remembered, watch};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// How a pod's resources are guaranteed; its cgroup lies accordingly.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Qos {
    /// Directly below the pods' root.
    Guaranteed,
    /// Below `burstable`.
    Burstable,
    /// Below `besteffort`.
    BestEffort,
}

/// One pod.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// The uid that its cgroup bears: of a static pod, the hash of its file.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where its cgroup lies; every place counts where that is not said.
    pub qos: Option<Qos>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Pod {
    /// Where its cgroup may lie below the pods' root, as the kubelet's two
    /// drivers name it (kubernetes pkg/kubelet/cm/cgroup_manager_linux.go,
    /// `ToSystemd` and `ToCgroupfs`).
    #[must_use]
    pub fn cgroups(&self, root: &str) -> Vec<String> {
        let classes: &[Option<&str>] = match self.qos {
            Some(Qos::Guaranteed) => &[None],
            Some(Qos::Burstable) => &[Some(BURSTABLE)],
            Some(Qos::BestEffort) => &[Some(BEST_EFFORT)],
            None => &[None, Some(BURSTABLE), Some(BEST_EFFORT)],
        };
        let of = |class: &Option<&str>| match (slice(root), class) {
            (Some(prefix), None) => {
                format!("{root}/{prefix}-pod{}.slice", self.uid.replace('-', "_"))
            }
            (Some(prefix), Some(class)) => format!(
                "{root}/{prefix}-{class}.slice/{prefix}-{class}-pod{}.slice",
                self.uid.replace('-', "_")
            ),
            (None, None) => format!("{root}/pod{}", self.uid),
            (None, Some(class)) => format!("{root}/{class}/pod{}", self.uid),
        };
        classes.iter().map(of).collect()
    }
}

const BURSTABLE: &str = "burstable";
const BEST_EFFORT: &str = "besteffort";

/// The pods' root and the cgroups in it that are not a pod's own.
#[must_use]
pub fn above_pods(root: &str) -> [String; 3] {
    let class = |class: &str| match slice(root) {
        Some(prefix) => format!("{root}/{prefix}-{class}.slice"),
        None => format!("{root}/{class}"),
    };
    [root.to_owned(), class(BURSTABLE), class(BEST_EFFORT)]
}

/// `kubepods` of `/kubepods.slice`, where systemd is the driver.
fn slice(root: &str) -> Option<&str> {
    let name = root.rsplit('/').next()?;
    name.strip_suffix(".slice")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_cgroup_is_named_as_both_drivers_name_it() {
        let mut pod = Pod {
            uid: "6a3e5f0c-1b2d-4e8f-9a7b-0c1d2e3f4a5b".to_owned(),
            namespace: "default".to_owned(),
            name: "a".to_owned(),
            qos: Some(Qos::Burstable),
            labels: BTreeMap::new(),
        };
        assert_eq!(
            pod.cgroups("/kubepods.slice"),
            [
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod6a3e5f0c_1b2d_4e8f_9a7b_0c1d2e3f4a5b.slice"
            ]
        );
        assert_eq!(
            pod.cgroups("/kubepods"),
            ["/kubepods/burstable/pod6a3e5f0c-1b2d-4e8f-9a7b-0c1d2e3f4a5b"]
        );
        pod.qos = Some(Qos::Guaranteed);
        assert_eq!(
            pod.cgroups("/x/kubelet.slice/kubelet-kubepods.slice"),
            [
                "/x/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod6a3e5f0c_1b2d_4e8f_9a7b_0c1d2e3f4a5b.slice"
            ]
        );
        pod.qos = None;
        assert_eq!(pod.cgroups("/kubepods").len(), 3);
        for root in ["/kubepods.slice", "/kubepods"] {
            for path in pod.cgroups(root) {
                let found = crate::workload::classify_cgroup(std::path::Path::new(&path));
                assert_eq!(found.pod_uid.as_ref(), Some(&pod.uid), "{path}");
            }
        }
    }
}
