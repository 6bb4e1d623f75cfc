//! The soak: guarded senders at full rate for a long time, while the agent is
//! killed, reloaded and drilled at random.
//!
//! `$MERESTONE_SOAK_MINUTES` asks for it, in place of the vectors. At the end:
//! no packet beyond the boundary, as many refusals counted by the kernel as the
//! senders were told of, as many packets let through as the sniffer saw, and an
//! agent whose memory has not grown.

use super::Suite;
use super::child::Running;
use super::report::say;
use crate::holder::{Boundary, Status};
use crate::lab::{self, Phase};
use crate::sniffer::Tally;
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Resident memory is looked at this often.
const LOOK: Duration = Duration::from_secs(1);
/// What an agent may take to settle after its start.
const SETTLED: f64 = 15.0;
/// More growth than this, a minute, is a leak (KiB).
const MOST_GROWTH: f64 = 256.0;
/// At a restart the new program is attached before the old one goes: what is
/// sent in that moment is judged, and counted, by both.
const TWICE_A_RESTART: u64 = 2000;

/// Resident memory over an agent's lives: age in seconds, KiB.
#[derive(Debug, Default)]
struct Memory {
    samples: Vec<(f64, f64)>,
    largest: f64,
}

impl Memory {
    fn look(&mut self, pid: Option<u32>, age: f64) {
        let Some(pid) = pid else { return };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = resident.and_then(|text| text.split_whitespace().next()?.parse().ok());
        if let Some(kilobytes) = kilobytes {
            self.largest = self.largest.max(kilobytes);
            if age > SETTLED {
                self.samples.push((age, kilobytes));
            }
        }
    }

    /// KiB a minute, by least squares; none without enough to tell.
    fn growth(&self) -> Option<f64> {
        if self.samples.len() < 20 {
            return None;
        }
        let count = self.samples.iter().map(|_| 1.0).sum::<f64>();
        let mean = |of: fn(&(f64, f64)) -> f64| self.samples.iter().map(of).sum::<f64>() / count;
        let (age, size) = (mean(|sample| sample.0), mean(|sample| sample.1));
        let covariance: f64 = self
            .samples
            .iter()
            .map(|(a, s)| (a - age) * (s - size))
            .sum();
        let variance: f64 = self.samples.iter().map(|(a, _)| (a - age).powi(2)).sum();
        (variance > 0.0).then(|| covariance / variance * 60.0)
    }
}

/// What was done to the agent.
#[derive(Debug, Default)]
struct Deeds {
    kills: u64,
    reloads: u64,
    drills: u64,
}

/// Sum of a verdict's counters over all hooks, by protocol.
fn decided(status: &Status, verdict: &str, protocol: &str, hook: Option<&str>) -> u64 {
    let wanted = status.counters.iter().filter(|counter| {
        counter.verdict == verdict
            && counter.protocol == protocol
            && hook.is_none_or(|hook| counter.hook == hook)
    });
    wanted.map(|counter| counter.count).sum()
}

/// A number below `limit` from the clock: what falls together is to vary.
fn below(limit: u64) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanoseconds = now.map_or(0, |now| u64::from(now.subsec_nanos()) / 7);
    nanoseconds % limit.max(1)
}

struct Sender {
    running: Running,
    baseline: Tally,
}

