//! What tried to leave, what was let go, and what nobody looked at.

use super::MOST_ROWS;
use super::tell::{more, number, says};
use super::words::{self, explained};
use crate::account::Account;
use crate::report::Egress;
use maud::{Markup, html};

pub(super) fn section(egress: &Egress, account: &Account) -> Markup {
    let Egress {
        allowed,
        denied,
        audited,
        lost,
        granted_bytes,
        by_hook,
        lost_by_reason,
        uncovered,
    } = egress;
    html! {
        section aria-labelledby="egress" {
            h2 #egress { "What tried to leave" }
            ul.sums {
                (sum(*denied, "refused"))
                (sum(*allowed, "allowed by a rule of the boundary"))
                (sum(*audited, "let out, only watched (audit)"))
                (sum(*lost, "events or entries lost"))
                @if *granted_bytes > 0 { (sum(*granted_bytes, "bytes left under signed grants")) }
            }
            p.note { "Decisions of the kernel about guarded processes, counted from each session's start. Allowed means allowed: what a service inside the boundary does with data is not seen." }
            @if !uncovered.is_empty() {
                div.warn {
                    h3 { "Ways out that nothing covered" }
                    ul { @for way in uncovered { li { bdi { (way) } } } }
                }
            }
            @if !by_hook.is_empty() {
                table {
                    caption { "Decisions by what was done, and protocol" }
                    thead { tr { th scope="col" { "When" } th.w5 scope="col" { "Protocol" } th.w6 scope="col" { "Decision" } th.n.w4 scope="col" { "Count" } } }
                    tbody {
                        @for count in by_hook.iter().take(MOST_ROWS) {
                            tr {
                                td { (explained(&count.hook, words::hook(&count.hook))) }
                                td { bdi { (count.protocol) } }
                                td { (words::decision(count.verdict)) }
                                td.n { (number(count.count)) }
                            }
                        }
                    }
                }
                (more(MOST_ROWS, by_hook.len()))
            }
            (destinations(account))
            @if lost_by_reason.values().any(|count| *count > 0) {
                table {
                    caption { "Losses by reason" }
                    thead { tr { th scope="col" { "Reason" } th.n.w6 scope="col" { "Count" } } }
                    tbody {
                        @for (reason, count) in lost_by_reason.iter().filter(|(_, count)| **count > 0) {
                            tr { td { bdi { (reason) } } td.n { (number(*count)) } }
                        }
                    }
                }
            }
            (says("the agent's kernel programs; counts and log entries sealed by the TPM"))
        }
    }
}

fn sum(count: u64, what: &str) -> Markup {
    html! { li { b { (number(count)) } (what) } }
}

fn destinations(account: &Account) -> Markup {
    html! {
        @if account.refused.is_empty() {
            p { "No refused destination is in the log of this period." }
        } @else {
            table.stack {
                caption { "Destinations that were refused, or only watched, by entries of the log" }
                thead { tr { th scope="col" { "Destination" } th.w5 scope="col" { "Protocol" } th.w6 scope="col" { "Decision" } th scope="col" { "Why" } th.n.w4 scope="col" { "Times" } } }
                tbody {
                    @for to in account.refused.iter().take(MOST_ROWS) {
                        tr {
                            td data-h="Destination" { (to.address) @if to.port != 0 { " port " (to.port) }
                                @for name in &to.names { br; bdi { (name) } }
                                @if to.more_names { br; "and further names" }
                            }
                            td data-h="Protocol" { (to.protocol) }
                            td data-h="Decision" { (words::decision(to.verdict)) }
                            td data-h="Why" { (explained(&to.reason, words::reason(&to.reason))) }
                            td.n data-h="Times" { (number(to.count)) }
                        }
                    }
                }
            }
            (more(MOST_ROWS, account.refused.len()))
            @if account.refused_left_out > 0 {
                p.note { "And " (number(account.refused_left_out)) " attempts to further destinations." }
            }
        }
    }
}
