//! The whole chain on this host's kernel with a software TPM: guarded, held,
//! told, sealed, reported, verified; across a crash of the agent.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test says what it needs by panicking"
)]

mod support;

use support::{Cgroup, Host, Node, Workload, eventually, has_swtpm, is_root, swtpm, verify};

const EPERM: &str = "1";

#[test]
fn what_is_held_is_told_sealed_and_verified() {
    skip_unless!(
        is_root() && has_swtpm(),
        "what_is_held_is_told_sealed_and_verified: needs root and swtpm"
    );
    let tpm_folder = tempfile::tempdir().expect("a folder");
    let (_tpm, tcti) = swtpm(tpm_folder.path());
    let host = Host::new("chain", &tcti);
    let agent = host.start();
    let (cgroup, node) = (
        Cgroup::new("merestone-e2e-chain"),
        Node::new("merestone-e2e-chain"),
    );

    let mut free = Workload::start(&Cgroup::new("merestone-e2e-free"), None);
    assert_ne!(
        free.send("udp", "203.0.113.7", 9000),
        EPERM,
        "the control is not held"
    );
    let mut guarded = Workload::start(&cgroup, Some(&node));
    assert_eq!(guarded.send("tcp", "203.0.113.7", 443), EPERM);
    assert_eq!(guarded.send("udp", "203.0.113.7", 9000), EPERM);
    assert_eq!(guarded.send("tcp", "2001:db8:66::7", 443), EPERM);
    assert_ne!(
        guarded.send("udp", "198.51.100.9", 443),
        EPERM,
        "an allowed destination"
    );
    assert_eq!(
        guarded.send("udp", "198.51.100.9", 444),
        EPERM,
        "another port of it"
    );

    told(&host, &mut guarded);
    metrics(&host);
    reload(&host, &mut guarded);

    let (bundle, output) = host.verify("one");
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(0), "{verdict:#}");
    assert_eq!(verdict["verdict"], "pass");
    assert!(
        !verdict["not_checked"]
            .as_array()
            .expect("a list")
            .is_empty()
    );
    altered(&host, &bundle);

    crash(&host, agent, &mut guarded);
}

fn told(host: &Host, guarded: &mut Workload) {
    eventually("four refusals are told", || host.denied().len() >= 4);
    let denied = host.denied();
    let tcp = denied
        .iter()
        .find(|event| {
            event["destination"]["address"] == "203.0.113.7"
                && event["destination"]["protocol"] == "tcp"
        })
        .expect("the refused connection");
    assert_eq!(tcp["process"]["pid"], guarded.pid());
    assert_eq!(tcp["verdict"], "deny");
    assert_eq!(tcp["hook"], "connect4");
    assert_eq!(tcp["boundary"]["name"], "test");
    // A large executable is digested beside the loop: a later event has it.
    eventually("the executable's digest is told", || {
        guarded.send("udp", "203.0.113.7", 9001);
        host.denied()
            .iter()
            .any(|event| event["process"]["exe_sha256"].is_string())
    });
    let groups = host.ask(&["guarded", "--json"]);
    assert!(groups.contains("merestone-e2e-chain"), "{groups}");
    let lines = std::fs::read_to_string(host.file("events.jsonl")).expect("the JSONL file");
    assert!(
        lines.lines().any(|line| line.contains("203.0.113.7")),
        "{lines}"
    );
}

fn metrics(host: &Host) {
    let text = std::fs::read_to_string(&host.config).expect("reads");
    let listen = text
        .lines()
        .find_map(|line| line.strip_prefix("listen = "))
        .expect("has one");
    let url = format!("http://{}/metrics", listen.trim_matches('"'));
    let script = "import sys, urllib.request; sys.stdout.write(urllib.request.urlopen(sys.argv[1]).read().decode())";
    let output = std::process::Command::new("/usr/bin/python3")
        .args(["-c", script, &url])
        .output()
        .expect("python3 runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for wanted in [
        "merestone_flows_total{hook=\"connect4\",protocol=\"tcp\",verdict=\"deny\"} 1",
        "merestone_enforcement_tier{tier=\"cgroup\"} 1",
        "merestone_guarded_cgroups 1",
        "merestone_config_last_reload_successful 1",
        "merestone_boundary_info{",
        "merestone_epochs_total",
        "merestone_tpm_quote_seconds_count",
        "merestone_events_lost_total{reason=\"ring_full\"} 0",
    ] {
        assert!(text.contains(wanted), "{wanted} is missing in\n{text}");
    }
}

/// A reload that is refused keeps the old boundary; one that is accepted takes
/// effect at once.
fn reload(host: &Host, guarded: &mut Workload) {
    std::fs::write(host.boundary(), "name = \"broken\"\n[[allow]]\ncidr = 7\n").expect("writes");
    let refused = host.merestone(&["policy", "reload"]);
    assert!(!refused.status.success());
    assert_ne!(
        guarded.send("udp", "198.51.100.9", 443),
        EPERM,
        "the old boundary stays"
    );
    assert_eq!(host.status()["boundary"]["name"], "test");
    let second = host.file("second.toml");
    std::fs::write(
        &second,
        "name = \"second\"\n[[allow]]\ncidr = [\"203.0.113.0/24\"]\n[[deny]]\ncidr = [\"203.0.113.7/32\"]\nports = [443]\n",
    )
    .expect("writes");
    std::fs::copy(&second, host.boundary()).expect("copies");
    host.ask(&["policy", "reload"]);
    assert_eq!(guarded.send("udp", "198.51.100.9", 443), EPERM);
    assert_ne!(guarded.send("udp", "203.0.113.7", 9000), EPERM);
    assert_eq!(guarded.send("tcp", "203.0.113.7", 443), EPERM, "deny wins");
    std::fs::write(host.boundary(), support::BOUNDARY).expect("writes");
    let pid = host.status()["pid"].to_string();
    let hup = std::process::Command::new("kill")
        .args(["-HUP", &pid])
        .status();
    assert!(hup.expect("kill runs").success());
    eventually("SIGHUP has the boundary read again", || {
        host.status()["boundary"]["name"] == "test"
    });
}

/// One changed byte, anywhere, never passes.
fn altered(host: &Host, bundle: &std::path::Path) {
    let good = std::fs::read(bundle).expect("reads");
    for at in (0..good.len()).step_by(good.len() / 40 + 1) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        let path = host.file("bad.merestone");
        std::fs::write(&path, bad).expect("writes");
        let code = verify(&path, &host.file("trust.toml")).status.code();
        assert!(
            matches!(code, Some(1..=3)),
            "byte {at} of {} changed: {code:?}",
            good.len()
        );
    }
}

/// kill -9 opens nothing; the next agent takes over the guarded groups, and
/// the evidence of both sessions verifies as one.
fn crash(host: &Host, agent: support::Kept, guarded: &mut Workload) {
    drop(agent);
    assert!(!host.merestone(&["status"]).status.success());
    assert_eq!(
        guarded.send("tcp", "203.0.113.7", 443),
        EPERM,
        "held without an agent"
    );
    let _second = host.start();
    assert_eq!(guarded.send("udp", "203.0.113.7", 9000), EPERM);
    assert!(host.ask(&["guarded"]).contains("merestone-e2e-chain"));
    let (_, output) = host.verify("two");
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(0), "{verdict:#}");
}
