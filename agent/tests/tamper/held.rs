//! Fail closed: whatever becomes of the agent, guarded groups stay held.

use crate::outcome;
use crate::stage::Stage;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const HELD: &str = "EPERM";

#[test]
fn a_killed_agent_leaves_the_group_held_and_the_next_one_says_so_b57() {
    let Some(stage) = Stage::set("kill") else {
        return;
    };
    let agent = stage.agent("");
    assert_eq!(stage.send(true), HELD);
    agent.kill();
    assert_eq!(stage.send(false), HELD);
    let agent = stage.agent("");
    let left = agent.said("left:").unwrap();
    assert!(
        left.contains(
            "there=true links=0 maps=0 end_seen=true denied_all=false groups=1 generation=1"
        ),
        "{left}"
    );
    agent.says("event: TAMPER AGENT_ENDED");
    assert_eq!(stage.send(false), HELD);
    outcome::held(
        "a_killed_agent_leaves_the_group_held_and_the_next_one_says_so_b57",
        &agent,
    );
}

#[test]
fn under_deny_all_the_kernel_itself_notices_the_agent_s_end() {
    let Some(stage) = Stage::set("deny-all") else {
        return;
    };
    let agent = stage.agent("loopback deny-all");
    assert_eq!(stage.send(true), "sent", "inside the boundary");
    agent.kill();
    assert_eq!(stage.send(false), HELD, "the agent is lost");
    let agent = stage.agent("loopback deny-all");
    assert!(agent.said("left:").unwrap().contains("denied_all=true"));
    assert_eq!(stage.send(false), "sent", "an agent is back");
    agent.stop();
    assert_eq!(stage.send(false), HELD, "an orderly end is a loss as well");
    let agent = stage.agent("loopback");
    assert_eq!(stage.send(false), "sent");
    agent.kill();
    assert_eq!(
        stage.send(false),
        "sent",
        "hold: the boundary goes on deciding"
    );
}

#[test]
fn under_deny_all_a_stopped_agent_is_a_lost_one_until_it_goes_on() {
    let Some(stage) = Stage::set("stop") else {
        return;
    };
    let agent = stage.agent("loopback deny-all");
    assert_eq!(stage.send(true), "sent");
    crate::sys::kill(agent.pid(), libc::SIGSTOP).unwrap();
    assert_eq!(stage.send(false), "sent", "within its patience of 2 s");
    std::thread::sleep(Duration::from_millis(2800));
    assert_eq!(stage.send(false), HELD);
    crate::sys::kill(agent.pid(), libc::SIGCONT).unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(stage.send(false), "sent");
    agent.says("event: FLOW - DENY AGENT_LOST");
}

#[test]
fn a_stopped_agent_changes_nothing_for_the_group_b54() {
    let Some(stage) = Stage::set("hour") else {
        return;
    };
    let agent = stage.agent("");
    assert_eq!(stage.send(true), HELD);
    crate::sys::kill(agent.pid(), libc::SIGSTOP).unwrap();
    // An hour is no other state than three seconds: past every deadline.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(stage.send(false), HELD);
    crate::sys::kill(agent.pid(), libc::SIGCONT).unwrap();
    outcome::held("a_stopped_agent_changes_nothing_for_the_group_b54", &agent);
}

#[test]
fn an_agent_that_the_kernel_kills_for_memory_leaves_the_group_held() {
    let Some(stage) = Stage::set("oom") else {
        return;
    };
    let mut agent = stage.agent("loopback deny-all");
    assert_eq!(stage.send(true), "sent");
    let Some(limited) = limited(agent.pid()) else {
        println!("SKIPPED: oom: no cgroup here can limit memory");
        return;
    };
    agent.order("eat");
    agent.ended();
    assert_eq!(stage.send(false), HELD);
    fs::remove_dir(limited).ok();
}

