//! Small words that every section uses.

use super::top::title;
use crate::coverage::rfc3339;
use crate::verdict::{CheckId, CheckResult, Source, Verdict};
use maud::{Markup, html};

/// Characters of a detail on the first screen.
const LONG: usize = 160;
/// Results of one check in a section; every check has them all.
const MOST_ALIKE: usize = 3;

/// An instant, to the second.
pub(super) fn instant(ms: u64) -> Markup {
    let exact = rfc3339(ms);
    let shown = exact
        .get(..19)
        .filter(|_| exact.ends_with('Z'))
        .map_or_else(|| exact.clone(), |text| text.replacen('T', " ", 1) + " UTC");
    html! { time datetime=(exact) { (shown) } }
}

/// An instant that the verdict has as text, to what it has; its day may stand above its time.
pub(super) fn moment(text: &str) -> Markup {
    let parts = text.strip_suffix('Z').and_then(|text| text.split_once('T'));
    html! {
        @match parts {
            Some((day, time)) => time.apart datetime=(text) { span { (day) } " " span { (time) " UTC" } },
            None => bdi { (text) },
        }
    }
}

/// What became of the checks that a section's claims rest on.
pub(super) fn judged(verdict: &Verdict, ids: &[CheckId]) -> Markup {
    html! {
        ul.judged {
            @for id in ids {
                @for check in verdict.checks.iter().filter(|check| check.id == id.text()).take(MOST_ALIKE) {
                    li { (tag(check.result)) " " (title(check.id)) " " span.said { (beginning(&check.detail)) } " " span.id { (check.id) } }
                }
            }
        }
    }
}

/// A length of time as people say it.
pub(super) fn length(ms: u64) -> String {
    let (days, hours) = (ms / 86_400_000, ms / 3_600_000 % 24);
    let (minutes, seconds) = (ms / 60_000 % 60, ms / 1000 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if ms < 1000 => format!("{ms} ms"),
        (0, 0, 0) if ms < 10_000 => format!("{}.{} s", seconds, ms % 1000 / 100),
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {seconds} s"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h {minutes} min"),
    }
}

/// A number with thin groups of three, so that a million is seen as one.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// Who stands behind a claim.
pub(super) const fn source(source: Source) -> &'static str {
    match source {
        Source::Verifier => "this program, from the bytes of the file",
        Source::Trust => "your trust policy",
        Source::Tpm => "the TPM's signature",
        Source::Boot => "firmware's and kernel's logs, as far as TPM registers confirm them",
        Source::Agent => "the agent on the host, sealed by the TPM",
        Source::Operator => "the operator's word",
        Source::Gpu => "the GPU",
    }
}

/// A line that names who says what follows.
pub(super) fn says(who: &str) -> Markup {
    html! { p.note { b { "Source: " } (who) "." } }
}

/// A result, never by colour alone.
pub(super) fn tag(result: CheckResult) -> Markup {
    match result {
        CheckResult::Pass => html! { span.tag.pass { "✓ holds" } },
        CheckResult::Fail => html! { span.tag.fail { "✗ fails" } },
        CheckResult::NotChecked => html! { span.tag.not { "– not checked" } },
    }
}

/// Says what a table has left out.
pub(super) fn more(shown: usize, all: usize) -> Markup {
    html! {
        @if all > shown {
            p.note { "And " (number((all - shown) as u64)) " more: " code { "--json" } " has them all." }
        }
    }
}

/// A text's beginning, where the whole stands elsewhere on the page.
pub(super) fn beginning(text: &str) -> Markup {
    let mut ends = text.char_indices().map(|(at, _)| at);
    match ends.nth(LONG).and_then(|at| text.get(..at)) {
        None => html! { bdi { (text) } },
        Some(start) => html! { bdi { (start) } "… " a href="#checks" { "in full below" } },
    }
}

/// One row of a table of facts.
pub(super) fn fact(name: &str, value: &Markup) -> Markup {
    html! { tr { th scope="row" { (name) } td { (value) } } }
}
