//! `merestone check`: the preflight.

use super::{Exit, Failure, Globals};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Loads each program on trial and attaches nothing. Needs root.

Example:
  merestone check --json")]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn execute(_: &Globals, _: &Args) -> Result<Exit, Failure> {
    Err(Failure::unconnected("check"))
}
