//! The page of `bench attest`: the bounds first, then what they rest on.
#![expect(
    clippy::cast_precision_loss,
    reason = "numbers of a page, far below what a float holds"
)]

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::attest::{Bundle, Cost, Measured};
use crate::shell;

/// Median and quartiles.
#[derive(Clone, Copy, Debug)]
struct Spread {
    low: f64,
    median: f64,
    high: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let last = values.len().saturating_sub(1);
        let at = |quarter: usize| values.get(last * quarter / 4).copied().unwrap_or(0.0);
        Self {
            low: at(1),
            median: at(2),
            high: at(3),
        }
    }

    fn shown(self, digits: usize) -> String {
        let Self { low, median, high } = self;
        format!("{median:.digits$} ({low:.digits$}–{high:.digits$})")
    }
}

/// What a regulator's command took, over its rounds.
fn seconds(costs: &[Cost]) -> Spread {
    Spread::of(costs.iter().map(|cost| cost.wall.as_secs_f64()))
}

fn processor(costs: &[Cost]) -> Spread {
    Spread::of(costs.iter().map(|cost| cost.processor.as_secs_f64()))
}

/// The most of any round.
fn mebibytes(costs: &[Cost]) -> f64 {
    costs.iter().map(|cost| cost.peak_kib).max().unwrap_or(0) as f64 / 1024.0
}

fn number(of: &Value, key: &str) -> Result<f64> {
    let found = of.get(key).and_then(Value::as_f64);
    found.with_context(|| format!("the measure told no {key}"))
}

/// The whole page.
pub(super) fn page(measured: &Measured) -> Result<String> {
    let mut page = String::from(HEAD);
    machine(&mut page)?;
    bounds(&mut page, measured)?;
    log(&mut page, measured)?;
    bundles(&mut page, &measured.bundles)?;
    proofs(&mut page, &measured.proofs)?;
    tree(&mut page, &measured.tree)?;
    page.push_str(PEER);
    Ok(page)
}

const HEAD: &str = "# Benchmarks of the evidence

What evidence costs, to write and to verify, as `cargo xtask bench attest` measured it; the command writes this page.
A record is one of an inference in a pod, observed by the kernel, with every field that such a record has. Values are the
median of the rounds with their quartiles in brackets; memory is the most of any round.

";

