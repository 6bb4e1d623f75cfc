//! What real calls cost, for each scenario, in turns.

use crate::sets;
use crate::stage::{self, Corner, ECHO, FAR, QUIET, SINK, Wire};
use crate::worker::Worker;
use crate::{Agent, Amount, say};
use anyhow::{Context as _, Result};
use std::path::Path;

/// Prefixes in every scenario but the last.
pub(crate) const PREFIXES: u32 = 1_000;

/// What is measured: name, unit, and whether more is better.
pub(crate) const METRICS: [(&str, &str); 9] = [
    ("connect, loopback", "ns"),
    ("socket+connect+close, loopback", "ns"),
    ("UDP send, loopback", "ns"),
    ("connect, veth", "ns"),
    ("socket+connect+close, veth", "ns"),
    ("UDP send, veth", "ns"),
    ("TCP round trip, veth, median", "ns"),
    ("TCP round trip, veth, p99", "ns"),
    ("TCP throughput, veth", "Gbit/s"),
];

/// One scenario's values, by metric and round.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) values: [Vec<f64>; METRICS.len()],
}

/// The scenario that all are compared with.
pub(crate) const NOTHING: usize = 0;
pub(crate) const FLOOR: usize = 1;
pub(crate) const UNGUARDED: usize = 4;
pub(crate) const GUARDED: usize = 5;
pub(crate) const LARGE: usize = 6;

/// Something to compare.
#[derive(Debug)]
pub(crate) struct Scenario<'s> {
    pub(crate) name: &'static str,
    pub(crate) wire: &'s Wire,
    pub(crate) worker: Worker,
}

/// How much of each call makes one value of a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    pub(crate) connects: usize,
    /// Eight times so many, so that no receiver's buffer is ever full.
    pub(crate) datagrams: usize,
    pub(crate) round_trips: usize,
    pub(crate) stream_ms: u64,
}

/// Sets everything up and measures round by round.
pub(crate) fn measure(
    amount: &Amount,
    agents: [&Agent; 2],
    corner: &Corner,
    guarded: &[Wire; 2],
    node: &Path,
) -> Result<Vec<Measured>> {
    let plain = [Wire::new()?, Wire::new()?, Wire::new()?, Wire::new()?];
    plain[2].nftables(&sets::nftables(PREFIXES))?;
    let floor = corner.below("floor")?;
    let _floor = stage::floor(&floor)?;
    let systemd = corner.below("systemd")?;
    let _systemd = stage::systemd(&systemd, PREFIXES)?;
    let start = |name, wire, cgroup: &Path, node: Option<&Path>| -> Result<Scenario<'_>> {
        let worker = Worker::start(Wire::near(wire).as_path(), cgroup, node)?;
        Ok(Scenario { name, wire, worker })
    };
    let nothing = corner.below("nothing")?;
    let mut scenarios = [
        start("nothing", &plain[0], &nothing, None)?,
        start("programs that only return", &plain[1], &floor, None)?,
        start("nftables, 1,000 prefixes", &plain[2], &nothing, None)?,
        start(
            "systemd's design, 1,000 prefixes",
            &plain[3],
            &systemd,
            None,
        )?,
        start(
            "Merestone, unguarded process",
            &guarded[0],
            &below(agents[0], "free")?,
            None,
        )?,
        start(
            "Merestone, guarded, 1,000 prefixes",
            &guarded[0],
            &below(agents[0], "held")?,
            Some(node),
        )?,
        start(
            "Merestone, guarded, most prefixes",
            &guarded[1],
            &below(agents[1], "held")?,
            Some(node),
        )?,
    ];
    let effort = Effort {
        rounds: amount.traffic_rounds,
        connects: 150,
        datagrams: 256,
        round_trips: 400,
        stream_ms: 40,
    };
    rounds(&mut scenarios, effort)
}

/// Measures all, in turns.
pub(crate) fn rounds(scenarios: &mut [Scenario<'_>], effort: Effort) -> Result<Vec<Measured>> {
    let mut measured: Vec<Measured> = scenarios
        .iter()
        .map(|scenario| Measured {
            name: scenario.name,
            values: Default::default(),
        })
        .collect();
    for round in 0..=effort.rounds {
        if round % 20 == 0 {
            say(&format!("calls: round {round} of {}", effort.rounds));
        }
        for step in 0..scenarios.len() {
            // Each goes first as often as last.
            let index = (round + step) % scenarios.len();
            let values =
                one(&mut scenarios[index], effort).with_context(|| measured[index].name)?;
            if round == 0 {
                continue; // to warm up
            }
            for (list, value) in measured[index].values.iter_mut().zip(values) {
                list.push(value);
            }
        }
    }
    Ok(measured)
}

pub(crate) fn below(agent: &Agent, name: &str) -> Result<std::path::PathBuf> {
    let path = agent.cgroup.join(name);
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

fn one(scenario: &mut Scenario<'_>, effort: Effort) -> Result<[f64; METRICS.len()]> {
    let Effort {
        connects,
        datagrams,
        round_trips,
        stream_ms,
        ..
    } = effort;
    let mut values = [0.0; METRICS.len()];
    for (at, place) in [(0, "127.0.0.1"), (3, FAR)] {
        let answer = scenario
            .worker
            .ask(&format!("connect {place}:{QUIET} {connects}"))?;
        scenario.wire.drain();
        values[at] = answer[0];
        values[at + 1] = answer[1];
        let mut sum = 0.0;
        for _ in 0..8 {
            let answer = scenario
                .worker
                .ask(&format!("udp {place}:{QUIET} {datagrams}"))?;
            scenario.wire.drain();
            sum += answer[0];
        }
        values[at + 2] = sum / 8.0;
    }
    let answer = scenario
        .worker
        .ask(&format!("rr {FAR}:{ECHO} {round_trips}"))?;
    values[6] = answer[0];
    values[7] = answer[1];
    let answer = scenario
        .worker
        .ask(&format!("stream {FAR}:{SINK} {stream_ms}"))?;
    values[8] = answer[0] / 1e9;
    Ok(values)
}
