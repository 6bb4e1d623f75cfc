//! Which claim can serve which article. Careful words: a file supports a duty, it never meets one.

use crate::verdict::{CheckResult, Outcome, Verdict};
use maud::{Markup, html};

struct Duty {
    article: &'static str,
    asks: &'static str,
    supports: &'static str,
    leaves: &'static str,
    /// The checks that carry what is said under `supports`.
    checks: &'static [&'static str],
}

const DUTIES: [Duty; 5] = [
    Duty {
        article: "GDPR Art. 5(2), with 5(1)(f)",
        asks: "The controller can demonstrate that personal data is processed with integrity and confidentiality.",
        supports: "An independently verifiable record of which boundary was in force, whether it was enforced, and what it refused.",
        leaves: "Lawfulness, purpose, minimisation, storage; whether personal data was processed at all; the controller's own assessment.",
        checks: &[
            "quote.signature",
            "log.leaves",
            "policy.mode",
            "policy.egress",
            "policy.boundary",
            "tamper",
        ],
    },
    Duty {
        article: "GDPR Art. 30(1)(e), (g) and 30(2)(c), (d)",
        asks: "Records of processing name transfers to third countries and describe technical security measures.",
        supports: "A statement of place with its level, counts of what was allowed and refused, and the measures in force: material for those entries of the record.",
        leaves: "The record itself; that an allowed destination is no third country; transfers by other systems.",
        checks: &[
            "location",
            "policy.egress",
            "grants",
            "policy.tiers",
            "policy.uncovered",
        ],
    },
    Duty {
        article: "AI Act Art. 12",
        asks: "High-risk AI systems technically allow for automatic recording of events over their lifetime.",
        supports: "Events of the host that runs the system (guards, refusals, tampering, losses) recorded automatically and sealed; omissions inside the log show.",
        leaves: "Events of the AI system itself (use, input, results), beyond what the section on inferences has. Whether the system is high-risk.",
        checks: &[
            "log.leaves",
            "log.entries",
            "chain.order",
            "policy.coverage",
            "policy.lost",
        ],
    },
    Duty {
        article: "AI Act Art. 19",
        asks: "Providers keep automatically generated logs for a period that fits the purpose, at least six months.",
        supports: "Shows for the period of this file that the log kept is whole and unchanged, and where it has gaps.",
        leaves: "That it was and will be kept for the time the law asks; logs of other parts; that the end was not cut off.",
        checks: &[
            "log.leaves",
            "log.consistency",
            "chain.replay",
            "policy.period",
            "log.tail",
        ],
    },
    Duty {
        article: "AI Act Art. 26(5), (6)",
        asks: "Deployers monitor operation, and keep the logs under their control at least six months.",
        supports: "Refusals, tampering, grants and break-glass use within the period, as material for monitoring and for reports of incidents.",
        leaves: "Monitoring itself, human oversight, input data, informing providers and authorities.",
        checks: &[
            "log.entries",
            "policy.coverage",
            "policy.egress",
            "policy.lost",
            "tamper",
            "break_glass",
            "grants",
        ],
    },
];

pub(super) fn section(verdict: &Verdict) -> Markup {
    if verdict.verdict == Outcome::Untrusted {
        return html! {
            section aria-labelledby="law" {
                h2 #law { "What it is good for in law" }
                p.warn { "Nothing. The file is not trusted, so that it supports no duty under GDPR or AI Act; that it was refused is worth keeping a record of." }
            }
        };
    }
    html! {
        section aria-labelledby="law" {
            h2 #law { "What it is good for in law" }
            p.warn {
                "This file can support a demonstration. It does not prove compliance with any provision, and it is no legal advice. "
                "GDPR is Regulation (EU) 2016/679, AI Act is Regulation (EU) 2024/1689."
            }
            table.stack {
                caption { "Provisions, what in this file supports them, and what stays open" }
                thead { tr { th.w30 scope="col" { "Provision" } th scope="col" { "What supports it, and how far here" } th.w30 scope="col" { "What it does not show" } } }
                tbody {
                    @for duty in &DUTIES {
                        tr {
                            td { b { (duty.article) } br; (duty.asks) }
                            td data-h="Supports" { (duty.supports) p { b { (here(duty, verdict)) } } (carried(duty, verdict)) }
                            td data-h="Does not show" { (duty.leaves) }
                        }
                    }
                }
            }
        }
    }
}

fn result(id: &str, verdict: &Verdict) -> CheckResult {
    let results = verdict
        .checks
        .iter()
        .filter(|check| check.id == id)
        .map(|check| check.result);
    results
        .reduce(|worst, next| match (worst, next) {
            (CheckResult::Fail, _) | (_, CheckResult::Fail) => CheckResult::Fail,
            (CheckResult::NotChecked, _) | (_, CheckResult::NotChecked) => CheckResult::NotChecked,
            (CheckResult::Pass, CheckResult::Pass) => CheckResult::Pass,
        })
        .unwrap_or(CheckResult::NotChecked)
}

/// How far this very file carries the claim.
fn here(duty: &Duty, verdict: &Verdict) -> &'static str {
    let results = || duty.checks.iter().map(|id| result(id, verdict));
    if results().any(|result| result == CheckResult::Fail) {
        "Here: it shows a departure. See the checks that fail."
    } else if results().all(|result| result == CheckResult::Pass) {
        "Here: as far as these checks go."
    } else if results().any(|result| result == CheckResult::Pass) {
        "Here: in part."
    } else {
        "Here: nothing of it was checked."
    }
}

fn carried(duty: &Duty, verdict: &Verdict) -> Markup {
    html! {
        span.src {
            @for (at, id) in duty.checks.iter().enumerate() {
                @if at > 0 { ", " }
                span.id { (id) }
                (match result(id, verdict) {
                    CheckResult::Pass => " holds",
                    CheckResult::Fail => " fails",
                    CheckResult::NotChecked => " not checked",
                })
            }
        }
    }
}
