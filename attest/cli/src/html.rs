//! The verdict as one page: no script, no network, readable on paper.

use crate::escape::html;
use merestone_verify::{CheckResult, Verdict};
use std::path::Path;

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Merestone evidence</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.verdict { border: 3px solid; padding: .6rem 1rem; font-size: 1.3rem; font-weight: 600; }
.pass { color: #14602c; } .fail { color: #a11212; } .open { color: #7a5200; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid #ddd; }
td { overflow-wrap: anywhere; } td:first-child { white-space: nowrap; }
@media print { body { margin: 0; font-size: 10pt; } }
</style>
</head>
<body>
"#;

pub(crate) fn page(verdict: &Verdict, file: &Path) -> String {
    let mut out = HEAD.to_owned();
    let class = if verdict.exit == 0 { "pass" } else { "fail" };
    out.extend([format!(
        "<h1>Evidence of {}</h1>\n<p class=\"verdict {class}\">verdict: {}</p>\n",
        html(&file.display().to_string()),
        html(verdict.verdict.text()),
    )]);
    let open = verdict.not_checked.iter();
    let open = open.map(|skipped| row(skipped.id, "open", "not checked", &skipped.detail));
    table(&mut out, "Not checked", open);
    let made = verdict
        .checks
        .iter()
        .filter_map(|check| match check.result {
            CheckResult::Pass => Some(row(check.id, "pass", "ok", &check.detail)),
            CheckResult::Fail => Some(row(check.id, "fail", "FAIL", &check.detail)),
            CheckResult::NotChecked => None,
        });
    table(&mut out, "Checked", made);
    if let Some(coverage) = &verdict.coverage {
        let all = format!(
            "{} of {} s, {} to {}",
            coverage.attested_seconds, coverage.period_seconds, coverage.from, coverage.to
        );
        let gaps = coverage.gaps.iter().map(|gap| {
            let detail = format!("{} s from {}: {}", gap.seconds, gap.from, gap.reason);
            row("gap", "open", "", &detail)
        });
        table(
            &mut out,
            "Coverage",
            core::iter::once(row("attested", "", "", &all)).chain(gaps),
        );
    }
    if let Some(location) = &verdict.location {
        let stated = |what: &'static str, places: &std::collections::BTreeSet<String>| {
            places
                .iter()
                .map(|place| row(what, "", "", place))
                .collect::<Vec<_>>()
        };
        let rows = core::iter::once(row(
            location.level,
            "open",
            location.source,
            location.assumption,
        ))
        .chain(stated("country", &location.countries))
        .chain(stated("region", &location.regions))
        .chain(stated("facility", &location.facilities));
        table(&mut out, "Location", rows);
    }
    if let Some(egress) = &verdict.egress {
        let sums = [
            ("allowed", egress.allowed),
            ("denied", egress.denied),
            ("let out in audit", egress.audited),
            ("events lost", egress.lost),
        ];
        let sums = sums.map(|(what, count)| row(what, "", "", &count.to_string()));
        let uncovered = egress
            .uncovered
            .iter()
            .map(|way| row("uncovered", "open", "", way));
        table(&mut out, "Egress", sums.into_iter().chain(uncovered));
    }
    out.push_str("</body>\n</html>\n");
    out
}

fn row(name: &str, class: &str, word: &str, detail: &str) -> String {
    format!(
        "<tr><td>{}</td><td class=\"{class}\">{}</td><td>{}</td></tr>\n",
        html(name),
        html(word),
        html(detail)
    )
}

fn table(out: &mut String, title: &str, rows: impl Iterator<Item = String>) {
    out.extend([format!("<h2>{title}</h2>\n<table>\n")]);
    out.extend(rows);
    out.push_str("</table>\n");
}
