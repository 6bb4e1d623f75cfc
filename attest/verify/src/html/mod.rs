//! The verdict as one page for people: no script, nothing fetched, good on a phone and on paper.
//!
//! It adds nothing to the verdict and leaves nothing of it out. Of a file that is not trusted it
//! shows the checks and no claim; of a single receipt what that receipt says, and of the period
//! nothing. Every string of the file goes through the template's quoting,
//! and the finished page through [`crate::escape`], so that no part can forget to.

mod checks;
mod egress;
mod host;
mod incidents;
mod inferences;
mod law;
mod line;
mod place;
mod receipt;
mod remedy;
mod tell;
mod top;
mod words;

use crate::frame::Purpose;
use crate::verdict::{Outcome, Verdict};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Rows of one table; what is beyond is counted and in the JSON.
const MOST_ROWS: usize = 100;

/// What the page says of the file and of the call, beside the verdict.
#[derive(Clone, Debug)]
pub struct Page<'a> {
    /// What the file was judged as.
    pub purpose: Purpose,
    /// Name of the file as the caller gave it.
    pub file: &'a str,
    /// Its bytes.
    pub bytes: usize,
    /// Its SHA-256.
    pub sha256: String,
    /// SHA-256 of the trust policy.
    pub trust_sha256: String,
    /// The time of the verdict.
    pub at_ms: u64,
    /// The program that judged, with its version.
    pub program: &'a str,
    /// The period asked for begins here; else where the file's does.
    pub from_ms: Option<u64>,
    /// And ends here.
    pub to_ms: Option<u64>,
}

/// The whole page.
#[must_use]
pub fn page(verdict: &Verdict, page: &Page<'_>) -> String {
    let head = html! {
        meta charset="utf-8";
        meta name="viewport" content="width=device-width, initial-scale=1";
        meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
        meta name="referrer" content="no-referrer";
        meta name="color-scheme" content="light";
    };
    let style = html! { style { (PreEscaped(include_str!("style.css"))) } };
    let title =
        html! { title { "Verdict: " (verdict.verdict.text()) " · " (page.file) " · Merestone" } };
    let mut out = format!("{}\n<html lang=\"en\">\n<head>\n", DOCTYPE.into_string());
    out.push_str(&head.into_string());
    out.push_str(&style.into_string());
    out.push_str(&spelled_out(title));
    out.push_str("\n</head>\n");
    out.push_str(&spelled_out(body(verdict, page)));
    out.push_str("\n</html>\n");
    out
}

/// The template sets no line end itself, so every control character in it came from a file.
fn spelled_out(markup: Markup) -> String {
    crate::escape::escaped(&markup.into_string())
}

fn body(verdict: &Verdict, page: &Page<'_>) -> Markup {
    // Destructured whole: what a verdict gains has to be shown here, or left out on purpose.
    let Verdict {
        verdict: outcome,
        exit: _,
        checks: _,
        not_checked: _,
        coverage,
        location,
        egress,
        account,
        tamper,
        break_glass,
        grants,
        deputies,
        canary,
        gpus_attested,
        receipts,
        entries,
    } = verdict;
    let claims = *outcome != Outcome::Untrusted;
    html! {
        body {
            header { (top::head(verdict, page)) }
            main {
                (top::verdict(verdict))
                (top::not_checked(verdict))
                (top::contents(claims && coverage.is_some(), page.purpose))
                @if claims && page.purpose == Purpose::Receipt {
                    @if coverage.is_some() { (receipt::section(verdict)) }
                    @if let Some(location) = location { (place::section(location)) }
                    @if let Some(account) = account { (host::sessions(account)) }
                } @else if claims {
                    @if let Some(location) = location { (place::section(location)) }
                    @if let (Some(coverage), Some(account)) = (coverage, account) {
                        (line::section(coverage, account, verdict, page))
                    }
                    @if let Some(account) = account { (inferences::section(&account.inferences, receipts.as_ref(), entries)) }
                    @if let (Some(egress), Some(account)) = (egress, account) {
                        (egress::section(egress, account))
                    }
                    @if let Some(account) = account { (host::gpus(account, gpus_attested, verdict)) }
                    @if let (Some(tamper), Some(break_glass), Some(grants), Some(deputies), Some(canary)) =
                        (tamper, break_glass, grants, deputies, canary)
                    {
                        (incidents::section(tamper, break_glass, grants, deputies, canary))
                    }
                    @if let Some(account) = account {
                        (host::sessions(account))
                        (host::happenings(account))
                    }
                }
                @if !claims || coverage.is_none() { (top::no_claims(*outcome)) }
                (checks::section(verdict))
                @if page.purpose == Purpose::Period { (law::section(verdict)) }
            }
            footer { (top::foot(page)) }
        }
    }
}
