//! Trials that are more than one vector: many processes at once, an agent that
//! dies, a ring buffer that fills, a boundary that changes.

use super::child::Running;
use super::verdict::Outcome;
use super::{Suite, number};
use crate::holder::{Boundary, SeenEvent};
use crate::job::Line;
use crate::lab::Phase;
use crate::sniffer::Tally;
use anyhow::{Context as _, Result, bail, ensure};
use std::time::{Duration, Instant};

/// A sender's pause in microseconds: short enough to meet any gap.
const RELENTLESS: u32 = 300;
/// One that leaves the event reader time to follow.
const LEISURELY: u32 = 10_000;

/// One trial.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) name: &'static str,
    pub(crate) says: &'static str,
    pub(crate) cases: &'static str,
    /// Where BPF LSM does not load there is nothing to try.
    pub(super) needs_lsm: bool,
    pub(super) run: fn(&mut Suite) -> Result<String>,
}

/// All of them, those that leave the agent a backlog of events last. Their
/// addresses are numbered from 201: no vector's.
pub(crate) const TRIALS: &[Trial] = &[
    Trial {
        name: "shell",
        says: "an operator's shell is not cut off by what it starts",
        cases: "B32",
        needs_lsm: false,
        run: shell,
    },
    Trial {
        name: "reload",
        says: "a new boundary cuts the live connections it forbids, and only a new one restores them",
        cases: "B33 B52",
        needs_lsm: false,
        run: reload,
    },
    Trial {
        name: "audit",
        says: "an auditing boundary lets through and reports",
        cases: "B55",
        needs_lsm: false,
        run: audit,
    },
    Trial {
        name: "deputies",
        says: "where the boundary refuses deputies, a proxy on loopback does not send",
        cases: "B50",
        needs_lsm: false,
        run: |suite| deputies(suite, &["deputy-loopback"]),
    },
    Trial {
        name: "deputies-unix",
        says: "where it does, a daemon on a Unix socket does not, by an older connection neither",
        cases: "B48 B49 B70",
        needs_lsm: true,
        run: |suite| deputies(suite, &["deputy-unix", "deputy-unix-older"]),
    },
    Trial {
        name: "storm-tree",
        says: "no process sends in the call after opening the GPU, each its own tree",
        cases: "B34 B18 B31",
        needs_lsm: false,
        run: |suite| storm(suite, Phase::Tree, number("MERESTONE_STORM", 10_000)),
    },
    Trial {
        name: "storm-cgroup",
        says: "no process sends in the call after opening the GPU, each in a new cgroup",
        cases: "B34",
        needs_lsm: false,
        run: |suite| storm(suite, Phase::Cgroup, number("MERESTONE_STORM", 10_000) / 5),
    },
    Trial {
        name: "restart",
        says: "a continuous sender stays held while the agent is killed and restarted",
        cases: "B57",
        needs_lsm: false,
        run: restart,
    },
    Trial {
        name: "full-ring",
        says: "a full ring buffer loses events, counts them, and holds every packet",
        cases: "B54 B53",
        needs_lsm: false,
        run: full_ring,
    },
];

/// A running probe and what the sniffer had seen when it was let go.
struct Watched {
    running: Running,
    baseline: Tally,
}

impl Watched {
    fn since(&self, suite: &Suite) -> Result<Tally> {
        suite.sniffer.catch_up(&suite.lab.inside)?;
        let (marker, addresses) = (&self.running.job.marker, self.running.addresses());
        Ok(suite.sniffer.tally(marker, &addresses).since(self.baseline))
    }
}

/// Starts a job and lets it open the GPU.
fn begin(suite: &Suite, job: &str, phase: Phase, number: u8, count: u32) -> Result<Watched> {
    let mut orders = suite.job(job, phase, number)?;
    orders.count = count;
    let mut running = suite.start(orders)?;
    running.ready()?;
    let addresses = running.addresses();
    let baseline = suite.sniffer.tally(&running.job.marker, &addresses);
    running.go()?;
    Ok(Watched { running, baseline })
}

fn only_refused(outcomes: &[(String, u64)]) -> Result<u64> {
    match outcomes {
        [(name, count)] if name == "eperm" => Ok(*count),
        _ => bail!("the calls said {outcomes:?}"),
    }
}

fn storm(suite: &mut Suite, phase: Phase, count: u32) -> Result<String> {
    // The sniffer must be able to see a storm, or its silence means nothing.
    let few = 200;
    let (outcomes, tally, _) = storm_once(suite, Phase::Control, few)?;
    // Not the markers: an error message about an echo nobody waits for quotes one.
    ensure!(
        tally.data == u64::from(few),
        "unguarded: {few} sent, {tally}, calls said {outcomes:?}"
    );
    let (outcomes, tally, took) = storm_once(suite, phase, count)?;
    ensure!(
        tally == Tally::default(),
        "LEAK: {tally}; calls said {outcomes:?}"
    );
    let refused = only_refused(&outcomes)?;
    ensure!(
        refused == u64::from(count),
        "{refused} of {count} were refused"
    );
    Ok(format!(
        "{count} processes, 0 packets, {:.1} s",
        took.as_secs_f64()
    ))
}

