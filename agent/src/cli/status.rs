//! `merestone status` and `merestone policy reload`: asking the running agent.

use super::{Exit, Failure, Globals, ask, output};
use crate::api::{Reply, Request, Status};
use crate::serve::ClientError;
use std::fmt::Write as _;

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status: 0 enforcing, 1 not enforcing or not running")]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn execute(globals: &Globals, args: &Args) -> Result<Exit, Failure> {
    let config = globals.load()?;
    let status = match ask::once(&config, &Request::Status) {
        Ok(Reply::Status(status)) => status,
        Ok(other) => return Err(ask::unexpected(&other)),
        Err(ClientError::NotRunning { path, .. }) => {
            let pins = &config.enforcement.pin_dir;
            let (held, hint) = if pins.is_dir() {
                (
                    format!(
                        "; guarded groups stay held by the programs pinned in {}",
                        pins.display()
                    ),
                    "start it with: merestone run",
                )
            } else {
                (
                    " and no program is pinned: nothing is held".to_owned(),
                    "start it with: merestone run",
                )
            };
            let message = format!("no agent answers on {}{held}", path.display());
            return Err(Failure::new(Exit::No, message).hint(hint));
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

/// What an operator wants to know first comes first.
fn text(status: &Status) -> String {
    let mut out = String::new();
    let word = if status.enforcing {
        "enforcing"
    } else {
        "NOT ENFORCING"
    };
    let Status {
        enforcing: _,
        mode,
        version,
        pid,
        started,
        boundary,
        generation,
        reload_error,
        tiers,
        uncovered,
        groups,
        processes,
        counters,
        lost,
        gpu,
        gpu_detail,
        gpus,
        evidence,
        object_digest,
    } = status;
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        writeln!(out, "{name:<11} {value}").ok();
    };
    line(
        "state",
        &format!("{word} ({mode}), agent {version}, pid {pid}, since {started}"),
    );
    line(
        "boundary",
        &format!(
            "{} generation {generation} sha256:{}",
            boundary.name, boundary.digest
        ),
    );
    if let Some(error) = reload_error {
        line("reload", &format!("REFUSED: {error}"));
    }
    line(
        "guarded",
        &format!("{groups} groups, {processes} processes"),
    );
    for tier in tiers {
        let active = if tier.active { "active" } else { "NOT ACTIVE" };
        line("tier", &format!("{} {active}: {}", tier.name, tier.detail));
    }
    for way in uncovered {
        line("uncovered", way);
    }
    let total = |verdict: &str| -> u64 {
        counters
            .iter()
            .filter(|counter| counter.verdict == verdict)
            .map(|counter| counter.count)
            .sum()
    };
    line(
        "decisions",
        &format!(
            "{} allowed, {} denied, {} audited",
            total("allow"),
            total("deny"),
            total("audit")
        ),
    );
    for (reason, count) in lost.iter().filter(|(_, count)| *count > 0) {
        line("lost", &format!("{count} {reason}"));
    }
    line("gpu", &format!("{gpu}: {gpu_detail}"));
    for gpu in gpus {
        line("", gpu);
    }
    let software = if evidence.software_tpm {
        " (a SOFTWARE TPM: proves nothing about this machine)"
    } else {
        ""
    };
    line("tpm", &format!("{}{software}", evidence.tpm));
    line(
        "evidence",
        &format!(
            "node {}, {} entries, {} epochs sealed",
            evidence.node, evidence.entries, evidence.epochs
        ),
    );
    line("key", &evidence.ak_name);
    if let Some(error) = &evidence.quote_error {
        line("quote", &format!("FAILING: {error}"));
    }
    line("object", &format!("sha256:{object_digest}"));
    out
}

/// Has the agent read its boundary again.
pub(super) fn reload(globals: &Globals) -> Result<Exit, Failure> {
    ask::done(&globals.load()?, &Request::Reload)
}
