//! What a GPU used, from the driver's library through the running agent into epochs that a TPM
//! signed.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it needs by panicking, and what it could not run"
)]

mod support;

use fake_nvml::install::install;
use fake_nvml::scenario::{Gpu, Scenario};
use merestone_evidence::{Bundle, EpochStatement, decode};
use std::fs;
use support::{Host, eventually, has_swtpm, is_root, swtpm};

const NAME: &str = "each_sealed_epoch_says_what_the_gpus_energy_counters_said";
const GPU: &str = "GPU-7f1c2d3e-0000-4000-8000-000000000001";
const BASE: u64 = 5_000_000;
/// Watts.
const RATE: u64 = 300;

#[test]
fn each_sealed_epoch_says_what_the_gpus_energy_counters_said() {
    skip_unless!(
        is_root() && has_swtpm(),
        format!("{NAME}: needs root and swtpm")
    );
    let folder = tempfile::tempdir().expect("a folder");
    let gpu = Gpu {
        uuid: GPU.to_owned(),
        name: Some("NVIDIA H200".to_owned()),
        minor: Some(0),
        energy_millijoules: Some(BASE),
        energy_rate_milliwatts: RATE * 1000,
        ..Gpu::default()
    };
    let scenario = Scenario {
        driver_version: Some("590.48.01".to_owned()),
        gpu: vec![gpu],
        ..Scenario::default()
    };
    let nvml = install(folder.path(), &scenario, &[]).expect("installs the library");
    let (_tpm, tcti) = swtpm(folder.path());
    let host = Host::new("energy", &tcti);
    let text = fs::read_to_string(&host.config).expect("reads");
    let library = nvml.library.display();
    fs::write(
        &host.config,
        format!("{text}[gpu]\nnvml_library = \"{library}\"\n"),
    )
    .expect("writes");
    let agent = host.start();
    eventually("five epochs are sealed", || {
        let epochs = host.status()["evidence"]["epochs"].as_u64();
        epochs.is_some_and(|epochs| epochs >= 5)
    });
    drop(agent);

    let (bundle, output) = host.verify("energy");
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let checks = verdict["checks"].as_array().expect("a list");
    let failed: Vec<_> = checks
        .iter()
        .filter(|one| one["result"] == "fail")
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let bundle: Bundle = decode(&fs::read(bundle).expect("reads")).expect("decodes");
    let epochs = bundle.sessions.iter().flat_map(|session| &session.epochs);
    let read: Vec<(u64, u64)> = epochs
        .map(|epoch| {
            let statement: EpochStatement = decode(&epoch.statement).expect("decodes");
            let [energy] = &*statement.gpu_energy else {
                panic!("one GPU: {:?}", statement.gpu_energy);
            };
            assert_eq!(energy.uuid, GPU);
            (statement.closed_ms, energy.millijoules.expect("it counts"))
        })
        .collect();
    assert!(read.len() >= 5, "{read:?}");
    assert!(read.iter().all(|(_, energy)| *energy >= BASE), "{read:?}");
    assert!(read.is_sorted_by_key(|(_, energy)| *energy), "{read:?}");
    let (first, last) = (read[0], read[read.len() - 1]);
    // Milliwatt-seconds over milliseconds; the counter is read once a second.
    let (used, took) = (last.1 - first.1, last.0 - first.0);
    let least = RATE * took.saturating_sub(1500);
    let most = RATE * (took + 1500);
    assert!(
        (least..=most).contains(&used),
        "{used} mJ in {took} ms: {read:?}"
    );
}
