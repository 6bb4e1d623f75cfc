//! `merestone status` and `merestone policy reload`: asking the running agent.

use super::{Exit, Failure, Globals, ask, output};
use crate::api::{DrillRow, EvidenceInfo, PodsInfo, Reply, Request, Status};
use crate::serve::ClientError;
use std::fmt::Write as _;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  merestone status
  merestone status --json | jq .boundary

Exit status: 0 enforcing, 1 not enforcing or not running")]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn execute(globals: &Globals, args: &Args) -> Result<Exit, Failure> {
    let config = globals.load()?;
    let status = match ask::once(&config, &Request::Status {}) {
        Ok(Reply::Status(status)) => status,
        Ok(other) => return Err(ask::unexpected(&other)),
        Err(ClientError::NotRunning { path, .. }) => {
            let pins = &config.enforcement.pin_dir;
            let held = if pins.is_dir() {
                let pins = pins.display();
                format!("; guarded groups stay held by the programs pinned in {pins}")
            } else {
                " and no program is pinned: nothing is held".to_owned()
            };
            let message = format!("no agent answers on {}{held}", path.display());
            return Err(Failure::new(Exit::No, message).hint("start it with: merestone run"));
        }
        Err(error) => return Err(Failure::of(&error)),
    };
    if args.json {
        output::json(&status)?;
    } else {
        output::say(text(&status).trim_end())?;
    }
    Ok(if status.enforcing {
        Exit::Yes
    } else {
        Exit::No
    })
}

/// Lines of a name and a value.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, name: &str, value: &str) {
        // Writing to a string cannot fail.
        writeln!(self.0, "{name:<11} {value}").ok();
    }
}

/// What an operator wants to know first comes first.
fn text(status: &Status) -> String {
    let mut out = Lines::default();
    enforcement(&mut out, status);
    coverage(&mut out, status);
    out.line("gpu", &format!("{}: {}", status.gpu, status.gpu_detail));
    for gpu in &status.gpus {
        out.line("", gpu);
    }
    evidence(&mut out, &status.evidence);
    out.line("object", &format!("sha256:{}", status.object_digest));
    out.0
}

fn enforcement(out: &mut Lines, status: &Status) {
    let word = if status.enforcing {
        "enforcing"
    } else {
        "NOT ENFORCING"
    };
    out.line(
        "state",
        &format!(
            "{word} ({}), agent {}, pid {}, since {}",
            status.mode, status.version, status.pid, status.started
        ),
    );
    let boundary = &status.boundary;
    out.line(
        "boundary",
        &format!(
            "{} generation {} sha256:{}",
            boundary.name, status.generation, boundary.digest
        ),
    );
    if let Some(error) = &status.reload_error {
        out.line("reload", &format!("REFUSED: {error}"));
    }
    if let Some(open) = &status.tamper.break_glass {
        out.line("break-glass", &open.line());
    }
    for count in &status.tamper.attempts {
        let outcome = if count.refused {
            "refused"
        } else {
            "found or let through"
        };
        let times = count.count;
        out.line("tamper", &format!("{} ×{times} {outcome}", count.attempt));
    }
    let names = status.names;
    if names.listed > 0 {
        let text = format!(
            "{} listed; {} have {} addresses now",
            names.listed, names.names, names.addresses
        );
        out.line("names", &text);
    }
    if let Some(pods) = &status.pods {
        out.line("pods", &line_of(pods));
    }
    let guarded = format!("{} groups, {} processes", status.groups, status.processes);
    out.line("guarded", &guarded);
    canary(out, status);
    records(out, status);
}

fn line_of(pods: &PodsInfo) -> String {
    let mut line = format!("{} known, {} selected by labels", pods.known, pods.selected);
    let unknown = pods.without_room + pods.left_out;
    if unknown > 0 {
        // Writing to a string cannot fail.
        write!(line, "; {unknown} NOT KNOWN: no room, or no uid").ok();
    }
    if let Some(error) = &pods.error {
        let since = pods.last_ms.map_or("never heard".to_owned(), |last| {
            let ago = crate::clock::now_ms().saturating_sub(last) / 1000;
            format!("last heard {ago} s ago")
        });
        write!(
            line,
            "; KUBELET AWAY ({since}): {error}; who is not known is denied"
        )
        .ok();
    }
    line
}

fn records(out: &mut Lines, status: &Status) {
    let records = &status.records;
    let text = if records.enabled {
        format!(
            "{} told (R1), {} under way, {} left out",
            records.observed, records.open, records.left_out
        )
    } else {
        "OFF: no request is told".to_owned()
    };
    out.line("records", &text);
}

fn canary(out: &mut Lines, status: &Status) {
    let Some(canary) = &status.canary else {
        return out.line("canary", "OFF: nothing tries the boundary");
    };
    out.line("canary", &canary.line());
    let failed = canary
        .vectors
        .iter()
        .filter(|one| one.row.result.is_failure());
    for one in failed {
        let DrillRow {
            vector,
            result,
            proof,
            what: _,
        } = &one.row;
        let word = result.word().to_uppercase();
        out.line("canary", &format!("{word} {vector}: {proof}"));
    }
}

fn coverage(out: &mut Lines, status: &Status) {
    for tier in &status.tiers {
        let active = if tier.active { "active" } else { "NOT ACTIVE" };
        out.line("tier", &format!("{} {active}: {}", tier.name, tier.detail));
    }
    for way in &status.uncovered {
        out.line("uncovered", way);
    }
    let total = |verdict: &str| -> u64 {
        let counters = status.counters.iter();
        counters
            .filter(|counter| counter.verdict == verdict)
            .map(|counter| counter.count)
            .sum()
    };
    out.line(
        "decisions",
        &format!(
            "{} allowed, {} denied, {} audited",
            total("allow"),
            total("deny"),
            total("audit")
        ),
    );
    for (reason, count) in status.lost.iter().filter(|(_, count)| *count > 0) {
        out.line("lost", &format!("{count} {reason}"));
    }
}

fn evidence(out: &mut Lines, evidence: &EvidenceInfo) {
    let software = if evidence.software_tpm {
        " (a SOFTWARE TPM: proves nothing about this machine)"
    } else {
        ""
    };
    out.line("tpm", &format!("{}{software}", evidence.tpm));
    let sealed = format!(
        "node {}, {} entries, {} epochs sealed",
        evidence.node, evidence.entries, evidence.epochs
    );
    out.line("evidence", &sealed);
    out.line("key", &evidence.ak_name);
    if let Some(error) = &evidence.quote_error {
        out.line("quote", &format!("FAILING: {error}"));
    }
}

/// Has the agent read its boundary again.
pub(super) fn reload(globals: &Globals) -> Result<Exit, Failure> {
    ask::done(&globals.load()?, &Request::Reload {})
}
