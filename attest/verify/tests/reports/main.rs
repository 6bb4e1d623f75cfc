//! The page and the attestation result, read again by programs that did not write them.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod cddl;
mod dom;
mod ear;
mod kept;
mod page;
mod receipt;
mod sections;
#[path = "../cases/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the cases use the rest of it")]
mod support;

use merestone_evidence::{Bundle, encode};
use merestone_verify::html::{Page, page};
use merestone_verify::{Purpose, Trust, Verdict, verify};
use support::NOW;

/// Breaks out of text, attributes, styles, comments and raw text; turns lines around; hides.
const HOSTILE: &str = "\"'><script>alert(1)</script><img src=http://203.0.113.7/x onerror=x()><!--</style></title>\u{202e}\u{2066}\u{1b}[2J\u{0}\u{85}\u{200b}\u{e0041}\n\r&amp;&#x202e;<svg/onload=y>";

/// Leaves a page in `target/tmp`, for whoever wants to look at it in a browser.
fn keep(name: &str, page: &str) {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(folder.join(format!("{name}.html")), page).unwrap();
}

/// A verdict on a bundle.
fn judged(bundle: &Bundle, trust: &str) -> Verdict {
    let trust = Trust::parse(trust, "trust.toml").unwrap();
    verify(&encode(bundle), &trust, Purpose::Period, NOW)
}

/// Its page, with nothing asked of it.
fn shown(verdict: &Verdict) -> String {
    within(verdict, None, None)
}

fn within(verdict: &Verdict, from_ms: Option<u64>, to_ms: Option<u64>) -> String {
    paged(verdict, Purpose::Period, from_ms, to_ms)
}

fn paged(verdict: &Verdict, purpose: Purpose, from_ms: Option<u64>, to_ms: Option<u64>) -> String {
    page(
        verdict,
        &Page {
            purpose,
            file: "november/report.merestone",
            bytes: 1234,
            sha256: "aa".repeat(32),
            trust_sha256: "bb".repeat(32),
            at_ms: NOW,
            program: "merestone-verify test",
            from_ms,
            to_ms,
        },
    )
}
