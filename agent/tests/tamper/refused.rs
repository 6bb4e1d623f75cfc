//! With BPF LSM: root outside the agent is refused, told of, and gains nothing.

use crate::agent::Agent;
use crate::attack::{LINK_GET_FD_BY_ID, MAP_GET_FD_BY_ID, PROG_GET_FD_BY_ID};
use crate::stage::Stage;
use std::time::Duration;

fn refused(stage: &Stage, agent: &Agent, attack: &str, told: &str) {
    agent.forget();
    assert_eq!(stage.attack(attack), "EPERM", "{attack}");
    agent.says(&format!("event: TAMPER {told} DENY TAMPER"));
    assert_eq!(stage.send(false), "EPERM", "after {attack}");
    assert_eq!(agent.said("found:"), None, "{attack} changed something");
}

#[test]
fn root_outside_the_agent_can_take_nothing_away_b58() {
    let Some(stage) = Stage::with_lsm("refused") else {
        return;
    };
    // Ids are read while nothing is protected yet.
    let open = stage.agent("");
    open.stop();
    let agent = stage.agent("tamper");
    assert_eq!(stage.send(true), "EPERM");
    let pid = agent.pid();
    let mut attacks = vec![
        ("detach".to_owned(), "PIN_OPEN"),
        ("replace".to_owned(), "PIN_OPEN"),
        ("settings".to_owned(), "PIN_OPEN"),
        ("prefixes".to_owned(), "PIN_OPEN"),
        ("groups".to_owned(), "PIN_OPEN"),
        ("armed".to_owned(), "PIN_OPEN"),
        ("unpin".to_owned(), "UNPIN"),
        ("unpin-all".to_owned(), "UNPIN"),
        ("move-pins".to_owned(), "UNPIN"),
        ("put-pin".to_owned(), "UNPIN"),
        ("unmount".to_owned(), "UNMOUNT"),
        ("unmount-lazily".to_owned(), "UNMOUNT"),
        ("mount-over".to_owned(), "MOUNT_OVER"),
        ("mount-over-pins".to_owned(), "MOUNT_OVER"),
    ];
    for (attack, told) in [
        ("kill", "KILL"),
        ("stop", "KILL"),
        ("term", "KILL"),
        ("usr1", "KILL"),
        ("trace", "TRACE"),
        ("memory", "TRACE"),
        ("write-memory", "TRACE"),
        ("take-descriptor", "TRACE"),
        ("limit", "LIMIT"),
    ] {
        attacks.push((format!("{attack} {pid}"), told));
    }
    for (attack, told) in &attacks {
        // /proc/PID/mem answers EACCES for every refusal (fs/proc/base.c).
        if attack.starts_with("memory") {
            agent.forget();
            assert_eq!(stage.attack(attack), "EACCES");
            agent.says("event: TAMPER TRACE DENY");
        } else {
            refused(&stage, &agent, attack, told);
        }
    }
    by_id(&stage, &agent);
    agent.stop();
    the_dead_agent_s_pins_are_no_less_protected(&stage);
}

/// Ids are small numbers; whoever tries them all meets ours.
fn by_id(stage: &Stage, agent: &Agent) {
    for (command, told) in [
        (LINK_GET_FD_BY_ID, "LINK_FD"),
        (PROG_GET_FD_BY_ID, "PROGRAM_FD"),
        (MAP_GET_FD_BY_ID, "MAP_FD"),
    ] {
        refused(stage, agent, &format!("any-by-id {command}"), told);
    }
}

fn the_dead_agent_s_pins_are_no_less_protected(stage: &Stage) {
    for attack in ["detach", "unpin", "unpin-all", "settings", "unmount-lazily"] {
        assert_eq!(stage.attack(attack), "EPERM", "{attack} without an agent");
    }
    assert_eq!(stage.send(false), "EPERM");
    // Another file with the same bytes is no successor.
    let other = Agent::start(stage, &stage.copy, "tamper");
    assert!(other.said("ready").is_none(), "a stranger took over");
    assert_eq!(stage.send(false), "EPERM");
    drop(other);
    // The agent's own executable is.
    let agent = stage.agent("tamper");
    assert!(agent.said("ready").is_some());
    agent.says("event: TAMPER UNPIN DENY TAMPER");
    assert_eq!(stage.send(false), "EPERM");
    agent.stop();
}

#[test]
fn a_break_glass_lets_through_what_it_names_reports_it_and_ends_by_itself() {
    let Some(stage) = Stage::with_lsm("glass") else {
        return;
    };
    let mut agent = stage.agent("tamper");
    assert_eq!(stage.send(true), "EPERM");
    let pins = merestone_abi::Glass::PINS;
    agent.order(&format!("glass {pins} 10"));
    agent.says("open");
    assert_eq!(stage.attack("unpin"), "done");
    agent.says("event: TAMPER UNPIN ALLOW TAMPER");
    assert_eq!(stage.attack("unmount"), "EPERM", "it does not name mounts");
    let kill = format!("kill {}", agent.pid());
    assert_eq!(stage.attack(&kill), "EPERM", "nor signals");
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(stage.attack("unpin"), "EPERM", "its time is over");
    assert_eq!(stage.send(false), "EPERM");
    agent.stop();
}

#[test]
fn a_break_glass_lets_another_build_take_over_b57() {
    let Some(stage) = Stage::with_lsm("succeed") else {
        return;
    };
    let mut agent = stage.agent("tamper");
    assert_eq!(stage.send(true), "EPERM");
    agent.order(&format!("glass {} 300", merestone_abi::Glass::SUCCEED));
    agent.says("open");
    agent.stop();
    let other = Agent::start(&stage, &stage.copy, "tamper");
    assert!(other.said("ready").is_some(), "let in to take over");
    assert_eq!(stage.send(false), "EPERM");
    // Now it is the agent; its own file may take over, and may unpin.
    other.stop();
}
