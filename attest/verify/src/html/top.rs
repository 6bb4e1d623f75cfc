//! The first screen: what the verdict is, and what it does not rest on.

use super::Page;
use super::remedy::remedy;
use super::tell::{beginning, instant, number, tag};
use crate::frame::Purpose;
use crate::verdict::{CheckId, CheckResult, NOT_REACHED, NotChecked, Outcome, Verdict};
use maud::{Markup, html};

pub(super) fn head(verdict: &Verdict, page: &Page<'_>) -> Markup {
    let node = verdict
        .account
        .as_ref()
        .filter(|_| verdict.verdict != Outcome::Untrusted)
        .map(|account| account.node.as_str());
    let name = page.file.rsplit(['/', '\\']).next().unwrap_or(page.file);
    html! {
        p.meta { "Merestone evidence report" @if page.purpose == Purpose::Receipt { " · a single record" } }
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
            (matters(verdict))
        }
    }
}

/// A check that decides the verdict.
struct Matter<'v> {
    id: &'static str,
    detail: &'v str,
    result: CheckResult,
    /// How often it was found besides.
    more: u64,
}

/// What decides the verdict, one a check: or one that fails often would push what follows off
/// the screen.
fn deciding(verdict: &Verdict) -> Vec<Matter<'_>> {
    let failed = verdict.checks.iter();
    let failed = failed.filter(|check| check.result == CheckResult::Fail);
    let failed = failed.map(|check| (check.id, check.detail.as_str(), CheckResult::Fail));
    let missed = verdict.not_checked.iter().filter(|check| check.required);
    let missed = missed.map(|check| (check.id, check.detail.as_str(), CheckResult::NotChecked));
    let mut all: Vec<Matter<'_>> = Vec::new();
    for (id, detail, result) in failed.chain(missed) {
        match all.last_mut() {
            Some(last) if last.id == id && last.result == result => last.more += 1,
            _ => all.push(Matter {
                id,
                detail,
                result,
                more: 0,
            }),
        }
    }
    all
}

/// What each is, what was found, and what the reader can do; the same advice stands once.
fn matters(verdict: &Verdict) -> Markup {
    let all = deciding(verdict);
    let advice =
        |matter: &Matter<'_>| known(matter.id).map(|id| remedy(id, matter.result, verdict.verdict));
    html! {
        @for (at, matter) in all.iter().enumerate() {
            div.matter {
                p {
                    (tag(matter.result))
                    @if matter.result == CheckResult::Fail { " This does not hold: " } @else { " Asked for, and not shown to hold: " }
                    b { (title(matter.id)) } " " span.id { (matter.id) }
                }
                p { b { "Found: " } (beginning(matter.detail)) }
                @if matter.more > 0 { p { "And " (number(matter.more)) " more like it, " a href="#checks" { "below" } "." } }
                @if let Some(advice) = advice(matter)
                    .filter(|own| all.iter().take(at).all(|before| advice(before) != Some(own)))
                {
                    p.todo { b { "What to do: " } (with_code(advice)) }
                }
            }
        }
    }
}

/// Our own words, with what stands between backticks as something to type.
fn with_code(words: &'static str) -> Markup {
    html! {
        @for (at, part) in words.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

fn known(id: &str) -> Option<CheckId> {
    let mut known = crate::verdict::CHECKS.iter().copied();
    known.find(|known| known.text() == id)
}

pub(super) fn title(id: &str) -> &'static str {
    known(id).map_or("", CheckId::title)
}

pub(super) fn not_checked(verdict: &Verdict) -> Markup {
    let (later, mut open): (Vec<_>, Vec<_>) = verdict
        .not_checked
        .iter()
        .partition(|skipped| skipped.detail == NOT_REACHED);
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
                @if !later.is_empty() {
                    li {
                        b { (number(later.len() as u64)) " were not reached, because a check before them did not pass: " }
                        @for (at, skipped) in later.iter().enumerate() {
                            @if at > 0 { ", " }
                            span.id { (skipped.id) }
                        }
                    }
                }
                @for alike in alike(&open) { (left_open(&alike)) }
            }
        }
    }
}

/// Checks that were not made for one and the same reason, in the order of the first of each.
fn alike<'v>(open: &[&'v NotChecked]) -> Vec<Vec<&'v NotChecked>> {
    let mut all: Vec<Vec<&NotChecked>> = Vec::new();
    for &one in open {
        let same = |group: &&mut Vec<&NotChecked>| {
            group
                .first()
                .is_some_and(|first| (first.required, &first.detail) == (one.required, &one.detail))
        };
        match all.iter_mut().find(same) {
            Some(group) => group.push(one),
            None => all.push(vec![one]),
        }
    }
    all
}

fn left_open(alike: &[&NotChecked]) -> Markup {
    html! {
        li {
            @for skipped in alike { (title(skipped.id)) " " }
            @if let Some(first) = alike.first() {
                @if first.required { b { "Asked for by the policy. " } }
                span { (beginning(&first.detail)) }
            }
            @for skipped in alike { " " span.id { (skipped.id) } }
        }
    }
}

pub(super) fn contents(claims: bool, purpose: Purpose) -> Markup {
    let claim: &[(&str, &str)] = match purpose {
        Purpose::Receipt => &[
            ("receipt", "What the receipt says"),
            ("place", "Place"),
            ("sessions", "Sessions and epochs"),
        ],
        Purpose::Period => &[
            ("place", "Place"),
            ("time", "Time"),
            ("inferences", "Inferences"),
            ("egress", "What tried to leave"),
            ("gpus", "GPUs"),
            ("enforcement", "Enforcement itself"),
            ("sessions", "Sessions and epochs"),
            ("events", "What happened"),
        ],
    };
    let always: &[(&str, &str)] = match purpose {
        Purpose::Receipt => &[("checks", "Every check")],
        Purpose::Period => &[
            ("checks", "Every check"),
            ("law", "What it is good for in law"),
        ],
    };
    let claim = claim.iter().filter(|_| claims);
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
    let command = match page.purpose {
        Purpose::Receipt => "receipt",
        Purpose::Period => "bundle",
    };
    html! {
        h3 { "How to make this page again" }
        p.note {
            "This page is a rendering; the file is the evidence. Anyone can judge it again, offline: "
            code { "merestone-verify " (command) " FILE --trust trust.toml --at " (crate::coverage::rfc3339(page.at_ms)) } "."
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
