//! On a real kernel with BPF LSM, a measured boot and a TPM: both tiers hold,
//! and what the agent reports is handed to the host, which verifies it.
//!
//! Runs as root inside the virtual machine of `cargo xtask vm`, nowhere else:
//! it sends on the machine's own addresses.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test says what it needs by panicking"
)]

mod support;

use std::{fs, path::Path, process::Command};

use support::{Cgroup, Host, Node, eventually, talker::Talker};

const EPERM: &str = "1";
/// `AF_VSOCK`, `AF_PACKET` and `AF_ALG`: families without an IP packet, which
/// only the second tier can hold.
const FAMILIES: [(&str, u32); 3] = [("vsock", 40), ("packet", 17), ("alg", 38)];
const OUT: &str = "/merestone/out";

#[test]
fn both_tiers_hold_and_the_report_is_sealed_by_this_machines_tpm() {
    assert!(
        std::env::var_os("XTASK_VM").is_some(),
        "only in the virtual machine"
    );
    dummy_uplink();
    let host = Host::new("guest", "device:/dev/tpmrm0");
    let text = fs::read_to_string(&host.config).expect("reads");
    // Both tiers or no agent: a second tier that does not load fails here.
    let text = text.replace("[enforcement]", "[enforcement]\nrequire = [\"lsm\"]");
    fs::write(&host.config, text).expect("writes");
    let _agent = host.start();
    for tier in ["cgroup", "lsm"] {
        assert!(
            host.is_active(tier),
            "{tier} is not active: {:#}",
            host.status()
        );
    }

    let node = Node::new("merestone-e2e-guest");
    let (free_group, group) = (
        Cgroup::new("merestone-e2e-free"),
        Cgroup::new("merestone-e2e-guest"),
    );
    let mut free = Talker::start(&free_group, None);
    let mut guarded = Talker::start(&group, Some(&node));

    let before = packets_out();
    assert_eq!(
        free.try_this("udp 203.0.113.7 9000"),
        "sent",
        "the control leaves"
    );
    let after = packets_out();
    assert_eq!(after, before + 1, "the control is on the wire");
    for attempt in [
        "tcp 203.0.113.7 443",
        "udp 203.0.113.7 9000",
        "udp 198.51.100.9 444",
    ] {
        assert_eq!(guarded.try_this(attempt), EPERM, "{attempt}");
    }
    assert_eq!(
        packets_out(),
        after,
        "nothing of a guarded process is on the wire"
    );
    assert_eq!(
        guarded.try_this("udp 198.51.100.9 443"),
        "sent",
        "an allowed destination"
    );

    for (name, family) in FAMILIES {
        assert_eq!(
            guarded.try_this(&format!("socket {family}")),
            EPERM,
            "{name}"
        );
    }
    // Without the GPU the same families are there: it is the guard that refuses.
    assert_eq!(
        free.try_this("socket 40"),
        "sent",
        "vsock for a free process"
    );

    eventually("three refusals are told", || host.denied().len() >= 3);
    hand_over(&host);
    verify_alone();
}

/// A way out that leads nowhere and counts what leaves.
fn dummy_uplink() {
    let steps = [
        "link add uplink type dummy",
        "addr add 192.0.2.1/24 dev uplink",
        "link set uplink up",
        "route add default dev uplink",
    ];
    // Before it is up: IPv6 speaks of itself, and the count is to be ours.
    fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("turns IPv6 off");
    for step in steps {
        let done = Command::new("ip")
            .args(step.split(' '))
            .status()
            .expect("ip runs");
        assert!(done.success(), "ip {step}");
    }
}

fn packets_out() -> u64 {
    let count = fs::read_to_string("/sys/class/net/uplink/statistics/tx_packets");
    count.expect("reads").trim().parse().expect("is a number")
}

/// Puts report, trust file and status where the host finds them. The trust file
/// demands what only such a machine can give.
fn hand_over(host: &Host) {
    let out = Path::new(OUT);
    let bundle = out.join("report.merestone");
    let status = host.status();
    let started = status["started"].as_str().expect("says when it started");
    host.ask(&[
        "report",
        "--from",
        started,
        "--out",
        &bundle.to_string_lossy(),
    ]);
    let text = fs::read_to_string(host.trust(&[])).expect("reads");
    let demanding = text
        .replace("boot_log = false", "boot_log = true")
        .replace("ima = false", "ima = true");
    assert_ne!(demanding, text, "the trust file names both");
    fs::write(out.join("trust.toml"), demanding).expect("writes");
    fs::write(out.join("status.json"), format!("{status:#}")).expect("writes");
    fs::write(out.join("agent.log"), host.log()).expect("writes");
}

/// The verifier as it is shipped, in a root directory that has the C library
/// and nothing else: no libtss2, no /dev, no /proc.
fn verify_alone() {
    const ALONE: &str = "/merestone/alone";
    for name in ["report.merestone", "trust.toml"] {
        fs::copy(Path::new(OUT).join(name), Path::new(ALONE).join(name)).expect("copies");
    }
    let output = Command::new("chroot")
        .args([
            ALONE,
            "/merestone-verify",
            "bundle",
            "/report.merestone",
            "--trust",
            "/trust.toml",
        ])
        .output()
        .expect("chroot runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("pass"), "{said}");
}
