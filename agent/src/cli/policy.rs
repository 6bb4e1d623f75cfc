//! `merestone policy`: check, explain and reload the boundary.
//!
//! Check and explain need neither root nor a running agent: they read the
//! file and look up in the same tables the kernel is filled from.

use super::{Exit, Failure, Globals, output};
use crate::api::{LearnedInfo, Reply, Request};
use crate::clock;
use crate::pods;
use crate::policy::{
    self, Explanation, NameExplanation, NameTarget, ProcessAnswer, Sources, Target, TargetError,
};
use std::fs;
use std::path::PathBuf;

const EXPLAIN_AFTER: &str = "\
Examples:
  merestone policy explain --to 203.0.113.7:443
  merestone policy explain --to [2001:db8::7]:53 --protocol udp
  merestone policy explain --to registry.example.eu:443
  merestone policy explain --name registry.example.eu
  merestone policy explain --to 203.0.113.7 --protocol icmp --json
  merestone policy explain --boundary next.toml --to 10.1.2.3:443

Exit status: 0 allowed, 1 denied, 2 usage, 3 could not be answered";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Say everything that is wrong with a boundary file (exit 0 nothing, 1 something)
    #[command(after_help = "Example:\n  merestone policy check /etc/merestone/boundary.toml")]
    Check {
        /// The boundary file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Say which rule decides about a destination (exit 0 allowed, 1 denied)
    #[command(after_help = EXPLAIN_AFTER)]
    Explain(Explain),
    /// Have the running agent read the boundary again; a faulty one changes nothing
    #[command(
        after_help = "SIGHUP to the agent does the same.\n\nExample:\n  merestone policy reload"
    )]
    Reload,
}

#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// The destination: ADDRESS:PORT or NAME:PORT, or ADDRESS where the protocol has no ports
    #[arg(long, value_name = "ADDRESS:PORT", required_unless_present = "name")]
    to: Option<String>,

    /// A name: whether it may be asked for, and which addresses it has
    #[arg(long, value_name = "NAME", conflicts_with = "to")]
    name: Option<String>,

    /// tcp, udp, icmp, sctp, dccp, udplite, or an IP protocol number
    #[arg(long, value_name = "PROTOCOL", default_value = "tcp")]
    protocol: String,

    /// Say it for this process
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,

    /// Explain this boundary file instead of the configured one
    #[arg(long, value_name = "FILE")]
    boundary: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(globals: &Globals, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Check { file } => check(globals, &file),
        Command::Explain(args) => explain(globals, args),
        Command::Reload => super::status::reload(globals),
    }
}

/// What a boundary is read with: as configured; where no configuration is
/// named and none is in its place, nothing.
fn sources(globals: &Globals) -> Result<Sources, Failure> {
    let default = std::path::Path::new(crate::config::DEFAULT_PATH);
    if globals.config.is_none() && !default.exists() {
        return Ok(Sources::default());
    }
    Ok(Sources::of(&globals.load()?)?)
}

fn check(globals: &Globals, file: &std::path::Path) -> Result<Exit, Failure> {
    let compiled = policy::load_with(file, &sources(globals)?)?;
    let rules = compiled.rules.len();
    let networks = compiled.prefixes.len();
    let names = match compiled.names.len() {
        0 => String::new(),
        listed => {
            let trusted = compiled.resolvers.iter().filter(|one| one.trusted).count();
            format!("{listed} names by {trusted} resolvers, ")
        }
    };
    let mode = if compiled.audit { "audit" } else { "enforce" };
    output::say(&format!(
        "{}: boundary {} is sound ({rules} rules, {networks} kernel prefixes, {names}{mode})\nsha256 {}",
        file.display(),
        compiled.name,
        hex::encode(compiled.digest)
    ))?;
    if let Some(detail) = compiled.detail() {
        output::say(&detail)?;
    }
    Ok(Exit::Yes)
}

