//! What happened to enforcement itself: attempts on it, leave to pass it, and its own tests.

use super::MOST_ROWS;
use super::tell::{more, number, says};
use crate::incidents::{BreakGlass, CanaryReport, Deputies, Grants, Tamper, Who};
use crate::verdict::Verdict;
use maud::{Markup, html};

pub(super) fn section(verdict: &Verdict) -> Markup {
    html! {
        section aria-labelledby="incidents" {
            h2 #incidents { "Attacks, exceptions and tests of enforcement" }
            @if let Some(tamper) = &verdict.tamper { (tampering(tamper)) }
            @if let Some(glass) = &verdict.break_glass { (opened(glass)) }
            @if let Some(grants) = &verdict.grants { (granted(grants)) }
            @if let Some(deputies) = &verdict.deputies { (asked(deputies)) }
            @if let Some(canary) = &verdict.canary { (tried(canary)) }
            (says("the agent, sealed by the TPM; signers are named by the digest of their key"))
        }
    }
}

fn who(who: Option<&Who>) -> Markup {
    html! {
        @match who {
            None => "not known",
            Some(who) => { bdi { (who.exe) } " (pid " (who.pid) ") in " bdi { (who.cgroup) } }
        }
    }
}

/// First and last, where they differ.
fn when(first: &str, last: &str) -> Markup {
    html! { (first) @if first != last { " to " (last) } }
}

fn told(text: Option<&str>) -> Markup {
    html! { bdi { (text.unwrap_or("not told")) } }
}

fn tampering(tamper: &Tamper) -> Markup {
    html! {
        h3 { "Attempts on enforcement" }
        p {
            (number(tamper.denied)) " denied, " (number(tamper.let_through)) " let through, "
            (number(tamper.found)) " changes found afterwards. The kernel refused such attempts in "
            (number(tamper.epochs_refusing)) " of " (number(tamper.epochs)) " epochs."
        }
        @if !tamper.not_kept.is_empty() {
            table.stack {
                caption { "What was not as it had been left: enforcement is not shown for that time" }
                thead { tr { th scope="col" { "What" } th.w12 scope="col" { "From" } th.w12 scope="col" { "To" } th.w5 scope="col" { "Put back" } } }
                tbody {
                    @for one in tamper.not_kept.iter().take(MOST_ROWS) {
                        tr {
                            td { b { bdi { (one.what) } } " " bdi { (one.detail) } }
                            td data-h="From" { (one.from) }
                            td data-h="To" { (one.to) }
                            td data-h="Put back" { (if one.repaired { "yes" } else { "no" }) }
                        }
                    }
                }
            }
            (more(MOST_ROWS, tamper.not_kept.len()))
        }
        @if !tamper.attempts.is_empty() {
            table.stack {
                caption { "Attempts and changes, alike ones together" }
                thead { tr { th.w5 scope="col" { "Outcome" } th scope="col" { "What" } th scope="col" { "Who" } th.w12 scope="col" { "When" } th.n.w4 scope="col" { "Times" } } }
                tbody {
                    @for one in tamper.attempts.iter().take(MOST_ROWS) {
                        tr {
                            td data-h="Outcome" { (one.outcome.replace('_', " ")) }
                            td data-h="What" { bdi { (one.attempt) } " of " bdi { (one.target) } ", seen by " bdi { (one.hook) } }
                            td data-h="Who" { (who(one.who.as_ref())) }
                            td data-h="When" { (when(&one.first, &one.last)) }
                            td.n data-h="Times" { (number(one.count)) }
                        }
                    }
                }
            }
            (more(MOST_ROWS, tamper.attempts.len()))
        }
    }
}

