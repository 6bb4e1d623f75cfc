//! The operator's command line: what each command takes, and how anything is
//! said.
//!
//! A command returns an [`Exit`] or a [`Failure`]; only this module turns that
//! into text on stderr and a number. It decides nothing about traffic.

mod ask;
mod break_glass;
mod check;
mod drill;
mod enroll;
mod exit;
mod flows;
mod gateway;
mod geotag;
mod grant;
mod guarded;
mod landmark;
mod man;
mod output;
mod policy;
mod receipt;
mod report;
mod run;
mod sign;
mod status;
#[cfg(test)]
mod tests;
mod unload;
mod version;

pub use exit::{Exit, Failure};

use crate::config::{Config, DEFAULT_PATH, Override};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const ABOUT: &str = "Holds GPU processes inside a boundary, and leaves evidence of it";

const AFTER: &str = "\
Files:
  /etc/merestone/merestone.toml   the configuration
  /etc/merestone/boundary.toml    what guarded processes may reach

Examples:
  merestone check
  merestone policy check /etc/merestone/boundary.toml
  merestone policy explain --to 203.0.113.7:443
  merestone flows --follow --denied
  merestone drill
  merestone receipt 7f3a5c0e9d1b4826a0c4e8f211d3b597 --out one.merestone
  merestone gateway -- vllm serve /srv/models/llama --port 8001
  merestone man --dir /usr/local/share/man/man1

Exit status:
  0  yes, done    1  no, refused    2  usage    3  could not be answered";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "merestone",
    about = ABOUT,
    after_help = AFTER,
    disable_version_flag = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
struct Cli {
    #[command(flatten)]
    globals: Globals,

    /// Print the version
    #[arg(long, short = 'V')]
    version: bool,

    /// With --version: also the kernel contract and the eBPF object's digest
    #[arg(long, requires = "version")]
    verbose: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

/// What every command understands.
#[derive(Args, Clone, Debug, Default)]
pub struct Globals {
    /// The configuration [default: /etc/merestone/merestone.toml]
    #[arg(long, global = true, value_name = "FILE", env = "MERESTONE_CONFIG")]
    pub config: Option<PathBuf>,

    /// Override one key of the configuration, as in evidence.epoch=5s
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = setting)]
    pub set: Vec<Override>,
}

fn setting(text: &str) -> Result<Override, String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("write table.key=value, as in evidence.epoch=5s")?;
    Ok(Override {
        key: key.to_owned(),
        value: value.to_owned(),
        flag: format!("--set {key}"),
    })
}

impl Globals {
    /// The configuration: file, then environment, then flags.
    pub fn load(&self) -> Result<Config, Failure> {
        let path = self.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        Ok(Config::load(path, std::env::vars_os(), &self.set)?)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent in the foreground
    Run(run::Args),
    /// Say what this host can enforce and what each missing thing costs
    Check(check::Args),
    /// Show what is held and why (exit 0 enforcing, 1 not)
    Status(status::Args),
    /// List the guarded groups and their processes
    Guarded(guarded::Args),
    /// Show what guarded groups sent, and what was refused
    Flows(flows::Args),
    /// Have a guarded process try every way out now (exit 0 all held, 1 not)
    Drill(drill::Args),
    /// Check, explain and reload the boundary
    #[command(subcommand, arg_required_else_help = true)]
    Policy(policy::Command),
    /// Pass requests on to an inference server, and give a receipt for each answer
    Gateway(gateway::Args),
    /// Write a signed report over a span of time
    Report(report::Args),
    /// Write one record's receipt and its proof, for whoever it is about
    Receipt(receipt::Args),
    /// Prepare what a verifier needs to know of this host
    #[command(subcommand, arg_required_else_help = true)]
    Enroll(enroll::Command),
    /// Measure how far away hosts are, for others to believe
    #[command(subcommand, arg_required_else_help = true)]
    Landmark(landmark::Command),
    /// Apply, list and revoke signed grants
    #[command(subcommand, arg_required_else_help = true)]
    Grant(grant::Command),
    /// Sign boundaries, grants and break-glass tokens with an authority's key
    #[command(subcommand, arg_required_else_help = true)]
    Sign(sign::Command),
    /// Let an operator past the protection, for a time and on the record
    #[command(subcommand, arg_required_else_help = true)]
    BreakGlass(break_glass::Command),
    /// Remove every program and map: guarded groups are no longer held
    Unload(unload::Args),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all of them
    Man {
        /// Write one page for each command into this directory
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// The program: parses `arguments`, obeys, and says what it must.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    match obey(cli) {
        Ok(exit) => exit,
        Err(failure) => output::failure(&failure),
    }
}

fn obey(cli: Cli) -> Result<Exit, Failure> {
    let Cli {
        globals,
        version,
        verbose,
        command,
    } = cli;
    if version {
        return version::print(verbose);
    }
    let Some(command) = command else {
        let hint = "see merestone --help".to_owned();
        return Err(Failure::new(Exit::Usage, "no command given").hint(hint));
    };
    match command {
        Command::Run(args) => run::execute(&globals, args),
        Command::Check(args) => check::execute(&globals, &args),
        Command::Status(args) => status::execute(&globals, &args),
        Command::Guarded(args) => guarded::execute(&globals, &args),
        Command::Flows(args) => flows::execute(&globals, &args),
        Command::Drill(args) => drill::execute(&globals, &args),
        Command::Policy(command) => policy::execute(&globals, command),
        Command::Gateway(args) => gateway::execute(&globals, args),
        Command::Report(args) => report::execute(&globals, &args),
        Command::Receipt(args) => receipt::execute(&globals, &args),
        Command::Enroll(command) => enroll::execute(&globals, command),
        Command::Landmark(command) => landmark::execute(command),
        Command::Grant(command) => grant::execute(&globals, command),
        Command::Sign(command) => sign::execute(command),
        Command::BreakGlass(command) => break_glass::execute(&globals, command),
        Command::Unload(args) => unload::execute(&globals, &args),
        Command::Completions { shell } => man::completions(shell, Cli::command()),
        Command::Man { dir } => man::pages(dir.as_deref(), Cli::command()),
    }
}