fn explain(globals: &Globals, args: Explain) -> Result<Exit, Failure> {
    let asked = Asked::of(&args)?;
    let unanswered = |failure: Failure| failure.exit(Exit::Unanswered);
    // What another file would learn nobody knows.
    let learned = match args.boundary {
        Some(_) => None,
        None => learned(globals),
    };
    let (path, audit) = if let Some(path) = args.boundary {
        (path, false)
    } else {
        let config = globals.load().map_err(unanswered)?;
        let audit = config.enforcement.mode == policy::Mode::Audit;
        (config.boundary, audit)
    };
    let sources = sources(globals).map_err(unanswered)?;
    let mut compiled =
        policy::load_with(&path, &sources).map_err(|faults| unanswered(faults.into()))?;
    compiled.audit |= audit;
    if compiled.selects_pods() && args.pid.is_some() {
        know_pods(globals, &mut compiled);
    }
    let (process, group) = match args.pid {
        Some(pid) => {
            let (process, group) = process(globals, pid).map_err(unanswered)?;
            (Some(process), group)
        }
        None => (None, None),
    };
    let cgroup = process
        .as_ref()
        .and_then(|process| process.cgroup.as_deref());
    let allowed = match asked {
        Asked::Address(target) => {
            let mut explanation = Explanation::of_cgroup(&compiled, target, cgroup).with_learned(
                &compiled,
                target,
                cgroup,
                learned.as_deref().unwrap_or_default(),
            );
            explanation.process = process;
            if let Some(group) = group {
                let grants = super::grant::all(globals).map_err(unanswered)?;
                explanation.under(&grants, &group, target, clock::now_ms());
            }
            say(&explanation, args.json)?;
            explanation.allowed()
        }
        Asked::Name(target) => {
            let mut explanation =
                NameExplanation::of_cgroup(&compiled, &target, cgroup, learned.as_deref());
            explanation.process = process;
            say(&explanation, args.json)?;
            explanation.allowed()
        }
    };
    Ok(if allowed { Exit::Yes } else { Exit::No })
}

/// What was asked about.
enum Asked {
    Address(Target),
    Name(NameTarget),
}

impl Asked {
    fn of(args: &Explain) -> Result<Self, Failure> {
        let (text, is_name) = match (&args.name, &args.to) {
            (Some(name), _) => (name, true),
            (None, Some(to)) => (to, false),
            (None, None) => {
                return Err(Failure::new(
                    Exit::Usage,
                    "neither --to nor --name is given",
                ));
            }
        };
        let name = NameTarget::parse(text, &args.protocol);
        match (name, Target::parse(text, &args.protocol)) {
            (Some(name), _) if is_name => Ok(Self::Name(name)),
            (None, _) if is_name => {
                let message = format!("{text:?} is not a name");
                let hint = "write registry.example.eu, or registry.example.eu:443";
                Err(Failure::new(Exit::Usage, message).hint(hint))
            }
            (_, Ok(target)) => Ok(Self::Address(target)),
            (Some(name), Err(TargetError::Address { .. })) => Ok(Self::Name(name)),
            (_, Err(error)) => Err(Failure::new(Exit::Usage, error.to_string()).hint(error.hint())),
        }
    }
}

fn say<T: serde::Serialize + std::fmt::Display>(answer: &T, json: bool) -> Result<(), Failure> {
    if json {
        output::json(answer)
    } else {
        output::say(&answer.to_string())
    }
}

/// What the running agent has learned of names; none where no agent answers.
fn learned(globals: &Globals) -> Option<Vec<LearnedInfo>> {
    let config = globals.load().ok()?;
    match super::ask::once(&config, &Request::Names {}) {
        Ok(Reply::Names { names }) => Some(names),
        _ => None,
    }
}

/// Tells a boundary the pods that the running agent knows; where none answers,
/// those that it knew last, by which the kernel still judges.
fn know_pods(globals: &Globals, compiled: &mut policy::Compiled) {
    let Ok(config) = globals.load() else {
        return;
    };
    let known = match super::ask::once(&config, &Request::Pods {}) {
        Ok(Reply::Pods { pods }) => pods,
        _ => pods::remembered(&config.state_dir),
    };
    compiled.know(&known, &config.kubernetes.cgroups);
}

/// What /proc says of a process, whether it is guarded, and the cgroup of its
/// group.
fn process(globals: &Globals, pid: u32) -> Result<(ProcessAnswer, Option<String>), Failure> {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
    let comm = read("comm").map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::new(Exit::No, format!("there is no process {pid}"))
                .hint("is it the id in the host's PID namespace?")
        }
        _ => Failure::of(&error),
    })?;
    // The line of the v2 hierarchy is the one numbered 0 (cgroups(7)).
    let cgroup = read("cgroup").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        Some(line.to_owned())
    });
    let (guarded, group) = super::guarded::of_process(globals, pid).unzip();
    let answer = ProcessAnswer {
        pid,
        comm: comm.trim_end().to_owned(),
        cgroup,
        guarded,
    };
    Ok((answer, group.flatten()))
}
