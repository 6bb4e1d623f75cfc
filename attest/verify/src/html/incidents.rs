//! Enforcement itself: attempts on it, openings of it, grants, deputies, and the canary.

use super::MOST_ROWS;
use super::tell::{moment, more, number, says};
use crate::incidents::{BreakGlass, CanaryReport, Deputies, Grants, Tamper, Who};
use maud::{Markup, html};

pub(super) fn section(
    tamper: &Tamper,
    glass: &BreakGlass,
    grants: &Grants,
    deputies: &Deputies,
    canary: &CanaryReport,
) -> Markup {
    html! {
        section aria-labelledby="enforcement" {
            h2 #enforcement { "Enforcement itself" }
            (tampering(tamper))
            (opened(glass))
            (granted(grants))
            (asked(deputies))
            (tried(canary))
            (says("the agent, sealed by the TPM"))
        }
    }
}

fn whom(who: Option<&Who>) -> Markup {
    html! {
        @match who {
            Some(who) => { "pid " (who.pid) ", " bdi { (who.exe) } ", " bdi { (who.cgroup) } },
            None => "not known",
        }
    }
}

fn tampering(tamper: &Tamper) -> Markup {
    html! {
        h3 { "Attempts on it" }
        p {
            (number(tamper.denied)) " attempts denied, " (number(tamper.let_through)) " let through, "
            (number(tamper.found)) " changes found afterwards. The kernel was set to refuse such attempts in "
            (number(tamper.epochs_refusing)) " of " (number(tamper.epochs)) " epochs; in the others they can only be found afterwards."
        }
        @if !tamper.not_kept.is_empty() {
            table.stack {
                caption { "Not as it had been left: enforcement is not shown meanwhile" }
                thead { tr { th.w30 scope="col" { "Not shown" } th.w8 scope="col" { "What" } th scope="col" { "In the agent's words" } } }
                tbody {
                    @for one in tamper.not_kept.iter().take(MOST_ROWS) {
                        tr {
                            td data-h="Not shown" { (moment(&one.from)) " to " (moment(&one.to)) ", " (number(one.seconds)) " s" @if !one.repaired { b { ", not put back" } } }
                            td data-h="What" { bdi { (one.what) } }
                            td data-h="In the agent's words" { bdi { (one.detail) } }
                        }
                    }
                }
            }
            (more(MOST_ROWS, tamper.not_kept.len()))
        }
        @if !tamper.attempts.is_empty() {
            table.stack {
                caption { "Attempts and changes, alike ones together" }
                thead { tr { th.w8 scope="col" { "Outcome" } th scope="col" { "What" } th scope="col" { "Who" } th.w12 scope="col" { "First, last" } th.n.w4 scope="col" { "Times" } } }
                tbody {
                    @for one in tamper.attempts.iter().take(MOST_ROWS) {
                        tr {
                            td data-h="Outcome" { (one.outcome.replace('_', " ")) }
                            td data-h="What" { bdi { (one.attempt) } " of " bdi { (one.target) } " (" bdi { (one.hook) } ")" }
                            td data-h="Who" { (whom(one.who.as_ref())) }
                            td data-h="First, last" { (moment(&one.first)) @if one.last != one.first { " to " (moment(&one.last)) } }
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
            "Opened " (number(glass.openings.len() as u64)) " times; " (number(glass.refused)) " requests refused."
            @if glass.suspended_seconds > 0 {
                b { " Claims that rest on tampering being refused are suspended for " (number(glass.suspended_seconds)) " s." }
            }
        }
        @if !glass.openings.is_empty() {
            table.stack {
                caption { "Openings" }
                thead { tr { th.w12 scope="col" { "From, to" } th.w8 scope="col" { "For" } th scope="col" { "Token, signer" } th scope="col" { "Reason" } } }
                tbody {
                    @for one in glass.openings.iter().take(MOST_ROWS) {
                        tr {
                            td data-h="From, to" {
                                (moment(one.opened.as_deref().unwrap_or("before what is shown"))) " to "
                                @match &one.closed { Some(closed) => { (moment(closed)) ", closed" }, None => (moment(&one.until)) }
                            }
                            td data-h="For" { bdi { (one.actions.join(" ")) } }
                            td data-h="Token, signer" {
                                @match &one.token { Some(token) => code { (token) }, None => b { "signed by nobody" } }
                                @if let Some(signer) = &one.signer { br; code { (signer) } }
                            }
                            td data-h="Reason" { bdi { (one.reason) } }
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
        p { (number(grants.used.len() as u64)) " in force, " (number(grants.bytes)) " bytes left under them; " (number(grants.refused)) " refused." }
        @if !grants.used.is_empty() {
            table.stack {
                caption { "Grants" }
                thead { tr { th scope="col" { "Grant" } th scope="col" { "From, to" } th.n.w8 scope="col" { "Bytes" } th.w12 scope="col" { "Until" } th scope="col" { "Signer, reason" } } }
                tbody {
                    @for one in grants.used.iter().take(MOST_ROWS) {
                        tr {
                            td data-h="Grant" { bdi { (one.name) } ", " bdi { (one.state) } }
                            td data-h="From, to" { bdi { (one.group.as_deref().unwrap_or("not told")) } " to " bdi { (one.to.as_deref().unwrap_or("not told")) } }
                            td.n data-h="Bytes" { (number(one.bytes)) @if let Some(limit) = one.limit_bytes { " of " (number(limit)) } }
                            td data-h="Until" { (moment(one.until.as_deref().unwrap_or("not told"))) }
                            td data-h="Signer, reason" { @if let Some(signer) = &one.signer { code { (signer) } br; } bdi { (one.reason.as_deref().unwrap_or("")) } }
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
        p { (number(deputies.let_through)) " requests reached somebody outside the group on the same host, " (number(deputies.refused)) " were refused. What those pass on is not followed." }
        @if !deputies.asked.is_empty() {
            table.stack {
                caption { "Who was asked" }
                thead { tr { th.w8 scope="col" { "Outcome" } th scope="col" { "Whom" } th scope="col" { "By" } th.n.w4 scope="col" { "Times" } } }
                tbody {
                    @for one in deputies.asked.iter().take(MOST_ROWS) {
                        tr {
                            td data-h="Outcome" { (if one.refused { "refused" } else { "reached" }) }
                            td data-h="Whom" { bdi { (one.deputy) } }
                            td data-h="By" { (whom(one.who.as_ref())) }
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
            p { "No epoch tells of tries to get out." }
        } @else {
            p {
                (number(canary.runs)) " tries to get out: " (number(canary.held)) " held, " (number(canary.escaped)) " escaped, "
                (number(canary.not_applicable)) " not applicable, " (number(canary.errors)) " proved nothing; last "
                (moment(canary.last.as_deref().unwrap_or("never"))) "."
            }
            @if !canary.escaped_vectors.is_empty() {
                p.warn { b { "Escaped: " } @for vector in canary.escaped_vectors.iter().take(MOST_ROWS) { bdi { (vector) } " " } }
            }
            @for (count, what) in [
                (canary.epochs_without, "tell of no canary"),
                (canary.epochs_idle, "closed with no try in five minutes"),
                (canary.epochs_unguarded, "closed with the canary not guarded"),
            ] {
                @if count > 0 { p.note { (number(count)) " epochs " (what) "." } }
            }
        }
    }
}
