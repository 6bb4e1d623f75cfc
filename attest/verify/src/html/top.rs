//! The first screen: what the verdict is, and what it does not rest on.

use super::Page;
use super::tell::{beginning, instant, number, tag};
use crate::verdict::{Check, CheckId, CheckResult, Outcome, Verdict};
use maud::{Markup, html};

pub(super) fn head(verdict: &Verdict, page: &Page<'_>) -> Markup {
    let node = verdict
        .account
        .as_ref()
        .filter(|_| verdict.verdict != Outcome::Untrusted)
        .map(|account| account.node.as_str());
    let name = page.file.rsplit(['/', '\\']).next().unwrap_or(page.file);
    html! {
        p.meta { "Merestone evidence report" }
        h1 { bdi { (name) } }
        p.meta {
            @if let Some(node) = node { "Node " b { bdi { (node) } } " · " }
            "judged as of " (instant(page.at_ms))
        }
    }
}

pub(super) fn verdict(verdict: &Verdict) -> Markup {
    let word = verdict.verdict.text();
    let (mark, says) = match verdict.verdict {
        Outcome::Pass => (
            "✓",
            "The evidence is sound, and what the trust policy asks for holds. What is listed as not checked is no part of this.",
        ),
        Outcome::Failed => (
            "✗",
            "The evidence is sound, and it shows something that the trust policy does not allow.",
        ),
        Outcome::Indeterminate => (
            "?",
            "Something that the trust policy asks for could not be evaluated. This is not a pass.",
        ),
        Outcome::Untrusted => (
            "✗",
            "A signature, a hash or a structure is wrong. Nothing that this file says may be relied on.",
        ),
    };
    // One line a check, or a check that fails often would push what follows off the screen.
    let mut failed: Vec<(&Check, usize)> = Vec::new();
    for check in &verdict.checks {
        match failed.last_mut() {
            _ if check.result != CheckResult::Fail => {}
            Some((first, more)) if first.id == check.id => *more += 1,
            _ => failed.push((check, 0)),
        }
    }
    let count = |result| {
        let of = verdict.checks.iter().filter(|check| check.result == result);
        number(of.count() as u64)
    };
    html! {
        section class={ "verdict " (word) } id="verdict" aria-labelledby="word" data-verdict=(word) data-exit=(verdict.exit) {
            h2.word #word { (mark) " verdict: " (word) }
            p { (says) }
            // However long the list of what fails is, this stands on the first screen.
            p { (count(CheckResult::Pass)) " checks hold, " (count(CheckResult::Fail)) " fail, " a href="#open" { b { (count(CheckResult::NotChecked)) " not checked" } } "." }
            @for (check, more) in failed {
                p {
                    (tag(check.result)) " " b { (title(check.id)) } " " (beginning(&check.detail)) " " span.id { (check.id) }
                    @if more > 0 { " and " (number(more as u64)) " more like it" }
                }
            }
            @for check in verdict.not_checked.iter().filter(|check| check.required) {
                p { (tag(CheckResult::NotChecked)) " " b { (title(check.id)) } " " bdi { (check.detail) } " " span.id { (check.id) } }
            }
        }
    }
}

pub(super) fn title(id: &str) -> &'static str {
    let known = crate::verdict::CHECKS.iter();
    known
        .copied()
        .find(|known| known.text() == id)
        .map_or("", CheckId::title)
}

pub(super) fn not_checked(verdict: &Verdict) -> Markup {
    let (later, mut open): (Vec<_>, Vec<_>) = verdict
        .not_checked
        .iter()
        .partition(|skipped| skipped.detail.starts_with("not reached"));
    open.sort_by_key(|skipped| !skipped.required);
    let count = verdict.not_checked.len() as u64;
    html! {
        section.open aria-labelledby="open" {
            h2 #open { "Not checked: " (number(count)) }
            @if count == 0 {
                p { "Every check was made." }
            } @else {
                p { "The verdict says nothing about these. Each is a sentence that was " b { "not" } " shown to hold:" }
            }
            ul {
                @for skipped in &open {
                    li {
                        (title(skipped.id)) " "
                        @if skipped.required { b { "Asked for by the policy. " } }
                        span { (beginning(&skipped.detail)) } " " span.id { (skipped.id) }
                    }
                }
                @if !later.is_empty() {
                    li {
                        "Not reached, because an earlier check did not hold: "
                        @for (at, skipped) in later.iter().enumerate() {
                            @if at > 0 { ", " }
                            span.id { (skipped.id) }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn contents(claims: bool) -> Markup {
    let claim = [
        ("place", "Place"),
        ("time", "Time"),
        ("inferences", "Inferences"),
        ("egress", "What tried to leave"),
        ("gpus", "GPUs"),
        ("enforcement", "Enforcement itself"),
        ("sessions", "Sessions and epochs"),
        ("events", "What happened"),
    ];
    let always = [
        ("checks", "Every check"),
        ("law", "What it is good for in law"),
    ];
    let claim = claim.into_iter().filter(|_| claims);
    html! {
        nav aria-label="Contents" {
            ul { @for (id, text) in claim.chain(always) { li { a href={ "#" (id) } { (text) } } } }
        }
    }
}

/// What stands where the claims would.
pub(super) fn no_claims(outcome: Outcome) -> Markup {
    let why = match outcome {
        Outcome::Untrusted => {
            "Place, time, egress, GPUs, sessions and events of this file are not shown: a file that is not trusted can say anything."
        }
        _ => {
            "Place, time, egress, GPUs, sessions and events of this file are not shown: its signatures were not checked to the end."
        }
    };
    html! {
        section aria-labelledby="none" {
            h2 #none { "No claim is shown" }
            p.warn { (why) }
            p { "To read what the file says of itself, with no word of it verified: " code { "merestone-verify inspect FILE" } "." }
        }
    }
}

pub(super) fn foot(page: &Page<'_>) -> Markup {
    html! {
        h3 { "How to make this page again" }
        p.note {
            "This page is a rendering; the file is the evidence. Anyone can judge it again, offline: "
            code { "merestone-verify bundle FILE --trust trust.toml --at " (crate::coverage::rfc3339(page.at_ms)) } "."
        }
        table.facts {
            tbody {
                (super::tell::fact("File", &html! { bdi { (page.file) } ", " (number(page.bytes as u64)) " bytes" }))
                (super::tell::fact("Its SHA-256", &html! { code { (page.sha256) } }))
                (super::tell::fact("Trust policy's SHA-256", &html! { code { (page.trust_sha256) } }))
                (super::tell::fact("Judged by", &html! { (page.program) }))
                (super::tell::fact("Exit codes", &html! { "0 pass · 1 untrusted · 2 failed · 3 indeterminate" }))
            }
        }
        p.note {
            "No pass says: that the host's root did not feed false inputs to a genuine signer, unless the policy asks for boot log, "
            "IMA list and register values; that the TPM is in this very machine; that nothing ran where no agent ran; "
            "that a model computed what it should."
        }
    }
}
