//! `merestone guarded`: who is held.

use super::{Exit, Failure, Globals};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn execute(_: &Globals, _: &Args) -> Result<Exit, Failure> {
    Err(Failure::unconnected("guarded"))
}

/// Whether the running agent guards a process; nothing where no agent answers.
pub(super) fn is_guarded(_: &Globals, _pid: u32) -> Option<bool> {
    None
}
