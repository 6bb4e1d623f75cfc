//! One vector, one run: start the probe, keep it company, look, judge.

use super::Suite;
use super::child::Running;
use super::verdict::{self, Attempt, Outcome, Sighting};
use crate::catalog::{Oracle, VECTORS, Vector};
use crate::holder::{self, SeenEvent};
use crate::job::Line;
use crate::lab::{self, Phase};
use anyhow::{Context as _, Result};
use std::net::IpAddr;
use std::time::Duration;

/// Long enough for a first retransmission (`TCP_RTO_MIN` is 200 ms).
const RETRANSMISSION: Duration = Duration::from_millis(450);
/// How long an event may take to arrive.
const REPORT: Duration = Duration::from_secs(30);

/// Runs the vector and says what it came to.
pub(super) fn judge(suite: &mut Suite, vector: &'static Vector, phase: Phase) -> Outcome {
    let outcome = attempt(suite, vector, phase)
        .unwrap_or_else(|error| Outcome::Fail(format!("could not be tried: {error:#}")));
    match (outcome, holder::others()) {
        (Outcome::Fail(why), others) if !others.is_empty() => {
            let others = others.join(", ");
            Outcome::Fail(format!("{why} (other agents hold this host too: {others})"))
        }
        (outcome, _) => outcome,
    }
}

fn attempt(suite: &mut Suite, vector: &'static Vector, phase: Phase) -> Result<Outcome> {
    let number = VECTORS.iter().position(|other| other.name == vector.name);
    let number = u8::try_from(number.context("not in the table")? + 1)?;
    let mut job = suite.job(vector.name, phase, number)?;
    job.count = vector.repeats;
    let position = suite
        .holder
        .as_ref()
        .map_or(0, |holder| holder.log.position());
    let mut running = suite.start(job)?;
    let seen = watch(suite, vector, phase, &mut running)?;
    let outcome = match phase {
        Phase::Control | Phase::Teeth => verdict::unguarded(vector, &seen),
        Phase::Cgroup | Phase::Tree => {
            let outcome = verdict::guarded(vector, phase, &seen, &suite.status);
            with_events(suite, vector, phase, &running, &seen, position, outcome)
        }
    };
    running.end()?;
    if vector.repeats > 1
        && let Some(holder) = &suite.holder
    {
        holder.log.settle(REPORT);
    }
    Ok(outcome)
}

/// Plays the suite's part until the probe is through, then reads the sniffer.
fn watch(suite: &Suite, vector: &Vector, phase: Phase, running: &mut Running) -> Result<Sighting> {
    let mut seen = Sighting::default();
    let addresses = running.addresses();
    let marker = running.job.marker.clone();
    let mut baseline = None;
    let mut connections = Vec::new();
    loop {
        match running.line()? {
            Line::Ready => {
                suite.sniffer.catch_up(&suite.lab.inside)?;
                baseline = Some(suite.sniffer.tally(&marker, &addresses));
                running.go()?;
            }
            Line::Listening { port } => {
                let source = running.job.denied(vector.v6);
                connections.push(lab::connect_in(&suite.lab, source, port)?);
                running.go()?;
            }
            Line::Attempt {
                pid,
                errno,
                elapsed_us,
                ..
            } => seen.attempts.push(Attempt {
                pid,
                errno,
                elapsed: Duration::from_micros(elapsed_us),
            }),
            Line::Inside { errors } => seen.inside = Some(errors),
            Line::Families { created } => seen.families = Some(created),
            Line::Counts { .. } => {}
            Line::Done => break,
            Line::Broken { why } => anyhow::bail!("the probe broke down: {why}"),
        }
    }
    if phase_is_guarded(phase) && retransmits(vector) {
        std::thread::sleep(RETRANSMISSION);
    }
    suite.sniffer.catch_up(&suite.lab.inside)?;
    let baseline = baseline.context("the probe never came to open the GPU")?;
    seen.tally = suite.sniffer.tally(&marker, &addresses).since(baseline);
    Ok(seen)
}

/// Where nobody is held there is nothing to try again.
fn phase_is_guarded(phase: Phase) -> bool {
    matches!(phase, Phase::Cgroup | Phase::Tree)
}

/// Whether the kernel would try again by itself what it could not send.
fn retransmits(vector: &Vector) -> bool {
    let names = ["tcp-older", "tcp-reply", "passed-tcp", "passed-listener"];
    names.iter().any(|name| vector.name.starts_with(name))
}

/// A case that held must also have been reported.
fn with_events(
    suite: &Suite,
    vector: &Vector,
    phase: Phase,
    running: &Running,
    seen: &Sighting,
    position: usize,
    outcome: Outcome,
) -> Outcome {
    let (Outcome::Pass(answers), Some(holder)) = (&outcome, &suite.holder) else {
        return outcome;
    };
    let mut pids: Vec<u32> = seen.attempts.iter().map(|attempt| attempt.pid).collect();
    pids.push(running.pid());
    let addresses = running.addresses();
    let wanted = |event: &SeenEvent| reported(vector, event, &pids, addresses);
    let Some(event) = holder.log.wait(position, REPORT, wanted) else {
        let came: Vec<_> = holder
            .log
            .after(position)
            .iter()
            .take(6)
            .map(brief)
            .collect();
        return Outcome::Fail(format!("held ({answers}) but not reported; came: {came:?}"));
    };
    if vector.leaves && phase == Phase::Cgroup {
        let left = |event: &SeenEvent| {
            event.kind == "left" && (pids.contains(&event.pid) || pids.contains(&event.other))
        };
        if holder.log.wait(position, REPORT, left).is_none() {
            return Outcome::Fail("held, but that it left its cgroup was not reported".to_owned());
        }
    }
    Outcome::Pass(format!("{answers} by {} ({})", event.hook, event.reason))
}

fn reported(vector: &Vector, event: &SeenEvent, pids: &[u32], addresses: [IpAddr; 4]) -> bool {
    let hook = vector.hooks.is_empty() || vector.hooks.iter().any(|hook| event.hook == *hook);
    // At egress the socket's maker is all there is: with a passed socket, or in
    // a softirq, that is not who sent.
    let pid = event.pid == 0 || event.hook == "egress" || pids.contains(&event.pid);
    let anywhere = vector.elsewhere || vector.oracle == Oracle::Answer;
    let address = anywhere
        || event
            .address
            .is_some_and(|address| addresses.contains(&address));
    // Without an address to tell cases apart, the process must.
    let own = !anywhere || event.pid != 0 || event.hook == "egress";
    // Refused for what they are, before there is an address.
    let by_kind = [
        "family",
        "socket_option",
        "not_ip",
        "tunnel",
        "privilege",
        "kernel",
        "intrusion",
        "filesystem",
        "deputy",
    ];
    let family = by_kind.contains(&event.reason.as_str()) && event.pid != 0;
    event.verdict == "deny" && pid && own && (family || (hook && address))
}

fn brief(event: &SeenEvent) -> String {
    let SeenEvent {
        kind,
        verdict,
        hook,
        pid,
        address,
        ..
    } = event;
    let address = address.map_or_else(String::new, |address| address.to_string());
    format!("{kind} {verdict} {hook} pid {pid} {address}")
}