type Storm = (Vec<(String, u64)>, Tally, Duration);

fn storm_once(suite: &Suite, phase: Phase, count: u32) -> Result<Storm> {
    let number = if phase == Phase::Tree { 201 } else { 202 };
    let mut orders = suite.job("storm", phase, number)?;
    orders.workers = 4;
    orders.count = count;
    let begin = Instant::now();
    let mut running = suite.start(orders)?;
    let (marker, addresses) = (running.job.marker.clone(), running.addresses());
    let before = suite.sniffer.tally(&marker, &addresses);
    let outcomes = running.counts()?;
    let took = begin.elapsed();
    suite.sniffer.catch_up(&suite.lab.inside)?;
    let tally = suite.sniffer.tally(&marker, &addresses).since(before);
    running.end()?;
    Ok((outcomes, tally, took))
}

fn shell(suite: &mut Suite) -> Result<String> {
    let orders = suite.job("shell", Phase::Tree, 203)?;
    let mut running = suite.start(orders)?;
    running.ready()?;
    running.go()?;
    // The GPU process says Done first, the shell itself last.
    let mut done = 0;
    while done < 2 {
        match running.line()? {
            Line::Counts { outcomes } => drop(only_refused(&outcomes)?),
            Line::Attempt { errno, .. } => {
                ensure!(errno.is_none(), "the shell was refused: errno {errno:?}");
            }
            Line::Inside { errors } => ensure!(errors.is_empty(), "the shell cannot: {errors:?}"),
            Line::Done => done += 1,
            _ => {}
        }
    }
    suite.sniffer.catch_up(&suite.lab.inside)?;
    let shell = suite
        .sniffer
        .tally(&running.job.marker, &[running.job.denied6.into()]);
    let child = suite.sniffer.tally("", &[running.job.denied4.into()]);
    ensure!(
        shell.data == 2,
        "of the shell and its other child 2 must arrive: {shell}"
    );
    ensure!(child.packets() == 0, "LEAK of the GPU process: {child}");
    running.end()?;
    Ok("GPU child held, shell and its other child free".to_owned())
}

fn restart(suite: &mut Suite) -> Result<String> {
    // On an emulated processor a start takes a minute of its own.
    let (rounds, pause) = if super::quick() {
        (1, LEISURELY)
    } else {
        (3, RELENTLESS)
    };
    let mut senders = vec![
        begin(suite, "sender", Phase::Cgroup, 204, pause)?,
        begin(suite, "sender", Phase::Tree, 205, pause)?,
    ];
    std::thread::sleep(Duration::from_millis(200));
    for round in 0..rounds {
        suite.holder()?.kill()?;
        std::thread::sleep(Duration::from_millis(200));
        if round == 0 {
            // Opened while there is no agent: the kernel needs none.
            senders.push(begin(suite, "sender", Phase::Cgroup, 206, pause)?);
        }
        suite
            .holder()?
            .launch()
            .context("the agent does not start on its own pins")?;
        std::thread::sleep(Duration::from_millis(200));
        for sender in &senders {
            let tally = sender.since(suite)?;
            ensure!(tally == Tally::default(), "LEAK in round {round}: {tally}");
        }
    }
    let mut refused = 0;
    for sender in &mut senders {
        refused += only_refused(&sender.running.counts()?)?;
    }
    for sender in senders {
        let tally = sender.since(suite)?;
        ensure!(tally == Tally::default(), "LEAK: {tally}");
        sender.running.end()?;
    }
    Ok(format!(
        "killed and restarted {rounds} times, {refused} sends refused, 0 packets"
    ))
}

fn full_ring(suite: &mut Suite) -> Result<String> {
    let count = number("MERESTONE_FLOOD", 60_000);
    let before: u64 = suite.holder()?.status()?.lost.values().sum();
    suite.holder()?.freeze()?;
    let flooded = flood(suite, count);
    suite.holder()?.thaw()?;
    flooded?;
    let status = suite.holder()?.status()?;
    let lost = status.lost.values().sum::<u64>() - before;
    ensure!(
        lost > 0,
        "the ring did not fill, or nobody counted: {:?}",
        status.lost
    );
    Ok(format!(
        "{count} sends refused, 0 packets, {lost} events lost and counted"
    ))
}

