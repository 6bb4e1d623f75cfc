//! The page.

use crate::Amount;
use crate::real::Told;
use crate::server::{SLOTS, SMALL, TOKEN, TOKENS};
use crate::stage::Stage;
use crate::work::{ANSWERS, CLIENTS, FLOODERS, Taken};
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

/// Median and quartiles.
struct Spread(f64, f64, f64);

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |quarter: usize| {
            values
                .get(values.len().saturating_sub(1) * quarter / 4)
                .copied()
        };
        Self(
            at(1).unwrap_or(0.0),
            at(2).unwrap_or(0.0),
            at(3).unwrap_or(0.0),
        )
    }

    fn shown(&self, digits: usize) -> String {
        let Self(low, median, high) = self;
        format!("{median:.digits$} ({low:.digits$}–{high:.digits$})")
    }

    fn percent(&self) -> String {
        let percent = |ratio: f64| (ratio - 1.0) * 100.0;
        let Self(low, median, high) = self;
        format!(
            "{:+.1} % ({:+.1} to {:+.1})",
            percent(*median),
            percent(*low),
            percent(*high)
        )
    }
}

fn pairs(one: &[f64], floor: &[f64], join: fn(f64, f64) -> f64) -> Spread {
    Spread::of(one.iter().zip(floor).map(|(one, floor)| join(*one, *floor)))
}

fn file(path: &str) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The whole page, in Markdown.
#[expect(clippy::too_many_lines, reason = "a page, from top to bottom")]
pub(crate) fn write(stage: &Stage, amount: Amount, taken: &[Taken]) -> String {
    let mut page = String::new();
    head(&mut page, stage, amount);
    let floor = &taken[0];
    let last = taken.len() - 1;
    let met = |is: bool| if is { "met" } else { "**missed**" };
    let rate = pairs(&taken[last].tokens, &floor.tokens, |one, floor| one / floor);
    page.push_str("\n## Bounds\n\n| what | bound | measured | |\n|---|---|---|---|\n");
    for (arm, taken) in stage.arms.iter().zip(taken).skip(1).step_by(2) {
        let added = pairs(&taken.p50_us, &floor.p50_us, |one, floor| one - floor);
        let is_short = added.1 < 200.0;
        line(
            &mut page,
            &[
                format!("added to a small request, p50, {}", arm.name),
                "200 µs".into(),
                format!("{} µs", added.shown(0)),
                met(is_short).into(),
            ],
        );
    }
    let name = stage.arms[last].name;
    let is_close = rate.1 > 0.98;
    line(
        &mut page,
        &[
            format!("tokens a second of an inference server, {name}"),
            "-2 %".into(),
            rate.percent(),
            met(is_close).into(),
        ],
    );
    page.push_str("\n## Values\n\n| | small p50, µs | small p99, µs | a token's way, µs | tokens/s | small/s, flood | large, MB/s |\n|---|---|---|---|---|---|---|\n");
    for (arm, taken) in stage.arms.iter().zip(taken) {
        let show = |values: &[f64], digits| Spread::of(values.iter().copied()).shown(digits);
        line(
            &mut page,
            &[
                arm.name.into(),
                show(&taken.p50_us, 0),
                show(&taken.p99_us, 0),
                show(&taken.token_us, 0),
                show(&taken.tokens, 0),
                show(&taken.flood, 0),
                show(&taken.large, 0),
            ],
        );
    }
    page.push_str("\n## Over nothing, round by round\n\n| | small p50, µs more | small p99, µs more | tokens/s | small/s, flood | large |\n|---|---|---|---|---|---|\n");
    for (arm, taken) in stage.arms.iter().zip(taken).skip(1) {
        let more =
            |one: &[f64], floor: &[f64]| pairs(one, floor, |one, floor| one - floor).shown(0);
        let over =
            |one: &[f64], floor: &[f64]| pairs(one, floor, |one, floor| one / floor).percent();
        line(
            &mut page,
            &[
                arm.name.into(),
                more(&taken.p50_us, &floor.p50_us),
                more(&taken.p99_us, &floor.p99_us),
                over(&taken.tokens, &floor.tokens),
                over(&taken.flood, &floor.flood),
                over(&taken.large, &floor.large),
            ],
        );
    }
    if let Some(why) = &stage.without_r1 {
        write!(page, "\nR1 was not measured: {why}.\n").ok();
    }
    page.push_str(
        "\nThe flood and the large answer are what a server that computes nothing would lose: the gateway is a process on the same \
         processors, which\nparses, hashes and copies. A server that computes is bound by its device, and the gateway runs meanwhile.\n",
    );
    page
}

fn line(page: &mut String, cells: &[String]) {
    writeln!(page, "| {} |", cells.join(" | ")).ok();
}

fn head(page: &mut String, stage: &Stage, amount: Amount) {
    let cpu = file("/proc/cpuinfo");
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name\t: "))
        .unwrap_or("unknown")
        .to_owned();
    let count = std::thread::available_parallelism().map_or(0, Into::into);
    let Amount {
        rounds,
        asks,
        floods,
        large_bytes,
    } = amount;
    let large = large_bytes >> 20;
    let token_ms = TOKEN.as_secs_f64() * 1000.0;
    write!(
        page,
        "# What the gateway costs\n\n\
         As `cargo xtask bench gateway` measured it; the command writes this page. The same server without and with `merestone \
         gateway`, and both\nagain in a group that the agent guards and records (R1): {rounds} rounds, one after another in each. \
         A value is the median of\nthe rounds with its quartiles in brackets; a difference or ratio is that of each \
         round over the same round of *nothing*. The machine is shared\nwith other work.\n\n\
         - *small*: a request of {SMALL} bytes, an answer of {SMALL} at once; one client, {asks} a round, one after another.\n\
         - *tokens*: an inference server as far as a proxy can tell: {SLOTS} answers at once, {TOKENS} tokens each, one every {token_ms} ms; \
         {CLIENTS} clients, {ANSWERS} answers each a round.\n\
         - *flood*: {FLOODERS} clients, {floods} small requests a round, as fast as they go. *large*: an answer of {large} MiB.\n\n\
         {}\n\n| | |\n|---|---|\n| processor | {cpu}, {count} processors |\n| kernel | Linux {} |\n| load of the machine at the end | {} |\n",
        recorded(stage),
        file("/proc/sys/kernel/osrelease"),
        file("/proc/loadavg"),
    )
    .ok();
}

/// Who took the records, and how many.
fn recorded(stage: &Stage) -> String {
    let taken = stage.records.load(Ordering::Relaxed);
    let mut text = format!(
        "Every answer through a gateway was recorded, with receipts required. *gateway* alone is not guarded, so no agent would take its \
         records:\na stand-in takes them at once ({taken} records)."
    );
    if let Some(real) = &stage.real {
        let Told {
            bound,
            observed,
            lost,
            starts,
        } = real.told;
        write!(
            text,
            " Those of *R1 and gateway* the agent itself took: `merestone run` as it comes, but for the canary, on\nthe root cgroup, \
             with a software TPM and its log on the disk: {bound} bound records, each with its receipt, and {observed} that only the \
             kernel saw; {lost}\nlost. It was started {starts} times, because while *nothing* and *gateway* are measured it is off the kernel."
        )
        .ok();
    }
    text
}
