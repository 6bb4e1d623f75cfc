//! `merestone flows`: what guarded groups sent and what was refused.

use super::{Exit, Failure, Globals, ask, output};
use crate::api::{Reply, Request};
use crate::serve::Client;

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

pub(super) fn execute(globals: &Globals, args: &Args) -> Result<Exit, Failure> {
    let config = globals.load()?;
    let request = Request::Flows {
        follow: args.follow,
        denied: args.denied,
        limit: args.limit,
    };
    for reply in Client::connect(&config.api.socket)?.ask(&request)? {
        match reply? {
            Reply::Flow(event) if args.json => {
                let line = serde_json::to_string(&event).map_err(|error| Failure::of(&error))?;
                output::say(&line)?;
            }
            Reply::Flow(event) => output::say(&event.line())?,
            Reply::Done { .. } => break,
            other => return Err(ask::unexpected(&other)),
        }
    }
    Ok(Exit::Yes)
}
