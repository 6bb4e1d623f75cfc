//! The text of `docs/benchmarks.md`.

use crate::Amount;
use crate::decisions::{FromFile, Row};
use crate::stats::{Spread, ratios};
use crate::structures;
use crate::traffic::{FLOOR, GUARDED, LARGE, METRICS, Measured, NOTHING, UNGUARDED};
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::fs;

/// Writes the page.
pub(crate) fn write(
    amount: &Amount,
    file: &FromFile,
    decisions: &[Row],
    traffic: &[Measured],
    structures: &[structures::Row],
) -> Result<String> {
    let mut page = String::new();
    head(&mut page, amount)?;
    bounds(&mut page, file, decisions, traffic)?;
    decisions_table(&mut page, decisions)?;
    traffic_tables(&mut page, traffic)?;
    structures_table(&mut page, file, decisions, structures)?;
    Ok(page)
}

/// A file's text, without what is around it.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn head(page: &mut String, amount: &Amount) -> Result<()> {
    let cpus = read("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name\t: "))
        .unwrap_or("unknown processor");
    let count = std::thread::available_parallelism()?;
    let load = read("/proc/loadavg");
    let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
    let spectre = read("/sys/devices/system/cpu/vulnerabilities/spectre_v2");
    let now = time::OffsetDateTime::now_utc().date();
    write!(
        page,
        "# Benchmarks

What the kernel part costs, as `cargo xtask bench egress` measured it; the command writes this page. Everything compared is
attached at the same time, each in a cgroup and a network namespace of its own, and measured in turns: {} rounds of calls, {}
rounds of decisions. A value is the median of the rounds with its quartiles in brackets; a ratio is that of each round over
the same round of what it is compared with. A round's value is itself the median of 150 connects, or of 128 bursts of 16
datagrams: the machine is shared with other work, and a median leaves out the moments when that ran instead. The tail of the
round trips and the throughput have no such protection.

| | |
|---|---|
| processor | {model}, {count} processors{} |
| kernel | Linux {}, {spectre} |
| date | {now} |
| load of the machine at the end | {load} (1, 5, 15 minutes); this run alone is about 1 |
| programs | {}, optimised |
",
        amount.traffic_rounds,
        amount.decision_rounds,
        if cpus.contains("hypervisor") { ", virtual" } else { "" },
        read("/proc/sys/kernel/osrelease"),
        merestone_agent::bpf::object_sha256().map_or_else(
            || "none".to_owned(),
            |digest| hex::encode(digest.get(..8).unwrap_or_default())
        ),
    )?;
    Ok(())
}

/// One bound of the project, and whether it holds here.
fn bound(page: &mut String, what: &str, limit: &str, got: &str, met: bool) -> Result<()> {
    let verdict = if met { "met" } else { "**missed**" };
    writeln!(page, "| {what} | {limit} | {got} | {verdict} |")?;
    Ok(())
}

#[expect(
    clippy::too_many_lines,
    reason = "one line of the table after the other"
)]
fn bounds(
    page: &mut String,
    file: &FromFile,
    decisions: &[Row],
    traffic: &[Measured],
) -> Result<()> {
    writeln!(
        page,
        "\n## Bounds\n\n| what | bound | measured | |\n|---|---|---|---|"
    )?;
    let ratio = |who: usize, metric: usize| {
        ratios(
            &traffic[who].values[metric],
            &traffic[NOTHING].values[metric],
        )
    };
    let mut share = |what: &str, who: usize, metric: usize, limit: f64| {
        let (got, floor) = (ratio(who, metric), ratio(FLOOR, metric));
        let text = format!("{}; floor {}", got.percent(), floor.percent());
        let bounded = format!("{:.0} %", limit * 100.0);
        bound(page, what, &bounded, &text, got.median <= 1.0 + limit)
    };
    share("unguarded process, connect, loopback", UNGUARDED, 0, 0.01)?;
    share(
        "unguarded process, socket+connect+close, loopback",
        UNGUARDED,
        1,
        0.01,
    )?;
    share("unguarded process, UDP send, loopback", UNGUARDED, 2, 0.03)?;
    share(
        "guarded process, allowed connect, loopback",
        GUARDED,
        0,
        0.03,
    )?;
    share("guarded process, allowed connect, veth", GUARDED, 3, 0.03)?;
    let last = decisions.last().context("nothing measured")?;
    for (what, got) in [
        (
            "guarded established flow, IPv4, over a program that returns",
            last.remembered4_ns,
        ),
        (
            "guarded established flow, IPv6, over a program that returns",
            last.remembered6_ns,
        ),
    ] {
        bound(
            page,
            what,
            "30 ns",
            &format!("{} ns", got.shown(0)),
            got.median <= 30.0,
        )?;
    }
    for (what, metric) in [("connect", 3), ("UDP send", 5)] {
        let got = ratios(
            &traffic[LARGE].values[metric],
            &traffic[GUARDED].values[metric],
        );
        let met = got.low <= 1.0 || got.median <= 1.01;
        let what = format!("{} prefixes against 1,000: {what}, veth", last.prefixes);
        bound(page, &what, "within noise", &got.percent(), met)?;
    }
    let whole = file.parse_s + file.compile_s + last.install_s;
    let text = format!(
        "{whole:.2} s: parse {:.2}, compile {:.2}, into the kernel and live {:.2}",
        file.parse_s, file.compile_s, last.install_s
    );
    let what = format!(
        "{} prefixes from a file of {} MB to enforced",
        file.prefixes,
        file.bytes / 1_000_000
    );
    bound(page, &what, "5 s", &text, whole < 5.0)?;
    writeln!(page, "{FLOOR_TEXT}")?;
    Ok(())
}

