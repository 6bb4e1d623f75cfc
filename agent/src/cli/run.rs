//! `merestone run`: the agent in the foreground.

use super::{Exit, Failure, Globals};
use crate::config::{Config, Override};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Sends READY=1 to a service manager once guarded groups are held. SIGHUP reads the boundary
again; SIGTERM seals the last epoch and stops. Stopping takes no program away: guarded groups
stay held until `merestone unload`.

Example:
  merestone run --config /etc/merestone/merestone.toml")]
pub(super) struct Args {
    /// The boundary file, instead of the configured one
    #[arg(long, value_name = "FILE")]
    boundary: Option<PathBuf>,

    /// Where the evidence lives, instead of the configured place
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// enforce or audit, instead of the configured mode
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
}

impl Args {
    /// The flags as overrides, so that they pass the same checks as the file.
    fn overrides(&self) -> Vec<Override> {
        let Self {
            boundary,
            state_dir,
            mode,
        } = self;
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        [
            ("boundary", "--boundary", boundary.as_ref().map(path)),
            ("state_dir", "--state-dir", state_dir.as_ref().map(path)),
            ("enforcement.mode", "--mode", mode.clone()),
        ]
        .into_iter()
        .filter_map(|(key, flag, value)| {
            Some(Override {
                key: key.to_owned(),
                value: value?,
                flag: flag.to_owned(),
            })
        })
        .collect()
    }
}

pub(super) fn execute(globals: &Globals, args: Args) -> Result<Exit, Failure> {
    let mut globals = globals.clone();
    globals.set.extend(args.overrides());
    let config = globals.load()?;
    start(config)
}

fn start(config: Config) -> Result<Exit, Failure> {
    log();
    match crate::run::run(config) {
        Ok(()) => Ok(Exit::Yes),
        Err(error) => Err(Failure::of(error.as_ref())),
    }
}

/// Has what happens written to stderr, as `MERESTONE_LOG` asks for.
pub(super) fn log() {
    use std::io::IsTerminal as _;
    let filter = tracing_subscriber::EnvFilter::try_from_env("MERESTONE_LOG")
        .unwrap_or_else(|_unset| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // People read lines, machines read JSON.
    if std::io::stderr().is_terminal() {
        log.init();
    } else {
        log.json().init();
    }
}
