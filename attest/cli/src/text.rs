//! The verdict for people: the checks, what was not checked, what the evidence says, the verdict.

use crate::escape::escaped;
use crate::incidents;
use core::fmt::Write as _;
use merestone_evidence::Digest;
use merestone_verify::{CheckResult, Coverage, Egress, Location, Receipts, Verdict};
use std::path::Path;

/// Gaps and counts beyond this many are in the JSON.
pub(crate) const MOST_LINES: usize = 12;

pub(crate) fn page(verdict: &Verdict, (bytes, digest): (u64, &Digest), file: &Path) -> String {
    let mut out = String::new();
    line(
        &mut out,
        format_args!("file {} ({bytes} bytes, sha256 {digest})", file.display()),
    );
    line(&mut out, format_args!(""));
    line(&mut out, format_args!("CHECKED"));
    for check in &verdict.checks {
        let word = match check.result {
            CheckResult::Pass => "pass",
            CheckResult::Fail => "FAIL",
            CheckResult::NotChecked => continue,
        };
        line(
            &mut out,
            format_args!("  {word}  {:<18} {}", check.id, check.detail),
        );
    }
    line(&mut out, format_args!(""));
    line(&mut out, format_args!("NOT CHECKED"));
    for skipped in &verdict.not_checked {
        line(
            &mut out,
            format_args!("        {:<18} {}", skipped.id, skipped.detail),
        );
    }
    if let Some(coverage) = &verdict.coverage {
        covered(&mut out, coverage);
    }
    if let Some(location) = &verdict.location {
        located(&mut out, location);
    }
    if let Some(egress) = &verdict.egress {
        left(&mut out, egress);
    }
    incidents::tell(&mut out, verdict);
    if let Some(receipts) = &verdict.receipts {
        receipted(&mut out, receipts);
    }
    if !verdict.entries.is_empty() {
        line(&mut out, format_args!(""));
        line(&mut out, format_args!("ENTRIES"));
    }
    for entry in &verdict.entries {
        line(
            &mut out,
            format_args!("  {} at {}: {}", entry.index, entry.time, entry.detail),
        );
    }
    line(&mut out, format_args!(""));
    line(
        &mut out,
        format_args!("verdict: {}", verdict.verdict.text()),
    );
    out
}

/// One line; whatever comes from a file cannot make it two.
pub(crate) fn line(out: &mut String, text: core::fmt::Arguments<'_>) {
    let text = text.to_string();
    out.push_str(escaped(&text).trim_end());
    out.push('\n');
}

fn covered(out: &mut String, coverage: &Coverage) {
    let Coverage {
        from,
        to,
        period_seconds,
        attested_seconds,
        gaps,
        sessions,
        epochs,
        ..
    } = coverage;
    line(out, format_args!(""));
    line(out, format_args!("COVERAGE"));
    line(
        out,
        format_args!("  {from} to {to}: {attested_seconds} of {period_seconds} s attested"),
    );
    line(out, format_args!("  {sessions} sessions, {epochs} epochs"));
    for gap in gaps.iter().take(MOST_LINES) {
        line(
            out,
            format_args!(
                "  gap of {} s from {}: {}",
                gap.seconds, gap.from, gap.reason
            ),
        );
    }
    more(out, gaps.len());
    for reboot in coverage.reboots.iter().take(MOST_LINES) {
        let how = if reboot.orderly { "" } else { ", not in order" };
        line(
            out,
            format_args!(
                "  host started anew between {} and {}{how}",
                reboot.after, reboot.before
            ),
        );
    }
    for jump in coverage.clock_jumps.iter().take(MOST_LINES) {
        line(
            out,
            format_args!(
                "  clock jump from {}: {} ms by the host's, {} ms by the tpm's",
                jump.at, jump.wall_ms, jump.tpm_ms
            ),
        );
    }
    let dark = coverage
        .dark
        .iter()
        .filter_map(|dark| Some((dark.unexplained_joules?, dark)));
    for (joules, dark) in dark.filter(|(joules, _)| *joules > 0).take(MOST_LINES) {
        line(
            out,
            format_args!(
                "  {} used {joules} J beyond idle from {} to {}",
                dark.uuid, dark.from, dark.to
            ),
        );
    }
}

