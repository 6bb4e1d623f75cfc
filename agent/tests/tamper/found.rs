//! Without the tamper tier the attacks succeed, and are found within a second,
//! told, and undone. These are also the teeth of the tests in `refused`: what
//! is refused there works here.

use crate::agent::Agent;
use crate::outcome;
use crate::stage::Stage;
use std::time::Duration;

/// The agent under test looks each half second; one that looks each second
/// needs no longer than that and the look.
const SOON: Duration = Duration::from_millis(1000);

fn found(stage: &Stage, agent: &Agent, attack: &str, told: &str) {
    agent.forget();
    assert_eq!(
        stage.attack(attack),
        "done",
        "{attack} works without the tier"
    );
    let took = agent.says(told);
    assert!(took < SOON * slow(), "{attack} was found after {took:?}");
    let line = agent.said(told).unwrap();
    let mended = line.ends_with("Ok(())") || line.contains("BOUNDARY");
    assert!(mended, "not put back: {line}");
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(stage.send(false), "EPERM", "after {attack}");
    agent.forget();
    std::thread::sleep(Duration::from_millis(1200) * slow());
    assert_eq!(
        agent.said("found:"),
        None,
        "after {attack} all is as it was"
    );
}

/// An emulated processor needs longer for everything.
fn slow() -> u32 {
    if std::env::var_os("XTASK_VM").is_some() {
        5
    } else {
        1
    }
}

#[test]
fn what_root_takes_away_is_found_told_and_put_back_b58() {
    let Some(stage) = Stage::set("found") else {
        return;
    };
    let agent = stage.agent("");
    assert_eq!(stage.send(true), "EPERM");
    let (link, _, armed) = agent.ids();
    let tiers = outcome::tiers(&agent);
    assert_eq!(stage.attack("prefixes"), "EPERM", "a frozen trie");
    for (attack, told) in [
        ("unpin", "found: UNPIN pin of cgroup_skb/egress"),
        ("unpin-all", "found: UNPIN"),
        ("detach", "found: DETACH cgroup_skb/egress"),
        ("replace", "found: REPLACE cgroup_skb/egress"),
        ("settings", "found: MAP_WRITE SETTINGS"),
        ("other-trie", "found: BOUNDARY"),
        ("groups", "found: MAP_WRITE GROUPS"),
        ("armed", "found: MAP_WRITE ARMED"),
        ("stance", "found: MAP_WRITE STANCE"),
    ] {
        found(&stage, &agent, attack, told);
    }
    for attack in ["map-by-id", "write-by-program"] {
        let by_id = format!("{attack} {armed}");
        found(&stage, &agent, &by_id, "found: MAP_WRITE ARMED");
    }
    outcome::shown(
        "what_root_takes_away_is_found_told_and_put_back_b58",
        "detected",
        &tiers,
    );
    // The link that was detached above is no more.
    assert_ne!(stage.attack(&format!("link-by-id {link}")), "EPERM");
}

#[test]
fn names_selects_grants_and_their_use_are_watched_b58() {
    let Some(stage) = Stage::set("language") else {
        return;
    };
    let mut agent = stage.agent("language");
    let tiers = outcome::tiers(&agent);
    assert_eq!(stage.send(true), "EPERM");
    agent.order("grant");
    agent.says("granted");
    // Nobody is the worse for a budget that somebody else used up.
    assert_eq!(stage.attack("use-grant"), "done");
    std::thread::sleep(Duration::from_millis(1100) * slow());
    for (attack, told) in [
        ("names", "found: BOUNDARY"),
        ("resolvers", "found: BOUNDARY"),
        ("selectors", "found: MAP_WRITE SELECTORS"),
        ("selected", "found: MAP_WRITE SELECTED"),
        ("unuse-grant", "found: MAP_WRITE GRANT_USES"),
        ("grant", "found: MAP_WRITE GRANTS"),
    ] {
        found(&stage, &agent, attack, told);
    }
    outcome::shown(
        "names_selects_grants_and_their_use_are_watched_b58",
        "detected",
        &tiers,
    );
}

#[test]
fn without_an_agent_removed_pins_let_go_and_the_next_start_knows_b58() {
    let Some(stage) = Stage::set("dead-unpin") else {
        return;
    };
    let agent = stage.agent("");
    assert_eq!(stage.send(true), "EPERM");
    agent.kill();
    assert_eq!(stage.attack("unpin-all"), "done");
    std::thread::sleep(Duration::from_millis(300) * slow());
    // Declared in docs/tamper.md, as for an unmounted file system.
    assert_eq!(stage.send(false), "sent");
    let agent = stage.agent("");
    assert!(agent.said("left:").unwrap().contains("there=false"));
    assert_eq!(stage.send(true), "EPERM");
}

#[test]
fn with_a_living_agent_an_unmounted_bpffs_detaches_nothing_and_is_mounted_again_b58() {
    let Some(stage) = Stage::set("unmount") else {
        return;
    };
    let agent = stage.agent("");
    assert_eq!(stage.send(true), "EPERM");
    found(&stage, &agent, "unmount-lazily", "found: UNMOUNT");
    // Put back for the next agent, too.
    agent.kill();
    assert_eq!(stage.send(false), "EPERM");
    let agent = stage.agent("");
    assert!(
        agent
            .said("left:")
            .unwrap()
            .contains("there=true links=0 maps=0")
    );
}

#[test]
fn without_an_agent_an_unmounted_bpffs_lets_go_and_the_next_start_knows_b58() {
    let Some(stage) = Stage::set("dead-unmount") else {
        return;
    };
    let agent = stage.agent("");
    assert_eq!(stage.send(true), "EPERM");
    agent.kill();
    assert_eq!(stage.attack("unmount-lazily"), "done");
    std::thread::sleep(Duration::from_millis(300) * slow());
    // What really happens: the pins' inodes go with the last mount, the links
    // with them. Declared in docs/tamper.md; the next agent tells of it.
    assert_eq!(stage.send(false), "sent");
    crate::sys::mount("bpf", &stage.bpffs.to_string_lossy(), 0).unwrap();
    let agent = stage.agent("");
    assert!(agent.said("left:").unwrap().contains("there=false"));
}

#[test]
fn a_killed_or_debugged_agent_is_only_noticed_without_the_tier_b58() {
    let Some(stage) = Stage::set("agent") else {
        return;
    };
    let agent = stage.agent("");
    assert_eq!(stage.send(true), "EPERM");
    for attack in ["trace", "memory", "take-descriptor", "limit", "stop"] {
        let attack = format!("{attack} {}", agent.pid());
        assert_eq!(stage.attack(&attack), "done", "{attack}");
    }
    crate::sys::kill(agent.pid(), libc::SIGCONT).unwrap();
    let kill = format!("kill {}", agent.pid());
    assert_eq!(stage.attack(&kill), "done");
    agent.ended();
    assert_eq!(stage.send(false), "EPERM");
}
