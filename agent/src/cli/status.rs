//! `merestone status` and `merestone policy reload`: asking the running agent.

use super::{Exit, Failure, Globals};

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status: 0 enforcing, 1 not enforcing or not running")]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn execute(_: &Globals, _: &Args) -> Result<Exit, Failure> {
    Err(Failure::unconnected("status"))
}

/// Has the agent read its boundary again.
pub(super) fn reload(_: &Globals) -> Result<Exit, Failure> {
    Err(Failure::unconnected("policy reload"))
}