fn located(out: &mut String, location: &Location) {
    let Location {
        level,
        assumption,
        source,
        countries,
        regions,
        facilities,
        unstated_sessions,
        levels,
        area,
        rounds,
        rounds_left_out: _,
        clouds: _,
        evidence_not_shown: _,
    } = location;
    line(out, format_args!(""));
    line(out, format_args!("LOCATION"));
    let verb = if *level == "L0" { "stated" } else { "shown" };
    line(
        out,
        format_args!("  {level}, {verb} by the {source}; {assumption}"),
    );
    for one in levels
        .iter()
        .filter(|one| one.level != "L0" && one.state != "absent")
    {
        line(
            out,
            format_args!("  {}: {}: {}", one.level, one.state, one.detail),
        );
    }
    // The last round says where it is now; the page and the JSON have all.
    if let Some(round) = rounds.last() {
        let area = area.as_deref().unwrap_or("no area");
        let place = round.place.unwrap_or("nothing to be said");
        line(
            out,
            format_args!("  measured until {}: {place} ({area})", round.sealed),
        );
        for one in &round.measured {
            line(
                out,
                format_args!(
                    "    {:?}: {} us, within {} km",
                    one.landmark, one.rtt_us, one.within_km
                ),
            );
        }
    }
    for (what, places) in [
        ("country", countries),
        ("region", regions),
        ("facility", facilities),
    ] {
        for place in places {
            line(out, format_args!("  {what} {place:?}"));
        }
    }
    if *unstated_sessions > 0 {
        line(
            out,
            format_args!("  {unstated_sessions} sessions state no place"),
        );
    }
}

fn left(out: &mut String, egress: &Egress) {
    let Egress {
        allowed,
        denied,
        audited,
        lost,
        granted_bytes,
        by_hook,
        lost_by_reason: _,
        uncovered,
    } = egress;
    line(out, format_args!(""));
    line(out, format_args!("EGRESS"));
    line(
        out,
        format_args!(
            "  {allowed} allowed, {denied} denied, {audited} let out in audit, {lost} events lost"
        ),
    );
    if *granted_bytes > 0 {
        line(
            out,
            format_args!("  {granted_bytes} bytes left under signed grants"),
        );
    }
    for count in by_hook.iter().take(MOST_LINES) {
        line(
            out,
            format_args!(
                "  {:>10}  {} {} {}",
                count.count, count.verdict, count.hook, count.protocol
            ),
        );
    }
    more(out, by_hook.len());
    for way in uncovered {
        line(out, format_args!("  uncovered: {way}"));
    }
}

fn receipted(out: &mut String, receipts: &Receipts) {
    if receipts.shown.is_empty() {
        return;
    }
    line(out, format_args!(""));
    line(out, format_args!("RECEIPTS"));
    for one in receipts.shown.iter().take(MOST_LINES) {
        let (grade, seen_by, index) = (one.grade, one.seen_by, one.index);
        line(
            out,
            format_args!(
                "  {} of {}: {grade}, seen by the {seen_by}, leaf {index}",
                one.id, one.issued
            ),
        );
        if let Some(model) = &one.model {
            line(out, format_args!("    model, as named: {model:?}"));
        }
    }
    more(out, receipts.shown.len());
    let binds = receipts.shown.iter().any(|one| one.request.is_some());
    if receipts.contents {
        line(
            out,
            format_args!(
                "  compared: what was given of request and answer is what the record binds"
            ),
        );
    } else if binds {
        line(
            out,
            format_args!("  not compared: --request, --answer and --salt do"),
        );
    }
}

pub(crate) fn more(out: &mut String, count: usize) {
    if count > MOST_LINES
        && let Err(never) = writeln!(out, "  and {} more (--json has all)", count - MOST_LINES)
    {
        debug_assert!(false, "{never}");
    }
}