const FLOOR_TEXT: &str = "
The floor is the same hooks with programs that only return: what the kernel itself takes to call four programs. A bound below
the floor cannot be met by any program there. What is above the floor is, for the unguarded, two helper calls and three table
reads a hook, with the caches as a real call leaves them; for the guarded also the socket's mark, which is allocated when the
socket is made, the search for the destination, and the event that tells of the connection.";

fn decisions_table(page: &mut String, decisions: &[Row]) -> Result<()> {
    writeln!(
        page,
        "
## A decision

`BPF_PROG_TEST_RUN` of `cgroup_skb/egress`, ns over a program that only returns ({} ns in the kernel's loop).

| prefixes | guarded, remembered, IPv4 | guarded, remembered, IPv6 | guarded, judged anew | first packet, another address each | unguarded |
|---|---|---|---|---|---|",
        decisions.first().map_or_else(String::new, |row| row.floor_ns.shown(0))
    )?;
    for row in decisions {
        writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} |",
            row.prefixes,
            row.remembered4_ns.shown(0),
            row.remembered6_ns.shown(0),
            row.anew_ns.shown(0),
            row.first_ns.shown(0),
            row.unguarded_ns.shown(0)
        )?;
    }
    writeln!(
        page,
        "
*Remembered*: a UDP packet like the socket's last one. *Judged anew*: an ICMP packet, which is never remembered; the caches
are warm. *First packet*: a new socket and an address not asked for before, so that the caches are cold: the decision, the
socket's mark and the remembering, once a connection."
    )?;
    Ok(())
}

fn traffic_tables(page: &mut String, traffic: &[Measured]) -> Result<()> {
    writeln!(
        page,
        "
## Calls

Per scenario the value, and below it how much it is over *nothing*. *Programs that only return* are four, on the hooks that
such a call passes. *nftables* has the same prefixes in two interval sets of an output chain. *systemd's design* is what
`IPAddressAllow=` and `IPAddressDeny=any` load (src/core/bpf-firewall.c), rebuilt instruction by instruction with the same
maps on the cgroup, both ways; [below](#systemds-own-program) it is held against the program that systemd itself loads.
Merestone's link program is on the wires of its own scenarios, twice, since two boundaries are attached at once. The last
scenario has the most prefixes."
    )?;
    traffic_values(page, traffic, false)
}

/// Each scenario's values, and what they are over those of the first. A machine
/// that counts has a nanosecond for each instruction.
pub(crate) fn traffic_values(page: &mut String, traffic: &[Measured], counted: bool) -> Result<()> {
    for metrics in [0..3, 3..6, 6..9] {
        write!(page, "\n| scenario |")?;
        for (name, unit) in &METRICS[metrics.clone()] {
            let unit = match *unit {
                "ns" if counted => "instructions",
                "Gbit/s" if counted => "bits an instruction",
                other => other,
            };
            write!(page, " {name}, {unit} |")?;
        }
        writeln!(page, "\n|---|---|---|---|")?;
        for one in traffic {
            write!(page, "| {} |", one.name)?;
            for metric in metrics.clone() {
                let value = Spread::of(one.values[metric].clone());
                let digits = if metric == 8 { 2 } else { 0 };
                let over = ratios(&one.values[metric], &traffic[NOTHING].values[metric]);
                write!(page, " {}<br>{} |", value.shown(digits), over.percent())?;
            }
            writeln!(page)?;
        }
    }
    Ok(())
}

fn structures_table(
    page: &mut String,
    file: &FromFile,
    decisions: &[Row],
    structures: &[structures::Row],
) -> Result<()> {
    writeln!(
        page,
        "
## Structures

Each candidate as the smallest program that looks one IPv4 address up in it. *Same*: one address again and again, ns over a
program that returns. *Random*: another one each time, so that the processor's caches do not help, ns over drawing it.

| structure | prefixes | same | random | load | memory |
|---|---|---|---|---|---|"
    )?;
    for row in structures {
        let one_by_one = row
            .load_one_by_one_s
            .map_or_else(String::new, |seconds| format!(" (one by one {seconds:.2})"));
        writeln!(
            page,
            "| {} | {} | {} | {} | {:.2} s{one_by_one} | {:.1} MB |",
            row.structure,
            row.prefixes,
            row.same_ns.shown(0),
            row.random_ns.shown(0),
            row.load_s,
            row.bytes as f64 / 1e6
        )?;
    }
    let (first, last) = (
        decisions.first().context("nothing measured")?,
        decisions.last().context("nothing measured")?,
    );
    write!(
        page,
        "
Chosen: the trie with a verdict remembered in each socket. A table of every /24 is much the fastest for IPv4, but takes 134 MB
for each generation whatever the boundary, and has no counterpart for IPv6; a hash costs one look-up for each length in use
and cannot hold a wider network around a narrower one without asking for both. The trie serves both families, nesting and
every length from one map. What it costs falls on the first packet of a flow alone: with {} prefixes a remembered packet
costs {} ns, with {} it costs {}. Against a connect of microseconds the difference of the first packet is lost in the noise,
as the bounds above show.

A generation has a trie of its own, in an array of two. It is filled in batches of 4,096 before any program can see it, put in
whole, made live by one write, and the old one is freed by the kernel in its own time. Going from {} to {} prefixes took
{:.2} s from the tables to the live generation, 0.1 s of which is the wait before the old one is let go.
",
        first.prefixes,
        first.remembered4_ns.shown(0),
        last.prefixes,
        last.remembered4_ns.shown(0),
        decisions.len().checked_sub(2).map_or(0, |at| decisions[at].prefixes),
        file.prefixes,
        last.install_s
    )?;
    Ok(())
}
