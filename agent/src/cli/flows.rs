//! `merestone flows`: what guarded groups sent and what was refused.

use super::{Exit, Failure, Globals};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  merestone flows --denied
  merestone flows --follow --json")]
pub(super) struct Args {
    /// Go on with new flows until interrupted
    #[arg(long, short)]
    pub(super) follow: bool,

    /// Only what was refused, or would have been under an auditing boundary
    #[arg(long)]
    pub(super) denied: bool,

    /// Past flows to show at most
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(super) limit: usize,

    /// Print one JSON object a line
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn execute(_: &Globals, _: &Args) -> Result<Exit, Failure> {
    Err(Failure::unconnected("flows"))
}