/// Moves a process to where it may have little memory.
fn limited(pid: u32) -> Option<PathBuf> {
    let name = format!("merestone-tamper-memory-{pid}");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (at, kind, options) = (words.next()?, words.next()?, words.next()?);
        let limit = match kind {
            "cgroup2" => {
                fs::write(format!("{at}/cgroup.subtree_control"), "+memory").ok();
                "memory.max"
            }
            "cgroup" if options.split(',').any(|option| option == "memory") => {
                "memory.limit_in_bytes"
            }
            _ => continue,
        };
        let folder = PathBuf::from(at).join(&name);
        fs::create_dir(&folder).ok();
        let done = fs::write(folder.join(limit), (96 << 20).to_string())
            .and_then(|()| fs::write(folder.join("cgroup.procs"), pid.to_string()));
        if done.is_ok() {
            fs::write(folder.join("memory.swap.max"), "0").ok();
            return Some(folder);
        }
        fs::remove_dir(&folder).ok();
    }
    None
}

#[test]
fn another_build_takes_the_pins_over_without_a_gap_b57() {
    let Some(stage) = Stage::set("upgrade") else {
        return;
    };
    let agent = stage.agent("");
    assert_eq!(stage.send(true), HELD);
    agent.kill();
    let other = crate::agent::Agent::start(&stage, &stage.copy, "");
    assert!(other.said("ready").is_some());
    assert!(other.said("left:").unwrap().contains("groups=1"));
    assert_eq!(stage.send(false), HELD);
    outcome::held(
        "another_build_takes_the_pins_over_without_a_gap_b57",
        &other,
    );
}

#[test]
fn pins_of_a_newer_build_are_refused_and_stay_in_force() {
    let Some(stage) = Stage::set("downgrade") else {
        return;
    };
    let agent = stage.agent("");
    assert_eq!(stage.send(true), HELD);
    agent.kill();
    newer(&stage);
    let older = stage.agent("");
    let refused = older.said("refused:").unwrap();
    assert!(refused.contains("contract 99"), "{refused}");
    older.ended();
    assert_eq!(stage.send(false), HELD);
}

/// Says that the pins are of contract 99.
fn newer(stage: &Stage) {
    let data = aya::maps::MapData::from_pin(stage.pins.join("ABI")).unwrap();
    let map = aya::maps::Map::from_map_data(data).unwrap();
    let mut abi = aya::maps::Array::<_, u32>::try_from(map).unwrap();
    abi.set(0, 99, 0).unwrap();
}

#[test]
fn a_full_ring_loses_reports_and_holds_b54() {
    let Some(stage) = Stage::set("ring") else {
        return;
    };
    let mut agent = stage.agent("small");
    assert_eq!(stage.send(true), HELD);
    crate::sys::kill(agent.pid(), libc::SIGSTOP).unwrap();
    assert_eq!(stage.other("flood"), "0", "not one was let through");
    crate::sys::kill(agent.pid(), libc::SIGCONT).unwrap();
    agent.order("lost");
    agent.says("lost: ");
    assert_eq!(agent.said("lost: 0"), None, "what was lost is counted");
    assert_eq!(stage.send(false), HELD);
    outcome::held("a_full_ring_loses_reports_and_holds_b54", &agent);
}

#[test]
fn a_group_for_which_there_is_no_room_does_not_get_the_gpu() {
    let Some(stage) = Stage::set("groups") else {
        return;
    };
    let agent = stage.agent("small");
    assert_eq!(stage.send(true), HELD);
    assert_eq!(stage.other("stranger"), "EPERM", "the open is refused");
    assert_eq!(stage.send(false), HELD, "the first group stays held");
    agent.stop();
}

#[test]
fn a_boundary_that_does_not_fit_leaves_the_old_one_in_force() {
    let Some(stage) = Stage::set("full") else {
        return;
    };
    let mut agent = stage.agent("loopback");
    assert_eq!(stage.send(true), "sent");
    agent.order("full");
    agent.says("full: the boundary has");
    assert_eq!(stage.send(false), "sent", "the old boundary decides");
}
