//! The soak: guarded senders at full rate for a long time, while the agent is
//! killed, reloaded and drilled at random.
//!
//! `$MERESTONE_SOAK_MINUTES` asks for it, in place of the vectors;
//! `$MERESTONE_SOAK_SUMMARY` is a file to write all numbers to, as JSON. At the
//! end: no packet beyond the boundary, every number of the kernel's the same as
//! the senders', every packet let through seen by the sniffer or counted as
//! dropped by the wire, and an agent whose memory has not grown.
//!
//! Kills come in the first half. In the second the agent lives on, under
//! reloads and drills: a life of a minute says nothing of its memory.

mod books;
mod memory;

use super::Suite;
use super::child::Running;
use super::report::say;
use crate::holder::Boundary;
use crate::lab::{self, Phase};
use crate::sniffer::Tally;
use anyhow::{Context as _, Result, ensure};
use books::{Account, Books, Deeds, Totals, Wire};
use memory::Memory;
use std::time::{Duration, Instant};

/// Resident memory and leaks are looked at this often.
const LOOK: Duration = Duration::from_secs(1);

/// A number below `limit` from the clock: what falls together is to vary.
fn below(limit: u64) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanoseconds = now.map_or(0, |now| u64::from(now.subsec_nanos()) / 7);
    nanoseconds % limit.max(1)
}

struct Sender {
    running: Running,
    baseline: Tally,
    phase: Phase,
}

/// Runs it; whether all was as it must be.
pub(super) fn run(suite: &mut Suite, minutes: u32) -> Result<bool> {
    ensure!(
        suite.holder()?.counts(),
        "the soak needs the counters of `merestone status`; set MERESTONE_BIN"
    );
    let totals = Totals::of(&suite.holder()?.status()?);
    suite.sniffer.catch_up(&suite.lab.inside)?;
    let wire = wire(suite)?;
    let mut senders = Vec::new();
    for (phase, number) in [(Phase::Cgroup, 220), (Phase::Tree, 221)] {
        senders.push(start(suite, phase, number, minutes * 60)?);
    }
    let begin = Instant::now();
    let span = Duration::from_secs(60 * u64::from(minutes));
    let mut memory = Memory::new();
    let deeds = torment(suite, &senders, (begin, span), &mut memory)?;
    let mut accounts = Vec::new();
    for sender in &mut senders {
        accounts.push(told(sender)?);
    }
    let seconds = begin.elapsed().as_secs().max(1);
    std::thread::sleep(Duration::from_millis(500));
    suite.sniffer.catch_up(&suite.lab.inside)?;
    let leaks = leaks(suite, &senders);
    let wire = self::wire(suite)?.since(wire);
    for (account, sender) in accounts.iter_mut().zip(&senders) {
        count(suite, account, sender.running.pid())?;
    }
    let status = suite.holder()?.status()?;
    for sender in senders {
        sender.running.end()?;
    }
    let sends: u64 = accounts.iter().map(|a| a.sent + a.refused).sum();
    let mut books = Books {
        kernel: kernel(),
        processors: std::thread::available_parallelism().map_or(0, usize::from),
        agent: status.version.clone(),
        tiers: status.tiers.clone(),
        seconds,
        sends_per_second: sends / seconds,
        leaks,
        senders: accounts,
        totals: Totals::of(&status).since(totals),
        others: Totals::default(),
        canary: status.canary,
        wire,
        deeds,
        memory: memory.flat(),
        lost_events: status.lost.clone(),
        faults: Vec::new(),
    };
    books.audit();
    tell(&books, minutes)?;
    Ok(books.faults.is_empty())
}

