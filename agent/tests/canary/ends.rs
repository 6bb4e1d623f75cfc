//! A canary that cannot be guarded, one that is killed, and what is left of
//! one when its agent ends.

use crate::stage::{Stage, eventually};
use crate::sys;
use std::process::Command;

#[test]
fn nothing_of_it_is_left_when_the_agent_ends_or_is_killed() {
    let Some(stage) = Stage::set("nothing_of_it_is_left") else {
        return;
    };
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let agent = stage.agent(&[]);
        let pid = agent.pid();
        assert!(stage.traces(pid).len() >= 3, "cgroup, keeper, canary");
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains("canary"), "{mounts}");
        agent.end(signal);
        eventually("all of it is gone", || stage.traces(pid).is_empty());
    }
}

#[test]
fn a_canary_that_is_killed_is_said_not_to_be_guarded() {
    let Some(stage) = Stage::set("a_canary_that_is_killed") else {
        return;
    };
    let agent = stage.agent(&[]);
    let cgroup = stage
        .cgroup_root
        .join(format!("merestone-canary-{}", agent.pid()));
    let inside = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    for pid in inside.lines() {
        sys::kill(pid.parse().unwrap(), libc::SIGKILL).ok();
    }
    eventually("status says so", || {
        let canary = &stage.json(&["status", "--json"])["canary"];
        canary["guarded"] == false && canary["state"].as_str().unwrap().contains("has ended")
    });
    let drill = stage.ask(&["drill", "--json"]);
    assert_eq!(drill.status.code(), Some(1), "{drill:?}");
    let said: serde_json::Value = serde_json::from_slice(&drill.stdout).unwrap();
    assert_eq!(said["rows"][0]["vector"], "guard");
    eventually("an epoch says so", || {
        let epochs = stage.epochs();
        let last = epochs
            .iter()
            .filter_map(|epoch| epoch.canary.as_ref())
            .next_back();
        last.is_some_and(|canary| !canary.guarded && canary.errors > 0)
    });
    let pid = agent.pid();
    agent.end(libc::SIGTERM);
    assert_eq!(stage.traces(pid), Vec::<String>::new());
}

#[test]
fn without_cap_mknod_it_is_not_guarded_and_every_round_is_an_error() {
    let Some(stage) = Stage::set("without_cap_mknod") else {
        return;
    };
    if Command::new("setpriv").arg("--version").output().is_err() {
        println!("SKIPPED: without_cap_mknod: setpriv is not installed");
        return;
    }
    let agent = stage.agent_without_mknod();
    eventually("status says why", || {
        let canary = &stage.json(&["status", "--json"])["canary"];
        canary["state"].as_str().unwrap().contains("CAP_MKNOD")
    });
    assert_eq!(stage.ask(&["drill"]).status.code(), Some(1));
    assert_eq!(
        stage.ask(&["status"]).status.code(),
        Some(0),
        "what holds the workloads stands"
    );
    agent.end(libc::SIGTERM);
    let guard = |one: &(String, String, String)| one.1 == "guard" && one.2 == "error";
    assert!(stage.entries().iter().any(guard));
}
