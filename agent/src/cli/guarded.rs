//! `merestone guarded`: who is held.

use super::{Exit, Failure, Globals, ask, output};
use crate::api::{GuardedGroup, Reply, Request};
use crate::config::Config;
use std::fmt::Write as _;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  merestone guarded
  merestone guarded --json | jq '.[].cgroup'")]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn execute(globals: &Globals, args: &Args) -> Result<Exit, Failure> {
    let groups = groups(&globals.load()?)?;
    if args.json {
        output::json(&groups)?;
        return Ok(Exit::Yes);
    }
    if groups.is_empty() {
        output::say("nothing is guarded: no process has opened a GPU")?;
    }
    for group in groups {
        output::say(&text(&group))?;
    }
    Ok(Exit::Yes)
}

fn groups(config: &Config) -> Result<Vec<GuardedGroup>, Failure> {
    match ask::once(config, &Request::Guarded {})? {
        Reply::Guarded { groups } => Ok(groups),
        other => Err(ask::unexpected(&other)),
    }
}

fn text(group: &GuardedGroup) -> String {
    let name = match (&group.cgroup, group.kind.as_str()) {
        (Some(path), _) => path.clone(),
        (None, "tree") => format!("process tree of {}", group.opener),
        (None, _) => format!("cgroup {} (removed)", group.id),
    };
    let mut text = format!(
        "{name}\n  since {}: pid {} opened {} ({})\n  {} packets out, {} refused, {} audited",
        group.since,
        group.opener,
        group.device,
        group.class,
        group.allowed,
        group.denied,
        group.audited
    );
    for process in &group.processes {
        let exe = process.exe.as_deref().unwrap_or(&process.comm);
        // Writing to a string cannot fail.
        write!(text, "\n  {:>8} {exe}", process.pid).ok();
    }
    text
}

/// Whether the running agent guards a process, and in which cgroup's group;
/// nothing where no agent answers.
pub(super) fn of_process(globals: &Globals, pid: u32) -> Option<(bool, Option<String>)> {
    let groups = groups(&globals.load().ok()?).ok()?;
    let found = groups
        .into_iter()
        .find(|group| group.processes.iter().any(|process| process.pid == pid));
    Some(found.map_or((false, None), |group| (true, group.cgroup)))
}
