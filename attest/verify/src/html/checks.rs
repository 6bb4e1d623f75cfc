//! Every check with its result, what it looked at, and who stands behind that.

use super::tell::{number, source, tag};
use super::top::title;
use crate::verdict::{Check, CheckResult, NOT_REACHED, Verdict};
use maud::{Markup, html};

/// Bytes of a detail that may go on from one sheet of paper to the next.
const LONG: usize = 600;

pub(super) fn section(verdict: &Verdict) -> Markup {
    let count = |result| {
        let of = verdict.checks.iter().filter(|check| check.result == result);
        number(of.count() as u64)
    };
    html! {
        section aria-labelledby="checks" {
            h2 #checks { "Every check" }
            p {
                (count(CheckResult::Pass)) " hold, " (count(CheckResult::Fail)) " fail, "
                (count(CheckResult::NotChecked)) " were not made. The worst decides."
            }
            table.stack {
                caption { "Every check, from the form of the file to the policy" }
                thead { tr { th.w8 scope="col" { "Result" } th.w30 scope="col" { "Check" } th scope="col" { "What was found" } } }
                tbody {
                    @for run in verdict.checks.chunk_by(|one, next| unreached(one) && unreached(next)) { (rows(run)) }
                }
            }
        }
    }
}

fn unreached(check: &Check) -> bool {
    check.result == CheckResult::NotChecked && check.detail == NOT_REACHED
}

/// One check; or those in a row that were not reached, or a refused file's sheets would be full
/// of them.
fn rows(run: &[Check]) -> Markup {
    html! {
        @match run {
            [check] => tr.long[check.detail.len() > LONG] {
                td { (tag(check.result)) }
                td { b { (title(check.id)) } " " span.id { (check.id) } }
                td { bdi { (check.detail) } span.src { "Rests on: " (source(check.source)) } }
            },
            [first, ..] => tr.long {
                td { (tag(first.result)) }
                td { b { (number(run.len() as u64)) " checks" } }
                td {
                    p { (first.detail) }
                    ul.many { @for check in run { li { (title(check.id)) " " span.id { (check.id) } } } }
                }
            },
            [] => {},
        }
    }
}
