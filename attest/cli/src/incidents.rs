//! What the log tells of enforcement, for people: attempts, openings, grants, deputies, canary.
//!
//! A section that has nothing to tell is left out; the check of its name says so already.

use crate::text::{MOST_LINES, line, more};
use merestone_verify::{BreakGlass, CanaryReport, Deputies, Grants, Tamper, Verdict, Who};

pub(crate) fn tell(out: &mut String, verdict: &Verdict) {
    if let Some(tamper) = &verdict.tamper {
        tampering(out, tamper);
    }
    if let Some(glass) = &verdict.break_glass {
        opened(out, glass);
    }
    if let Some(grants) = &verdict.grants {
        granted(out, grants);
    }
    if let Some(deputies) = &verdict.deputies {
        asked(out, deputies);
    }
    if let Some(canary) = &verdict.canary {
        tried(out, canary);
    }
}

fn heading(out: &mut String, title: &str) {
    line(out, format_args!(""));
    line(out, format_args!("{title}"));
}

fn whom(who: Option<&Who>) -> String {
    who.map_or_else(
        || "by somebody unknown".to_owned(),
        |who| format!("by pid {} {} in {}", who.pid, who.exe, who.cgroup),
    )
}

fn tampering(out: &mut String, tamper: &Tamper) {
    let Tamper {
        denied,
        let_through,
        found,
        attempts,
        not_kept,
        ..
    } = tamper;
    if attempts.is_empty() && not_kept.is_empty() {
        return;
    }
    heading(out, "TAMPER");
    line(
        out,
        format_args!(
            "  {denied} attempts denied, {let_through} let through, {found} changes found afterwards"
        ),
    );
    for one in not_kept.iter().take(MOST_LINES) {
        let state = if one.repaired { "" } else { ", not put back" };
        line(
            out,
            format_args!(
                "  not enforced for all that is shown, {} to {} ({} s{state}): {}: {}",
                one.from, one.to, one.seconds, one.what, one.detail
            ),
        );
    }
    more(out, not_kept.len());
    for one in attempts.iter().take(MOST_LINES) {
        let word = match one.outcome {
            "let_through" => "let through",
            word => word,
        };
        let when = if one.first == one.last {
            one.first.clone()
        } else {
            format!("{} to {}", one.first, one.last)
        };
        line(
            out,
            format_args!(
                "  {:>10}  {word} {} of {} ({}) {}, {when}",
                one.count,
                one.attempt,
                one.target,
                one.hook,
                whom(one.who.as_ref())
            ),
        );
    }
    more(out, attempts.len());
}

fn opened(out: &mut String, glass: &BreakGlass) {
    let BreakGlass {
        openings,
        refused,
        suspended_seconds,
    } = glass;
    if openings.is_empty() && *refused == 0 {
        return;
    }
    heading(out, "BREAK-GLASS");
    line(
        out,
        format_args!(
            "  opened {} times, {refused} requests refused; claims that rest on tampering being refused are suspended for {suspended_seconds} s",
            openings.len()
        ),
    );
    for one in openings.iter().take(MOST_LINES) {
        let by = match (&one.token, &one.signer) {
            (None, _) => "signed by nobody".to_owned(),
            (Some(token), None) => format!("token {token}"),
            (Some(token), Some(signer)) => format!("token {token} signed by {signer}"),
        };
        let from = one.opened.as_deref().unwrap_or("before what is shown");
        let to = one.closed.as_ref().map_or_else(
            || format!("until {}", one.until),
            |closed| format!("to {closed}, closed"),
        );
        line(
            out,
            format_args!(
                "  {from} {to}, for {}: {by}: {:?}",
                one.actions.join(" "),
                one.reason
            ),
        );
    }
    more(out, openings.len());
}

fn granted(out: &mut String, grants: &Grants) {
    let Grants {
        bytes,
        used,
        refused,
    } = grants;
    if used.is_empty() && *refused == 0 {
        return;
    }
    heading(out, "GRANTS");
    line(
        out,
        format_args!(
            "  {} in force, {bytes} bytes left under them; {refused} refused",
            used.len()
        ),
    );
    let told = |text: &Option<String>| text.clone().unwrap_or_else(|| "not told".to_owned());
    for one in used.iter().take(MOST_LINES) {
        let limit = one.limit_bytes.map(|limit| limit.to_string());
        line(
            out,
            format_args!(
                "  {:?}: {} of {} bytes to {} from {}, until {}, {}; signed by {}: {:?}",
                one.name,
                one.bytes,
                told(&limit),
                told(&one.to),
                told(&one.group),
                told(&one.until),
                one.state,
                told(&one.signer),
                told(&one.reason)
            ),
        );
    }
    more(out, used.len());
}

fn asked(out: &mut String, deputies: &Deputies) {
    let Deputies {
        refused,
        let_through,
        asked,
    } = deputies;
    if asked.is_empty() {
        return;
    }
    heading(out, "DEPUTIES");
    line(
        out,
        format_args!("  {let_through} requests reached others on the host, {refused} refused"),
    );
    for one in asked.iter().take(MOST_LINES) {
        let word = if one.refused { "refused" } else { "reached" };
        line(
            out,
            format_args!(
                "  {:>10}  {word} {} ({}) {}",
                one.count,
                one.deputy,
                one.hook,
                whom(one.who.as_ref())
            ),
        );
    }
    more(out, asked.len());
}

fn tried(out: &mut String, canary: &CanaryReport) {
    let CanaryReport {
        epochs,
        epochs_without,
        epochs_idle,
        epochs_unguarded,
        runs,
        held,
        escaped,
        not_applicable,
        errors,
        escaped_vectors,
        last,
        ..
    } = canary;
    if *epochs == 0 && escaped_vectors.is_empty() {
        return;
    }
    heading(out, "CANARY");
    let last = last.as_deref().unwrap_or("never");
    line(
        out,
        format_args!(
            "  {runs} tries: {held} held, {escaped} escaped, {not_applicable} not applicable, {errors} proved nothing; last {last}"
        ),
    );
    for vector in escaped_vectors.iter().take(MOST_LINES) {
        line(out, format_args!("  ESCAPED {vector:?}"));
    }
    more(out, escaped_vectors.len());
    for (count, what) in [
        (epochs_without, "tell of no canary"),
        (epochs_idle, "closed with no try in five minutes"),
        (epochs_unguarded, "closed with the canary not guarded"),
    ] {
        if *count > 0 {
            line(out, format_args!("  {count} epochs {what}"));
        }
    }
}
