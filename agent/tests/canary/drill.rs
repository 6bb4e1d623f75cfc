//! What a drill says, where enforcement stands and where it does not.

use crate::stage::{Stage, eventually};
use crate::sys;
use merestone_evidence::Canary;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};

fn results(drill: &Value) -> Vec<(String, String, String)> {
    let word = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let rows = drill["rows"].as_array().unwrap().iter();
    rows.map(|row| (word(row, "vector"), word(row, "result"), word(row, "proof")))
        .collect()
}

/// The sum that the format promises.
fn sum(canary: &Canary) -> u64 {
    canary.held + canary.escaped + canary.not_applicable + canary.errors
}

#[test]
fn a_drill_holds_here_and_every_epoch_says_what_the_canary_came_to() {
    let Some(stage) = Stage::set("a_drill_holds_here") else {
        return;
    };
    let agent = stage.agent(&[]);
    let drill = stage.ask(&["drill", "--json"]);
    assert_eq!(drill.status.code(), Some(0), "{drill:?}");
    let found = results(&serde_json::from_slice(&drill.stdout).unwrap());
    let held = |name: &str| {
        let row = found.iter().find(|(vector, ..)| vector == name);
        let (_, result, proof) = row.unwrap();
        assert_eq!(result, "held", "{name}: {proof}");
        assert!(proof.contains("1 denied"), "{name}: {proof}");
    };
    for name in ["tcp4", "tcp6", "udp4", "udp6", "udp4_older", "udp6_older"] {
        held(name);
    }
    for name in ["raw_icmp", "grandchild", "source_route", "mark", "tunnel"] {
        held(name);
    }
    let uncovered = stage.json(&["status", "--json"])["uncovered"].to_string();
    for (vector, result, proof) in &found {
        let declared = proof.contains("uncovered");
        assert!(!(declared && result == "held"), "{vector}: {proof}");
        assert!(
            !declared || uncovered.len() > 2,
            "{vector}: nothing is declared"
        );
    }
    let table = stage.ask(&["drill"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("\nall held: "), "{table}");

    let status = String::from_utf8(stage.ask(&["status"]).stdout).unwrap();
    assert!(status.contains("\ncanary      guarded; "), "{status}");
    assert!(
        status.contains("\nguarded     0 groups, 0 processes"),
        "{status}"
    );
    let flows = String::from_utf8(stage.ask(&["flows"]).stdout).unwrap();
    assert!(flows.contains("canary deny"), "{flows}");
    let alerts = String::from_utf8(stage.ask(&["flows", "--denied"]).stdout).unwrap();
    assert!(!alerts.contains("192.0.2.1"), "{alerts}");
    assert!(!stage.log().contains("merestone::alert"), "{}", stage.log());

    eventually("an epoch has the drill", || {
        let epochs = stage.epochs();
        epochs
            .iter()
            .filter_map(|epoch| epoch.canary.as_ref())
            .any(|canary| canary.runs >= found.len() as u64)
    });
    agent.end(libc::SIGTERM);
    for epoch in stage.epochs() {
        let canary = epoch.canary.unwrap();
        assert_eq!(canary.runs, sum(&canary));
        assert_eq!((canary.escaped, canary.errors), (0, 0));
        assert_eq!(epoch.groups, 0, "the canary is nobody's workload");
    }
    let entries = stage.entries();
    for name in ["tcp4", "udp6_older"] {
        let of = entries.iter().filter(|(_, vector, _)| vector == name);
        assert_eq!(
            of.count(),
            1,
            "a result that stays is told once: {entries:?}"
        );
    }
}

#[test]
fn hooks_that_are_taken_away_under_a_drill_are_an_escape_and_end_it_with_1() {
    let Some(stage) = Stage::set("hooks_that_are_taken_away") else {
        return;
    };
    let agent = stage.agent(&[]);
    let links = stage.links();
    let over = AtomicBool::new(false);
    let drill = std::thread::scope(|scope| {
        // The agent's watch attaches them again within a second, each time.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for link in &links {
                    sys::detach(link).ok();
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        let drill = stage.ask(&["drill", "--json"]);
        over.store(true, Ordering::Relaxed);
        drill
    });
    assert_eq!(drill.status.code(), Some(1), "{drill:?}");
    let found = results(&serde_json::from_slice(&drill.stdout).unwrap());
    let escaped: Vec<_> = found
        .iter()
        .filter(|(_, result, _)| result == "escaped")
        .map(|(vector, ..)| vector.clone())
        .collect();
    for name in ["tcp4", "udp4", "udp6", "source_route"] {
        assert!(escaped.iter().any(|one| one == name), "{name}: {found:#?}");
    }
    for (vector, result, proof) in &found {
        let nothing = proof.contains("0 denied");
        assert!(!(nothing && result == "held"), "{vector}: {proof}");
    }
    assert!(
        stage.log().contains("drill tcp4: escaped"),
        "{}",
        stage.log()
    );
    eventually("an epoch names what escaped", || {
        let epochs = stage.epochs();
        let last = epochs
            .iter()
            .filter_map(|epoch| epoch.canary.as_ref())
            .next_back();
        last.is_some_and(|canary| {
            assert_eq!(canary.runs, sum(canary));
            canary.escaped > 0 && canary.escaped_vectors.iter().any(|one| one == "tcp4")
        })
    });
    let entries = stage.entries();
    let told = |one: &(String, String, String)| one.1 == "tcp4" && one.2 == "escaped";
    assert!(entries.iter().any(told), "{entries:?}");
    eventually("it holds again once it is left alone", || {
        stage.ask(&["drill"]).status.code() == Some(0)
    });
    drop(agent);
}

#[test]
fn where_the_boundary_only_audits_nothing_is_tried_and_nothing_is_claimed() {
    let Some(stage) = Stage::set("where_the_boundary_only_audits") else {
        return;
    };
    let _agent = stage.agent(&["--mode", "audit"]);
    let drill = stage.ask(&["drill", "--json"]);
    assert_eq!(drill.status.code(), Some(1), "{drill:?}");
    let found = results(&serde_json::from_slice(&drill.stdout).unwrap());
    for (vector, result, proof) in found {
        assert_eq!(result, "not_applicable", "{vector}: {proof}");
        assert!(proof.starts_with("audit"), "{vector}: {proof}");
    }
}