fn machine(page: &mut String) -> Result<()> {
    let read = |path: &str| {
        fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let cpus = read("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model
        .unwrap_or_default()
        .trim_start_matches([' ', '\t', ':']);
    let count = cpus
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let hashing = if cpus.contains("sha_ni") {
        "with"
    } else {
        "without"
    };
    let load = read("/proc/loadavg");
    let date = shell::read(shell::command("date").args(["--utc", "+%Y-%m-%d"]))?;
    writeln!(
        page,
        "| | |\n|---|---|\n| processor | {model}, {count} processors, {hashing} SHA instructions |\n\
         | kernel | Linux {} |\n| date | {} |\n| load of the machine at the end | {} (1, 5, 15 minutes) |",
        read("/proc/sys/kernel/osrelease"),
        date.trim(),
        load.split(' ').take(3).collect::<Vec<_>>().join(" "),
    )?;
    Ok(())
}

fn bound(page: &mut String, what: &str, limit: &str, got: &str, met: bool) -> Result<()> {
    let verdict = if met { "met" } else { "**missed**" };
    writeln!(page, "| {what} | {limit} | {got} | {verdict} |")?;
    Ok(())
}

fn bounds(page: &mut String, measured: &Measured) -> Result<()> {
    writeln!(
        page,
        "\n## Bounds\n\n| what | bound | measured | |\n|---|---|---|---|"
    )?;
    let rate = measured.log.first().context("no run of the log")?;
    let rate = number(rate, "per_second")?;
    let what = "records sustained to the disk, each with a receipt's signature, one quote an epoch";
    bound(
        page,
        what,
        "10,000/s",
        &format!("{rate:.0}/s"),
        rate >= 10_000.0,
    )?;
    let big = measured.bundles.last().context("no bundle")?;
    let what = |what: &str| format!("{} records verified, {what}", big.records);
    let wall = seconds(&big.whole);
    let text = format!("{} s", wall.shown(2));
    bound(
        page,
        &what("time"),
        "10 s on two cores",
        &text,
        wall.high < 10.0,
    )?;
    let memory = mebibytes(&big.whole);
    let text = format!("{memory:.0} MiB");
    bound(page, &what("memory"), "256 MiB", &text, memory < 256.0)?;
    let record = number(&big.about, "record_bytes")?;
    let proof = number(&big.about, "proof_bytes")?;
    bound(
        page,
        "a record",
        "1,024 bytes",
        &format!("{record:.0} bytes"),
        record < 1024.0,
    )?;
    let joined = number(&big.about, "consistency_bytes")?;
    let full = number(&big.about, "receipt_bytes")?;
    let observed = number(&big.about, "observed_receipt_bytes")?;
    for (what, got) in [
        ("a receipt (COSE), of a bound record with every claim", full),
        (
            "a receipt (COSE), of a record that the kernel saw",
            observed,
        ),
        ("an inclusion proof", proof),
        ("a consistency proof, from the middle", joined),
    ] {
        let text = format!("{got:.0} bytes");
        bound(page, what, "1,024 bytes", &text, got < 1024.0)?;
    }
    Ok(())
}

fn log(page: &mut String, measured: &Measured) -> Result<()> {
    writeln!(
        page,
        "\n## Writing\n\nThe agent's own log, sealer and TPM code on swtpm; the time goes on until the last record is \
         synced and under a quote.\n\n| run | records/s | records | epochs | seal p50, ms | seal p99, ms | 64 \
         records p50, ms | p99, ms | bytes a record on disk | memory, MiB |\n|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for (name, run) in ["as fast as it goes", "10,000 asked for"]
        .iter()
        .zip(&measured.log)
    {
        let get = |key| number(run, key);
        writeln!(
            page,
            "| {name} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.2} | {:.2} | {:.0} | {:.0} |",
            get("per_second")?,
            get("records")?,
            get("epochs")?,
            get("seal_ms_p50")?,
            get("seal_ms_p99")?,
            get("batch_ms_p50")?,
            get("batch_ms_p99")?,
            get("bytes_per_record")?,
            get("peak_kib")? / 1024.0,
        )?;
    }
    writeln!(
        page,
        "\n*Seal*: the sync of the records, the statement, the extend, the quote and its sync."
    )?;
    Ok(())
}

fn bundles(page: &mut String, bundles: &[Bundle]) -> Result<()> {
    writeln!(
        page,
        "\n## Verifying\n\n`merestone-verify bundle`, start to end, with the digest of the file that it prints; 1,000 \
         records an epoch, a quote each.\n\n| records | file, MB | seconds | of all processors | µs a record | memory, \
         MiB | one record's proof, bytes | one record's file, seconds | its memory, MiB |\n|---|---|---|---|---|---|---|---|---|"
    )?;
    for bundle in bundles {
        let (wall, worked) = (seconds(&bundle.whole), processor(&bundle.whole));
        writeln!(
            page,
            "| {} | {:.1} | {} | {} | {:.2} | {:.0} | {:.0} | {} | {:.0} |",
            bundle.records,
            bundle.bytes as f64 / 1e6,
            wall.shown(2),
            worked.shown(2),
            wall.median * 1e6 / bundle.records as f64,
            mebibytes(&bundle.whole),
            number(&bundle.about, "proof_bytes")?,
            seconds(&bundle.single).shown(3),
            mebibytes(&bundle.single),
        )?;
    }
    writeln!(
        page,
        "\nThe file of one record here has every epoch of its session, so that nothing in between can be left out; its time \
         is that of their quotes."
    )?;
    one(page, bundles)
}

/// What a client gets for an inference.
fn one(page: &mut String, bundles: &[Bundle]) -> Result<()> {
    writeln!(
        page,
        "\nThe file of one receipt as the agent writes it has the receipt (COSE), its leaf, the proof, and the one epoch \
         that seals it:\n\n| records in the log | file, bytes | `merestone-verify receipt`, seconds | memory, MiB | \
         judged by the library alone, ms |\n|---|---|---|---|---|"
    )?;
    for bundle in bundles {
        writeln!(
            page,
            "| {} | {:.0} | {} | {:.0} | {:.3} |",
            bundle.records,
            number(&bundle.about, "one_bytes")?,
            seconds(&bundle.one).shown(4),
            mebibytes(&bundle.one),
            number(&bundle.about, "one_us")? / 1e3,
        )?;
    }
    writeln!(
        page,
        "\nOf that time is the start of the program and the digest of the file; the library checks two quotes, the \
         receipt's signature and the proof."
    )?;
    Ok(())
}

/// A proof's cost as the log grows.
fn proofs(page: &mut String, sizes: &[Vec<Value>]) -> Result<()> {
    writeln!(
        page,
        "\n## Proofs, out of tiles and by hashing\n\nWhat the agent does for a receipt or a bundle: opens the tiles (in \
         the page cache here), makes the proof, verifies it. Beside it what it does where tiles are missing or wrong, \
         without reading the leaf hashes: hashes the whole tree. {} rounds, any leaf, any smaller tree.\n\n\
         | leaves | inclusion, out of tiles, ms | by hashing, ms | bytes, at most | consistency, out of tiles, ms | by \
         hashing, ms | bytes, at most |\n|---|---|---|---|---|---|---|",
        sizes.first().map_or(0, Vec::len)
    )?;
    for rounds in sizes {
        let leaves = number(rounds.first().context("no round of the proofs")?, "leaves")?;
        write!(page, "| {leaves:.0} |")?;
        for what in ["inclusion", "consistency"] {
            let took = |round: &Value, which: usize| -> f64 {
                let pair = round.get(what).and_then(|pair| pair.get(which));
                pair.and_then(Value::as_f64).unwrap_or(0.0) * 1e3
            };
            let of = |which| Spread::of(rounds.iter().map(|round| took(round, which)));
            let hashes = rounds.iter();
            let hashes = hashes.map(|round| number(round, &format!("{what}_hashes")));
            let most = hashes.collect::<Result<Vec<_>>>()?;
            let most = most.into_iter().fold(0.0, f64::max) * 34.0 + 16.0;
            write!(
                page,
                " {} | {} | {most:.0} |",
                of(0).shown(3),
                of(1).shown(3)
            )?;
        }
        writeln!(page)?;
    }
    Ok(())
}

fn tree(page: &mut String, rounds: &[Value]) -> Result<()> {
    let leaves = number(rounds.first().context("no round of the tree")?, "leaves")?;
    writeln!(
        page,
        "\n## The tree beside ct-merkle\n\nCrate `ct-merkle` 0.3 keeps leaves and all nodes in memory; ours keeps the \
         leaf hashes here and only the peaks in the agent. {leaves:.0} leaves of 630 bytes, {} rounds in turns; a ratio \
         is that of one round. Below 1 ours is faster.\n\n| what | ours, ms | theirs, ms | ratio |\n|---|---|---|---|",
        rounds.len()
    )?;
    for (key, what) in [
        ("append", "append all, and the root"),
        ("prove", "make one inclusion proof by hashing all leaves"),
        ("prove_tiles", "make it out of tiles on the disk"),
        ("check", "check it"),
    ] {
        let pair = |round: &Value, which: usize| -> f64 {
            let pair = round.get(key).and_then(|pair| pair.get(which));
            pair.and_then(Value::as_f64).unwrap_or(0.0)
        };
        let of = |which| Spread::of(rounds.iter().map(|round| pair(round, which) * 1e3));
        let ratio = Spread::of(rounds.iter().map(|round| pair(round, 0) / pair(round, 1)));
        writeln!(
            page,
            "| {what} | {} | {} | {} |",
            of(0).shown(3),
            of(1).shown(3),
            ratio.shown(2)
        )?;
    }
    Ok(())
}

const PEER: &str = "
For the file of one receipt and for a bundle the agent makes proofs out of the log's own tiles, a handful of files of 8 KiB (here
they were in the page cache), and verifies them against the sealed roots before it hands them out. Where tiles are missing or
wrong it names them and hashes all leaves again, once for all proofs of that file.

## Beside Tessera

Tessera is the Go library that transparency logs are built with today. Its own page on performance (`docs/performance.md`
of the project `transparency-dev/tessera`, read in November 2026) says that a local log on a machine with 12 cores and a
mirrored pair of SAS disks sustained about 2,900 writes a second without the check for duplicates, and that a free-tier
virtual machine sustained more than 1,500. Those are other machines, other disks and requests over HTTP from thousands of
clients: the figures stand here to show the order of size, and no ratio is made of them.
";