fn flood(suite: &Suite, count: u32) -> Result<()> {
    let mut sender = begin(suite, "flood", Phase::Cgroup, 207, count)?;
    let refused = only_refused(&sender.running.counts()?)?;
    ensure!(
        refused == u64::from(count),
        "{refused} of {count} were refused"
    );
    let tally = sender.since(suite)?;
    ensure!(tally == Tally::default(), "LEAK: {tally}");
    sender.running.end()
}

fn reload(suite: &mut Suite) -> Result<String> {
    let plain = Boundary::default();
    let mut wide = plain.clone();
    for network in [
        "203.0.113.208/32",
        "203.0.113.209/32",
        "2001:db8:66:2::d0/128",
    ] {
        wide.allow.push(network.to_owned());
    }
    suite.holder()?.reload(wide.clone())?;
    let outcome = cut_and_restore(suite, &plain, &wide);
    suite.holder()?.reload(plain)?;
    outcome
}

fn cut_and_restore(suite: &mut Suite, plain: &Boundary, wide: &Boundary) -> Result<String> {
    let mut datagrams = begin(suite, "sender", Phase::Cgroup, 208, LEISURELY)?;
    let mut stream = begin(suite, "streamer", Phase::Cgroup, 209, 1)?;
    flows(
        suite,
        &mut [&mut datagrams, &mut stream],
        "inside the first boundary",
    )?;
    suite.holder()?.reload(plain.clone())?;
    let pause = Duration::from_millis(30);
    std::thread::sleep(pause);
    for sender in [&mut datagrams, &mut stream] {
        sender.baseline = Tally::default();
        sender.baseline = sender.since(suite)?;
    }
    std::thread::sleep(Duration::from_millis(700));
    for sender in [&datagrams, &stream] {
        let tally = sender.since(suite)?;
        ensure!(
            tally == Tally::default(),
            "LEAK: not cut by the reload: {tally}"
        );
    }
    suite.holder()?.reload(wide.clone())?;
    flows(
        suite,
        &mut [&mut datagrams, &mut stream],
        "after the boundary came back",
    )?;
    for mut sender in [datagrams, stream] {
        sender.running.counts()?;
        sender.running.end()?;
    }
    Ok("TCP and UDP cut at once, restored by the next reload".to_owned())
}

/// Waits until each sender's packets arrive; TCP backs off meanwhile.
fn flows(suite: &Suite, senders: &mut [&mut Watched], when: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    for sender in senders {
        while sender.since(suite)?.markers < 3 {
            ensure!(Instant::now() < deadline, "does not flow {when}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

fn audit(suite: &mut Suite) -> Result<String> {
    let position = suite.holder()?.log.position();
    let audit = Boundary {
        audit: true,
        ..Boundary::default()
    };
    suite.holder()?.reload(audit)?;
    let outcome = audited(suite, position);
    suite.holder()?.reload(Boundary::default())?;
    outcome?;
    let mut sender = begin(suite, "sender", Phase::Cgroup, 211, LEISURELY)?;
    std::thread::sleep(Duration::from_millis(50));
    let tally = sender.since(suite)?;
    ensure!(
        tally == Tally::default(),
        "LEAK: enforce did not come back: {tally}"
    );
    only_refused(&sender.running.counts()?)?;
    sender.running.end()?;
    Ok("let through, reported as audit, held again in enforce".to_owned())
}

/// Unix sockets are refused where BPF LSM sees them, loopback everywhere.
fn deputies(suite: &mut Suite, names: &[&str]) -> Result<String> {
    let refuse = Boundary {
        deny_deputies: true,
        ..Boundary::default()
    };
    suite.holder()?.reload(refuse)?;
    let mut held = Ok(());
    suite.round += 1;
    for name in names {
        let vector = crate::catalog::find(name).context("no such vector")?;
        match super::case::judge(suite, vector, Phase::Cgroup) {
            Outcome::Pass(_) => {}
            other => {
                held = Err(anyhow::anyhow!("{name}: {other:?}"));
                break;
            }
        }
    }
    suite.holder()?.reload(Boundary::default())?;
    held.map(|()| "each refused, reported, and nothing left".to_owned())
}

fn audited(suite: &mut Suite, position: usize) -> Result<()> {
    let mut sender = begin(suite, "sender", Phase::Cgroup, 210, LEISURELY)?;
    flows(suite, &mut [&mut sender], "in audit")?;
    sender.running.counts()?;
    let addresses = sender.running.addresses();
    let wanted = |event: &SeenEvent| {
        let address = event
            .address
            .is_some_and(|address| addresses.contains(&address));
        event.verdict == "audit" && address
    };
    let event = suite
        .holder()?
        .log
        .wait(position, Duration::from_secs(60), wanted);
    event.context("let through but not reported")?;
    sender.running.end()
}