/// Runs it; whether all was as it must be.
pub(super) fn run(suite: &mut Suite, minutes: u32) -> Result<bool> {
    let inside = [lab::soaked(false), lab::soaked(true)];
    let before = suite.holder()?.status()?;
    ensure!(
        suite.holder()?.counts(),
        "the soak needs the counters of `merestone status`; set MERESTONE_BIN"
    );
    let seen_before = suite.sniffer.tally("", &inside);
    let mut senders = Vec::new();
    for (phase, number) in [(Phase::Cgroup, 220), (Phase::Tree, 221)] {
        senders.push(start(suite, phase, number)?);
    }
    let end = Instant::now() + Duration::from_secs(60 * u64::from(minutes));
    let mut memory = Memory::default();
    let deeds = torment(suite, &senders, end, &mut memory)?;
    let mut said = BTreeMap::<String, u64>::new();
    for sender in &mut senders {
        for (what, count) in sender.running.counts()? {
            *said.entry(what).or_default() += count;
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    suite.sniffer.catch_up(&suite.lab.inside)?;
    let leaked = leaks(suite, &senders)?;
    let arrived = suite.sniffer.tally("", &inside).since(seen_before).data;
    let after = suite.holder()?.status()?;
    for sender in senders {
        sender.running.end()?;
    }
    let outcome = judge(&said, leaked, arrived, (&before, &after), &deeds, &memory);
    let (word, text) = match &outcome {
        Ok(text) => ("ok", text.clone()),
        Err(error) => ("FAILED", format!("{error:#}")),
    };
    say(&format!(
        "test soak (B57): {minutes} minutes at full rate ... {word}: {text}"
    ));
    Ok(outcome.is_ok())
}

fn start(suite: &Suite, phase: Phase, number: u8) -> Result<Sender> {
    let mut running = suite.start(suite.job("soaker", phase, number)?)?;
    running.ready()?;
    let addresses = running.addresses();
    let baseline = suite.sniffer.tally(&running.job.marker, &addresses);
    running.go()?;
    Ok(Sender { running, baseline })
}

fn leaks(suite: &Suite, senders: &[Sender]) -> Result<u64> {
    let mut leaked = 0;
    for Sender { running, baseline } in senders {
        let tally = suite
            .sniffer
            .tally(&running.job.marker, &running.addresses())
            .since(*baseline);
        ensure!(tally == Tally::default(), "LEAK: {tally}");
        leaked += tally.packets();
    }
    Ok(leaked)
}

/// Kills, reloads and drills until the end.
fn torment(
    suite: &mut Suite,
    senders: &[Sender],
    end: Instant,
    memory: &mut Memory,
) -> Result<Deeds> {
    let mut deeds = Deeds::default();
    let mut born = Instant::now();
    let mut next = born + Duration::from_secs(10);
    while Instant::now() < end {
        std::thread::sleep(LOOK);
        memory.look(suite.holder()?.pid(), born.elapsed().as_secs_f64());
        suite.sniffer.catch_up(&suite.lab.inside)?;
        leaks(suite, senders)?;
        if Instant::now() < next {
            continue;
        }
        match below(5) {
            0 => {
                suite.holder()?.kill()?;
                std::thread::sleep(Duration::from_millis(below(3000)));
                suite
                    .holder()?
                    .launch()
                    .context("no start on its own pins")?;
                born = Instant::now();
                deeds.kills += 1;
            }
            1 | 2 => {
                let mut boundary = Boundary::default();
                boundary
                    .allow
                    .push(format!("203.0.113.{}/32", 240 + below(10)));
                suite.holder()?.reload(boundary)?;
                deeds.reloads += 1;
            }
            3 => {
                suite.holder()?.reload(Boundary::default())?;
                deeds.reloads += 1;
            }
            _ => {
                if let Some(held) = suite.holder()?.drill()? {
                    ensure!(held, "a drill did not hold");
                    deeds.drills += 1;
                }
            }
        }
        next = Instant::now() + Duration::from_secs(5 + below(25));
    }
    Ok(deeds)
}

fn judge(
    said: &BTreeMap<String, u64>,
    leaked: u64,
    arrived: u64,
    (before, after): (&Status, &Status),
    deeds: &Deeds,
    memory: &Memory,
) -> Result<String> {
    let told = |what: &str| said.get(what).copied().unwrap_or(0);
    let grown = |verdict, protocol, hook| {
        decided(after, verdict, protocol, hook) - decided(before, verdict, protocol, hook)
    };
    ensure!(
        said.keys()
            .all(|key| key.ends_with("eperm") || key.starts_with("inside")),
        "the calls said {said:?}"
    );
    let twice = deeds.kills * TWICE_A_RESTART;
    let mut lines = Vec::new();
    // A drill tries ways of its own, which are refused and counted as well.
    for (what, counted, expected) in [
        ("udp refused", grown("deny", "udp", None), told("udp eperm")),
        ("tcp refused", grown("deny", "tcp", None), told("tcp eperm")),
        (
            "udp let through",
            grown("allow", "udp", Some("egress")),
            arrived,
        ),
    ] {
        ensure!(
            counted >= expected,
            "{what}: the kernel counted {counted}, there were {expected}"
        );
        let more = counted - expected;
        ensure!(
            more <= twice || deeds.drills > 0,
            "{what}: the kernel counted {counted}, there were {expected}"
        );
        lines.push(format!("{what} {expected} (counted {more} more)"));
    }
    ensure!(
        arrived == told("inside sent"),
        "{} were sent inside, {arrived} arrived",
        told("inside sent")
    );
    let growth = memory.growth();
    let flat = growth.is_none_or(|growth| growth < MOST_GROWTH);
    let growth = growth.map_or_else(
        || "not known".to_owned(),
        |growth| format!("{growth:.0} KiB/min"),
    );
    ensure!(flat, "the agent's memory grows by {growth}");
    Ok(format!(
        "{leaked} leaks; {}; {} kills, {} reloads, {} drills; memory at most {:.0} KiB, growth {growth}",
        lines.join(", "),
        deeds.kills,
        deeds.reloads,
        deeds.drills,
        memory.largest
    ))
}
