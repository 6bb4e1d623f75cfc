//! `merestone unload`: the operator's explicit wish to hold nothing any more.

use super::{Exit, Failure, Globals};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Guarded groups can reach anything afterwards, until the agent runs again. The evidence stays.")]
pub(super) struct Args {
    /// Yes, let guarded groups go
    #[arg(long)]
    pub(super) yes: bool,
}

pub(super) fn execute(_: &Globals, _: &Args) -> Result<Exit, Failure> {
    Err(Failure::unconnected("unload"))
}