fn tell(books: &Books, minutes: u32) -> Result<()> {
    if let Some(path) = std::env::var_os("MERESTONE_SOAK_SUMMARY") {
        let text = serde_json::to_string_pretty(books)? + "\n";
        std::fs::write(&path, text)
            .with_context(|| format!("cannot write {}", path.to_string_lossy()))?;
    }
    for fault in &books.faults {
        say(&format!("    {fault}"));
    }
    let word = if books.faults.is_empty() {
        "ok"
    } else {
        "FAILED"
    };
    say(&format!(
        "test soak (B57): {minutes} minutes at full rate ... {word}: {}",
        books.line()
    ));
    Ok(())
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// The wire and what the sniffer saw of it.
fn wire(suite: &Suite) -> Result<Wire> {
    let inside = [lab::soaked(false), lab::soaked(true)];
    let own = [crate::job::ALLOWED4.into()];
    Ok(Wire {
        own_sent: suite.sniffer.asked(),
        own_arrived: suite.sniffer.tally("", &own).data,
        arrived: suite.sniffer.tally("", &inside).data,
        ..Wire::read(&suite.lab.inside, &suite.lab.outside)?
    })
}

fn start(suite: &Suite, phase: Phase, number: u8, seconds: u32) -> Result<Sender> {
    let mut orders = suite.job("soaker", phase, number)?;
    orders.count = seconds;
    let mut running = suite.start(orders)?;
    running.ready()?;
    let addresses = running.addresses();
    let baseline = suite.sniffer.tally(&running.job.marker, &addresses);
    running.go()?;
    Ok(Sender {
        running,
        baseline,
        phase,
    })
}

/// Stops a sender, which lives on; what its calls said.
fn told(sender: &mut Sender) -> Result<Account> {
    let mut account = Account {
        guarded_by: format!("{:?}", sender.phase).to_lowercase(),
        ..Account::default()
    };
    for (what, count) in sender.running.stop()? {
        if what == "inside sent" {
            account.sent += count;
        } else if matches!(what.as_str(), "udp eperm" | "tcp eperm") {
            account.refused += count;
        }
        account.told.insert(what, count);
    }
    Ok(account)
}

/// What the kernel counted for the group of a sender.
fn count(suite: &mut Suite, account: &mut Account, pid: u32) -> Result<()> {
    let groups = suite.holder()?.guarded()?;
    let own = groups
        .iter()
        .find(|group| group.processes.iter().any(|process| process.pid == pid))
        .with_context(|| format!("the sender {pid} is in no guarded group: {groups:?}"))?;
    account.allowed = own.allowed;
    account.denied = own.denied;
    account.audited = own.audited;
    Ok(())
}

/// Packets that no sender should have got out.
fn leaks(suite: &Suite, senders: &[Sender]) -> u64 {
    let of = |Sender {
                  running, baseline, ..
              }: &Sender| {
        let seen = suite
            .sniffer
            .tally(&running.job.marker, &running.addresses());
        let tally = seen.since(*baseline);
        tally.packets().max(tally.markers)
    };
    senders.iter().map(of).sum()
}

/// Kills, reloads and drills until the end.
fn torment(
    suite: &mut Suite,
    senders: &[Sender],
    (begin, span): (Instant, Duration),
    memory: &mut Memory,
) -> Result<Deeds> {
    let mut deeds = Deeds::default();
    let mut born = begin;
    let mut next = begin + Duration::from_secs(8);
    while begin.elapsed() < span {
        std::thread::sleep(LOOK);
        memory.look(suite.holder()?.pid(), born.elapsed().as_secs_f64());
        suite.sniffer.catch_up(&suite.lab.inside)?;
        let leaked = leaks(suite, senders);
        ensure!(leaked == 0, "LEAK: {leaked} packets after {deeds:?}");
        for sender in senders {
            sender.running.still_there()?;
        }
        if Instant::now() < next {
            continue;
        }
        let deed = below(5);
        if deed <= 1 && begin.elapsed() < span / 2 {
            suite.holder()?.kill()?;
            std::thread::sleep(Duration::from_millis(below(3000)));
            let started = suite.holder()?.launch();
            started.context("no start on its own pins")?;
            born = Instant::now();
            memory.new_life();
            deeds.kills += 1;
        } else {
            disturb(suite, deed, &mut deeds)?;
        }
        next = Instant::now() + Duration::from_secs(3 + below(18));
    }
    Ok(deeds)
}

/// A reload or a drill; a reload where there are no drills.
fn disturb(suite: &mut Suite, deed: u64, deeds: &mut Deeds) -> Result<()> {
    if deed >= 3
        && let Some(held) = suite.holder()?.drill()?
    {
        ensure!(held, "a drill did not hold");
        deeds.drills += 1;
        return Ok(());
    }
    let mut boundary = Boundary::default();
    if deed.is_multiple_of(2) {
        let other = format!("203.0.113.{}/32", 240 + below(10));
        boundary.allow.push(other);
    }
    suite.holder()?.reload(boundary)?;
    deeds.reloads += 1;
    Ok(())
}
