//! Time: what is attested, what is not and why, as a line and as a table.

use super::tell::{instant, judged, length, moment, more, number, says};
use super::{MOST_ROWS, Page};
use crate::account::Account;
use crate::coverage::{Coverage, Gap};
use crate::verdict::{CheckId, Verdict};
use maud::{Markup, html};

/// Width of the drawing in its own units.
const WIDTH: u64 = 1000;
/// No gap and no event is drawn thinner, or it would not be seen.
const LEAST: u64 = 3;

/// The stretch of time that is drawn and summed.
struct Window {
    from: u64,
    to: u64,
}

impl Window {
    const fn length(&self) -> u64 {
        self.to - self.from
    }

    /// The part of a stretch that lies inside.
    fn clip(&self, from: u64, to: u64) -> Option<(u64, u64)> {
        let (from, to) = (from.max(self.from), to.min(self.to));
        (from < to).then_some((from, to))
    }

    /// Left edge and width in units of the drawing.
    fn place(&self, from: u64, to: u64) -> (u64, u64) {
        let unit = |at: u64| {
            let wide = u128::from(at - self.from) * u128::from(WIDTH);
            u64::try_from(wide / u128::from(self.length().max(1))).unwrap_or(WIDTH)
        };
        let (left, right) = (unit(from), unit(to));
        let width = (right - left).max(LEAST);
        (left.min(WIDTH - LEAST), width)
    }
}

/// Whether time is left out at either end, or told wrongly.
const ENDS: [CheckId; 4] = [
    CheckId::ClockWall,
    CheckId::LogTail,
    CheckId::LogWitness,
    CheckId::PolicyDark,
];

pub(super) fn section(
    coverage: &Coverage,
    account: &Account,
    verdict: &Verdict,
    page: &Page<'_>,
) -> Markup {
    let from = page.from_ms.unwrap_or(account.from_ms);
    let window = Window {
        from,
        to: page.to_ms.unwrap_or(account.to_ms).max(from),
    };
    let gaps = gaps(coverage, account, &window);
    let open = gaps.iter().map(|(from, to, _)| to - from).sum();
    let attested = window.length().saturating_sub(open);
    html! {
        section aria-labelledby="time" {
            h2 #time { "Time" }
            p {
                (instant(window.from)) " to " (instant(window.to)) ", " (length(window.length())) ". "
                @if page.from_ms.is_none() && page.to_ms.is_none() {
                    "This is the period that the maker of the file chose. "
                } @else {
                    "This is the period asked for. "
                }
                b { (length(attested)) " attested, " (length(open)) " not." }
            }
            (drawing(account, &gaps, &window))
            @if gaps.is_empty() {
                p { "No gap: every moment of it lies in an epoch that the TPM sealed." }
            } @else {
                table.stack {
                    caption { "Stretches that are not attested, and why" }
                    thead { tr { th.w12 scope="col" { "From" } th.w12 scope="col" { "To" } th.n.w6 scope="col" { "Length" } th scope="col" { "Why" } } }
                    tbody {
                        @for gap in gaps.iter().take(MOST_ROWS) {
                            tr {
                                td data-h="From" { (instant(gap.0)) }
                                td data-h="To" { (instant(gap.1)) }
                                td.n data-h="Length" { (length(gap.1 - gap.0)) }
                                td data-h="Why" { (gap.2) }
                            }
                        }
                    }
                }
                (more(MOST_ROWS, gaps.len()))
            }
            (account_of(coverage))
            h3 { "Whether anything is left out" }
            (judged(verdict, &ENDS))
            p.note {
                "Attested means: an agent was running, and what it recorded then was sealed afterwards. In a gap nothing is known: "
                "neither that something ran nor that nothing did."
            }
            (says("the host's clock in statements that the TPM sealed, compared with the TPM's own clock"))
        }
    }
}

/// The sums, and what clocks, counters and boots say of the time between sessions.
fn account_of(coverage: &Coverage) -> Markup {
    html! {
        table.stack {
            caption { "All of the time, by what is known of it" }
            thead { tr { th scope="col" { "What" } th.n.w6 scope="col" { "Stretches" } th.n.w8 scope="col" { "Together" } } }
            tbody {
                @for share in &coverage.shares {
                    tr {
                        td data-h="What" { (share.what) }
                        td.n data-h="Stretches" { (number(share.stretches)) }
                        td.n data-h="Together" { (length(share.milliseconds)) }
                    }
                }
            }
        }
        @for reboot in coverage.reboots.iter().take(MOST_ROWS) {
            p { "The host was started anew between " (moment(&reboot.after)) " and " (moment(&reboot.before)) @if !reboot.orderly { ", not in order" } "." }
        }
        @for jump in coverage.clock_jumps.iter().take(MOST_ROWS) {
            p.warn { "From " (moment(&jump.at)) " the host's clock went " (jump.wall_ms) " ms while the TPM's went " (number(jump.tpm_ms)) " ms." }
        }
        @if !coverage.dark.is_empty() {
            table.stack {
                caption { "Energy that GPUs used between sessions, by their own counters as the agent read them" }
                thead { tr { th scope="col" { "GPU" } th.w12 scope="col" { "From" } th.w12 scope="col" { "To" } th.n.w6 scope="col" { "Used" } th.n.w6 scope="col" { "Beyond idle" } } }
                tbody {
                    @for dark in coverage.dark.iter().take(MOST_ROWS) {
                        tr {
                            td data-h="GPU" { code { (dark.uuid) } @if let Some(why) = dark.unknown { " " (why) } }
                            td data-h="From" { (moment(&dark.from)) }
                            td data-h="To" { (moment(&dark.to)) }
                            td.n data-h="Used" { (joules(dark.joules)) }
                            td.n data-h="Beyond idle" { (joules(dark.unexplained_joules)) }
                        }
                    }
                }
            }
            (more(MOST_ROWS, coverage.dark.len()))
        }
    }
}

