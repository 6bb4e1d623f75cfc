//! `[kubernetes]`: where the kubelet is, for boundaries that select pods.

use super::fault::Origin;
use super::read::{self, Reader};
use crate::pods::Kubelet;
use crate::policy::POD_CGROUPS;
use std::time::Duration;

/// Roots of pods that there is room for in the kernel.
const MOST_ROOTS: usize = 8;

/// `[kubernetes]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kubernetes {
    /// Whom to ask which pods there are; nobody, where nobody is set.
    pub kubelet: Option<Kubelet>,
    /// How often.
    pub interval: Duration,
    /// The cgroups in which the kubelet makes those of pods.
    pub cgroups: Vec<String>,
}

pub(super) fn kubernetes(reader: &mut Reader) -> Kubernetes {
    let kubelet = reader.parsed("kubernetes.kubelet", None, |text| {
        Kubelet::parse(text).map(Some)
    });
    let ca_file = reader.path("kubernetes.ca_file");
    let token_file = reader.path("kubernetes.token_file");
    let server_name = reader.text("kubernetes.server_name").map(|(text, _)| text);
    let cgroups = reader
        .list("kubernetes.cgroups", read::scope)
        .unwrap_or_else(|| POD_CGROUPS.map(ToOwned::to_owned).to_vec());
    let mut fault = |message: &str, hint: &str| reader.faults.push(Origin::Default, message, hint);
    let kubelet = kubelet.map(|mut kubelet| {
        if kubelet.secure && ca_file.is_none() {
            fault(
                "`kubernetes.kubelet` is asked over TLS and `kubernetes.ca_file` is not set",
                "name the PEM file of the authority of the kubelet's serving certificate",
            );
        }
        if !kubelet.secure && token_file.is_some() {
            fault(
                "`kubernetes.token_file` is set and the kubelet is asked over plain HTTP",
                "write https://, or remove the token: it would be sent in the clear",
            );
        }
        kubelet.ca_file = ca_file;
        kubelet.token_file = token_file;
        kubelet.server_name = server_name;
        kubelet
    });
    if cgroups.is_empty() || cgroups.len() > MOST_ROOTS {
        fault(
            "`kubernetes.cgroups` names from one to eight cgroups",
            "leave it out for /kubepods.slice and /kubepods",
        );
    }
    Kubernetes {
        kubelet,
        interval: reader.duration(
            "kubernetes.interval",
            Duration::from_secs(10),
            Duration::from_secs(1)..=Duration::from_secs(3600),
        ),
        cgroups,
    }
}