fn opened(glass: &BreakGlass) -> Markup {
    html! {
        h3 { "Break-glass" }
        p {
            "Protection was opened " (number(glass.openings.len() as u64)) " times; "
            (number(glass.refused)) " tokens were refused. "
            @if glass.suspended_seconds > 0 {
                b { "What rests on tampering being refused is suspended for " (number(glass.suspended_seconds)) " s." }
            }
        }
        @if !glass.openings.is_empty() {
            table.stack {
                caption { "Openings" }
                thead { tr { th.w12 scope="col" { "Opened" } th.w12 scope="col" { "Closed" } th scope="col" { "For what" } th scope="col" { "Signed by" } } }
                tbody {
                    @for one in glass.openings.iter().take(MOST_ROWS) {
                        tr {
                            td data-h="Opened" { (one.opened.as_deref().unwrap_or("before what is shown")) }
                            td data-h="Closed" { @match &one.closed { Some(closed) => (closed), None => { "not shown; ends " (one.until) } } }
                            td data-h="For what" { bdi { (one.actions.join(" ")) } ": " bdi { (one.reason) } }
                            td data-h="Signed by" { @if one.token.is_none() { b { "nobody" } } @else { code { (told(one.signer.as_deref())) } } }
                        }
                    }
                }
            }
            (more(MOST_ROWS, glass.openings.len()))
        }
    }
}

fn granted(grants: &Grants) -> Markup {
    html! {
        h3 { "Grants" }
        p {
            (number(grants.used.len() as u64)) " were in force, " (number(grants.bytes))
            " bytes left under them; " (number(grants.refused)) " were refused."
        }
        @if !grants.used.is_empty() {
            table.stack {
                caption { "Grants: signed, limited leave to go outside the boundary" }
                thead { tr { th scope="col" { "Grant" } th scope="col" { "From, to" } th.w12 scope="col" { "Until" } th scope="col" { "Signed by" } th.n.w6 scope="col" { "Bytes" } } }
                tbody {
                    @for one in grants.used.iter().take(MOST_ROWS) {
                        tr {
                            td data-h="Grant" { b { bdi { (one.name) } } " " (one.state) ": " (told(one.reason.as_deref())) }
                            td data-h="From, to" { (told(one.group.as_deref())) " to " (told(one.to.as_deref())) }
                            td data-h="Until" { (told(one.until.as_deref())) }
                            td data-h="Signed by" { code { (told(one.signer.as_deref())) } }
                            td.n data-h="Bytes" { (number(one.bytes)) @if let Some(limit) = one.limit_bytes { " of " (number(limit)) } }
                        }
                    }
                }
            }
            (more(MOST_ROWS, grants.used.len()))
        }
    }
}

fn asked(deputies: &Deputies) -> Markup {
    html! {
        h3 { "Deputies" }
        p {
            (number(deputies.let_through)) " requests of guarded processes reached others on the host, "
            (number(deputies.refused)) " were refused. What those others passed on is not seen."
        }
        @if !deputies.asked.is_empty() {
            table.stack {
                caption { "Who was asked" }
                thead { tr { th scope="col" { "Whom" } th.w5 scope="col" { "Outcome" } th scope="col" { "By whom" } th.n.w4 scope="col" { "Times" } } }
                tbody {
                    @for one in deputies.asked.iter().take(MOST_ROWS) {
                        tr {
                            td data-h="Whom" { bdi { (one.deputy) } }
                            td data-h="Outcome" { (if one.refused { "refused" } else { "reached" }) }
                            td data-h="By whom" { (who(one.who.as_ref())) }
                            td.n data-h="Times" { (number(one.count)) }
                        }
                    }
                }
            }
            (more(MOST_ROWS, deputies.asked.len()))
        }
    }
}

fn tried(canary: &CanaryReport) -> Markup {
    html! {
        h3 { "Canary" }
        @if canary.epochs == 0 && canary.escaped_vectors.is_empty() {
            p { "No epoch tells of a canary: nothing tried to get out on purpose." }
        } @else {
            p {
                (number(canary.runs)) " tries to get out: " (number(canary.held)) " held, "
                b { (number(canary.escaped)) " escaped" } ", " (number(canary.not_applicable)) " not applicable here, "
                (number(canary.errors)) " proved nothing. Last: " (canary.last.as_deref().unwrap_or("never")) "."
            }
            @if !canary.escaped_vectors.is_empty() {
                p.warn {
                    b { "Ways that got out: " }
                    @for (at, vector) in canary.escaped_vectors.iter().enumerate() { @if at > 0 { ", " } bdi { (vector) } }
                }
            }
            p.note {
                (number(canary.epochs)) " epochs tell of a canary, " (number(canary.epochs_without)) " do not; in "
                (number(canary.epochs_idle)) " it was asleep, in " (number(canary.epochs_unguarded)) " not guarded."
            }
        }
    }
}
