//! What an agent without eBPF and without a GPU hands to its sealer. The measurement of the ledger
//! (`examples/ledger.rs`) takes it from here.

use merestone_agent::{
    clock,
    seal::{EpochInputs, SessionInputs},
};
use merestone_evidence::{
    Agent, Boundary, Counter, FlowVerdict, GpuInventory, Kernel, Mode, sha256,
};

pub(crate) fn boundary() -> Boundary {
    Boundary {
        name: "eu".into(),
        sha256: sha256(b"boundary"),
        mode: Mode::Enforce,
    }
}

pub(crate) fn session_inputs() -> SessionInputs {
    SessionInputs {
        agent: Agent {
            version: "0".into(),
            sha256: sha256(b"agent"),
        },
        boundary: boundary(),
        object_sha256: sha256(b"object"),
        programs: vec![],
        tiers: vec![],
        uncovered: vec!["vsock".into()],
        gpu: GpuInventory {
            state: "no_driver".into(),
            driver: None,
            library: None,
            library_sha256: None,
            test_library: false,
            devices: vec![],
        },
        kernel: Kernel {
            release: "6.12".into(),
            boot_id: clock::boot_id(),
        },
        site: None,
        require: vec![],
    }
}

pub(crate) fn epoch_inputs(denied: u64) -> EpochInputs {
    EpochInputs {
        boundary: boundary(),
        object_sha256: sha256(b"object"),
        counters: vec![Counter {
            hook: "connect4".into(),
            verdict: FlowVerdict::Deny,
            protocol: "tcp".into(),
            count: denied,
        }],
        lost: vec![],
        tiers: vec![],
        uncovered: vec!["vsock".into()],
        gpu_state: "no_driver".into(),
        gpu_energy: vec![],
        groups: 1,
        clock: clock::quality(),
        canary: None,
        location: None,
    }
}
