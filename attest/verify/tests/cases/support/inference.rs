//! A record as large as they come, for measurements: `examples/records.rs` here and the agent's
//! `examples/ledger.rs` take it from this file.

use merestone_evidence::{Digest, End, Grade, GroupEgress, Inference, Process};

/// One answered request of a server in a pod, as the kernel saw it: every field that such a
/// record has. `from_ms` is since when what the group sent is counted.
pub(crate) fn inference(id: [u8; 16], from_ms: u64, started_ms: u64, number: u64) -> Inference {
    let pod = "6f9619ff-8b86-d011-b42d-00cf4fc964ff";
    let container = "c7f4b1e0a9d84f2e9f6b8f0d3a5c7e91b2d4f6a8091b3d5f7a9cbe0d2f416385";
    Inference {
        id,
        grade: Grade::Observed,
        started_ms,
        answered_ms: Some(started_ms + 90),
        ended_ms: started_ms + 800,
        request_bytes: 1_200 + number % 700,
        response_bytes: 9_000 + number % 4_000,
        group: 10_482,
        process: Some(Process {
            pid: 24_117,
            start_ticks: 861_002,
            exe: "/usr/bin/python3.11".into(),
            exe_sha256: Some(Digest([7; 32])),
            comm: "python3".into(),
            cgroup: format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/\
         cri-containerd-{container}.scope",
                pod.replace('-', "_")
            ),
            container_id: Some(container.into()),
            pod_uid: Some(pod.into()),
        }),
        peer: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 7],
        peer_port: 40_000 + u16::try_from(number % 20_000).unwrap(),
        port: 8_000,
        peer_inside: true,
        form: "http/1".into(),
        method: Some("POST".into()),
        path: Some("/v1/chat/completions".into()),
        end: End::Next,
        gpus: vec!["GPU-5c1e2a34-6f0b-4b8e-9d5a-2f7c9e1b3a60".into()],
        egress: Some(GroupEgress {
            from_ms,
            to_ms: started_ms + 800,
            allowed: number,
            allowed_bytes: number * 9_000,
            denied: 0,
            audited: 0,
        }),
        amends: false,
        binding: None,
        turn: None,
        onward: None,
        gpu_use: None,
    }
}
