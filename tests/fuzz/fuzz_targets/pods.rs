//! What the kubelet answers: a pod that is known has a uid of its own, and its cgroups are read
//! back as that pod's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merestone_agent::pods::{Pod, above_pods, parse};
use merestone_agent::workload::classify_cgroup;
use std::collections::BTreeSet;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let Ok(answer) = parse(bytes) else {
        return;
    };
    let uids: BTreeSet<&str> = answer.pods.iter().map(|pod| pod.uid.as_str()).collect();
    assert_eq!(uids.len(), answer.pods.len());
    assert!(
        !answer
            .contested
            .iter()
            .any(|uid| uids.contains(uid.as_str()))
    );
    for pod in &answer.pods {
        assert!(pod.name.chars().count() <= 253 && pod.namespace.chars().count() <= 253);
        for root in [
            "/kubepods.slice",
            "/kubepods",
            "/a/b.slice/b-kubepods.slice",
        ] {
            let above = above_pods(root);
            for path in pod.cgroups(root) {
                let found = classify_cgroup(Path::new(&path));
                assert_eq!(found.pod_uid.as_ref(), Some(&pod.uid), "{path}");
                assert!(
                    above
                        .iter()
                        .any(|place| Path::new(&path).parent() == Some(Path::new(place)))
                );
            }
        }
        // As it is remembered over a restart.
        let text = serde_json::to_vec(pod).expect("a pod is JSON");
        assert_eq!(
            serde_json::from_slice::<Pod>(&text).ok().as_ref(),
            Some(pod)
        );
    }
});
