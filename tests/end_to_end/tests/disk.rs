//! A disk that is really full under a running agent: what is held stays held, and what happened
//! meanwhile is in the log, with its own time, once there is space again.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it needs by panicking, and what it could not run"
)]

mod support;

use merestone_evidence::{Body, Bundle, Entry, FlowVerdict, decode};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use support::{Cgroup, Host, Node, Workload, eventually, has_swtpm, is_root, swtpm};

const NAME: &str = "a_full_disk_opens_nothing_and_what_happened_meanwhile_is_told_when_it_has_room";
const EPERM: &str = "1";
/// Set in the process that has mounts of its own.
const OWN_MOUNTS: &str = "MERESTONE_TEST_OWN_MOUNTS";
/// Tries to get out before the disk is full, and while it is.
const BEFORE: u16 = 3;
const MEANWHILE: u16 = 40;
const FIRST_PORT: u16 = 9000;

/// The mount is of a namespace of the test's own, which goes with it however it ends.
#[test]
fn a_full_disk_opens_nothing_and_what_happened_meanwhile_is_told_when_it_has_room() {
    skip_unless!(
        is_root() && has_swtpm(),
        format!("{NAME}: needs root and swtpm")
    );
    if std::env::var_os(OWN_MOUNTS).is_some() {
        return on_a_small_disk();
    }
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().expect("a test has a path"))
        .args(["--exact", NAME, "--nocapture"])
        .env(OWN_MOUNTS, "1")
        .output()
        .expect("unshare runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
}

/// What is mounted in a folder keeps it from being removed.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        Command::new("umount").arg(&self.0).status().ok();
    }
}

fn on_a_small_disk() {
    let tpm_folder = tempfile::tempdir().expect("a folder");
    let (_tpm, tcti) = swtpm(tpm_folder.path());
    let host = Host::new("disk", &tcti);
    let disk = host.file("state");
    fs::create_dir(&disk).expect("makes the mount point");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m,mode=0700", "merestone"])
        .arg(&disk)
        .status();
    assert!(mounted.expect("mount runs").success());
    let _mounted = Mounted(disk.clone());
    let agent = host.start();
    let (cgroup, node) = (
        Cgroup::new("merestone-e2e-disk"),
        Node::new("merestone-e2e-disk"),
    );
    let mut guarded = Workload::start(&cgroup, Some(&node));
    // A port each, so that no two are folded into one flow.
    let mut tries = FIRST_PORT..;
    let mut all_held = |count: u16| {
        for port in tries.by_ref().take(count.into()) {
            assert_eq!(guarded.send("udp", "203.0.113.7", port), EPERM);
        }
    };
    all_held(BEFORE);
    eventually("they are told", || host.denied().len() >= BEFORE.into());
    eventually("the log is sealed", || sealed(&host) > 0);

    let filler = disk.join("filler");
    fill(&filler);
    let full_ms = now_ms();
    all_held(MEANWHILE);
    eventually("all of them are told to who asks", || {
        host.denied().len() >= (BEFORE + MEANWHILE).into()
    });
    eventually("the agent says that the disk is full", || {
        host.log().contains("the disk is full")
    });
    let error = host.status()["evidence"]["quote_error"].clone();
    assert!(error.is_string(), "status says why nothing is sealed");

    let room_ms = now_ms();
    fs::remove_file(&filler).expect("removes");
    eventually("nothing waits any more", || {
        host.status()["evidence"]["quote_error"].is_null()
    });
    // The epoch under way may have begun before the last of them was written.
    let written = sealed(&host);
    eventually("what waited is sealed", || sealed(&host) >= written + 2);
    drop(agent);
    let (bundle, output) = host.verify("after");
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(0), "{verdict:#}");
    let counted = &verdict["egress"];
    let all = BEFORE + MEANWHILE;
    assert_eq!(counted["denied"].as_u64(), Some(all.into()), "{counted:#}");
    assert_eq!(counted["lost"].as_u64(), Some(0), "{counted:#}");
    let meanwhile = refusals(&bundle)
        .into_iter()
        .filter(|(time_ms, _)| (full_ms..=room_ms).contains(time_ms));
    let ports: BTreeSet<u16> = meanwhile.map(|(_, port)| port).collect();
    let first = FIRST_PORT + BEFORE;
    assert_eq!(ports, (first..first + MEANWHILE).collect());
}

/// When each refused flow of the log was, and to which port.
fn refusals(bundle: &Path) -> Vec<(u64, u16)> {
    let bundle: Bundle = decode(&fs::read(bundle).expect("reads")).expect("decodes");
    let leaves = bundle.span.expect("has leaves").leaves;
    let entries = leaves.iter().map(|leaf| decode::<Entry>(leaf));
    let told = entries.filter_map(|entry| {
        let entry = entry.expect("an entry");
        match entry.body {
            Body::Flow {
                verdict: FlowVerdict::Deny,
                port,
                ..
            } => Some((entry.time_ms, port)),
            _ => None,
        }
    });
    told.collect()
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_millis()).expect("fits")
}

/// Epochs sealed so far.
fn sealed(host: &Host) -> u64 {
    host.status()["evidence"]["epochs"]
        .as_u64()
        .unwrap_or_default()
}

/// Writes until the disk takes nothing more.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("makes the file");
    for size in [1 << 16, 1 << 10, 1] {
        loop {
            match file.write_all(&vec![0x5a; size]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}