fn joules(joules: Option<u64>) -> String {
    joules.map_or_else(
        || "not known".to_owned(),
        |joules| format!("{} J", number(joules)),
    )
}

type Open = (u64, u64, &'static str);

fn gaps(coverage: &Coverage, account: &Account, window: &Window) -> Vec<Open> {
    let within = |gap: &Gap| {
        let clipped = window.clip(gap.from_ms, gap.from_ms.saturating_add(gap.ms));
        clipped.map(|(from, to)| (from, to, gap.reason))
    };
    let outside = |from: u64, to: u64| {
        let clipped = window.clip(from, to);
        clipped.map(|(from, to)| (from, to, "outside the period of this file"))
    };
    let before = outside(0, account.from_ms);
    let after = outside(account.to_ms, u64::MAX);
    let inside = coverage.gaps.iter().filter_map(within);
    before.into_iter().chain(inside).chain(after).collect()
}

/// Bars for gaps, with those that touch drawn as one: a month has at most so many.
fn bars(gaps: &[Open], window: &Window) -> Vec<(u64, u64)> {
    let mut bars: Vec<(u64, u64)> = Vec::new();
    for &(from, to, _) in gaps {
        let (left, width) = window.place(from, to);
        match bars.last_mut() {
            Some((start, wide)) if *start + *wide >= left => {
                *wide = (*wide).max(left + width - *start);
            }
            _ => bars.push((left, width)),
        }
    }
    bars
}

fn drawing(account: &Account, gaps: &[Open], window: &Window) -> Markup {
    let sessions = account
        .sessions
        .iter()
        .filter_map(|session| window.clip(session.started_ms, session.last_ms?));
    let ticks: std::collections::BTreeSet<u64> = account
        .happenings
        .iter()
        .filter(|happening| happening.kind != "agent_start" && happening.kind != "agent_stop")
        .filter(|happening| (window.from..=window.to).contains(&happening.time_ms))
        .map(|happening| window.place(happening.time_ms, happening.time_ms).0)
        .collect();
    let said = format!(
        "{} gaps, {} sessions. The table below has the gaps one by one.",
        gaps.len(),
        account.sessions.len()
    );
    html! {
        figure {
            svg.line viewBox="0 0 1000 64" preserveAspectRatio="none" role="img" aria-labelledby="line-t line-d" {
                title #line-t { "Attested and unattested time" }
                desc #line-d { (said) }
                defs { (hatch("h", 9)) }
                @if window.length() > 0 {
                    rect x="0" y="0" width="1000" height="40" fill="#2c6e49" {}
                }
                @for (left, width) in bars(gaps, window) {
                    rect x=(left) y="0" width=(width) height="40" fill="#fff" {}
                    rect x=(left) y="0" width=(width) height="40" fill="url(#h)" {}
                }
                @for (at, (from, to)) in sessions.enumerate().take(MOST_ROWS * 4) {
                    @let (left, width) = window.place(from, to);
                    rect x=(left) y="43" width=(width) height="8" fill=(if at % 2 == 0 { "#16181d" } else { "#8a909c" }) {}
                }
                @for at in &ticks { rect x=(at) y="53" width="3" height="11" fill="#8c1010" {} }
            }
            div.ticks { (instant(window.from)) (instant(window.to)) }
            ul.key {
                li { svg viewBox="0 0 24 14" aria-hidden="true" { rect width="24" height="14" fill="#2c6e49" {} } " attested" }
                li { svg viewBox="0 0 24 14" aria-hidden="true" { defs { (hatch("k", 5)) } rect width="24" height="14" fill="url(#k)" {} } " not attested" }
                li { svg viewBox="0 0 24 14" aria-hidden="true" { rect y="3" width="24" height="8" fill="#16181d" {} } " session (" (number(account.sessions.len() as u64)) ")" }
                li { svg viewBox="0 0 24 14" aria-hidden="true" { rect x="10" width="4" height="14" fill="#8c1010" {} } " event, see What happened" }
            }
        }
    }
}

/// Stripes, so that a gap is seen on a black and white print too.
fn hatch(id: &str, step: u32) -> Markup {
    html! {
        pattern id=(id) width=(step) height=(step) patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
            rect width=(step) height=(step) fill="#fff" {}
            rect width=(step / 2) height=(step) fill="#b4530a" {}
        }
    }
}
